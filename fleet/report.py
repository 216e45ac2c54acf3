"""What the fleet tool answers about outages, as plain data.

    city = inventory.load(folder)
    answer = outages(city, Period(start_s, end_s))
    answer.document()        # as --json prints it

Commands print it, the demo counts it, and both ask the same functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from firmware.linkreport import report as wire
from firmware.linkreport import table, term
from fleet import detail, exclusion, maintenance, outage, post
from fleet.inventory import Inventory
from fleet.ledger import Ledger, Stint
from fleet.maintenance import Maintenance
from fleet.outage import Outage
from fleet.period import Period, iso
from fleet.post import Post
from fleet.store import Store

# To find where an outage began, each look back is so many times as long as the one before.
_LOOK_BACK = 8
_LONGEST_PERIOD_S = 65_536


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
    """The outages that touch a period, with their true begin and end.

    Attributes:
        maintenance: the windows in the period, in which none is seen.
    """

    city: str
    period: Period
    zone: ZoneInfo
    found: tuple[PlacedOutage, ...]
    maintenance: tuple[Maintenance, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "period": self.period.document(self.zone),
            "outages": [each.document(self.zone) for each in self.found],
            "maintenance": [each.document(self.zone) for each in self.maintenance],
        }


def outages(
    city: Inventory,
    period: Period,
    site: str | None = None,
    now_s: int | None = None,
    *,
    with_evidence: bool = False,
) -> Outages:
    """Return the outages of lines and boards that touch a period, by their start.

    With evidence each brings the report that began it, which has to be looked for.

    Raises: UsageError: no such site. ConfigurationError: the maintenance file is wrong.
        StoreError: there is no store to read.
    """
    if site:
        city.site(site)
    places = {each.subject: each for each in post.posts(city)}
    end_s = max(period.end_s, int(time.time()) if now_s is None else now_s)
    with Store(city.folder).reading() as connection:
        ((earliest_s,),) = connection.execute("SELECT min(start_s) FROM interval").fetchall()
        floor_s = end_s if earliest_s is None else earliest_s
        start_s = period.start_s
        while True:
            asked = Period(start_s, end_s)
            windows = exclusion.maintenance_only(city, asked).windows
            found = [
                each
                for each in outage.find(
                    Ledger(connection, asked, post.stints(places.values()), windows)
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
    return Outages(
        city.city.name,
        period,
        ZoneInfo(city.city.timezone),
        tuple(placed),
        tuple(maintenance.holding(city, period)),
    )


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
