"""Lets a store of before access points were told of know what its boards heard.

Versions 2 and 3 lack the columns `heard_…` and the table `sighting`. Both follow from the bytes
that boards sealed, as far as these are still kept. All of it is one transaction.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb

from firmware.linkreport import report as wire
from fleet.store import air, anew, schema
from fleet.store.part import Shelf

_KEY = ("device", "key_id", "seq")
_PIECE_ROWS = 100_000
_HEARD = ", ".join(schema.HEARD)


def hear(connection: duckdb.DuckDBPyConnection, folder: Path, tell: Callable[[str], None]) -> None:
    """Fill in what reports heard, in `recent` and in day files, and the sightings.

    Raises: StoreError: a file cannot be written; nothing has changed then.
    """
    tell("taking over the store of an older Netzpuls: which access points boards heard")
    execute = connection.execute
    learn(connection, "SELECT device, key_id, seq, raw FROM recent WHERE raw IS NOT NULL")
    execute(f"CREATE TABLE heard ({schema.DEFINITION})")
    execute(
        f"INSERT INTO heard BY NAME SELECT recent.*, {_HEARD} "
        f"FROM recent LEFT JOIN learnt USING ({', '.join(_KEY)})"
    )
    execute("DROP TABLE recent; ALTER TABLE heard RENAME TO recent")
    shelf = Shelf(connection, folder)
    for day in shelf.days():
        learn(connection, f"SELECT device, key_id, seq, raw FROM ({shelf.sealed_of(day)})")
        shelf.widen(day, f"learnt USING ({', '.join(_KEY)})", _HEARD)
    execute(f"CREATE TABLE sighting ({', '.join(f'{n} {k}' for n, k in schema.SIGHTING.items())})")
    boards = [name for (name,) in execute("SELECT DISTINCT device FROM boot").fetchall()]
    anew.lay(connection, Shelf(connection, folder), boards, said=False)
    execute("DROP TABLE learnt")


def learn(connection: duckdb.DuckDBPyConnection, sealed: str) -> None:
    """Make `learnt`: what reports heard by their sealed bytes, by their identity."""
    keys = ", ".join(f"{name} {schema.COLUMNS[name]}" for name in _KEY)
    columns = ", ".join(f"{name} {kind}" for name, kind in schema.HEARD.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE learnt ({keys}, {columns})")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE told AS SELECT row_number() OVER () AS number, * "
        f"FROM ({sealed})"
    )
    ((count,),) = connection.execute("SELECT count(*) FROM told").fetchall()
    for at in range(0, count, _PIECE_ROWS):
        rows = connection.execute(
            "SELECT * EXCLUDE (number) FROM told WHERE number > $1 AND number <= $2",
            [at, at + _PIECE_ROWS],
        ).fetchall()
        with connection.appender("learnt") as appender:
            for *key, raw in rows:
                found = air.heard(wire.unpack(raw))
                if found[0] is not None:
                    appender.append_row(*key, *found)
    connection.execute("DROP TABLE told")
