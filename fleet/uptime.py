"""How long things worked: city, districts, lines, access points and boards in a period.

    city = inventory.load(folder)
    answer = find(city, Period(start_s, end_s), told=city.subject("site/goethe-schule"))
    answer.document()        # as --json prints it

Commands print it, the demo counts it, and both ask the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from firmware.linkreport import table, term
from fleet import engine, exclusion, outage, point, post, span, tally
from fleet.exclusion import Exclusion
from fleet.inventory import Inventory, Subject
from fleet.ledger import Kind, Ledger
from fleet.period import Period, iso
from fleet.point import Point
from fleet.post import Post
from fleet.stint import FOREVER_S, Stint
from fleet.store import Store
from fleet.tally import Tally, Verdict


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
class PointUptime:
    """One access point; `room` is empty if nobody said where it hangs."""

    id: str
    room: str
    tally: Tally


@dataclass(frozen=True)
class SiteUptime:
    """One site: its line to the internet, its access points, and its boards."""

    site: str
    name: str
    district: str
    calendar: str
    line: Tally
    boards: tuple[BoardUptime, ...]
    points: tuple[PointUptime, ...] = ()


@dataclass(frozen=True)
class Row:
    """One subject's figures.

    Attributes:
        site, place: the site and the board's place; None where it is no such subject.
        calendar: by which it was counted; "" where sites have different ones.
    """

    subject: Subject
    name: str
    tally: Tally
    calendar: str
    verdict: Verdict | None = None
    site: SiteUptime | None = None
    place: BoardUptime | None = None


@dataclass(frozen=True)
class Uptime:
    """The uptime of a subject, and of what it consists of, in a period.

    Attributes:
        city: its name.
        told: what was asked for; None is all there is, strangers too.
        lines: all lines together, weighted by time.
        districts: the lines of each district that was asked for.
        strangers: boards whose reports are in the store, but which the registry does not know.
        excluded: what does not count.
    """

    city: str
    period: Period
    zone: ZoneInfo
    told: Subject | None
    lines: Tally
    districts: Mapping[str, Tally]
    sites: tuple[SiteUptime, ...]
    strangers: tuple[BoardUptime, ...]
    excluded: Exclusion

    def rows(self) -> Iterator[Row]:
        """Yield the figures of all that was asked for, the whole before its parts."""
        told = self.told.kind if self.told else None
        city = self.excluded.city
        if told in (None, "city"):
            yield self._row(Subject("city"), self.city, self.lines, self.sites)
        for district, found in self.districts.items():
            if told in (None, "district"):
                there = [each for each in self.sites if each.district == district]
                name = city.districts[district].name
                yield self._row(Subject("district", district), name, found, there)
        for site in self.sites:
            if told in (None, "district", "site", "line"):
                line = Subject("line", site.site)
                yield self._row(line, site.name, site.line, [site])
            if told in (None, "site", "access-point"):
                for point in site.points:
                    named = Subject("access-point", point.id)
                    yield self._row(named, point.room, point.tally, [site])
            if told in ("city", "district", "line", "access-point"):
                continue
            for place in site.boards:
                board = Subject("board", place.board)
                yield self._row(board, place.room, place, [site])
        for place in self.strangers:
            yield Row(Subject("board", place.board), "", place.tally, "24/7", place=place)

    def _row(
        self,
        subject: Subject,
        name: str,
        of: Tally | BoardUptime,
        sites: Sequence[SiteUptime],
    ) -> Row:
        city, place = self.excluded.city, None
        if isinstance(of, BoardUptime):
            place, found = of, of.tally
        else:
            found = of
        site = sites[0] if subject.kind in ("line", "access-point", "board") else None
        sla = city.sla_of(subject)
        if sla is None and site and place:
            sla = city.sla_of(Subject("room", site.site, place.room))
        verdict = None
        if sla and sites:
            same = all(
                each.calendar == (sla.calendar or city.calendar_of(each.site)) for each in sites
            )
            verdict = tally.judge(sla, found, same_calendar=same)
        calendars = {each.calendar for each in sites}
        calendar = calendars.pop() if len(calendars) == 1 else ""
        return Row(subject, name, found, calendar, verdict, site, place)

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        lines: dict[str, Any] = {}
        districts: list[dict[str, Any]] = []
        sites: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            figures = row.tally.document() | {
                "sla": row.verdict.document() if row.verdict else None
            }
            if row.site is not None:
                entry = {
                    "site": row.site.site,
                    "name": row.site.name,
                    "district": row.site.district,
                    "calendar": row.site.calendar,
                    "access_points": [],
                    "boards": [],
                }
                found = sites.setdefault(row.site.site, entry)
                if row.place:
                    found["boards"].append(row.place.document(self.zone) | figures)
                elif row.subject.kind == "access-point":
                    named = {"access_point": row.subject.id, "room": row.name or None}
                    found["access_points"].append(named | figures)
                else:
                    found["line"] = figures
            elif row.subject.kind == "city":
                lines = figures
            elif row.subject.kind == "district":
                districts.append({"district": row.subject.id, "name": row.name} | figures)
        return {
            "period": self.period.document(self.zone),
            "subject": str(self.told) if self.told else None,
            **({"lines": lines} if lines else {}),
            "districts": districts,
            "sites": list(sites.values()),
            "unregistered_boards": [
                {"board": board.board} | board.tally.document() for board in self.strangers
            ],
            "maintenance": [each.document(self.zone) for each in self.excluded.maintenance],
        }


def find(
    city: Inventory,
    period: Period,
    told: Subject | None = None,
    calendar: str | None = None,
    engine_url: str | None = None,
) -> Uptime:
    """Return the uptime of a subject and of what it consists of.

    A revoked board is there as long as the period holds reports of it.

    Args:
        city: its inventory.
        period: what is asked for.
        told: of what; None is all there is.
        calendar: by which; None is each site's own.
        engine_url: who recomputes it from all reports; None is from the intervals that are kept.

    Raises: UsageError: no such calendar or engine. ConfigurationError: what does not count cannot
        be told. StoreError: there is no store to read. EngineError: the engine could not do it.
    """
    if engine_url is not None:
        engine.check(engine_url)
    places = {each.subject: each for each in post.posts(city)}
    sites = _sites(city, told, places, period)
    excluded = exclusion.find(city, period, sites, calendar)
    store = Store(city.folder)
    with store.reading() as connection:
        points = _points(city, told, sites)
        told_by = engine.ask(engine_url, store, connection, period) if engine_url else None
        held = post.stints(places.values())
        ledger = Ledger(connection, period, held, excluded.windows, points, said=told_by)
        lines = _tallies(ledger, "line", excluded.line_maintenance_s)
        boards = _tallies(
            ledger,
            "board",
            lambda subject: excluded.maintenance_s(places[subject]) if subject in places else 0,
        )
        heard = _tallies(ledger, "access-point", excluded.point_maintenance_s)
    by_site: dict[str, list[BoardUptime]] = {}
    for subject, found in boards.items():
        place = places.get(subject)
        if place is None:
            by_site.setdefault("", []).append(BoardUptime(subject, "", found))
            continue
        stints = place.within(period.start_s, period.end_s)
        board_id = stints[-1].board
        if (not city.boards[board_id].revoked or found.known_s) and _is_told(told, place, stints):
            there = BoardUptime(board_id, place.room, found, stints)
            by_site.setdefault(place.site, []).append(there)
    answers = tuple(
        SiteUptime(
            site,
            city.sites[site].name,
            city.sites[site].district,
            excluded.calendars[site],
            lines.get(site) or _nothing(excluded, site),
            tuple(sorted(by_site.get(site, []), key=_order)),
            tuple(
                PointUptime(each.id, city.access_points[each.id].room or "", heard[each.subject])
                for each in points
                if each.site == site
            ),
        )
        for site in sites
    )
    return Uptime(
        city.city.name,
        period,
        ZoneInfo(city.city.timezone),
        told,
        tally.total([each.line for each in answers]),
        {
            district: tally.total([each.line for each in answers if each.district == district])
            for district in sorted({each.district for each in answers})
        },
        answers,
        () if told else tuple(sorted(by_site.get("", []), key=_order)),
        excluded,
    )


def _sites(
    city: Inventory, told: Subject | None, places: Mapping[str, Post], period: Period
) -> list[str]:
    """Return the sites that a subject touches."""
    if told is None or told.kind == "city":
        return sorted(city.sites)
    if told.kind == "district":
        return sorted(each for each, site in city.sites.items() if site.district == told.id)
    if told.kind == "board":
        found = {
            place.site
            for place in places.values()
            if _is_told(told, place, place.within(period.start_s, period.end_s))
        }
        return sorted(found & set(city.sites))
    return [city.access_points[told.id].site if told.kind == "access-point" else told.id]


def _points(city: Inventory, told: Subject | None, sites: Sequence[str]) -> list[Point]:
    """Return the access points that were asked for."""
    if told and told.kind not in ("site", "access-point"):
        return []
    found = [each for each in point.of(city) if each.site in sites]
    return [each for each in found if not told or told.kind == "site" or each.id == told.id]


def _is_told(told: Subject | None, place: Post, stints: tuple[Stint, ...]) -> bool:
    if told is None or told.kind != "board":
        return told is None or told.kind != "room" or place.room == told.room
    return any(stint.board == told.id for stint in stints)


def _order(there: BoardUptime) -> tuple[str, str, int]:
    return (there.room, there.board, there.stints[0].start_s if there.stints else 0)


def _nothing(excluded: Exclusion, site: str) -> Tally:
    """Return the figures of a line of which no board ever told anything."""
    seconds = [0] * len(term.STATES)
    maintenance_s = excluded.line_maintenance_s(site)
    seconds[table.EXCLUDED] = span.length_s(excluded.outside[site]) + maintenance_s
    seconds[table.UNKNOWN] = excluded.period.length_s - seconds[table.EXCLUDED]
    return Tally(tuple(seconds), 0, maintenance_s)


def _tallies(ledger: Ledger, kind: Kind, maintenance_s: Callable[[str], int]) -> dict[str, Tally]:
    outages_of = outage.count(ledger.intervals(kind))
    return {
        subject: Tally(tuple(seconds), outages_of.get(subject, 0), maintenance_s(subject))
        for subject, seconds in ledger.seconds(kind).items()
    }
