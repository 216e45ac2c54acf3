"""Day files: where reports stay once their day is over.

    <city>/store/report/<day>/<name>.parquet   what reports say, sorted by (device, key, number)
    <city>/store/sealed/<day>/<name>.parquet   the same reports' bytes as they were sealed

Where many reports of a day come at once, they go to a file at once; few wait in `recent`.

The bytes hold a signature each, which nothing can compress; apart from the columns they cost no
question that does not ask for them, and may be kept for a shorter time.

A file is written, on disk and under its name before the transaction that names it in `part` and
takes its reports out of `recent`: that is the moment from which it counts. Before, its name is
kept in `debris`, as are the names of files that count no more: what stands there and in no row of
`part` was left by a writer that was stopped, and the next one removes it. Nothing else is ever
removed: other files may be all that is left of reports that another DuckDB file knew. Files are
replaced the same way. Only who has the store's file alone does any of this, so no reader misses
one.

A day is that of UTC in which a report was made, as it was known when the file was written; a boot
of which that changed later is marked, and its reports are looked for in all files.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from fleet import file
from fleet.errors import StoreError
from fleet.store import clock
from fleet.store.fold import NEVER_S, Ints
from fleet.store.increment import registered
from fleet.store.piece import NUMBERS, Piece
from fleet.store.schema import COLUMNS, HEARD, MEASURED

DAY_S = 86_400
# So many reports of a day at once are worth a file.
LEAST_DIRECT = 50_000
# Beyond so many files of a day they are made one.
MOST_PARTS = 4
_FOLDERS = ("report", "sealed")
_KEY = "device, key_id, seq"
_SAID = tuple(name for name in COLUMNS if name != "raw")
# A column of more than a thousand values in a row group is smaller and sooner written as it is.
_FORMAT = (
    "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, ROW_GROUP_SIZE 122880, "
    "DICTIONARY_SIZE_LIMIT 1000"
)


@dataclass(frozen=True)
class Part:
    """One day file.

    Attributes:
        kind: "report" or "sealed".
        path: below the store's folder.
        from_s, to_s: when the first and the last of its reports were made.
    """

    kind: str
    day: int
    path: str
    from_s: int
    to_s: int


class Shelf:
    """The reports of a store: those in its DuckDB file and those in day files."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        rows = connection.execute("SELECT kind, day, path, from_s, to_s FROM part").fetchall()
        self._parts = [Part(*row) for row in rows]

    # -- reading -------------------------------------------------------------------------------

    def show(self) -> None:
        """Let SQL see all reports as `report`, and their bytes as `sealed`."""
        for name, columns in (("report", _SAID), ("sealed", (*_KEY.split(", "), "raw"))):
            source = self._source(name, columns, self._of(name))
            self._connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {', '.join(columns)} FROM ({source})"
            )

    def source(
        self, columns: tuple[str, ...], low_s: int | None = None, high_s: int | None = None
    ) -> str:
        """Return SQL for columns of the stored reports and `cold`, whether from a day file.

        Of day files only those are read that have reports made from `low_s` to `high_s`.
        """
        kind = "sealed" if "raw" in columns else "report"
        return self._source(kind, columns, self._of(kind, low_s, high_s))

    def _source(self, kind: str, columns: Sequence[str], parts: Sequence[Part]) -> str:
        names = ", ".join(columns)
        condition = " WHERE raw IS NOT NULL" if kind == "sealed" else ""
        query = f"SELECT {names}, false AS cold FROM recent{condition}"
        if parts:
            query += f" UNION ALL SELECT {names}, true AS cold FROM {self._read(parts)}"
        return query

    def _of(self, kind: str, low_s: int | None = None, high_s: int | None = None) -> list[Part]:
        return [
            part
            for part in self._parts
            if part.kind == kind
            and (low_s is None or part.to_s >= low_s)
            and (high_s is None or part.from_s <= high_s)
        ]

    def _read(self, parts: Iterable[Part]) -> str:
        return f"read_parquet([{', '.join(_text(self._folder / part.path) for part in parts)}])"

    def paths(self) -> list[Path]:
        """Return the day files of what reports say."""
        return [self._folder / part.path for part in self._of("report")]

    def files(self) -> list[str]:
        """Return SQL for each day file of what reports say."""
        return [self._read([each]) for each in self._of("report")]

    def copy_recent(self, path: Path) -> None:
        """Write what reports say that are in no day file yet to a file, to which nobody refers."""
        self._connection.execute(
            f"COPY (SELECT {', '.join(_SAID)} FROM recent) TO {_text(path)} ({_FORMAT})"
        )

    # -- writing: in a transaction, with the store's file to oneself -----------------------------

    def sweep(self) -> None:
        """Remove the files of this store that count for nothing; in no transaction."""
        execute = self._connection.execute
        rows = execute("SELECT path FROM debris WHERE path NOT IN (SELECT path FROM part)")
        try:
            for (name,) in rows.fetchall():
                path = self._folder / name
                for each in (path, _unfinished(path)):
                    each.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it is gone, or something else is in it
                    path.parent.rmdir()
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        execute("DELETE FROM debris")

    def strangers(self) -> int:
        """Return how many day files are there that this store does not know."""
        known = {part.path for part in self._parts}
        return sum(
            str(path.relative_to(self._folder)) not in known
            for kind in _FOLDERS
            for path in (self._folder / kind).glob("*/*.parquet")
        )

    def put(self, piece: Piece, numbers: Ints, at_s: Ints) -> None:
        """Store some rows of a piece, which were made at these times, `NEVER_S` where not known.

        A day of which there are many gets a file at once, so that they are written once.
        """
        self._tell("origin", ("device", "gateway", "bssid"), piece.origins)
        self._tell("air", tuple(HEARD), piece.airs)
        left = np.ones(len(numbers), np.bool_)
        if len(numbers) >= LEAST_DIRECT:
            known = at_s != NEVER_S
            first_s = int(at_s[known].min(initial=0)) // DAY_S * DAY_S if known.any() else 0
            day = np.where(known, (at_s - first_s) // DAY_S, 0)
            for number in np.flatnonzero(np.bincount(day[known]) >= LEAST_DIRECT).tolist():
                chosen = known & (day == number)
                left &= ~chosen
                with self._given(piece, numbers[chosen]) as rows:
                    begin_s, end_s = int(at_s[chosen].min()), int(at_s[chosen].max())
                    self._write(begin_s // DAY_S, begin_s, end_s, f"({rows})", sort=False)
        if left.any():
            with self._given(piece, numbers if left.all() else numbers[left]) as rows:
                self._connection.execute(f"INSERT INTO recent BY NAME {rows}")

    def _tell(self, key: str, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
        """Make a table of what many reports share, by its number."""
        columns = dict(zip(names, map(_objects, zip(*rows, strict=True)), strict=True))
        kinds = ", ".join(f"{name}::{COLUMNS[name]} AS {name}" for name in names)
        numbered = {key: np.arange(len(rows))} | columns
        with registered(self._connection, "given", numbered):
            self._connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {key} AS SELECT {key}, {kinds} FROM given"
            )

    @contextlib.contextmanager
    def _given(self, piece: Piece, numbers: Ints) -> Iterator[str]:
        """Yield SQL for some rows of a piece; what a report does not know is NULL there."""
        given = {name: column[numbers] for name, column in piece.columns.items()}
        raw = "NULL::BLOB"
        if piece.raw is not None:
            given["raw"], raw = piece.raw[numbers], "raw::BLOB"
        values = [
            f"nullif({name}, {MEASURED[name][1]}) AS {name}" if name in MEASURED else name
            for name in NUMBERS
        ]
        heard, joined = ", ".join(HEARD), " JOIN air USING (air)"
        if all(whole is None for whole, *_ in piece.airs):
            heard, joined = ", ".join(f"NULL::{HEARD[name]} AS {name}" for name in HEARD), ""
        with registered(self._connection, "given", given):
            yield (
                f"SELECT device, gateway, bssid, {', '.join(values)}, {heard}, {raw} AS raw "
                f"FROM given JOIN origin USING (origin){joined}"
            )

    def pack(self, before_s: int) -> int:
        """Move reports made before a time from `recent` to day files; return how many.

        Reports stay while nobody knows when they were made.
        """
        execute = self._connection.execute
        self._choose(f"best > 0 AND at_s < {before_s}")
        days = execute(
            "SELECT day, min(at_s), max(at_s) FROM going GROUP BY day ORDER BY day"
        ).fetchall()
        for day, from_s, to_s in days:
            rows = f"recent JOIN (FROM going WHERE day = {day}) ON recent.rowid = number"
            self._write(day, from_s, to_s, rows)
        execute("DELETE FROM recent WHERE rowid IN (SELECT number FROM going)")
        ((count,),) = execute("SELECT count(*) FROM going").fetchall()
        return int(count)

    def crowded(self) -> list[int]:
        """Return the days that have more files than they should."""
        days = [part.day for part in self._parts if part.kind == "report"]
        return sorted({day for day in days if days.count(day) > MOST_PARTS})

    def compact(self, day: int) -> None:
        """Make all files of a day one."""
        old = [part for part in self._parts if part.day == day]
        for kind in _FOLDERS:
            parts = [part for part in old if part.kind == kind]
            if parts:
                low_s, high_s = min(p.from_s for p in parts), max(p.to_s for p in parts)
                self._copy(kind, day, low_s, high_s, self._read(parts))
        self._forget(old)

    def days(self) -> list[int]:
        """Return the days that have files of reports."""
        return sorted({part.day for part in self._parts if part.kind == "report"})

    def sealed_of(self, day: int) -> str:
        """Return SQL for the bytes of the reports in a day's files, with their identity."""
        parts = [part for part in self._parts if (part.kind, part.day) == ("sealed", day)]
        if not parts:
            return f"SELECT {_KEY}, raw FROM recent WHERE false"
        return f"SELECT {_KEY}, raw FROM {self._read(parts)}"

    def widen(self, day: int, joined: str, columns: str) -> None:
        """Make the files of a day's reports one that has some more columns, from another table."""
        old = [part for part in self._parts if (part.kind, part.day) == ("report", day)]
        low_s, high_s = min(p.from_s for p in old), max(p.to_s for p in old)
        rows = f"(SELECT old.*, {columns} FROM {self._read(old)} AS old LEFT JOIN {joined})"
        self._copy("report", day, low_s, high_s, rows)
        self._forget(old)

    def expire(self, kind: str, before_s: int) -> tuple[int, int]:
        """Let go of what was made before a time: day files, and what is in none.

        Reports of which nobody knows when they were made go by when they were received.

        Returns: how many files and reports.
        """
        self._choose(f"coalesce(at_s, received_s) < {before_s}")
        change = "DELETE FROM recent" if kind == "report" else "UPDATE recent SET raw = NULL"
        ((rows,),) = self._connection.execute(
            f"{change} WHERE rowid IN (SELECT number FROM going) "
            f"{'' if kind == 'report' else 'AND raw IS NOT NULL'}"
        ).fetchall()
        files = self._forget([p for p in self._parts if p.kind == kind and p.to_s < before_s])
        return files, rows

    def _choose(self, condition: str) -> None:
        """Make `going` of reports in `recent`: their rows, and when they were made."""
        self._connection.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE going AS
            SELECT number, at_s, at_s // {DAY_S} AS day FROM (
                SELECT recent.rowid AS number, best, received_s,
                    CASE WHEN best = 0 THEN NULL WHEN {clock.TRUST} = best THEN time_s::BIGINT
                        ELSE (boot_cs + uptime_cs) // 100 END AS at_s
                FROM recent JOIN boot USING (device, key_id, boot)
            ) WHERE {condition}
            """
        )

    def _forget(self, parts: list[Part]) -> int:
        """Let files count no more; they are removed after the transaction, by `sweep`."""
        if parts:
            paths = [[part.path for part in parts]]
            self._connection.execute("INSERT INTO debris SELECT unnest($1::VARCHAR[])", paths)
            self._connection.execute(
                "DELETE FROM part WHERE path IN (SELECT unnest($1::VARCHAR[]))", paths
            )
            self._parts = [part for part in self._parts if part not in parts]
        return len(parts)

    def _write(self, day: int, from_s: int, to_s: int, rows: str, *, sort: bool = True) -> None:
        self._copy("report", day, from_s, to_s, rows, sort=sort)
        execute = self._connection.execute
        if execute(f"SELECT 1 FROM {rows} WHERE raw IS NOT NULL LIMIT 1").fetchall():
            self._copy("sealed", day, from_s, to_s, f"{rows} WHERE raw IS NOT NULL", sort=sort)

    def _copy(
        self, kind: str, day: int, from_s: int, to_s: int, rows: str, *, sort: bool = True
    ) -> None:
        """Write one file and name it in `part`."""
        columns = ", ".join(_SAID) if kind == "report" else f"{_KEY}, raw"
        order = f" ORDER BY {_KEY}" if sort else ""
        date = datetime.fromtimestamp(day * DAY_S, UTC).date()
        folder = self._folder / kind / date.isoformat()
        path = folder / f"{secrets.token_hex(6)}.parquet"
        name = str(path.relative_to(self._folder))
        written = _unfinished(path)
        with self._connection.cursor() as apart:  # it holds, whatever becomes of the transaction
            apart.execute(f"USE {self._database()}")
            apart.execute("INSERT INTO debris VALUES ($1)", [name])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection.execute(
                f"COPY (SELECT {columns} FROM {rows}{order}) TO {_text(written)} ({_FORMAT})"
            )
            descriptor = os.open(written, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            written.rename(path)
            for each in (folder, folder.parent, self._folder):
                file.sync_folder(each)
            size = path.stat().st_size
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        ((count,),) = self._connection.execute(
            f"SELECT count(*) FROM read_parquet({_text(path)})"
        ).fetchall()
        self._connection.execute(
            "INSERT INTO part VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [kind, day, name, count, size, from_s, to_s],
        )
        self._parts.append(Part(kind, day, name, from_s, to_s))

    def _database(self) -> str:
        ((name,),) = self._connection.execute("SELECT current_database()").fetchall()
        return str(name)


def _objects(values: tuple[object, ...]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".new")


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _unwritable(folder: Path, error: OSError) -> StoreError:
    free = shutil.disk_usage(folder).free >> 20
    return StoreError(
        f"cannot write to {folder}: {error.strerror} ({free} MiB are free there)",
        hint="look at free space and rights there; nothing was lost",
    )
