"""What the fleet tool answers: uptime and outages, as plain data.

    city = inventory.load(folder)
    answer = uptime(city, Period(start_s, end_s))
    answer.document()        # as --json prints it

Commands print it, the demo counts it, and both ask the same functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from firmware.linkreport import report as wire
from firmware.linkreport import table, term
from fleet import detail, outage, post
from fleet.inventory import Inventory
from fleet.ledger import FOREVER_S, Kind, Ledger, Stint, Window
from fleet.outage import Outage
from fleet.period import Period, iso
from fleet.post import Post
from fleet.store import Store

# To find where an outage began, each look back is so many times as long as the one before.
_LOOK_BACK = 8
_LONGEST_PERIOD_S = 65_536


@dataclass(frozen=True)
class Tally:
    """The seconds of a subject in each state, by the state's number; they sum to the whole."""

    seconds: tuple[int, ...]
    outages: int

    @property
    def working_s(self) -> int:
        """Seconds in which it worked."""
        return self.seconds[table.UP] + self.seconds[table.DEGRADED]

    @property
    def known_s(self) -> int:
        """Seconds of which it is known whether it worked."""
        return self.working_s + self.seconds[table.DOWN]

    @property
    def asked_s(self) -> int:
        """Seconds that count: all but the excluded."""
        return sum(self.seconds) - self.seconds[table.EXCLUDED]

    @property
    def availability(self) -> float | None:
        """Working part of what is known; None without any evidence."""
        return self.working_s / self.known_s if self.known_s else None

    @property
    def coverage(self) -> float | None:
        """Known part of what counts; None if nothing counts."""
        return self.known_s / self.asked_s if self.asked_s else None

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "availability": self.availability,
            "coverage": self.coverage,
            "seconds": dict(zip(term.STATES, self.seconds, strict=True)),
            "outages": self.outages,
        }


@dataclass(frozen=True)
class BoardUptime:
    """The place of one board in a room; `room` is empty if the registry does not know it.

    Attributes:
        board: the one that held it last in the period.
        stints: all that held it in the period, and since and until when.
    """

    board: str
    room: str
    tally: Tally
    stints: tuple[Stint, ...] = ()

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        held = [
            {
                "board": stint.board,
                "since": iso(stint.start_s, zone) if stint.start_s else None,
                "until": iso(stint.end_s, zone) if stint.end_s < FOREVER_S else None,
            }
            for stint in self.stints
        ]
        return {"board": self.board, "room": self.room, "held_by": held} | self.tally.document()


@dataclass(frozen=True)
class SiteUptime:
    """One site: its line to the internet, and its boards."""

    site: str
    name: str
    line: Tally
    boards: tuple[BoardUptime, ...]


@dataclass(frozen=True)
class Uptime:
    """The uptime of sites and boards in a period.

    Attributes:
        city: its name.
        lines: all lines together, weighted by time.
        strangers: boards whose reports are in the store, but which the registry does not know.
    """

    city: str
    period: Period
    zone: ZoneInfo
    lines: Tally
    sites: tuple[SiteUptime, ...]
    strangers: tuple[BoardUptime, ...]

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "period": _period(self.period, self.zone),
            "lines": self.lines.document(),
            "sites": [
                {
                    "site": site.site,
                    "name": site.name,
                    "line": site.line.document(),
                    "boards": [board.document(self.zone) for board in site.boards],
                }
                for site in self.sites
            ],
            "unregistered_boards": [
                {"board": board.board} | board.tally.document() for board in self.strangers
            ],
        }


@dataclass(frozen=True)
class Evidence:
    """The report that began an outage, and the board that made it."""

    board: str
    report: wire.Report

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "board": self.board,
            "time": iso(self.report.time_s, zone),
            "confidence_percent": self.report.confidence_percent,
            "layers": detail.layers(self.report),
            "measured": detail.core(self.report),
            "blocks": detail.decode(self.report.extensions),
        }


@dataclass(frozen=True)
class PlacedOutage:
    """An outage and where it was.

    Attributes:
        site: empty for a board that the registry does not know.
        site_name: what people call it.
        room: empty for a line.
        alone_in_room: whether the room had no other board then, so that it names this one.
        effect: whether an outage of the site's line at the same time explains this one.
        stints: which boards were there then, and since and until when.
        evidence: the report that began it, where that was asked for.
    """

    outage: Outage
    site: str
    site_name: str
    room: str
    alone_in_room: bool
    effect: bool
    stints: tuple[Stint, ...] = ()
    evidence: Evidence | None = None

    @property
    def board(self) -> str:
        """The board that was there last; empty for a line."""
        if self.outage.kind == "line":
            return ""
        return self.stints[-1].board if self.stints else self.outage.subject

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards that saw it."""
        return tuple(sorted({stint.board for stint in self.stints})) or self.outage.boards

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        found = self.outage
        layer, reason = found.cause
        return {
            "kind": found.kind,
            "site": self.site or None,
            "board": self.board or None,
            "room": self.room or None,
            "start": iso(found.start_s, zone),
            "end": iso(found.end_s, zone),
            "end_by": found.end,
            "ongoing": found.end == "ongoing",
            "length_s": found.length_s,
            "layer": layer_name(layer),
            "reason": term.reason_name(reason),
            "causes": [
                {
                    "layer": layer_name(layer),
                    "reason": term.reason_name(reason),
                    "seconds": seconds,
                }
                for (layer, reason), seconds in found.causes.items()
            ],
            "boards": list(self.boards),
            "effect_of_line": self.effect,
            "evidence": self.evidence.document(zone) if self.evidence else None,
        }


@dataclass(frozen=True)
class Outages:
    """The outages that touch a period, with their true begin and end."""

    city: str
    period: Period
    zone: ZoneInfo
    found: tuple[PlacedOutage, ...]

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "period": _period(self.period, self.zone),
            "outages": [each.document(self.zone) for each in self.found],
        }


def uptime(
    city: Inventory, period: Period, site: str | None = None, excluded: Iterable[Window] = ()
) -> Uptime:
    """Return the uptime of every site, or of one, and of the boards there.

    A revoked board is there as long as the period holds reports of it.

    Raises: UsageError: no such site. StoreError: there is no store to read.
    """
    sites = sorted(city.sites)
    if site:
        city.site(site)
        sites = [site]
    places = {each.subject: each for each in post.posts(city)}
    with Store(city.folder).reading() as connection:
        ledger = Ledger(connection, period, _stints(places), excluded)
        lines = _tallies(ledger, "line")
        boards = _tallies(ledger, "board")
    nothing = _nothing(period)
    by_site: dict[str, list[BoardUptime]] = {}
    for subject, tally in boards.items():
        place = places.get(subject)
        if place is None:
            by_site.setdefault("", []).append(BoardUptime(subject, "", tally))
            continue
        stints = place.within(period.start_s, period.end_s)
        board_id = stints[-1].board
        if not city.boards[board_id].revoked or tally.known_s:
            found_there = BoardUptime(board_id, place.room, tally, stints)
            by_site.setdefault(place.site, []).append(found_there)
    for there in by_site.values():
        there.sort(key=_order)
    found = tuple(
        SiteUptime(
            each, city.sites[each].name, lines.get(each, nothing), tuple(by_site.get(each, ()))
        )
        for each in sites
    )
    columns = zip([0] * len(term.STATES), *(each.line.seconds for each in found), strict=True)
    return Uptime(
        city.city.name,
        period,
        ZoneInfo(city.city.timezone),
        Tally(tuple(map(sum, columns)), sum(each.line.outages for each in found)),
        found,
        () if site else tuple(by_site.get("", ())),
    )


def outages(
    city: Inventory,
    period: Period,
    site: str | None = None,
    excluded: Iterable[Window] = (),
    now_s: int | None = None,
    *,
    with_evidence: bool = False,
) -> Outages:
    """Return the outages of lines and boards that touch a period, by their start.

    With evidence each brings the report that began it, which has to be looked for.

    Raises: UsageError: no such site. StoreError: there is no store to read.
    """
    if site:
        city.site(site)
    places = {each.subject: each for each in post.posts(city)}
    windows = list(excluded)
    end_s = max(period.end_s, int(time.time()) if now_s is None else now_s)
    with Store(city.folder).reading() as connection:
        earliest = connection.execute("SELECT min(time_s) FROM report WHERE time_s > 0").fetchone()
        floor_s = (earliest[0] if earliest and earliest[0] else end_s) - _LONGEST_PERIOD_S
        start_s = period.start_s
        while True:
            found = [
                each
                for each in outage.find(
                    Ledger(connection, Period(start_s, end_s), _stints(places), windows)
                )
                if each.start_s < period.end_s and each.end_s > period.start_s
            ]
            if start_s <= floor_s or all(each.start_s > start_s for each in found):
                break
            start_s = max(floor_s, end_s - _LOOK_BACK * (end_s - start_s))
        placed = [each for each in _placed(city, places, found) if site in (None, each.site)]
        if with_evidence:
            began = _began(connection, placed)
            placed = [replace(each, evidence=began.get(n)) for n, each in enumerate(placed)]
    return Outages(city.city.name, period, ZoneInfo(city.city.timezone), tuple(placed))


def _began(
    connection: duckdb.DuckDBPyConnection, found: Sequence[PlacedOutage]
) -> dict[int, Evidence]:
    """Return the report that began each outage, by its place in the list.

    Of a board it is the first that says down; of a line the first of its boards that says so
    of the internet.
    """
    asked = [
        (
            number,
            stint.board,
            each.outage.kind == "line",
            max(each.outage.start_s, stint.start_s),
            min(each.outage.end_s, stint.end_s),
        )
        for number, each in enumerate(found)
        for stint in each.stints or [Stint("", each.board, "")]
    ]
    if not asked:
        return {}
    numbers, boards, lines, starts, ends = map(list, zip(*asked, strict=True))
    rows = connection.execute(
        _BEGAN,
        {
            "numbers": numbers,
            "boards": boards,
            "lines": lines,
            "starts": starts,
            "ends": ends,
            "down": [n for n in term.REASONS if table.reason_state(n) == table.DOWN],
            "state": table.DOWN,
            "from": min(starts),
            "to": max(ends) + _LONGEST_PERIOD_S,
        },
    )
    return {number: Evidence(device, wire.unpack(raw)) for number, device, raw in rows.fetchall()}


# The report that ends a stretch may be made up to 2.5 periods after it, if a window cuts it short.
_BEGAN = """
    WITH asked AS (
        SELECT unnest($numbers::BIGINT[]) AS number, unnest($boards::VARCHAR[]) AS device,
            unnest($lines::BOOLEAN[]) AS is_line, unnest($starts::BIGINT[]) AS start_s,
            unnest($ends::BIGINT[]) AS end_s
    )
    SELECT DISTINCT ON (number) number, device, raw
    FROM asked JOIN report USING (device)
    WHERE time_s > $from AND time_s <= $to
        AND time_s > start_s AND time_s <= end_s + period_s * 5 // 2
        AND CASE WHEN is_line THEN internet_reason IN (SELECT unnest($down::INTEGER[]))
            ELSE state = $state END
    ORDER BY number, time_s, seq DESC, device
"""


def _placed(
    city: Inventory, places: Mapping[str, Post], found: Sequence[Outage]
) -> Iterator[PlacedOutage]:
    """Yield the outages by start, each line's followed by those it explains."""
    lines = [each for each in found if each.kind == "line"]
    effects: dict[Outage, list[PlacedOutage]] = {line: [] for line in lines}
    causes = [
        PlacedOutage(
            line,
            line.subject,
            _name(city, line.subject),
            "",
            alone_in_room=False,
            effect=False,
            stints=tuple(
                stint
                for subject in line.boards
                for stint in places[subject].within(line.start_s, line.end_s)
            ),
        )
        for line in lines
    ]
    in_room: dict[tuple[str, str], list[Post]] = {}
    for place in places.values():
        in_room.setdefault((place.site, place.room), []).append(place)
    for each in found:
        if each.kind == "line":
            continue
        there = places.get(each.subject)
        site, room = (there.site, there.room) if there else ("", "")
        others = in_room.get((site, room), [])
        explaining = [line for line in lines if _explains(line, site, each)]
        placed = PlacedOutage(
            each,
            site,
            _name(city, site),
            room,
            alone_in_room=sum(bool(o.within(each.start_s, each.end_s)) for o in others) == 1,
            effect=bool(explaining),
            stints=there.within(each.start_s, each.end_s) if there else (),
        )
        (effects[explaining[0]] if explaining else causes).append(placed)
    for cause in sorted(causes, key=lambda item: item.outage.start_s):
        yield cause
        yield from effects.get(cause.outage, ())


def _name(city: Inventory, site: str) -> str:
    return city.sites[site].name if site in city.sites else ""


def _explains(line: Outage, site: str, each: Outage) -> bool:
    overlap_s = min(line.end_s, each.end_s) - max(line.start_s, each.start_s)
    return line.subject == site and overlap_s > 0 and each.cause[0] == table.INTERNET


def layer_name(number: int) -> str:
    """Return the name of a layer, or `layer-<n>` for one from a newer board."""
    return term.LAYERS[number] if number < len(term.LAYERS) else f"layer-{number}"


def _stints(places: Mapping[str, Post]) -> list[Stint]:
    return [stint for place in places.values() for stint in place.stints]


def _order(there: BoardUptime) -> tuple[str, str, int]:
    return (there.room, there.board, there.stints[0].start_s if there.stints else 0)


def _nothing(period: Period) -> Tally:
    seconds = [0] * len(term.STATES)
    seconds[table.UNKNOWN] = period.length_s
    return Tally(tuple(seconds), 0)


def _tallies(ledger: Ledger, kind: Kind) -> dict[str, Tally]:
    outages_of = outage.count(ledger.intervals(kind))
    return {
        subject: Tally(tuple(seconds), outages_of.get(subject, 0))
        for subject, seconds in ledger.seconds(kind).items()
    }


def _period(period: Period, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "from": iso(period.start_s, zone),
        "to": iso(period.end_s, zone),
        "seconds": period.length_s,
        "timezone": zone.key,
    }
