"""Outages: stretches of the ledger in which a board, a line or an access point was down.

An outage is a longest run of `down` without a second between. Runs between which the subject worked
for five minutes at most are one outage that flaps. What ends it:

    recovered   `up` or `degraded` follows
    silence     nobody knows what follows; a later `down` is another outage
    excluded    a maintenance window follows
    ongoing     nothing is known after it: `down` is the last word so far

Its layer and reason are those that lasted longest in it, of equals the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Literal

from firmware.linkreport import table
from fleet import span
from fleet.ledger import Interval, Kind, Ledger
from fleet.span import Span

# So long must a subject work for an outage to be over.
FLAP_S = 300

End = Literal["recovered", "silence", "excluded", "ongoing"]
Cause = tuple[int, int]  # layer, reason


@dataclass(frozen=True)
class Outage:
    """One outage.

    Attributes:
        causes: seconds per (layer, reason), the longest first.
        boards: for a line, the boards that found the internet gone; for an access point, those
            that looked for it; for a board, itself. By their subjects in the ledger.
        down: the stretches in which it was down; several if it flapped, or if time between them
            does not count.
        times: how often it went down.
    """

    kind: Kind
    subject: str
    start_s: int
    end_s: int
    end: End
    causes: Mapping[Cause, int] = field(hash=False)
    boards: tuple[str, ...]
    down: tuple[Span, ...]
    times: int = 1

    @property
    def cause(self) -> Cause:
        """Layer and reason that lasted longest."""
        return next(iter(self.causes))

    @property
    def length_s(self) -> int:
        """How long it was down; of an ongoing one, as far as is known."""
        return span.length_s(self.down)


@dataclass(frozen=True)
class Run:
    """The intervals in which a subject was down, of one outage.

    Attributes:
        times: how often it went down; more than once if it flapped.
    """

    intervals: tuple[Interval, ...]
    end: End
    times: int


def find(ledger: Ledger, *, through: bool = False) -> list[Outage]:
    """Return the outages of the ledger's period by start, lines before what is behind them.

    Args:
        ledger: of what.
        through: whether outages last through what does not count: an outage over a break is one.
    """
    missing = {site: list(rows) for site, rows in groupby(ledger.missing(), key=itemgetter(0))}
    looked = {name: list(rows) for name, rows in groupby(ledger.lacking(), key=itemgetter(0))}
    lines = [
        _of_line(run, missing.get(run.intervals[0].subject, []))
        for run in runs(ledger.intervals("line"), through=through)
    ]
    points = [
        _of_point(run, looked.get(run.intervals[0].subject, []))
        for run in runs(ledger.intervals("access-point"), through=through)
    ]
    boards = [_of_board(run) for run in runs(ledger.intervals("board"), through=through)]
    return sorted(lines + points + boards, key=attrgetter("start_s"))


def count(intervals: Sequence[Interval]) -> dict[str, int]:
    """Return how many outages each subject had.

    What does not count parts no outage: one that lasts over a break is one.
    """
    counts: dict[str, int] = {}
    for run in runs(intervals, through=True):
        subject = run.intervals[0].subject
        counts[subject] = counts.get(subject, 0) + 1
    return counts


def runs(intervals: Sequence[Interval], *, through: bool) -> Iterator[Run]:
    """Yield the outages of subjects; what flaps is one. Through what does not count if asked."""
    if through:
        intervals = [each for each in intervals if each.state != table.EXCLUDED]
    for _, group in groupby(intervals, key=attrgetter("subject")):
        ahead = list(group)
        known_until = max(
            (i.end_s for i in ahead if i.state in (table.UP, table.DEGRADED, table.DOWN)), default=0
        )
        stretches = [(state, list(run)) for state, run in groupby(ahead, key=_coarsely)]
        stretches += [(table.UNKNOWN, [])] * 2
        flapping: list[Interval] = []
        times = 0
        for (state, run), (follows, works), (then, _) in zip(
            stretches, stretches[1:], stretches[2:], strict=False
        ):
            if state != table.DOWN:
                continue
            flapping += run
            times += 1
            worked_s = sum(each.length_s for each in works)
            if follows == table.UP and then == table.DOWN and worked_s <= FLAP_S:
                continue
            end = _end(follows, is_last=run[-1].end_s == known_until)
            yield Run(tuple(flapping), end, times)
            flapping, times = [], 0


def _coarsely(interval: Interval) -> int:
    return table.UP if interval.state == table.DEGRADED else interval.state


def _end(follows: int, *, is_last: bool) -> End:
    if follows == table.UP:
        return "recovered"
    if follows == table.EXCLUDED:
        return "excluded"
    return "ongoing" if is_last else "silence"


def _of_board(run: Run) -> Outage:
    causes: dict[Cause, int] = {}
    for interval in run.intervals:
        cause = (interval.layer, interval.reason)
        causes[cause] = causes.get(cause, 0) + interval.length_s
    return _outage("board", run, causes, {run.intervals[0].subject})


def _of_point(run: Run, looked: Sequence[tuple[str, str, int, int]]) -> Outage:
    start_s, end_s = run.intervals[0].start_s, run.intervals[-1].end_s
    boards = {board for _, board, from_s, to_s in looked if from_s < end_s and to_s > start_s}
    return replace(_of_board(run), kind="access-point", boards=tuple(sorted(boards)))


def _of_line(run: Run, missing: Sequence[tuple[str, str, int, int, int]]) -> Outage:
    down = _down(run.intervals)
    causes: dict[Cause, int] = {}
    boards = set()
    for _, board, reason, from_s, to_s in missing:
        if to_s <= down[0][0] or from_s >= down[-1][1]:
            continue
        length_s = span.length_s(span.common(down, [(from_s, to_s)]))
        if length_s > 0:
            cause = (table.INTERNET, reason)
            causes[cause] = causes.get(cause, 0) + length_s
            boards.add(board)
    return _outage("line", run, causes, boards)


def _outage(kind: Kind, run: Run, causes: dict[Cause, int], boards: set[str]) -> Outage:
    first, last = run.intervals[0], run.intervals[-1]
    return Outage(
        kind,
        first.subject,
        first.start_s,
        last.end_s,
        run.end,
        _ranked(causes),
        tuple(sorted(boards)),
        _down(run.intervals),
        run.times,
    )


def _down(run: Sequence[Interval]) -> tuple[Span, ...]:
    return tuple(span.union((each.start_s, each.end_s) for each in run))


def _ranked(causes: dict[Cause, int]) -> dict[Cause, int]:
    return dict(sorted(causes.items(), key=lambda item: -item[1]))
