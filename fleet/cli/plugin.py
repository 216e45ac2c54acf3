r"""How a monitoring plugin answers: to Icinga and Nagios, or as a local check of Checkmk.

    NETZPULS WARNING - gw-mitte: … | disk_free=9%;10:;5:;0;100        then a line per finding
    1 "Netzpuls" disk_free=9;;;0;100 gw-mitte: …\n…                  all in one line

Source: Monitoring Plugins Development Guidelines; Checkmk's manual, "Local checks".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from fleet.check.metric import Figure, Status
from fleet.text import printable

CHECKMK = "--checkmk"
_SERVICE = "Netzpuls"
_MOST_IN_A_LINE = 400


def service(sites: Sequence[str]) -> str:
    """Return the name of the service that a local check of these sites is."""
    return " ".join((_SERVICE, *map(_plain, sites))).replace('"', "'")


def service_of(arguments: Sequence[str]) -> str | None:
    """Return the name of the service that a command line is for, None if it is no local check."""
    if CHECKMK not in arguments:
        return None
    sites = [name for option, name in pairwise(arguments) if option == "--site"]
    return service(sites)


def answer(
    status: Status,
    text: str,
    figures: Sequence[Figure] = (),
    details: Sequence[str] = (),
    *,
    service: str | None = None,
) -> str:
    """Return what to print: the status line, performance data and details."""
    text, details = _plain(text), [_plain(each) for each in details]
    if service:
        told = "\\n".join([f"{status.name} - {text}", *details])
        return f'{int(status)} "{service}" {"|".join(map(_checkmk, figures)) or "-"} {told}'
    line = f"NETZPULS {status.name} - {text}"
    if figures:
        line += f" | {' '.join(figure.text() for figure in figures)}"
    return "\n".join([line, *details])


def _checkmk(figure: Figure) -> str:
    """Return a figure as a local check has it: no unit, and thresholds that are upper limits."""
    warning, critical = (
        "" if each.startswith("@") else each.rpartition(":")[2]
        for each in (figure.warning, figure.critical)
    )
    return replace(figure, unit="", warning=warning, critical=critical).text()


def _plain(text: str) -> str:
    """Return text that a monitoring system takes as it is: behind `|` begin performance data."""
    return printable(text, _MOST_IN_A_LINE).replace("|", "/")
