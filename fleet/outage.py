"""Outages: stretches of the ledger in which a board or a site's line was down.

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
from dataclasses import dataclass, field
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
        boards: for a line, the boards that found the internet gone; for a board, itself.
        down: the stretches in which it was down; several if it flapped.
    """

    kind: Kind
    subject: str
    start_s: int
    end_s: int
    end: End
    causes: Mapping[Cause, int] = field(hash=False)
    boards: tuple[str, ...]
    down: tuple[Span, ...]

    @property
    def cause(self) -> Cause:
        """Layer and reason that lasted longest."""
        return next(iter(self.causes))

    @property
    def length_s(self) -> int:
        """How long it was down; of an ongoing one, as far as is known."""
        return span.length_s(self.down)

    @property
    def times(self) -> int:
        """How often it went down."""
        return len(self.down)


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
    """Yield each run of `down` and what ends it; those of one that flaps together."""
    for _, group in groupby(intervals, key=attrgetter("subject")):
        ahead = list(group)
        known_until = max(
            (i.end_s for i in ahead if i.state in (table.UP, table.DEGRADED, table.DOWN)), default=0
        )
        stretches = [(state, list(run)) for state, run in groupby(ahead, key=_coarsely)]
        stretches += [(table.UNKNOWN, [])] * 2
        flapping: list[Interval] = []
        for (state, run), (follows, works), (then, _) in zip(
            stretches, stretches[1:], stretches[2:], strict=False
        ):
            if state != table.DOWN:
                continue
            flapping += run
            worked_s = sum(each.length_s for each in works)
            if follows == table.UP and then == table.DOWN and worked_s <= FLAP_S:
                continue
            yield flapping, _end(follows, is_last=run[-1].end_s == known_until)
            flapping = []


def _coarsely(interval: Interval) -> int:
    return table.UP if interval.state == table.DEGRADED else interval.state


def _end(follows: int, *, is_last: bool) -> End:
    if follows == table.UP:
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
    return Outage(
        "board",
        subject,
        run[0].start_s,
        run[-1].end_s,
        end,
        _ranked(causes),
        (subject,),
        _down(run),
    )


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
        "line", run[0].subject, start_s, end_s, end, _ranked(causes), tuple(sorted(boards)),
        _down(run),
    )  # fmt: skip


def _down(run: Sequence[Interval]) -> tuple[Span, ...]:
    return tuple(span.union((each.start_s, each.end_s) for each in run))


def _ranked(causes: dict[Cause, int]) -> dict[Cause, int]:
    return dict(sorted(causes.items(), key=lambda item: -item[1]))
