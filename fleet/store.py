"""The city's store: every report that was collected, in one DuckDB file.

    <city>/store/netzpuls.duckdb   table `report`, table `cursor`
    <city>/store/writer.lock       held while a collection runs; names its process
    <city>/store/file.lock         held for the moments in which the file is open
    <city>/store/turn.lock         held while waiting for file.lock, so that nobody overtakes

One collection at a time writes; it opens the file for each piece only, so that any number of
readers can work between two pieces. A report is known by (device, key_id, seq). The table has
no index for that: the one writer joins each piece with what is there, which costs less than
an index over forty million reports, and keeps nothing in memory.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from firmware.linkreport import report as wire
from firmware.linkreport.term import LAYERS
from fleet import file
from fleet.errors import StoreError
from fleet.text import printable

STORE_FOLDER = "store"
STORE_FILE = "netzpuls.duckdb"
SCHEMA_VERSION = 1

# A writer opens the file for some ten milliseconds, a reader for as long as its query runs.
_PATIENCE_S = 60.0
_POLL_S = 0.02

_LAYER_COLUMNS = tuple(f"{layer}_reason" for layer in LAYERS[1:])

# name: (type, what stands on the wire where nothing was measured); in the order of the wire.
_MEASURED = {
    "rssi_dbm": ("TINYINT", wire.NO_RSSI),
    "channel": ("UTINYINT", wire.NO_U8),
    "bssid": ("BLOB", r"'\x00\x00\x00\x00\x00\x00'::BLOB"),
    "association_ms": ("USMALLINT", wire.NO_U16),
    "addressing_ms": ("USMALLINT", wire.NO_U16),
    "gateway_rtt_us": ("UINTEGER", wire.NO_U32),
    "gateway_loss_percent": ("UTINYINT", wire.NO_U8),
    "reset_cause": ("UTINYINT", wire.NO_U8),
    "resolver_ms": ("USMALLINT", wire.NO_U16),
    "internet_connect_ms": ("USMALLINT", wire.NO_U16),
    "internet_http_ms": ("USMALLINT", wire.NO_U16),
    "http_status": ("USMALLINT", wire.NO_U16),
    "heap_free_bytes": ("UINTEGER", wire.NO_U32),
    "spool_reports": ("USMALLINT", wire.NO_U16),
    "error_count": ("USMALLINT", wire.NO_U16),
}
COLUMNS = {
    "device": "VARCHAR",
    "gateway": "VARCHAR",
    "received_s": "UINTEGER",
    "key_id": "USMALLINT",
    "seq": "UINTEGER",
    "oldest_seq": "UINTEGER",
    "boot": "USMALLINT",
    "period_s": "USMALLINT",
    "uptime_cs": "UINTEGER",
    "time_s": "UINTEGER",
    "clock": "UTINYINT",
    "state": "UTINYINT",
    "layer": "UTINYINT",
    "reason": "UTINYINT",
    "confidence_percent": "UTINYINT",
    **dict.fromkeys(_LAYER_COLUMNS, "UTINYINT"),
    **{name: kind for name, (kind, _) in _MEASURED.items()},
    "raw": "BLOB",
}
_DEFINITION = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
_CORE = slice(2, 14)  # of a wire.Report: key_id to confidence_percent
_REST = slice(15, -1)  # rssi_dbm to error_count


@dataclass(frozen=True)
class Cursor:
    """How far a gateway was read: the last row of which database."""

    database: str
    row: int


@dataclass(frozen=True)
class Verified:
    """One report whose seal was checked, as it goes into the store."""

    device: str
    received_s: int
    raw: bytes
    report: wire.Report


@dataclass(frozen=True)
class Ingested:
    """What became of a piece: reports new, there before, or forged under a number in use."""

    new: int = 0
    duplicates: int = 0
    forks: int = 0


@dataclass(frozen=True)
class Gap:
    """What is missing in the reports that a board made under one key.

    Attributes:
        lost: numbers that will never come: the board said that it no longer holds them.
        breaks: neighbours of which the later does not vouch for the earlier.
    """

    device: str
    key_id: int
    lost: int
    breaks: int


class Store:
    """The store of a city."""

    def __init__(self, city: Path) -> None:
        self.folder = city / STORE_FOLDER
        self.path = self.folder / STORE_FILE

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the store for reading, waiting for a writer's moment to pass.

        Raises: StoreError: nothing was collected yet, another program has the file, or it is
            no store of this version.
        """
        nothing = StoreError(
            f"{self.folder} holds no reports: nothing was collected yet",
            hint="run netzpuls fleet collect first",
        )
        try:
            is_there = self.path.exists()
        except OSError as error:
            raise StoreError(
                f"cannot look into {self.folder}: {error.strerror}", hint="look at the rights there"
            ) from None
        if not is_there:
            raise nothing
        with self.held(fcntl.LOCK_SH), duckdb.connect(str(self.path), read_only=True) as connection:
            if not _is_made(connection, self.path):
                raise nothing
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Be the one writer, until the block ends.

        Raises: StoreError: another process is, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            file.hide_from_git(self.folder)
        except OSError as error:
            raise StoreError(
                f"cannot write to {self.folder}: {error.strerror}",
                hint="look at free space and rights there",
            ) from None
        path = self.folder / "writer.lock"
        with _locked(path, fcntl.LOCK_EX, patience_s=0) as descriptor:
            if descriptor is None:
                raise StoreError(
                    f"process {path.read_text().strip() or '?'} is writing to {self.path}",
                    hint="wait until that collection has ended, then run the command again",
                )
            try:
                path.write_text(f"{os.getpid()}\n", encoding="ascii")
            except OSError as error:
                raise StoreError(
                    f"cannot write to {self.folder}: {error.strerror}",
                    hint="look at free space and rights there",
                ) from None
            with duckdb.connect() as memory:
                yield Writer(self, memory)

    @contextlib.contextmanager
    def held(self, kind: int) -> Iterator[None]:
        """Hold the file for a moment; readers share it, the writer has it alone.

        Raises: StoreError: it is in use for too long, or DuckDB cannot use it.
        """
        with contextlib.ExitStack() as stack:
            # A writer at work wants the file again at once; without turns no reader gets it.
            with _locked(self.folder / "turn.lock", fcntl.LOCK_EX, _PATIENCE_S) as turn:
                lock = _locked(self.folder / "file.lock", kind, _PATIENCE_S)
                if turn is None or stack.enter_context(lock) is None:
                    raise StoreError(
                        f"{self.path} has been in use for {_PATIENCE_S:.0f} s",
                        hint=f"see who has it with: fuser -v {self.path}",
                    )
            try:
                yield
            except duckdb.Error as error:
                said = f"{self.path}: {printable(str(error).partition(chr(10))[0], 400)}"
                if type(error) is duckdb.Error or isinstance(error, duckdb.FatalException):
                    raise StoreError(
                        said, hint="move the file away and collect anew: gateways have it all"
                    ) from None
                if not isinstance(error, duckdb.OperationalError | duckdb.ConnectionException):
                    raise
                raise StoreError(
                    said,
                    hint="look at free space and rights there, and who else has the file open",
                ) from None


class Writer:
    """Puts reports into the store; safe to use from several threads.

    Its DuckDB lives in memory and takes the file in and out: that is a millisecond's work,
    where opening the file as a database of its own takes twenty.
    """

    def __init__(self, store: Store, memory: duckdb.DuckDBPyConnection) -> None:
        self._store = store
        self._memory = memory
        self._one_at_a_time = threading.Lock()
        memory.execute(f"CREATE TEMP TABLE piece ({_DEFINITION})")
        with self._attached() as connection:
            if not _is_made(connection, store.path):
                connection.execute(_SCHEMA)

    def cursors(self) -> dict[str, Cursor]:
        """Return how far each gateway was read."""
        with self._attached() as connection:
            rows = connection.execute('SELECT gateway, database, "row" FROM cursor').fetchall()
        return {gateway: Cursor(database, row) for gateway, database, row in rows}

    def ingest(self, gateway: str, cursor: Cursor, reports: Sequence[Verified]) -> Ingested:
        """Add what is not there yet and move the gateway's cursor, both or neither.

        Raises: StoreError: the store cannot be written; nothing has changed then.
        """
        with self._attached() as connection:
            connection.execute("TRUNCATE piece")
            with connection.appender("piece") as appender:
                appender.append_rows(_row(gateway, item) for item in reports)
            connection.begin()
            new = _number(connection, _INSERT)
            forks = _number(connection, _COUNT_FORKS) if new < len(reports) else 0
            connection.execute(
                "INSERT OR REPLACE INTO cursor VALUES ($1, $2, $3, $4)",
                [gateway, cursor.database, cursor.row, int(time.time())],
            )
            connection.commit()
        return Ingested(new, len(reports) - new - forks, forks)

    @contextlib.contextmanager
    def _attached(self) -> Iterator[duckdb.DuckDBPyConnection]:
        path = str(self._store.path).replace("'", "''")
        with self._one_at_a_time, self._store.held(fcntl.LOCK_EX):
            self._memory.execute(f"ATTACH '{path}' AS city; USE city")
            try:
                yield self._memory
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # there may be no transaction
                    self._memory.rollback()
                raise
            finally:
                self._memory.execute("USE memory; DETACH city")


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def gaps(connection: duckdb.DuckDBPyConnection) -> list[Gap]:
    """Return the boards' keys under which something is missing."""
    return [Gap(*row) for row in connection.execute(_GAPS).fetchall()]


def count_reports(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return how many reports of each board are in the store."""
    rows = connection.execute("SELECT device, count(*) FROM report GROUP BY device").fetchall()
    return dict(rows)


# What a report does not know is NULL in the store.
_MEASURED_OR_NULL = ", ".join(
    f"nullif({name}, {missing}) AS {name}" for name, (_, missing) in _MEASURED.items()
)
_INSERT = f"""
    INSERT INTO report BY NAME
    SELECT * REPLACE ({_MEASURED_OR_NULL})
    FROM piece ANTI JOIN report USING (device, key_id, seq)
    QUALIFY row_number() OVER (PARTITION BY device, key_id, seq ORDER BY received_s, raw) = 1
"""
_COUNT_FORKS = """
    SELECT count(*) FROM piece JOIN report USING (device, key_id, seq)
    WHERE piece.raw <> report.raw
"""
_GAPS = """
    WITH chained AS (
        SELECT device, key_id, seq, max(oldest_seq) OVER (PARTITION BY device, key_id) AS oldest,
            seq = 1 + lag(seq) OVER w
                AND right(hex(raw), 64)[:32] <> lag(right(hex(raw), 32)) OVER w AS broken
        FROM report
        WINDOW w AS (PARTITION BY device, key_id ORDER BY seq)
    )
    SELECT device, key_id, any_value(oldest) - 1 - count(*) FILTER (seq < oldest) AS lost,
        count(*) FILTER (broken) AS breaks
    FROM chained GROUP BY device, key_id
    HAVING lost > 0 OR breaks > 0
    ORDER BY device, key_id
"""
_SCHEMA = f"""
    BEGIN;
    CREATE TABLE report ({_DEFINITION});
    CREATE TABLE cursor (
        gateway VARCHAR PRIMARY KEY, database VARCHAR, "row" UBIGINT, collected_s UBIGINT
    );
    CREATE TABLE schema AS SELECT {SCHEMA_VERSION} AS version;
    COMMIT;
"""


def _is_made(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Tell whether the tables are there.

    Raises: StoreError: there are others, or they are of another version.
    """
    present = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
    tables = {row[0] for row in connection.execute(present).fetchall()}
    if not tables:
        return False
    found = []
    if "schema" in tables:
        found = connection.execute("SELECT version FROM schema").fetchall()
    if found != [(SCHEMA_VERSION,)]:
        raise StoreError(
            f"{path} has schema {found[0][0] if found else 'unknown'}; "
            f"this Netzpuls knows {SCHEMA_VERSION}",
            hint="use the Netzpuls that wrote it or a newer one, or move the file away and "
            "collect anew",
        )
    return True


def _row(gateway: str, item: Verified) -> tuple[object, ...]:
    report = item.report
    return (
        item.device,
        gateway,
        item.received_s,
        *report[_CORE],
        *report.layer_reasons,
        *report[_REST],
        item.raw,
    )


@contextlib.contextmanager
def _locked(path: Path, kind: int, patience_s: float) -> Iterator[int | None]:
    """Hold a lock on a file and yield its descriptor, or None if others have held it too long.

    Raises: StoreError: the file cannot be made.
    """
    descriptor = _opened(path)
    try:
        yield descriptor if _lock(descriptor, kind, time.monotonic() + patience_s) else None
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a lock file; for reading is enough for who may only read the store."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise StoreError(
            f"cannot open {path}: {error.strerror}", hint="look at free space and rights there"
        ) from None


def _lock(descriptor: int, kind: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        else:
            return True
