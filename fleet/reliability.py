"""How often things failed, for how long, and how long they worked between: MTTR and MTBF.

Of lines, access points, rooms and boards each for itself, and of what they make up together. A
room works while one of its boards does, and is down while none does and one is down. The figures
of a site are those of its line; those of districts and the city are of all their lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from firmware.linkreport import table
from fleet import outage, point
from fleet.inventory import Inventory, Subject
from fleet.ledger import Interval, Kind
from fleet.period import Period
from fleet.post import Post

# Whose figures are summed up, as the documents name them.
KINDS = {
    "line": "lines",
    "access-point": "access_points",
    "room": "rooms",
    "board": "boards",
}


@dataclass(frozen=True)
class Summary:
    """The outages of one subject or of several in a period, and how long they worked in it.

    Attributes:
        lengths_s: of the outages that began in it.
        mended_s: of those among them that ended because it worked again.
    """

    lengths_s: tuple[int, ...] = ()
    mended_s: tuple[int, ...] = ()
    working_s: int = 0

    @property
    def longest_s(self) -> int | None:
        """The longest outage."""
        return max(self.lengths_s, default=None)

    @property
    def mttr_s(self) -> int | None:
        """Mean time to repair, in whole seconds."""
        return sum(self.mended_s) // len(self.mended_s) if self.mended_s else None

    @property
    def mtbf_s(self) -> int | None:
        """Mean time between failures: working time for each of them, in whole seconds."""
        return self.working_s // len(self.lengths_s) if self.lengths_s else None

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "outages": len(self.lengths_s),
            "longest_s": self.longest_s,
            "mttr_s": self.mttr_s,
            "mtbf_s": self.mtbf_s,
        }


@dataclass(frozen=True)
class Figure:
    """The figures of one subject."""

    subject: Subject
    site: str
    summary: Summary


def total(found: Iterable[Summary]) -> Summary:
    """Return all together: each subject's time and outages count alike."""
    each = list(found)
    return Summary(
        tuple(length_s for one in each for length_s in one.lengths_s),
        tuple(length_s for one in each for length_s in one.mended_s),
        sum(one.working_s for one in each),
    )


def figures(
    city: Inventory,
    places: Mapping[str, Post],
    intervals: Mapping[Kind, Sequence[Interval]],
    period: Period,
    *,
    through: bool,
) -> list[Figure]:
    """Return the figures of all subjects that a city has, by kind, site and name.

    Args:
        city: its inventory.
        places: the posts by subject.
        intervals: those of lines, access points and boards, by kind.
        period: outages count that begin in it.
        through: whether outages last through what does not count.
    """
    found = []
    rooms: dict[tuple[str, str], list[Sequence[Interval]]] = {}
    for kind, every in intervals.items():
        for subject, group in groupby(every, key=attrgetter("subject")):
            mine = list(group)
            place = places.get(subject) if kind == "board" else None
            if place and place.site in city.sites:
                rooms.setdefault((place.site, place.room), []).append(mine)
            named = _named(city, kind, subject, place, period)
            if named:
                found.append(Figure(*named, _summary(mine, period, through=through)))
    for (site, room), boards in rooms.items():
        told = _summary(list(_room(boards)), period, through=through)
        found.append(Figure(Subject("room", site, room), site, told))
    order = list(KINDS)
    return sorted(
        found, key=lambda each: (order.index(each.subject.kind), each.site, str(each.subject))
    )


def _named(
    city: Inventory, kind: Kind, subject: str, place: Post | None, period: Period
) -> tuple[Subject, str] | None:
    """Return what a subject of the ledger is called, and its site; None if that is gone."""
    if kind == "line":
        return (Subject("line", subject), subject) if subject in city.sites else None
    if kind == "access-point":
        point_id = point.id_of(subject)
        return Subject("access-point", point_id), city.access_points[point_id].site
    if place is None:
        return Subject("board", subject), ""
    stints = place.within(period.start_s, period.end_s)
    return (Subject("board", stints[-1].board), place.site) if stints else None


def _summary(intervals: Sequence[Interval], period: Period, *, through: bool) -> Summary:
    lengths_s, mended_s = [], []
    for run in outage.runs(intervals, through=through):
        if not period.start_s <= run.intervals[0].start_s < period.end_s:
            continue
        length_s = sum(each.length_s for each in run.intervals)
        lengths_s.append(length_s)
        if run.end == "recovered":
            mended_s.append(length_s)
    working_s = sum(
        max(0, min(each.end_s, period.end_s) - max(each.start_s, period.start_s))
        for each in intervals
        if each.state in (table.UP, table.DEGRADED)
    )
    return Summary(tuple(lengths_s), tuple(mended_s), working_s)


def _room(boards: Sequence[Sequence[Interval]]) -> Iterator[Interval]:
    """Yield the intervals of a room from those of its boards."""
    edges: list[tuple[int, int, int]] = []
    for each in boards:
        for one in each:
            edges += [(one.start_s, one.state, 1), (one.end_s, one.state, -1)]
    edges.sort()
    counts = [0] * (table.EXCLUDED + 1)
    since_s = 0
    for at_s, group in groupby(edges, key=lambda edge: edge[0]):
        if any(counts) and since_s < at_s:
            yield Interval("", since_s, at_s, _state(counts), 0, 0)
        for _, state, change in group:
            counts[state] += change
        since_s = at_s


def _state(counts: Sequence[int]) -> int:
    if counts[table.UP] or counts[table.DEGRADED]:
        return table.UP
    ranked = (table.DOWN, table.EXCLUDED)
    return next((state for state in ranked if counts[state]), table.UNKNOWN)
