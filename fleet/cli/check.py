"""`netzpuls fleet check`: whether all is well, for Icinga, Nagios and Checkmk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fleet import inventory
from fleet.check import (
    DEFAULT_PARALLEL,
    DEFAULT_TIMEOUT_S,
    METRICS,
    PARTS,
    Answer,
    Status,
    Thresholds,
    check,
)
from fleet.cli import plugin
from fleet.cli.output import bounds, city_option, emit, json_option, result
from fleet.errors import NetzpulsError

# Monitoring systems keep some kilobytes of what a plugin says.
_MOST_LINES = 40
_STDOUT = 1

_METRICS = ", ".join(METRICS)


@click.command(
    "check",
    epilog=f"METRIC is one of {_METRICS}. RANGE is as plugins have it: 10 (outside of 0…10), "
    "10: (below 10), ~:10 (above 10), 10:20 (outside), @10:20 (inside), ~: (never). "
    "See docs/monitoring.md.",
)
@city_option
@click.option("--site", "sites", multiple=True, metavar="ID", help="Only this one; repeatable.")
@click.option(
    "-w",
    "--warning",
    multiple=True,
    metavar="METRIC=RANGE",
    help="Warn when that metric is so; repeatable, or several with commas between.",
)
@click.option(
    "-c",
    "--critical",
    multiple=True,
    metavar="METRIC=RANGE",
    help="Critical when that metric is so.",
)
@bounds(
    DEFAULT_TIMEOUT_S,
    "Seconds for all of it; then it is UNKNOWN.",
    DEFAULT_PARALLEL,
    short=("-t",),
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Say more: -v each gateway, -vv each figure.",
)
@click.option(
    "--live/--no-live",
    default=True,
    show_default=True,
    help="Ask the gateways over SSH, or look only at what was collected.",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Look at this alone; repeatable.  [default: all]",
)
@click.option(
    plugin.CHECKMK, "for_checkmk", is_flag=True, help="Answer as a local check of Checkmk does."
)
@json_option
def check_command(
    *,
    city: Path,
    sites: tuple[str, ...],
    warning: tuple[str, ...],
    critical: tuple[str, ...],
    timeout_s: float,
    verbose: int,
    live: bool,
    parts: tuple[str, ...],
    parallel: int,
    for_checkmk: bool,
    as_json: bool,
) -> int:
    """Say whether all is well, as a monitoring plugin does.

    Gateways, asked right now: broker and collector, what waits, disk, clock, version.
    Certificates. Lines and boards, by what was collected and by what gateways heard. Exits with
    0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    thresholds = Thresholds.parse(warning, critical)
    service = plugin.service(sites) if for_checkmk else None
    with _bounded(timeout_s, service, as_json=as_json):
        answer = check(
            inventory.load(city),
            thresholds,
            parts,
            sites=tuple(dict.fromkeys(sites)),
            live=live,
            timeout_s=timeout_s,
            parallel=parallel,
        )
        emit(answer.document(), lambda: _show(answer, verbose, service), as_json)
    return int(answer.status)


@contextmanager
def _bounded(timeout_s: float, service: str | None, *, as_json: bool) -> Iterator[None]:
    """End the process as a plugin whose time is up, wherever it hangs: in DNS, on a dead disk."""

    def end() -> None:
        error = NetzpulsError(
            f"timed out after {timeout_s:g} s",
            hint="give it more time with -t, or ask for fewer with --site or --part",
        )
        error.code = "timed-out"
        text = plugin.answer(Status.UNKNOWN, f"{error.message}: {error.hint}", service=service)
        if as_json:
            text = json.dumps(error.document(), indent=2)
        os.write(_STDOUT, text.encode() + b"\n")
        os._exit(int(Status.UNKNOWN))  # nothing here is half-written: a check writes nothing

    alarm = threading.Timer(timeout_s, end)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _show(answer: Answer, verbose: int, service: str | None) -> None:
    """Print the status line with performance data, then each finding on a line of its own."""
    found = answer.worst_first
    first = found[0].text if found else "all is well"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    told = [f"{each.status.name}: {each.text}" for each in found] if more else []
    if len(told) > _MOST_LINES and not verbose:
        rest = len(told) - _MOST_LINES
        told = [*told[:_MOST_LINES], f"and {rest} more: see them all with -v"]
    if verbose:
        told += answer.notes
    if verbose > 1:
        told += [f"{each.metric}={each.value:g} {each.subject}" for each in answer.observations]
    text = plugin.answer(answer.status, first + more, answer.figures, told, service=service)
    result.print(text, markup=False, soft_wrap=True)
