"""What is known of outages beyond the ledger, so that their causes can be told.

Which access point a board was on, whether another board in its room worked, and when all boards of
a gateway were silent together. `fleet.cause` decides from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import duckdb

from firmware.linkreport import table
from fleet import point, span
from fleet.cause import Cause, Seen
from fleet.inventory import Inventory
from fleet.ledger import Interval
from fleet.outage import Outage
from fleet.period import Period
from fleet.post import Post
from fleet.span import Span

# A silence that all boards of a gateway share counts from so long on; shorter ones are a restart.
SILENT_S = 900
# So far is looked for the access point that a board was on, and for reports around a silence.
_LOOK_AROUND_S = 86_400


def seen(
    connection: duckdb.DuckDBPyConnection,
    city: Inventory,
    places: Mapping[str, Post],
    found: Sequence[Outage],
    intervals: Sequence[Interval],
) -> list[Seen]:
    """Return the outages with what is known of their places.

    Args:
        connection: to the store.
        city: its inventory.
        places: the posts by subject.
        found: outages of lines, access points and boards.
        intervals: those of all boards in the time of the outages, by subject.
    """
    points = _access_points(connection, city, places, found)
    working = {
        subject: [(i.start_s, i.end_s) for i in some if i.state in (table.UP, table.DEGRADED)]
        for subject, some in groupby(intervals, key=attrgetter("subject"))
    }
    answers = []
    for number, each in enumerate(found):
        place = places.get(each.subject) if each.kind == "board" else None
        site_id = each.subject if each.kind == "line" else place.site if place else ""
        if each.kind == "access-point":
            points[number] = point.id_of(each.subject)
            site_id = city.access_points[points[number]].site
        site = city.sites.get(site_id)
        answers.append(
            Seen(
                each,
                site_id,
                place.room if place else "",
                _board(place, each) if each.kind == "board" else "",
                site.district if site else "",
                (site.provider or "") if site else "",
                points.get(number, ""),
                place is not None and _in_company(each, place, places, working),
            )
        )
    return answers


def silences(
    connection: duckdb.DuckDBPyConnection,
    city: Inventory,
    places: Mapping[str, Post],
    intervals: Sequence[Interval],
    asked: tuple[Period, Mapping[str, int]],
) -> list[Cause]:
    """Return the times in which all boards of a gateway were silent, two of them at least.

    What came after a gateway's last collection is not known yet, so it is no silence.

    Args:
        connection: to the store.
        city: its inventory.
        places: the posts by subject.
        intervals: those of all boards in the period, by subject.
        asked: the period, and when each gateway was collected last.
    """
    period, collected_s = asked
    by_gateway: dict[str, list[tuple[Post, list[Span], int]]] = {}
    for subject, some in groupby(intervals, key=attrgetter("subject")):
        place = places.get(subject)
        site = city.sites.get(place.site) if place else None
        if place is None or site is None:
            continue
        here = list(some)
        known = [i.start_s for i in here if i.state != table.UNKNOWN]
        if known:
            unknown = [(i.start_s, i.end_s) for i in here if i.state == table.UNKNOWN]
            by_gateway.setdefault(site.gateway, []).append((place, unknown, min(known)))
    causes = []
    for gateway, told in sorted(by_gateway.items()):
        if len(told) < 2:
            continue
        first_s = max(period.start_s, min(known_s for _, _, known_s in told))
        last_s = min(period.end_s, collected_s.get(gateway, period.end_s))
        together = [(first_s, max(first_s, last_s))]
        for _, unknown, _ in told:
            together = span.common(together, unknown)
        boards = [stint.board for place, _, _ in told for stint in place.stints]
        sites = tuple(sorted({place.site for place, _, _ in told}))
        for start_s, end_s in together:
            if end_s - start_s >= SILENT_S:
                lived = _lived(connection, boards, start_s, end_s)
                causes.append(
                    Cause(
                        "netzpuls" if lived else "silence",
                        gateway,
                        sites,
                        (),
                        ((start_s, end_s),),
                        "ongoing" if end_s == last_s else "recovered",
                    )
                )
    return causes


def _board(place: Post | None, found: Outage) -> str:
    stints = place.within(found.start_s, found.end_s) if place else ()
    return stints[-1].board if stints else found.subject


def _in_company(
    found: Outage, place: Post, places: Mapping[str, Post], working: Mapping[str, Sequence[Span]]
) -> bool:
    """Tell whether another place in the room worked for half of an outage or more."""
    return any(
        2 * span.length_s(span.common(working.get(subject, []), found.down)) >= found.length_s
        for subject, other in places.items()
        if subject != place.subject and (other.site, other.room) == (place.site, place.room)
    )


def _access_points(
    connection: duckdb.DuckDBPyConnection,
    city: Inventory,
    places: Mapping[str, Post],
    found: Sequence[Outage],
) -> dict[int, str]:
    """Return the access point that each board was on before its outage, by the outage's number."""
    asked = list(_asked(places, found))
    if not asked:
        return {}
    numbers, boards, starts = map(list, zip(*asked, strict=True))
    rows = connection.execute(
        _POINTS,
        {
            "numbers": numbers,
            "boards": boards,
            "starts": starts,
            "back": _LOOK_AROUND_S,
            "from": min(starts) - _LOOK_AROUND_S,
            "to": max(starts),
        },
    )
    ids = {bssid: each for each, there in city.access_points.items() for bssid in there.bssids}
    told = {number: bytes(bssid).hex(":") for number, bssid in rows.fetchall()}
    return {number: ids.get(bssid, bssid) for number, bssid in told.items()}


def _asked(places: Mapping[str, Post], found: Sequence[Outage]) -> Iterator[tuple[int, str, int]]:
    for number, each in enumerate(found):
        if each.kind == "board" and each.cause[0] in (table.RADIO, table.ASSOCIATION):
            place = places.get(each.subject)
            stints = place.within(each.start_s, each.start_s + 1) if place else ()
            yield number, stints[0].board if stints else each.subject, each.start_s


_POINTS = """
    WITH asked AS (
        SELECT unnest($numbers::BIGINT[]) AS number, unnest($boards::VARCHAR[]) AS device,
            unnest($starts::BIGINT[]) AS start_s
    )
    SELECT number, arg_max(bssid, time_s)
    FROM asked JOIN report USING (device)
    WHERE bssid IS NOT NULL AND time_s > $from AND time_s <= $to
        AND time_s > start_s - $back AND time_s <= start_s
    GROUP BY number
"""


def _lived(
    connection: duckdb.DuckDBPyConnection, boards: Sequence[str], start_s: int, end_s: int
) -> bool:
    """Tell whether half of the boards, or more, ran on in a silence: the same boot after it."""
    row = connection.execute(
        _BOOTS,
        {"boards": list(boards), "start": start_s, "end": end_s, "around": _LOOK_AROUND_S},
    ).fetchone()
    going_on, told = row or (0, 0)
    return bool(told) and 2 * int(going_on) >= int(told)


_BOOTS = """
    WITH edge AS (
        SELECT device,
            arg_max((key_id, boot), time_s) FILTER (time_s <= $start) AS before,
            arg_min((key_id, boot), time_s) FILTER (time_s >= $end) AS after
        FROM report
        WHERE time_s BETWEEN $start - $around AND $end + $around
            AND device IN (SELECT unnest($boards::VARCHAR[]))
        GROUP BY device
    )
    SELECT count(*) FILTER (before = after), count(*) FROM edge
    WHERE before IS NOT NULL AND after IS NOT NULL
"""
