"""What the fleet tool answers about outages, as plain data.

    city = inventory.load(folder)
    answer = outages(city, Period(start_s, end_s))
    answer.document()        # as --json prints it

Commands print it, the demo counts it, and both ask the same functions.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from firmware.linkreport import report as wire
from firmware.linkreport import table, term
from fleet import cause as correlation
from fleet import (
    correlate,
    detail,
    exclusion,
    maintenance,
    outage,
    point,
    post,
    reliability,
    span,
    visit,
)
from fleet.cause import Cause
from fleet.errors import ConfigurationError
from fleet.exclusion import Exclusion
from fleet.inventory import ALWAYS, OWN, Inventory
from fleet.ledger import Interval, Kind, Ledger
from fleet.maintenance import Maintenance
from fleet.outage import Outage
from fleet.period import Period, iso
from fleet.post import Post
from fleet.reliability import Figure, Summary
from fleet.stint import Stint
from fleet.store import Store

# To find where an outage began, each look back is so many times as long as the one before.
_LOOK_BACK = 8
_LONGEST_PERIOD_S = 65_536
_KINDS: tuple[Kind, ...] = ("line", "access-point", "board")


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
        room: empty for a line; of an access point where it hangs, if that is known.
        alone_in_room: whether the room had no other board then, so that it names this one.
        effect: whether it is an effect of its cause, and not that itself.
        cause: the number of its cause in the answer.
        stints: which boards were there then, and since and until when.
        evidence: the report that began it, where that was asked for.
    """

    outage: Outage
    site: str
    site_name: str
    room: str
    alone_in_room: bool
    effect: bool
    cause: int
    stints: tuple[Stint, ...] = ()
    evidence: Evidence | None = None

    @property
    def board(self) -> str:
        """The board that was there last; empty for what is none."""
        if self.outage.kind != "board":
            return ""
        return self.stints[-1].board if self.stints else self.outage.subject

    @property
    def access_point(self) -> str:
        """The access point that it is the outage of; empty for what is none."""
        return point.id_of(self.outage.subject) if self.outage.kind == "access-point" else ""

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
            "access_point": self.access_point or None,
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
            "times": found.times,
            "effect": self.effect,
            "cause": self.cause,
            "evidence": self.evidence.document(zone) if self.evidence else None,
        }


@dataclass(frozen=True)
class Outages:
    """The outages that touch a period, with their true begin and end.

    Attributes:
        causes: what broke, by start; `found` says of each outage which one is its cause.
        districts: their sites, of those that were asked for.
        names: what people call the causes.
        figures: how often each subject failed, how long, and how long it worked between.
        maintenance: the windows in the period, in which none is seen.
        calendar: by which they are; None is around the clock.
    """

    city: str
    period: Period
    zone: ZoneInfo
    found: tuple[PlacedOutage, ...]
    causes: tuple[Cause, ...]
    districts: Mapping[str, Collection[str]]
    names: tuple[str, ...]
    figures: tuple[Figure, ...]
    maintenance: tuple[Maintenance, ...] = ()
    calendar: str | None = None

    def summary(self, kind: str, sites: Collection[str] | None = None) -> Summary:
        """Return the figures of all subjects of a kind together, or of those of some sites."""
        return reliability.total(
            each.summary
            for each in self.figures
            if each.subject.kind == kind and (sites is None or each.site in sites)
        )

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "period": self.period.document(self.zone),
            "calendar": self.calendar or ALWAYS,
            "causes": [self._cause(number) for number in range(len(self.causes))],
            "outages": [each.document(self.zone) for each in self.found],
            **{name: self.summary(kind).document() for kind, name in reliability.KINDS.items()},
            "districts": [
                {"district": district} | self.summary("line", sites).document()
                for district, sites in self.districts.items()
            ],
            "subjects": [
                {"subject": str(each.subject)} | each.summary.document() for each in self.figures
            ],
            "maintenance": [each.document(self.zone) for each in self.maintenance],
        }

    def name_of(self, number: int) -> str:
        """Return what people call a cause."""
        return self.names[number]

    def _cause(self, number: int) -> dict[str, Any]:
        cause = self.causes[number]
        layer, reason = cause.outages[0].outage.cause if cause.outages else (0, 0)
        return {
            "kind": cause.kind,
            "id": cause.name,
            "name": self.name_of(number),
            "sites": list(cause.sites),
            "start": iso(cause.start_s, self.zone),
            "end": iso(cause.end_s, self.zone),
            "end_by": cause.end,
            "length_s": span.length_s(cause.down),
            "times": cause.times,
            "layer": layer_name(layer),
            "reason": term.reason_name(reason),
            "lines": list(cause.lines),
            "access_points": list(cause.points),
            "rooms": [{"site": site, "room": room} for site, room in cause.rooms],
            "outages": [n for n, each in enumerate(self.found) if each.cause == number],
        }


def outages(
    city: Inventory,
    period: Period,
    site: str | None = None,
    now_s: int | None = None,
    *,
    calendar: str | None = None,
    with_evidence: bool = False,
) -> Outages:
    """Return the outages of lines, access points and boards that touch a period, by their start.

    With evidence each brings the report that began it, which has to be looked for.

    Args:
        city: its inventory.
        period: what is asked for.
        site: of which; None is all.
        now_s: until when is looked for their end; None is now.
        calendar: cut to what lies within it, where an outage lasts over its breaks; `OWN` is each
            site's own, None is around the clock.
        with_evidence: whether to look for it.

    Raises: UsageError: no such site or calendar. ConfigurationError: what does not count cannot
        be told. StoreError: there is no store to read.
    """
    if site:
        city.site(site)
    places = {each.subject: each for each in post.posts(city)}
    end_s = max(period.end_s, int(time.time()) if now_s is None else now_s)
    with Store(city.folder).reading() as connection:
        found, intervals = _found(connection, city, places, period, end_s=end_s, calendar=calendar)
        boards = intervals["board"]
        causes = correlation.find(correlate.seen(connection, city, places, found, boards))
        causes += correlate.silences(connection, city, places, boards, (period, _collected_s(city)))
        causes = [each for each in causes if site is None or site in each.sites]
        causes.sort(key=lambda each: (each.start_s, each.kind, each.name))
        placed = list(_placed(city, places, causes, site))
        if with_evidence:
            began = _began(connection, placed)
            placed = [replace(each, evidence=began.get(n)) for n, each in enumerate(placed)]
    figures = reliability.figures(city, places, intervals, period, through=calendar is not None)
    sites = [site] if site else sorted(city.sites)
    return Outages(
        city.city.name,
        period,
        ZoneInfo(city.city.timezone),
        tuple(placed),
        tuple(causes),
        {
            district: [each for each in sites if city.sites[each].district == district]
            for district in sorted({city.sites[each].district for each in sites})
        },
        tuple(_cause_name(city, each) for each in causes),
        tuple(each for each in figures if site in (None, each.site)),
        tuple(maintenance.holding(city, period)),
        calendar,
    )


def _found(
    connection: duckdb.DuckDBPyConnection,
    city: Inventory,
    places: Mapping[str, Post],
    period: Period,
    *,
    end_s: int,
    calendar: str | None,
) -> tuple[list[Outage], dict[Kind, list[Interval]]]:
    """Return the outages that touch a period, in whole, and the intervals around them by kind."""
    ((earliest_s,),) = connection.execute("SELECT min(start_s) FROM interval").fetchall()
    floor_s = end_s if earliest_s is None else earliest_s
    start_s, points = period.start_s, point.of(city)
    excluded = _excluded(city, Period(start_s, end_s), calendar)
    while True:
        asked = Period(start_s, end_s)
        ledger = Ledger(connection, asked, post.stints(places.values()), excluded.windows, points)
        found = [
            each
            for each in outage.find(ledger, through=calendar is not None)
            if each.start_s < period.end_s and each.end_s > period.start_s
        ]
        intervals = {kind: ledger.intervals(kind) for kind in _KINDS}
        if start_s <= floor_s or not _is_cut(found, intervals):
            return found, intervals
        start_s = max(floor_s, end_s - _LOOK_BACK * (end_s - start_s))
        try:
            excluded = _excluded(city, Period(start_s, end_s), calendar)
        except ConfigurationError:
            return found, intervals  # no calendar knows what was so long ago


def _excluded(city: Inventory, period: Period, calendar: str | None) -> Exclusion:
    if calendar is None:
        return exclusion.maintenance_only(city, period)
    return exclusion.find(city, period, city.sites, None if calendar == OWN else calendar)


def _is_cut(found: Sequence[Outage], intervals: Mapping[Kind, Sequence[Interval]]) -> bool:
    """Tell whether an outage may have begun before the ledger does."""
    first: dict[tuple[str, str], int] = {}
    for kind, every in intervals.items():
        for each in every:
            if each.state != table.EXCLUDED:
                first.setdefault((kind, each.subject), each.start_s)
    return any(each.start_s == first[each.kind, each.subject] for each in found)


def _collected_s(city: Inventory) -> dict[str, int]:
    visits = visit.load(Store(city.folder).folder)
    return {gateway: int(each.collected.timestamp()) for gateway, each in visits.items()}


def _began(
    connection: duckdb.DuckDBPyConnection, found: Sequence[PlacedOutage]
) -> dict[int, Evidence]:
    """Return the report that began each outage, by its place in the list.

    Of a board it is the first that says down; of a line the first of its boards that says so
    of the internet; of an access point the first scan of a board that looked for it. Left out
    are those of which the bytes are no longer kept.
    """
    asked = [
        (
            number,
            stint.board,
            each.outage.kind,
            max(each.outage.start_s, stint.start_s),
            min(each.outage.end_s, stint.end_s),
        )
        for number, each in enumerate(found)
        for stint in each.stints or [Stint("", each.board, "")]
    ]
    if not asked:
        return {}
    numbers, boards, kinds, starts, ends = map(list, zip(*asked, strict=True))
    rows = connection.execute(
        _BEGAN,
        {
            "numbers": numbers,
            "boards": boards,
            "kinds": kinds,
            "starts": starts,
            "ends": ends,
            "down": [n for n in term.REASONS if table.reason_state(n) == table.DOWN],
            "state": table.DOWN,
            "from": min(starts),
            "to": max(ends) + _LONGEST_PERIOD_S,
        },
    )
    began = rows.fetchall()
    if not began:
        return {}
    numbers, devices, keys, seqs = map(list, zip(*began, strict=True))
    sealed = connection.execute(
        _SEALED, {"numbers": numbers, "devices": devices, "keys": keys, "seqs": seqs}
    )
    return {number: Evidence(device, wire.unpack(raw)) for number, device, raw in sealed.fetchall()}


# The report that ends a stretch may be made up to 2.5 periods after it, if a window cuts it short.
_BEGAN = """
    WITH asked AS (
        SELECT unnest($numbers::BIGINT[]) AS number, unnest($boards::VARCHAR[]) AS device,
            unnest($kinds::VARCHAR[]) AS kind, unnest($starts::BIGINT[]) AS start_s,
            unnest($ends::BIGINT[]) AS end_s
    )
    SELECT DISTINCT ON (number) number, device, key_id, seq
    FROM asked JOIN report USING (device)
    WHERE time_s > $from AND time_s <= $to
        AND time_s > start_s AND time_s <= end_s + period_s * 5 // 2
        AND CASE kind WHEN 'line' THEN internet_reason IN (SELECT unnest($down::INTEGER[]))
            WHEN 'access-point' THEN coalesce(heard_all, false)
            ELSE state = $state END
    ORDER BY number, time_s, seq DESC, device
"""
_SEALED = """
    SELECT number, device, raw FROM (
        SELECT unnest($numbers::BIGINT[]) AS number, unnest($devices::VARCHAR[]) AS device,
            unnest($keys::INTEGER[]) AS key_id, unnest($seqs::BIGINT[]) AS seq
    ) JOIN sealed USING (device, key_id, seq)
"""


def _placed(
    city: Inventory,
    places: Mapping[str, Post],
    causes: Sequence[Cause],
    site: str | None,
) -> Iterator[PlacedOutage]:
    """Yield the outages by their causes' start, what is the cause itself before its effects."""
    in_room: dict[tuple[str, str], list[Post]] = {}
    for place in places.values():
        in_room.setdefault((place.site, place.room), []).append(place)
    for number, cause in enumerate(causes):
        for each in cause.outages:
            if site not in (None, each.site):
                continue
            found = each.outage
            others = in_room.get((each.site, each.room), [])
            is_whole = each.is_line or each.is_point
            itself = cause.kind in ("line", "room", "board") or each.is_point
            itself = itself and cause.kind != "site" and each is cause.outages[0]
            subjects = found.boards if is_whole else (found.subject,)
            room = each.room
            if each.is_point:
                room = city.access_points[each.access_point].room or ""
            yield PlacedOutage(
                found,
                each.site,
                _name(city, each.site),
                room,
                alone_in_room=sum(bool(o.within(found.start_s, found.end_s)) for o in others) == 1,
                effect=not itself or (len(cause.outages) > 1 and not is_whole),
                cause=number,
                stints=tuple(
                    stint
                    for subject in subjects
                    if subject in places
                    for stint in places[subject].within(found.start_s, found.end_s)
                ),
            )


def _cause_name(city: Inventory, found: Cause) -> str:
    site = _name(city, found.sites[0]) if found.sites else ""
    names = {
        "provider": lambda: f"provider {city.providers[found.name].name}",
        "district": lambda: f"district {city.districts[found.name].name}",
        "line": lambda: f"{site}, line",
        "gateway": lambda: f"{site}, gateway",
        "site": lambda: site,
        "access-point": lambda: f"{site}, access point {found.name}",
        "room": lambda: f"{site} {found.name}",
        "board": lambda: f"{site} {_room_of(found)} {found.name}" if site else
        f"not registered: {found.name}",
        "netzpuls": lambda: f"Netzpuls at {found.name}",
        "silence": lambda: f"silence at {found.name}",
    }  # fmt: skip
    return names[found.kind]()


def _room_of(found: Cause) -> str:
    return found.outages[0].room


def _name(city: Inventory, site: str) -> str:
    return city.sites[site].name if site in city.sites else ""


def layer_name(number: int) -> str:
    """Return the name of a layer, or `layer-<n>` for one from a newer board."""
    return term.LAYERS[number] if number < len(term.LAYERS) else f"layer-{number}"
