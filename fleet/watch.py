"""Collecting on a schedule, until somebody ends it.

Each round reads the inventory anew, so that a gateway that was added is collected and one that was
taken out is not. What goes wrong in a round is said, and the next round comes all the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleet import inventory
from fleet.collect import Collected, collect
from fleet.errors import NetzpulsError
from fleet.ssh import Pool

DEFAULT_EVERY_S = 300.0
# By so much of its time a round comes earlier or later: not all city halls at the full minute.
JITTER = 0.1
# A connection that idles for longer is more likely gone than worth keeping.
_MOST_KEPT_S = 900.0
_LEAST_PAUSE_S = 1.0
_MOST_NAMED = 5


@dataclass(frozen=True)
class Round:
    """One round: what came, or why nothing did."""

    number: int
    duration_s: float
    results: Sequence[Collected] = ()
    error: NetzpulsError | None = None
    pause_s: float = 0.0

    def line(self) -> str:
        """Return it in one line."""
        now = datetime.now(UTC)
        then = datetime.fromtimestamp(now.timestamp() + self.pause_s, UTC)
        return f"{now:%F %T}Z {self._told()}; next at {then:%T}Z"

    def _told(self) -> str:
        if self.error:
            return f"nothing collected: {self.error.message}"
        new = sum(each.new for each in self.results)
        refused = sum(sum(each.refused.values()) for each in self.results)
        many = len(self.results)
        told = f"{many} gateway{'s' * (many != 1)}: {new:,} new in {self.duration_s:.1f} s"
        if refused:
            told += f", {refused:,} refused"
        failed = [each for each in self.results if each.error]
        if failed:
            named = "; ".join(each.error.message for each in failed[:_MOST_NAMED] if each.error)
            more = f"; and {len(failed) - _MOST_NAMED} more" * (len(failed) > _MOST_NAMED)
            told += f", {len(failed)} failed: {named}{more}"
        return told


def rounds(
    city: Path,
    gateways: Sequence[str],
    *,
    every_s: float,
    timeout_s: float,
    parallel: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[Round]:
    """Collect, wait, and collect again, without end.

    Args:
        city: its folder.
        gateways: which of them; all that there are at that time if none is named.
        every_s: from the begin of one round to that of the next, give or take `JITTER`.
        timeout_s: how long one gateway may take in a round.
        parallel: how many at a time.
        sleep: waits; for tests.

    Yields: each round when it has ended, before the pause.
    """
    number = 0
    with Pool() as pool:
        while True:
            number += 1
            began = time.monotonic()
            results: list[Collected] = []
            problem: NetzpulsError | None = None
            kept = pool if every_s <= _MOST_KEPT_S else None
            try:
                known = inventory.load(city)
                results = collect(
                    known, gateways, timeout_s=timeout_s, parallel=parallel, pool=kept
                )
            except NetzpulsError as error:  # another collection, a file that is being written
                problem = error
            took_s = time.monotonic() - began
            share = random.uniform(-JITTER, JITTER)  # noqa: S311 - spreads load, guards nothing
            pause_s = max(_LEAST_PAUSE_S, every_s * (1 + share) - took_s)
            yield Round(number, took_s, results, problem, pause_s)
            sleep(pause_s)
