"""Access points: which of them are in the air, by what all boards of their site hear.

A *monitor* is a board while it hangs in a place of the access point's site. It *sees* the access
point over the time of a report whose scan heard one of its BSSIDs. It *normally sees* it on a day
(UTC) if, of the last seven days up to that one on which it saw it at all, it heard it well for
half of the time in which it saw it, or more; from when it first saw it on. At an instant an access
point is

    up        if a monitor sees it
    down      if none does, and one that normally sees it scanned and knows all that was in the air
    unknown   otherwise

All of it follows from the set of reports. A day on which it was not seen tells nothing of what is
normal, so that an outage, however long, is not taken for the rule.

Source: docs/fleet.md, "How time is counted", 9. `tests/fleet/reference.py` says the same slowly.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb

from firmware.linkreport import table
from fleet import span
from fleet.inventory import Inventory
from fleet.period import Period
from fleet.stint import FOREVER_S, Stint, Window, fill
from fleet.store import clock
from fleet.store.air import BSSID_BYTES, SCAN

DAY_S = 86_400
# Of so many days on which it was seen it is told whether a monitor normally sees an access point.
USUAL_DAYS = 7
# So many days before a period mostly hold as many on which it was seen; else all are looked at.
LOOK_BACK_DAYS = 14


@dataclass(frozen=True)
class Point:
    """An access point: `subject` is what the ledger calls it, `bssids` are numbers."""

    subject: str
    site: str
    bssids: tuple[int, ...]

    @property
    def id(self) -> str:
        """Its id in the inventory."""
        return id_of(self.subject)


def of(city: Inventory) -> list[Point]:
    """Return the access points of an inventory."""
    return [
        Point(
            subject(point_id),
            point.site,
            tuple(int(bssid.replace(":", ""), 16) for bssid in point.bssids),
        )
        for point_id, point in city.access_points.items()
    ]


def subject(point_id: str) -> str:
    """Return what the ledger calls an access point, so that it is no board and no site."""
    return f"access-point/{point_id}"


def id_of(subject: str) -> str:
    """Return the id of an access point, as the inventory has it."""
    return subject.partition("/")[2]


def address(bssid: int) -> str:
    """Return a BSSID as people write it; of a scan of which all is known, `all`."""
    return bssid.to_bytes(BSSID_BYTES).hex(":") if bssid != SCAN else "all"


def lay(
    connection: duckdb.DuckDBPyConnection,
    period: Period,
    stints: Sequence[Stint],
    windows: Iterable[Window],
    points: Iterable[Point],
    *,
    recompute: bool,
) -> None:
    """Make `point_piece`, when access points were up or down, and `lack`, who missed them.

    Windows of access points and sites are not laid over it yet; those of boards are: a board in
    maintenance is no monitor.
    """
    fill(
        connection, "point", "subject VARCHAR, site VARCHAR, bssid BIGINT",
        ((p.subject, p.site, bssid) for p in points for bssid in p.bssids),
    )  # fmt: skip
    fill(
        connection, "stay",
        "number BIGINT, subject VARCHAR, device VARCHAR, site VARCHAR, start_s BIGINT, "
        "end_s BIGINT",
        ((n, s.subject, s.board, s.site, s.start_s, s.end_s) for n, s in enumerate(stints)),
    )  # fmt: skip
    shut: dict[str, list[span.Span]] = {}
    for window in windows:
        shut.setdefault(window.subject, []).append((window.start_s, window.end_s))
    fill(
        connection, "watch", "stay BIGINT, start_s BIGINT, end_s BIGINT",
        (
            (number, *stretch)
            for number, stint in enumerate(stints)
            for stretch in span.minus([(stint.start_s, stint.end_s)], shut.get(stint.board, []))
        ),
    )  # fmt: skip
    execute = connection.execute
    said = KEPT
    if recompute:
        execute(f"CREATE OR REPLACE TEMP TABLE recomputed_sighting AS {told(connection)}")
        said = "FROM recomputed_sighting"
    first_day = period.start_s // DAY_S
    low_s = (first_day - LOOK_BACK_DAYS) * DAY_S
    # A day's end, for the whole day tells what is normal.
    until_s = -(-period.end_s // DAY_S) * DAY_S
    edges = {"start_s": period.start_s, "end_s": period.end_s}
    older = _SEEN.format(said=said, from_s=-FOREVER_S, until_s=low_s)
    for name, query, values in (
        ("seen", _SEEN.format(said=said, from_s=low_s, until_s=until_s), None),
        ("daily", _DAILY.format(seen="seen"), None),
        ("pair", _PAIR.format(first_day=first_day), None),
        ("older", f"FROM ({older}) SEMI JOIN pair USING (subject, stay)", None),
        ("usual", _USUAL.format(older=_DAILY.format(seen="older")), None),
        ("lack", _LACK.format(said=said), edges),
        ("point_piece", _PIECE, edges),
    ):
        execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", values)


KEPT = "FROM sighting"
# The same from all reports. Of those with equal times the highest number comes first; the gap
# before the others is 0, so that they cover nothing.
_TOLD = f"""
    WITH spaced AS (
        SELECT *, at_s - lag(at_s) OVER w AS gap_s FROM ({{timed}})
        WINDOW w AS (PARTITION BY device ORDER BY at_s, key_id DESC, seq DESC)
    ),
    covering AS (
        SELECT *, at_s AS end_s,
            at_s - CASE WHEN 2 * gap_s <= 5 * period_s::BIGINT THEN gap_s ELSE period_s END
                AS start_s
        FROM spaced
    ),
    named AS (
        SELECT device, start_s, end_s, {SCAN} AS bssid, false AS well FROM covering WHERE heard_all
        UNION ALL
        SELECT device, start_s, end_s, ('0x' || unnest(regexp_extract_all(hex(heard_well),
            {{digits}}')))::BIGINT, true FROM covering
        UNION ALL
        SELECT device, start_s, end_s, ('0x' || unnest(regexp_extract_all(hex(heard_weakly),
            {{digits}}')))::BIGINT, false FROM covering
    )
    SELECT device, bssid, start_s, end_s, bool_or(well) AS well
    FROM named WHERE start_s < end_s GROUP BY ALL
"""

_DIGITS = f"'.{{{2 * BSSID_BYTES}}}"


def told(connection: duckdb.DuckDBPyConnection, *, expired: bool = False) -> str:
    """Return SQL for the sightings that all reports tell of, as `KEPT` is of those that are kept.

    Args:
        connection: where `report` is; may be read-only.
        expired: reports were let go: boots are timed by what is still known of them.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW hearing AS FROM report SEMI JOIN "
        "(SELECT DISTINCT device FROM report WHERE heard_all IS NOT NULL) USING (device)"
    )
    timed = clock.timed("hearing", "boot" if expired else None)
    return _TOLD.format(timed=timed, digits=_DIGITS)


# What monitors saw, as long as there are reports.
_SEEN = """
    SELECT point.subject, stay.number AS stay,
        greatest(said.start_s, stay.start_s, {from_s}) AS start_s,
        least(said.end_s, stay.end_s, {until_s}) AS end_s, well
    FROM ({said}) AS said JOIN point USING (bssid)
        JOIN stay ON stay.device = said.device AND stay.site = point.site
    WHERE said.start_s < least(stay.end_s, {until_s})
        AND said.end_s > greatest(stay.start_s, {from_s})
"""
_DAILY = f"""
    WITH edge AS (
        SELECT subject, stay, start_s AS at_s, 1 AS seen, well::INT AS well FROM {{seen}}
        UNION ALL SELECT subject, stay, end_s, -1, -(well::INT) FROM {{seen}}
    ),
    stretch AS (
        SELECT subject, stay, at_s AS start_s, lead(at_s) OVER w AS end_s,
            sum(seen) OVER w > 0 AS seen, sum(well) OVER w > 0 AS well
        FROM (
            SELECT subject, stay, at_s, sum(seen) AS seen, sum(well) AS well FROM edge GROUP BY ALL
        )
        WINDOW w AS (PARTITION BY subject, stay ORDER BY at_s)
    ),
    part AS (
        SELECT subject, stay, day, well, greatest(start_s, day * {DAY_S}) AS start_s,
            least(end_s, day * {DAY_S} + {DAY_S}) AS end_s
        FROM (
            SELECT *, unnest(range(start_s // {DAY_S}, (end_s - 1) // {DAY_S} + 1)) AS day
            FROM stretch WHERE seen
        )
    )
    SELECT subject, stay, day, min(start_s) AS first_s, sum(end_s - start_s) AS seen_s,
        coalesce(sum(end_s - start_s) FILTER (well), 0) AS well_s
    FROM part GROUP BY ALL
"""
# Of these not enough days are among those looked at; mostly because it was never seen there.
_PAIR = f"""
    FROM (SELECT DISTINCT point.subject, number AS stay FROM point JOIN stay USING (site))
    ANTI JOIN (
        SELECT subject, stay FROM daily WHERE day <= {{first_day}} GROUP BY ALL
        HAVING count(*) >= {USUAL_DAYS}
    ) USING (subject, stay)
"""
_USUAL = f"""
    WITH told AS (
        SELECT subject, stay, sum(seen_s) OVER recent AS seen_s, sum(well_s) OVER recent AS well_s,
            CASE WHEN lag(day) OVER w IS NULL THEN first_s ELSE day * {DAY_S} END AS start_s,
            coalesce(lead(day) OVER w * {DAY_S}, {FOREVER_S}) AS end_s
        FROM (FROM daily UNION ALL FROM ({{older}}))
        WINDOW w AS (PARTITION BY subject, stay ORDER BY day),
            recent AS (PARTITION BY subject, stay ORDER BY day
                ROWS BETWEEN {USUAL_DAYS - 1} PRECEDING AND CURRENT ROW)
    )
    SELECT subject, stay, start_s, end_s, seen_s::BIGINT AS seen_s, well_s::BIGINT AS well_s,
        2 * well_s >= seen_s AS is_usual
    FROM told
"""
# When monitors looked for what they normally see. Whether they saw it is not asked yet.
_LACK = f"""
    SELECT usual.subject, usual.stay,
        greatest(said.start_s, usual.start_s, watch.start_s, $start_s) AS start_s,
        least(said.end_s, usual.end_s, watch.end_s, $end_s) AS end_s
    FROM usual JOIN stay ON stay.number = usual.stay JOIN watch USING (stay)
        JOIN ({{said}}) AS said ON said.device = stay.device AND said.bssid = {SCAN}
    WHERE is_usual AND greatest(said.start_s, usual.start_s, watch.start_s, $start_s)
        < least(said.end_s, usual.end_s, watch.end_s, $end_s)
"""
_PIECE = f"""
    WITH edge AS (
        SELECT subject, stay, greatest(seen.start_s, watch.start_s, $start_s) AS from_s,
            least(seen.end_s, watch.end_s, $end_s) AS to_s, 1 AS sees, 0 AS lacks
        FROM seen JOIN watch USING (stay)
        WHERE seen.start_s < $end_s AND seen.end_s > $start_s
        UNION ALL
        SELECT subject, stay, start_s, end_s, 0, 1 FROM lack
    ),
    sided AS (
        SELECT subject, from_s AS at_s, sees, lacks FROM edge WHERE from_s < to_s
        UNION ALL
        SELECT subject, to_s, -sees, -lacks FROM edge WHERE from_s < to_s
    ),
    stretch AS (
        SELECT subject, at_s AS start_s, lead(at_s) OVER w AS end_s,
            sum(sees) OVER w > 0 AS sees, sum(lacks) OVER w > 0 AS lacks
        FROM (
            SELECT subject, at_s, sum(sees) AS sees, sum(lacks) AS lacks FROM sided GROUP BY ALL
        )
        WINDOW w AS (PARTITION BY subject ORDER BY at_s)
    )
    SELECT subject, start_s, end_s,
        CASE WHEN sees THEN {table.UP} ELSE {table.DOWN} END AS state,
        CASE WHEN sees THEN 0 ELSE {table.RADIO} END AS layer,
        CASE WHEN sees THEN {table.UNTESTED} ELSE {table.ACCESS_POINT_MISSING} END AS reason,
        sees AS reaches, NOT sees AS misses, {table.UNTESTED} AS internet_reason
    FROM stretch WHERE end_s IS NOT NULL AND (sees OR lacks)
"""
SUBJECTS = "SELECT DISTINCT subject FROM point"
WINDOWS = """
    SELECT point.subject, start_s, end_s
    FROM (SELECT DISTINCT subject, site FROM point) AS point
        JOIN excluded_window ON excluded_window.subject IN (site, point.subject)
"""
