"""What a monitoring system asks: is all well, and if not, what is wrong.

Each part looks at one thing and takes down what it observed; thresholds say what of that is worth
an alarm (`fleet.check.metric`). The worst finding is the answer, causes before what they led to.

Source: the monitoring plugins' guidelines for states, the status line and performance data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from fleet.check import certificate, gateway, report, scope
from fleet.check.answer import Answer, Finding
from fleet.check.gateway import Asked
from fleet.check.metric import METRICS, Figure, Range, Status, Thresholds
from fleet.inventory import Inventory
from fleet.ssh import Pool

PARTS = (gateway.PART, certificate.PART, report.PART)
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_PARALLEL = 32

# What of the time is left for what comes after the gateways were asked.
_REST_SHARE = 0.25
_REST_MOST_S = 10.0

__all__ = [
    "DEFAULT_PARALLEL",
    "DEFAULT_TIMEOUT_S",
    "METRICS",
    "PARTS",
    "Answer",
    "Figure",
    "Finding",
    "Range",
    "Status",
    "Thresholds",
    "check",
]


def check(
    city: Inventory,
    thresholds: Thresholds | None = None,
    parts: Sequence[str] = (),
    *,
    sites: Sequence[str] = (),
    live: bool = True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    parallel: int = DEFAULT_PARALLEL,
    pool: Pool | None = None,
    now_s: int | None = None,
) -> Answer:
    """Return whether all is well in a city.

    Args:
        city: its inventory.
        thresholds: when what is measured is worth an alarm.
        parts: what to look at; all if none is named.
        sites: which sites; all if none is named.
        live: ask the gateways; else only what was collected is looked at.
        timeout_s: how long all of it may take, as far as gateways are concerned.
        parallel: how many gateways are asked at a time.
        pool: keeps the connections for the next check; without one they end with this one.
        now_s: for tests.

    Raises: NetzpulsError: it cannot be told, because the city cannot be read.
    """
    now_s = int(time.time()) if now_s is None else now_s
    parts = [each for each in parts or PARTS if live or each != gateway.PART]
    looked = scope.of(city, sites, now_s)
    answer = Answer(thresholds or Thresholds())
    if live:
        rest_s = min(_REST_MOST_S, _REST_SHARE * timeout_s)
        with Pool() if pool is None else nullcontext(pool) as connections:
            asked = gateway.ask(
                city,
                looked.gateways,
                connections,
                timeout_s=timeout_s - rest_s,
                parallel=parallel,
            )
        said = {name: each.status for name, each in asked.items() if isinstance(each, Asked)}
        looked = replace(looked, live=said)
        if gateway.PART in parts:
            gateway.look(answer, asked)
    if certificate.PART in parts:
        certificate.look(looked, answer)
    if report.PART in parts:
        report.look(looked, answer)
    return answer
