"""Outages: stretches of the ledger in which a board or a site's line was down.

An outage is a longest run of `down` without a second between. What ends it:

    recovered   `up` or `degraded` follows
    silence     nobody knows what follows; a later `down` is another outage
    excluded    a maintenance window follows
    ongoing     nothing is known after it: `down` is the last word so far

Its layer and reason are those that lasted longest in it, of equals the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Literal

from firmware.linkreport import table
from fleet.ledger import Interval, Kind, Ledger

End = Literal["recovered", "silence", "excluded", "ongoing"]
Cause = tuple[int, int]  # layer, reason


@dataclass(frozen=True)
class Outage:
    """One outage.

    Attributes:
        causes: seconds per (layer, reason), the longest first.
        boards: for a line, the boards that found the internet gone; for a board, itself.
    """

    kind: Kind
    subject: str
    start_s: int
    end_s: int
    end: End
    causes: Mapping[Cause, int] = field(hash=False)
    boards: tuple[str, ...]

    @property
    def cause(self) -> Cause:
        """Layer and reason that lasted longest."""
        return next(iter(self.causes))

    @property
    def length_s(self) -> int:
        """How long it is; of an ongoing one, how long it is known to be."""
        return self.end_s - self.start_s


def find(ledger: Ledger) -> list[Outage]:
    """Return the outages of the ledger's period by start, lines before their boards."""
    missing = {site: list(rows) for site, rows in groupby(ledger.missing(), key=itemgetter(0))}
    lines = [
        _of_line(run, end, missing.get(run[0].subject, []))
        for run, end in _runs(ledger.intervals("line"))
    ]
    boards = [_of_board(run, end) for run, end in _runs(ledger.intervals("board"))]
    return sorted(lines + boards, key=attrgetter("start_s"))


def count(intervals: Sequence[Interval]) -> dict[str, int]:
    """Return how many outages each subject had.

    What does not count parts no outage: one that lasts over a break is one.
    """
    counts: dict[str, int] = {}
    for run, _ in _runs([each for each in intervals if each.state != table.EXCLUDED]):
        counts[run[0].subject] = counts.get(run[0].subject, 0) + 1
    return counts


def _runs(intervals: Sequence[Interval]) -> Iterator[tuple[list[Interval], End]]:
    """Yield each run of `down` and what ends it."""
    for _, group in groupby(intervals, key=attrgetter("subject")):
        ahead = list(group)
        known_until = max(
            (i.end_s for i in ahead if i.state in (table.UP, table.DEGRADED, table.DOWN)), default=0
        )
        stretches = [(state, list(run)) for state, run in groupby(ahead, key=attrgetter("state"))]
        followed_by = [state for state, _ in stretches[1:]] + [table.UNKNOWN]
        for (state, run), follows in zip(stretches, followed_by, strict=True):
            if state == table.DOWN:
                yield run, _end(follows, is_last=run[-1].end_s == known_until)


def _end(follows: int, *, is_last: bool) -> End:
    if follows in (table.UP, table.DEGRADED):
        return "recovered"
    if follows == table.EXCLUDED:
        return "excluded"
    return "ongoing" if is_last else "silence"


def _of_board(run: Sequence[Interval], end: End) -> Outage:
    causes: dict[Cause, int] = {}
    for interval in run:
        cause = (interval.layer, interval.reason)
        causes[cause] = causes.get(cause, 0) + interval.length_s
    subject = run[0].subject
    return Outage("board", subject, run[0].start_s, run[-1].end_s, end, _ranked(causes), (subject,))


def _of_line(
    run: Sequence[Interval], end: End, missing: Sequence[tuple[str, str, int, int, int]]
) -> Outage:
    start_s, end_s = run[0].start_s, run[-1].end_s
    causes: dict[Cause, int] = {}
    boards = set()
    for _, board, reason, from_s, to_s in missing:
        length_s = min(to_s, end_s) - max(from_s, start_s)
        if length_s > 0:
            cause = (table.INTERNET, reason)
            causes[cause] = causes.get(cause, 0) + length_s
            boards.add(board)
    return Outage(
        "line", run[0].subject, start_s, end_s, end, _ranked(causes), tuple(sorted(boards))
    )


def _ranked(causes: dict[Cause, int]) -> dict[Cause, int]:
    return dict(sorted(causes.items(), key=lambda item: -item[1]))
