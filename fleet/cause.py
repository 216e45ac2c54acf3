"""Causes: what broke, each with the outages that are its effects.

    provider       lines of one provider at several sites went down together
    district       lines at several sites of one district went down together
    line           a site's line
    gateway        the router of a site does not answer: boards in several rooms say so
    site           something else that a site's rooms share: its DHCP or DNS server, its WLAN
    access-point   an access point; or boards that were on one lost it together
    room           what there is in one room
    board          the board itself: it says so, or another one in its room works
    netzpuls       Netzpuls' own collector or broker: boards ran on, and their reports are lost
    silence        all boards of a gateway are silent, nobody knows why: no power, or Netzpuls

Every outage has one cause. "Together" is that they began within five minutes and overlap. An outage
of a board is an effect of its site's line if what it missed lies behind the line, and the line was
down for half of it or more; of an access point if it was on that one, lost its WLAN, and the access
point was down for half of it or more. Access points of one site that go down together are something
that the site's rooms share. The last two kinds are no outages: no subject is blamed for them, and
nothing is up because of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

from firmware.linkreport import table
from fleet import span
from fleet.outage import End, Outage
from fleet.span import Span

Kind = Literal[
    "provider", "district", "line", "gateway", "site", "access-point", "room", "board",
    "netzpuls", "silence",
]  # fmt: skip

Key = TypeVar("Key", str, int)

TOGETHER_S = 300
_BEHIND_THE_LINE = (table.RESOLVER, table.PORTAL, table.INTERNET, table.SERVICE)
_AIR = (table.RADIO, table.ASSOCIATION)


@dataclass(frozen=True)
class Seen:
    """An outage, and what is known of its place.

    Attributes:
        board: empty for what is none.
        access_point: the one that the board was on before, or that it is the outage of: its id, or
            its BSSID if the inventory does not know it; empty if that is not known.
        in_company: whether another board in the room worked for half of the time or more.
    """

    outage: Outage
    site: str
    room: str = ""
    board: str = ""
    district: str = ""
    provider: str = ""
    access_point: str = ""
    in_company: bool = False

    @property
    def is_line(self) -> bool:
        """Whether it is the outage of a site's line."""
        return self.outage.kind == "line"

    @property
    def is_point(self) -> bool:
        """Whether it is the outage of an access point."""
        return self.outage.kind == "access-point"


@dataclass(frozen=True)
class Cause:
    """What broke, and when.

    Attributes:
        name: of the provider, district, site, access point, room or board; of a gateway for
            `netzpuls` and `silence`.
        outages: those that it explains; of a line, access point or board its own comes first.
        sites: where.
        down: its time; with gaps, if it flapped.
        times: how often it broke.
    """

    kind: Kind
    name: str
    sites: tuple[str, ...]
    outages: tuple[Seen, ...]
    down: tuple[Span, ...]
    end: End
    times: int = 1

    @property
    def start_s(self) -> int:
        """When it began."""
        return self.down[0][0]

    @property
    def end_s(self) -> int:
        """When it ended, as far as is known."""
        return self.down[-1][1]

    @property
    def rooms(self) -> tuple[tuple[str, str], ...]:
        """The rooms that it reached, as (site, room)."""
        return tuple(sorted({(each.site, each.room) for each in self.outages if each.room}))

    @property
    def lines(self) -> tuple[str, ...]:
        """The sites whose lines it took."""
        return tuple(sorted({each.site for each in self.outages if each.is_line}))

    @property
    def points(self) -> tuple[str, ...]:
        """The access points that it took."""
        return tuple(sorted({each.access_point for each in self.outages if each.is_point}))


def find(found: Iterable[Seen]) -> list[Cause]:
    """Return the causes of all these outages by start; each outage is in exactly one."""
    ordered = sorted(found, key=_key)
    lines = [each for each in ordered if each.is_line]
    points = [each for each in ordered if each.is_point]
    effects: dict[Seen, list[Seen]] = {each: [] for each in (*lines, *points)}
    wholes = _by(effects, _site)
    left: list[Seen] = []
    for each in ordered:
        if each in effects:
            continue
        whole = next((one for one in wholes.get(each.site, ()) if _explains(one, each)), None)
        (effects[whole] if whole else left).append(each)
    causes = [
        *_of_lines(lines, effects),
        *(cause for here in _by(points, _site).values() for cause in _of_points(here, effects)),
        *(
            cause
            for _, here in groupby(sorted(left, key=lambda s: (s.site, *_key(s))), _site)
            for cause in _of_boards(list(here))
        ),
    ]
    return sorted(causes, key=lambda cause: (cause.start_s, cause.kind, cause.name))


def _key(each: Seen) -> tuple[int, int, str]:
    return (each.outage.start_s, not (each.is_line or each.is_point), each.outage.subject)


def _site(each: Seen) -> str:
    return each.site


def _explains(whole: Seen, each: Seen) -> bool:
    """Tell whether a board's outage is an effect of a line's or an access point's at its site."""
    layer = each.outage.cause[0]
    if whole.is_line:
        behind = layer in _BEHIND_THE_LINE
    else:
        behind = layer in _AIR and each.access_point == whole.access_point
    if not behind:
        return False
    both_s = span.length_s(span.common(whole.outage.down, each.outage.down))
    return 2 * both_s >= each.outage.length_s


def _together(found: Sequence[Seen]) -> Iterator[list[Seen]]:
    """Yield groups that began together and overlap with the first; `found` is by start."""
    group: list[Seen] = []
    for each in found:
        first = group[0].outage if group else None
        if first and not (
            each.outage.start_s - first.start_s <= TOGETHER_S and each.outage.start_s < first.end_s
        ):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _of_lines(lines: Sequence[Seen], effects: dict[Seen, list[Seen]]) -> Iterator[Cause]:
    for group in _together(lines):
        rest = group
        for kind, key in _SHARED:
            shared, rest = _shared(rest, key)
            for name, some in shared:
                everything = [each for line in some for each in (line, *effects[line])]
                yield _cause(kind, name, everything)
        for line in rest:
            yield _cause("line", line.site, [line, *effects[line]])


def _of_points(points: Sequence[Seen], effects: dict[Seen, list[Seen]]) -> Iterator[Cause]:
    """Yield the causes of outages of access points at one site, which are by start."""
    for group in _together(points):
        everything = [each for point in group for each in (point, *effects[point])]
        if len({each.access_point for each in group}) == 1:
            yield _cause("access-point", group[0].access_point, everything)
        else:
            yield _cause("site", group[0].site, everything)


def _provider(each: Seen) -> str:
    return each.provider


def _district(each: Seen) -> str:
    return each.district


_SHARED: tuple[tuple[Kind, Callable[[Seen], str]], ...] = (
    ("provider", _provider),
    ("district", _district),
)


def _shared(
    lines: Sequence[Seen], key: Callable[[Seen], str]
) -> tuple[list[tuple[str, list[Seen]]], list[Seen]]:
    """Return what several sites have in common, and the lines that have nothing."""
    by_name = _by(lines, key)
    shared = [
        (name, some)
        for name, some in by_name.items()
        if name and len({each.site for each in some}) > 1
    ]
    taken = {each for _, some in shared for each in some}
    return shared, [each for each in lines if each not in taken]


def _of_boards(here: Sequence[Seen]) -> Iterator[Cause]:
    """Yield the causes of boards' outages at one site that its line does not explain."""
    for layer, some in _by(here, _layer).items():
        for group in _together(some):
            places = {each.outage.subject for each in group}
            nowhere = not group[0].site
            if layer == table.DEVICE or len(places) == 1 or nowhere:
                for each in group:
                    yield _of_one(each)
                continue
            rooms = {each.room for each in group}
            points = {each.access_point for each in group}
            if layer in _AIR and len(points) == 1 and points != {""}:
                yield _cause("access-point", points.pop(), group)
            elif len(rooms) == 1:
                yield _cause("room", rooms.pop(), group)
            else:
                yield _cause("gateway" if layer == table.GATEWAY else "site", group[0].site, group)


def _of_one(each: Seen) -> Cause:
    if each.outage.cause[0] == table.DEVICE or each.in_company or not each.room:
        return _cause("board", each.board, [each])
    return _cause("room", each.room, [each])


def _layer(each: Seen) -> int:
    layer, _ = each.outage.cause
    return _AIR[0] if layer in _AIR else layer


def _by(found: Iterable[Seen], key: Callable[[Seen], Key]) -> dict[Key, list[Seen]]:
    groups: dict[Key, list[Seen]] = {}
    for each in found:
        groups.setdefault(key(each), []).append(each)
    return groups


def _cause(kind: Kind, name: str, found: Sequence[Seen]) -> Cause:
    """Return a cause whose time is that of its lines or access points, or else of all boards."""
    own = [each for each in found if each.is_line or each.is_point] or list(found)
    last = max(own, key=lambda each: each.outage.end_s)
    return Cause(
        kind,
        name,
        tuple(sorted({each.site for each in found if each.site})),
        tuple(found),
        tuple(span.union(stretch for each in own for stretch in each.outage.down)),
        last.outage.end,
        max(each.outage.times for each in own),
    )
