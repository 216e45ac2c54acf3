"""Lays what boards said and heard anew from their reports, whatever is kept of it.

For stores that knew less, and for boards of which the ledger was damaged. A transaction is open.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np

from fleet.store import air, clock, fold
from fleet.store.fold import END_S, NEVER_S, Columns
from fleet.store.increment import registered
from fleet.store.part import Shelf
from fleet.store.schema import HEARD, INTERVAL, SIGHTING

_FACT_COLUMNS = ("state", "layer", "reason", "gateway_reason", "internet_reason")
_CLOCK_COLUMNS = ("device", "key_id", "seq", "boot", "period_s", "uptime_cs", "time_s", "clock")
_COLUMNS = (*_CLOCK_COLUMNS, *_FACT_COLUMNS, *HEARD)
_BOARDS = 100


def lay(
    connection: duckdb.DuckDBPyConnection,
    shelf: Shelf,
    boards: list[str],
    since_s: int | None = None,
    *,
    said: bool = True,
) -> None:
    """Put what reports say in the place of what is kept of boards.

    Args:
        connection: to the store, open for writing.
        shelf: where the reports are.
        boards: their ids.
        since_s: what is older stays as it is: of it not all reports are left; None for all.
        said: what they said, too, and not only what they heard.
    """
    for at in range(0, len(boards), _BOARDS):
        some = sorted(boards)[at : at + _BOARDS]
        rows = _timed(connection, shelf, some, None if since_s is None else "boot")
        there = rows["board"][fold.begins(rows["board"])]
        never_s = np.full(len(there), NEVER_S)
        at_s = rows["at_s"]
        start_s = fold.since(rows["board"], at_s, at_s, rows["period_s"], never_s)
        low_s = NEVER_S if since_s is None else since_s
        rows |= {"start_s": np.maximum(start_s, low_s), "end_s": at_s}
        ranges = {
            "board": np.arange(len(some)),
            "low_s": np.full(len(some), low_s),
            "high_s": np.full(len(some), END_S),
        }
        sky = air.Sky()
        rows["air"] = sky.numbers(rows["air"])
        if said:
            old = _kept(connection, "interval", INTERVAL, some, low_s)
            old["fact"] = fold.packed(old)
            for name in fold.FACTS:
                del old[name]
            new = fold.laid(
                rows["board"], rows["start_s"], at_s, rows["period_s"], fold.facts(rows)
            )
            laid = fold.relaid(old, ranges, new)
            laid |= fold.spelled(laid.pop("fact"))
            _replace(connection, "interval", INTERVAL, some, laid)
        old = _kept(connection, "sighting", SIGHTING, some, low_s)
        _replace(
            connection, "sighting", SIGHTING, some, air.relaid(old, ranges, sky.sightings(rows))
        )


def _timed(
    connection: duckdb.DuckDBPyConnection, shelf: Shelf, boards: list[str], known: str | None
) -> Columns:
    """Return boards' reports by (board, time), the one that holds first, and `air`."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE told AS SELECT {', '.join(_COLUMNS)} "
        f"FROM ({shelf.source(_COLUMNS)}) WHERE device IN (SELECT unnest($1::VARCHAR[]))",
        [boards],
    )
    rows: Columns = connection.execute(
        "SELECT list_position($1::VARCHAR[], device)::BIGINT - 1 AS board, at_s, "
        f"period_s::BIGINT AS period_s, {', '.join(_FACT_COLUMNS)}, {air.KEY} AS air "
        f"FROM ({clock.timed('told', known)}) ORDER BY board, at_s, key_id DESC, seq DESC",
        [boards],
    ).fetchnumpy()
    connection.execute("DROP TABLE told")
    return rows


def _kept(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: dict[str, str],
    boards: list[str],
    before_s: int,
) -> Columns:
    """Return what is kept of boards before a time, by board and time, as far as it makes sense."""
    names = ", ".join(name for name in columns if name != "device")
    found: Columns = connection.execute(
        f"SELECT list_position($1::VARCHAR[], device)::BIGINT - 1 AS board, {names} FROM {table} "
        "WHERE device IN (SELECT unnest($1::VARCHAR[])) AND start_s < end_s "
        f"AND end_s <= {END_S} "
        f"AND start_s >= {NEVER_S} AND start_s < $2 ORDER BY board, start_s",
        [boards, before_s],
    ).fetchnumpy()
    return found


def _replace(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: dict[str, str],
    boards: list[str],
    rows: Columns,
) -> None:
    connection.execute(
        f"DELETE FROM {table} WHERE device IN (SELECT unnest($1::VARCHAR[]))", [boards]
    )
    given: dict[str, Any] = rows | {"device": np.array(boards, object)[rows["board"]]}
    with registered(connection, "given", given):
        connection.execute(f"INSERT INTO {table} BY NAME SELECT {', '.join(columns)} FROM given")
