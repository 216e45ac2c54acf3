"""What boards said, found anew from all reports: quickly where they lie as they were made.

Day files are sorted as boards report, so nearly every report continues the one before it: the same
board, boot and clock, the same words, in time. One pass in the order in which rows lie, without
sorting, keeps only where that ends: some hundred rows of a day. The order is not trusted: a
*stretch* is whatever was seen to be one, however rows came. If the stretches of a board do not
follow one another in time, its reports are looked at one by one, by the SQL of `fleet/ledger.py`;
so are boots whose clock may have been set back, by that of `fleet/store/clock.py`.

    piece      of each day, and of what is in no day file: where stretches end and begin
    stretch    from which report to which
    clocked    by which clock each boot is timed
    timed      stretches and single reports in time
    told       what they assert, as `fleet.ledger.ASSERTED` says it

Source: docs/fleet.md, "How time is counted"; docs/adr/0022-recomputing-without-sorting.md.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants)

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb

from firmware.linkreport import table
from fleet import ledger
from fleet.store import clock
from fleet.store.increment import registered
from fleet.store.part import Shelf

_COLUMNS = (
    "device", "key_id", "seq", "boot", "period_s", "uptime_cs", "time_s", "clock", "state",
    "layer", "reason", "gateway_reason", "internet_reason",
)  # fmt: skip
_NAMES = ", ".join(_COLUMNS)
_FACTS = "state, layer, reason, gateway_reason, internet_reason"
_BOOT = "device, key_id, boot"
TOLD = "FROM told WHERE start_s < $end_s AND end_s > $start_s"

# Numbers follow one another within a stretch, so a late report of another file lies between two.
# Kept is the first row of each, beside the last of the one before, and the last row of all.
_SAME = ("key_id", "boot", "period_s", "clock", "state", "layer", "reason", "gateway_reason",
    "internet_reason")  # fmt: skip
_PIECE = f"""
    SELECT {_NAMES}, NOT continues AS begins, number, coalesce(seq_before, 0) AS seq_before,
        coalesce(time_before_s, 0) AS time_before_s
    FROM (
        SELECT *, coalesce(
            hash = hash_before AND {" AND ".join(f"{name} = {name}_before" for name in _SAME)}
                AND clock >= {table.CLOCK_NTP} AND seq::BIGINT - seq_before = 1
                AND time_before_s > 0 AND time_s > time_before_s
                AND 2 * (time_s::BIGINT - time_before_s) <= 5 * period_s::BIGINT,
            false) AS continues
        FROM (
            SELECT {_NAMES}, hash(device) AS hash, lag(hash(device)) OVER () AS hash_before,
                {", ".join(f"lag({name}) OVER () AS {name}_before" for name in _SAME)},
                lag(seq) OVER () AS seq_before, lag(time_s) OVER () AS time_before_s,
                row_number() OVER () AS number
            FROM {{source}}
        )
    )
    WHERE NOT continues OR number = (SELECT count(*) FROM {{source}})
"""


def _last(name: str, before: str) -> str:
    """Return SQL for a value of a stretch's last row."""
    return (
        f"CASE WHEN lead(begins) OVER w THEN lead({before}) OVER w "
        f"ELSE coalesce(lead({name}) OVER w, {name}) END::BIGINT"
    )


_STRETCH = f"""
    SELECT {_BOOT}, period_s, {_FACTS}, {clock.TRUST} AS trust, seq::BIGINT AS first_seq,
        time_s::BIGINT AS first_s, uptime_cs::BIGINT AS first_cs, last_seq, last_s
    FROM (
        SELECT *, {_last("seq", "seq_before")} AS last_seq,
            {_last("time_s", "time_before_s")} AS last_s
        FROM piece WINDOW w AS (PARTITION BY source ORDER BY number)
    ) WHERE begins
"""
# The clock of each boot; `doubtful` where it may have been set back.
_CLOCKED = f"""
    SELECT {_BOOT}, any_value(trust) AS best, bool_or(falls) AS doubtful,
        arg_min(first_s * 100 - first_cs, first_seq) AS boot_cs
    FROM (
        SELECT *, coalesce(first_seq <= lag(last_seq) OVER w OR first_s < lag(last_s) OVER w, false)
            AS falls
        FROM (
            SELECT *, max(trust) OVER (PARTITION BY {_BOOT}) AS best FROM stretch
        ) WHERE trust = best AND best > 0
        WINDOW w AS (PARTITION BY {_BOOT} ORDER BY first_seq)
    )
    GROUP BY ALL
"""
_DOUBTFUL = f"SELECT {_NAMES} FROM report SEMI JOIN (FROM clocked WHERE doubtful) USING ({_BOOT})"
# Only one row has a time by which it is not the best that its boot knows.
_TIMED = f"""
    SELECT device, key_id, last_seq AS seq, period_s, {_FACTS},
        CASE WHEN trust = best THEN first_s ELSE (boot_cs + first_cs) // 100 END AS first_s,
        CASE WHEN trust = best THEN last_s ELSE (boot_cs + first_cs) // 100 END AS last_s
    FROM stretch JOIN clocked USING ({_BOOT}) WHERE NOT doubtful
    UNION ALL
    SELECT device, key_id, seq, period_s, {_FACTS}, at_s, at_s
    FROM ({clock.timed("doubtful_row")})
"""
_ORDER = "PARTITION BY device ORDER BY first_s, key_id DESC, seq DESC"
# Of single reports with equal times the one that holds comes first; a stretch meets nobody.
_CROSSING = f"""
    SELECT DISTINCT device FROM (
        SELECT *, max(last_s) OVER w AS reached_s,
            max(CASE WHEN first_s < last_s THEN last_s END) OVER w AS stretched_s
        FROM timed
        WINDOW w AS ({_ORDER} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
    WHERE first_s < reached_s OR first_s = stretched_s
        OR (first_s = reached_s AND first_s < last_s)
"""
_CROSSING_ROW = f"SELECT {_NAMES} FROM report SEMI JOIN crossing USING (device)"
_TOLD = f"""
    SELECT device,
        first_s - CASE WHEN 2 * gap_s <= 5 * period_s::BIGINT THEN gap_s ELSE period_s END
            AS start_s,
        last_s AS end_s, {ledger.FACTS}
    FROM (
        SELECT *, first_s - lag(last_s) OVER ({_ORDER}) AS gap_s
        FROM timed ANTI JOIN crossing USING (device)
    )
    UNION ALL BY NAME {ledger.asserted(clock.timed("crossing_row"))}
"""
_TABLES = {
    "stretch": _STRETCH,
    "clocked": _CLOCKED,
    "doubtful_row": _DOUBTFUL,
    "timed": _TIMED,
    "crossing": _CROSSING,
    "crossing_row": _CROSSING_ROW,
    "told": _TOLD,
}


def tell(connection: duckdb.DuckDBPyConnection, shelf: Shelf) -> str:
    """Make the table `told` of what boards said at all times, from all reports.

    Args:
        connection: where `report` is; may be read-only.
        shelf: where its reports are.

    Returns: SQL for it, as `fleet.ledger.KEPT` is.
    Raises: duckdb.Error: a day file is missing or damaged.
    """
    made = [connection.cursor() for _ in range(os.cpu_count() or 1)]
    free = list(made)

    def pieces(source: str) -> dict[str, Any]:
        cursor = free.pop()
        try:
            found: dict[str, Any] = cursor.execute(_PIECE.format(source=source)).fetchnumpy()
        finally:
            free.append(cursor)
        return found

    sources = [*shelf.files(), "recent"]
    nothing = _PIECE.format(source="(FROM recent LIMIT 0)")
    execute = connection.execute
    execute(f"CREATE OR REPLACE TEMP TABLE piece AS SELECT 0 AS source, * FROM ({nothing})")
    try:
        with ThreadPoolExecutor(len(made)) as pool:
            for number, found in enumerate(pool.map(pieces, sources)):
                if len(found["seq"]):
                    with registered(connection, "found", found):
                        execute(f"INSERT INTO piece SELECT {number}, * FROM found")
    finally:
        for cursor in made:
            cursor.close()
    for name, query in _TABLES.items():
        execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    return TOLD
