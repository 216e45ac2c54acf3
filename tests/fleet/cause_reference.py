"""Causes said slowly: sets of seconds, and every pair looked at. Only for tests.

It shares no rule with `fleet/cause.py` and `fleet/correlate.py`, only the layers' numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from firmware.linkreport import table
from fleet.cause import Seen
from fleet.ledger import Interval
from fleet.outage import Outage
from fleet.post import Post

Found = tuple[str, str, frozenset[str]]  # kind, name, subjects of the outages


class Heard(NamedTuple):
    """What of a report matters here."""

    device: str
    time_s: int
    key_id: int
    boot: int
    bssid: bytes | None


def seconds(found: Outage) -> set[int]:
    """Return the seconds in which something was down."""
    return {second for start_s, end_s in found.down for second in range(start_s, end_s)}


def find(found: Sequence[Seen]) -> set[Found]:
    """Return kind and name of each cause, and what it explains."""
    left = sorted(
        found,
        key=lambda s: (s.outage.start_s, s.outage.kind == "board", s.outage.subject),
    )
    wholes = [each for each in left if each.outage.kind != "board"]
    effects: dict[str, list[Seen]] = {_name(whole): [] for whole in wholes}
    boards = []
    for each in left:
        if each.outage.kind != "board":
            continue
        blamed = [whole for whole in wholes if _is_blamed(whole, each)]
        (effects[_name(blamed[0])] if blamed else boards).append(each)

    def told(kind: str, name: str, some: Sequence[Seen]) -> Found:
        everything = [*some, *(each for one in some for each in effects.get(_name(one), []))]
        return kind, name, frozenset(_name(each) for each in everything)

    causes = set()
    for group in _groups([w for w in wholes if w.outage.kind == "line"], lambda _: 0):
        rest = group
        for kind in ("provider", "district"):
            for name in sorted({getattr(each, kind) for each in rest} - {""}):
                some = [each for each in rest if getattr(each, kind) == name]
                if len({each.site for each in some}) > 1:
                    causes.add(told(kind, name, some))
                    rest = [each for each in rest if each not in some]
        causes |= {told("line", each.site, [each]) for each in rest}
    points = [w for w in wholes if w.outage.kind == "access-point"]
    for group in _groups(points, lambda each: each.site):
        if len({each.access_point for each in group}) > 1:
            causes.add(told("site", group[0].site, group))
        else:
            causes.add(told("access-point", group[0].access_point, group))
    for group in _groups(boards, lambda each: (each.site, _sphere(each))):
        causes |= {told(kind, name, some) for kind, name, some in _of_boards(group)}
    return causes


def _of_boards(group: list[Seen]) -> list[tuple[str, str, list[Seen]]]:
    """Return what boards have in common that failed together in one layer at one site."""
    layer = group[0].outage.cause[0]
    alone = len({each.outage.subject for each in group}) == 1
    if layer == table.DEVICE or alone or not group[0].site:
        return [
            ("board", each.board, [each])
            if layer == table.DEVICE or each.in_company or not each.room
            else ("room", each.room, [each])
            for each in group
        ]
    points = {each.access_point for each in group}
    if layer in (table.RADIO, table.ASSOCIATION) and len(points) == 1 and "" not in points:
        return [("access-point", group[0].access_point, group)]
    if len({each.room for each in group}) == 1:
        return [("room", group[0].room, group)]
    return [("gateway" if layer == table.GATEWAY else "site", group[0].site, group)]


def _name(each: Seen) -> str:
    return f"{each.outage.kind} {each.outage.subject} {each.outage.start_s}"


def _sphere(each: Seen) -> int:
    """Return the layer, of which radio and association are one."""
    layer = each.outage.cause[0]
    return table.RADIO if layer == table.ASSOCIATION else layer


def _is_blamed(whole: Seen, each: Seen) -> bool:
    if whole.site != each.site:
        return False
    layer = each.outage.cause[0]
    if whole.outage.kind == "line":
        if layer not in (table.RESOLVER, table.PORTAL, table.INTERNET, table.SERVICE):
            return False
    elif layer not in (table.RADIO, table.ASSOCIATION) or each.access_point != whole.access_point:
        return False
    mine = seconds(each.outage)
    return len(mine & seconds(whole.outage)) >= len(mine) / 2


def _groups(found: Sequence[Seen], key: Callable[[Seen], object]) -> list[list[Seen]]:
    """Return what began together with the first that is in no group yet, and overlaps with it."""
    groups = []
    left = list(found)
    while left:
        first = left[0]
        group = [
            each
            for each in left
            if key(each) == key(first)
            and each.outage.start_s <= first.outage.start_s + 300
            and (each is first or each.outage.start_s < first.outage.end_s)
        ]
        groups.append(group)
        left = [each for each in left if each not in group]
    return groups


def access_point(reports: Sequence[Heard], board: str, start_s: int) -> str:
    """Return the BSSID that a board told of last in the day before an outage, "" for none."""
    told = [
        each
        for each in reports
        if each.device == board and each.bssid and start_s - 86_400 < each.time_s <= start_s
    ]
    last = max(told, key=lambda each: each.time_s, default=None)
    return last.bssid.hex(":") if last and last.bssid else ""


def in_company(found: Outage, places: Mapping[str, Post], intervals: Sequence[Interval]) -> bool:
    """Tell whether another place in the room worked for half of an outage, or more."""
    place, down = places[found.subject], seconds(found)
    for subject, other in places.items():
        if subject == found.subject or (other.site, other.room) != (place.site, place.room):
            continue
        works = {
            second
            for each in intervals
            if each.subject == subject and each.state in (table.UP, table.DEGRADED)
            for second in range(each.start_s, each.end_s)
        }
        if 2 * len(works & down) >= len(down):
            return True
    return False


def silences(
    boards: Mapping[str, Sequence[Interval]], start_s: int, end_s: int
) -> list[tuple[int, int]]:
    """Return when all boards of a gateway were silent for a quarter of an hour or more."""
    known = {
        board: {
            second
            for each in some
            if each.state != table.UNKNOWN
            for second in range(each.start_s, each.end_s)
        }
        for board, some in boards.items()
    }
    known = {board: some for board, some in known.items() if some}
    if len(known) < 2:
        return []
    first_s = max(start_s, min(min(some) for some in known.values()))
    found, since_s = [], None
    for second in range(first_s, end_s + 1):
        silent = second < end_s and not any(second in some for some in known.values())
        if silent and since_s is None:
            since_s = second
        elif not silent and since_s is not None:
            if second - since_s >= 900:
                found.append((since_s, second))
            since_s = None
    return found


def ran_on(reports: Sequence[Heard], boards: Sequence[str], start_s: int, end_s: int) -> bool:
    """Tell whether half of the boards that told before and after a silence ran through it."""
    told = going_on = 0
    for board in boards:
        mine = sorted((r for r in reports if r.device == board), key=lambda r: r.time_s)
        before = [r for r in mine if start_s - 86_400 <= r.time_s <= start_s]
        after = [r for r in mine if end_s <= r.time_s <= end_s + 86_400]
        if before and after:
            told += 1
            last, first = before[-1], after[0]
            going_on += (last.key_id, last.boot) == (first.key_id, first.boot)
    return bool(told) and 2 * going_on >= told
