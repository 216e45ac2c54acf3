"""Reading and writing the store: one writer, any number of readers between its pieces."""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from firmware.linkreport import report as wire
from fleet import file
from fleet.errors import StoreError
from fleet.store import air, anew, fold, increment, part, schema, takeover
from fleet.store import piece as pieces
from fleet.store.lock import locked
from fleet.store.piece import Piece
from fleet.text import printable

STORE_FOLDER = "store"
STORE_FILE = "netzpuls.duckdb"
SPILL_FOLDER = "spill"

# A writer opens the file for some ten milliseconds, a reader for as long as its query runs.
_PATIENCE_S = 60.0
# So many reports of an older store are taken over at a time.
_PIECE_ROWS = 100_000
# A day's reports go to a file some hours after it ended, and not one by one.
_LEAST_PACKED = 100_000
_SETTLED_S = 6 * 3600
# What does not fit is put down in `spill`: sorting a day's reports, above all. Each thread needs
# some 30 MB that cannot be put down.
_MEMORY = "512MB"
_MOST_THREADS = 4
# More than so many reports are not left outside of day files, whatever their day.
_MOST_RECENT = 3_000_000
_NEVER_S = 1 << 40


@dataclass(frozen=True)
class Cursor:
    """How far a gateway was read: the last row of which database."""

    database: str
    row: int


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
            version = _version(connection, self.path)
            if version is None:
                raise nothing
            if version < schema.VERSION:
                raise StoreError(
                    f"{self.path} was written by an older Netzpuls and was not taken over yet",
                    hint="run netzpuls fleet collect: it keeps all reports",
                )
            part.Shelf(connection, self.folder).show()
            yield connection

    @contextlib.contextmanager
    def writing(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Writer]:
        """Be the one writer, until the block ends.

        A store of an older Netzpuls is taken over first, in one step; `tell` hears of it.

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
        with locked(path, fcntl.LOCK_EX, patience_s=0) as descriptor:
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
            spill = self.folder / SPILL_FOLDER
            shutil.rmtree(spill, ignore_errors=True)  # what a writer left that was killed
            with duckdb.connect(config={"temp_directory": str(spill)}) as memory:
                writer = Writer(self, memory, tell)
                memory.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = {_threads()}")
                yield writer
                settled_s = int(time.time()) - _SETTLED_S
                with tidying(tell):
                    writer.pack(before_s=settled_s - settled_s % part.DAY_S)

    @contextlib.contextmanager
    def held(self, kind: int) -> Iterator[None]:
        """Hold the file for a moment; readers share it, the writer has it alone.

        Raises: StoreError: it is in use for too long, or DuckDB cannot use it.
        """
        with contextlib.ExitStack() as stack:
            # A writer at work wants the file again at once; without turns no reader gets it.
            with locked(self.folder / "turn.lock", fcntl.LOCK_EX, _PATIENCE_S) as turn:
                lock = locked(self.folder / "file.lock", kind, _PATIENCE_S)
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
                        said,
                        hint=f"move all of {self.folder} away and put a copy of all of it back, or "
                        "collect anew what gateways still have",
                    ) from None
                if not isinstance(error, duckdb.OperationalError | duckdb.ConnectionException):
                    raise
                raise StoreError(
                    said,
                    hint="look at free space and rights there, and who else has the file open",
                ) from None


@contextlib.contextmanager
def tidying(tell: Callable[[str], None]) -> Iterator[None]:
    """Let a failure be told and no more: what was collected is in the store, and stays."""
    try:
        yield
    except StoreError as error:
        tell(f"the store was not tidied: {error.message}; {error.hint}")


class Writer:
    """Puts reports into the store; safe to use from several threads.

    Its DuckDB lives in memory and takes the file in and out: that is a millisecond's work,
    where opening the file as a database of its own takes twenty.
    """

    def __init__(
        self, store: Store, memory: duckdb.DuckDBPyConnection, tell: Callable[[str], None]
    ) -> None:
        self._store = store
        self._memory = memory
        self._one_at_a_time = threading.Lock()
        with self._attached() as connection:
            version = _version(connection, store.path)
            if version == schema.VERSION:
                shelf = part.Shelf(connection, store.folder)
                with tidying(tell):
                    shelf.sweep()
                if strangers := shelf.strangers():
                    tell(
                        f"{strangers} day files in {store.folder} are of another {STORE_FILE}: "
                        "they stay there and do not count"
                    )
                return
            if version in (2, 3):
                connection.execute(schema.FILES)
            connection.begin()
            if version is None:
                connection.execute(schema.SCHEMA)
            elif version == 1:
                _take_over(connection, store.folder, tell)
            else:
                takeover.hear(connection, store.folder, tell)
                connection.execute(f"UPDATE schema SET version = {schema.VERSION}")
            connection.commit()
            if version in (2, 3):
                with tidying(tell):
                    part.Shelf(connection, store.folder).sweep()

    def cursors(self) -> dict[str, Cursor]:
        """Return how far each gateway was read."""
        with self._attached() as connection:
            rows = connection.execute('SELECT gateway, database, "row" FROM cursor').fetchall()
        return {gateway: Cursor(database, row) for gateway, database, row in rows}

    def take(self, piece: Piece, read: tuple[str, Cursor] | None = None) -> Ingested:
        """Add what is not there yet of a piece.

        With it the cursor of a gateway moves, both or neither.

        Raises: StoreError: the store cannot be written; nothing has changed then.
        """
        with self._attached() as connection:
            connection.begin()
            shelf = part.Shelf(connection, self._store.folder)
            added = increment.add(connection, shelf, piece)
            forks = _forks(connection, shelf, piece, added.known)
            if read:
                gateway, cursor = read
                connection.execute(
                    "INSERT OR REPLACE INTO cursor VALUES ($1, $2, $3, $4)",
                    [gateway, cursor.database, cursor.row, int(time.time())],
                )
            connection.commit()
            ((recent,),) = connection.execute("SELECT count(*) FROM recent").fetchall()
        if recent > _MOST_RECENT:
            self.pack(least=1, before_s=None)
        return Ingested(added.new, len(piece) - added.new - forks, forks)

    def pack(self, *, least: int | None = None, before_s: int | None) -> int:
        """Move reports to day files, and make the files of a day one if they are many.

        Args:
            least: do nothing if there are fewer to move; None is what makes files worth it.
            before_s: only reports made before; all whose time is known if None.

        Returns: how many reports were moved.
        Raises: StoreError: it cannot be done; nothing has changed then.
        """
        before_s = _NEVER_S if before_s is None else before_s
        with self._attached() as connection:
            ((count,),) = connection.execute(
                "SELECT count(*) FROM recent WHERE time_s > 0 AND time_s < $1", [before_s]
            ).fetchall()
            moved = 0
            if count >= max(1, _LEAST_PACKED if least is None else least):
                connection.begin()
                moved = part.Shelf(connection, self._store.folder).pack(before_s)
                connection.commit()
        while self._compact():
            pass
        return moved

    def expire(
        self,
        *,
        raw_before_s: int | None = None,
        sealed_before_s: int | None = None,
        interval_before_s: int | None = None,
    ) -> int:
        """Let go of what was made before some times, by whole days; None lets go of nothing.

        Of reports that are gone the ledger stays, and their numbers: they do not come in again.

        Returns: how many day files were let go.
        Raises: StoreError: it cannot be done; nothing has changed then.
        """
        with self._attached() as connection:
            shelf = part.Shelf(connection, self._store.folder)
            connection.begin()
            gone = 0
            if raw_before_s is not None:
                raw_before_s -= raw_before_s % part.DAY_S
                gone, rows = shelf.expire("report", raw_before_s)
                if gone or rows:
                    connection.execute("INSERT INTO expired VALUES ($1)", [raw_before_s])
            if sealed_before_s is not None:
                sealed_before_s -= sealed_before_s % part.DAY_S
                gone += shelf.expire("sealed", max(sealed_before_s, raw_before_s or 0))[0]
            if interval_before_s is not None:
                for name in ("interval", "sighting"):
                    connection.execute(f"DELETE FROM {name} WHERE end_s < $1", [interval_before_s])
            connection.commit()
            shelf.sweep()
        return gone

    def mend(self, boards: Sequence[str], since_s: int | None = None) -> Path:
        """Lay anew what is kept of some boards, from their reports; since a time, all if None.

        Returns: where the file is kept as it was before.
        Raises: StoreError: it cannot be done; nothing has changed then.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        before = self._store.path.with_name(f"netzpuls-before-{now}.duckdb")
        with self._attached() as connection:
            try:
                unfinished = before.with_suffix(".new")
                shutil.copyfile(self._store.path, unfinished)
                unfinished.rename(before)
            except OSError as error:
                raise StoreError(
                    f"cannot write {before}: {error.strerror}",
                    hint="look at free space and rights there; nothing was changed",
                ) from None
            connection.begin()
            anew.lay(connection, part.Shelf(connection, self._store.folder), [*boards], since_s)
            connection.commit()
        return before

    def _compact(self) -> bool:
        with self._attached() as connection:
            shelf = part.Shelf(connection, self._store.folder)
            days = shelf.crowded()
            if not days:
                return False
            connection.begin()
            shelf.compact(days[0])
            connection.commit()
            shelf.sweep()
        return True

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


def _forks(
    connection: duckdb.DuckDBPyConnection, shelf: part.Shelf, piece: Piece, known: fold.Ints
) -> int:
    """Return how many rows of the piece are other reports than those under their numbers.

    Those whose bytes are no longer kept are held against nothing.
    """
    if piece.raw is None or not len(known):
        return 0
    asked = {name: piece.columns[name][known] for name in ("origin", "key_id", "seq", "time_s")}
    origins = np.array([device for device, *_ in piece.origins], object)
    asked["device"] = origins[asked.pop("origin")]
    asked["raw"] = piece.raw[known]
    with increment.registered(connection, "asked", asked):
        connection.execute(_KNOWN)
    ((count, low_s, high_s),) = connection.execute(_ASKED).fetchall()
    forks = 0
    # Mostly they are where their time says; the same number with another time may be anywhere.
    for span in ((low_s, high_s), (None, None)):
        query = _FORKS.format(sealed=shelf.source(("device", "key_id", "seq", "raw"), *span))
        ((found, forks),) = connection.execute(query).fetchall()
        if found == count:
            break
    return int(forks)


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)


def gaps(connection: duckdb.DuckDBPyConnection) -> list[Gap]:
    """Return the boards' keys under which something is missing."""
    return [Gap(*row) for row in connection.execute(_GAPS).fetchall()]


def count_reports(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return how many reports of each board are in the store."""
    rows = connection.execute("SELECT device, count(*) FROM report GROUP BY device").fetchall()
    return dict(rows)


_KNOWN = """
    CREATE OR REPLACE TEMP TABLE known AS
    SELECT device::VARCHAR AS device, key_id, seq, time_s, raw::BLOB AS raw FROM asked
"""
_ASKED = """
    SELECT count(raw), min(time_s) FILTER (time_s > 0), max(time_s) FROM known
"""
_FORKS = """
    SELECT count(*), count(*) FILTER (known.raw <> sealed.raw)
    FROM known JOIN ({sealed}) AS sealed USING (device, key_id, seq)
    WHERE known.raw IS NOT NULL
"""
# Of what lies below the oldest number that a board still holds, what is not there is lost.
_GAPS = """
    WITH held AS (SELECT device, key_id, max(oldest_seq) AS oldest FROM run GROUP BY ALL)
    SELECT device, key_id,
        any_value(oldest) - 1
            - sum(greatest(0, least(last_seq, oldest - 1) - first_seq + 1))::BIGINT AS lost,
        sum(breaks)::BIGINT AS breaks
    FROM run JOIN held USING (device, key_id) GROUP BY device, key_id
    HAVING lost > 0 OR breaks > 0
    ORDER BY device, key_id
"""


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int | None:
    """Return the version of the tables that are there, None if there are none.

    Raises: StoreError: there are others, or they are of a newer version.
    """
    present = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
    tables = {row[0] for row in connection.execute(present).fetchall()}
    if not tables:
        return None
    found = []
    if "schema" in tables:
        found = connection.execute("SELECT version FROM schema").fetchall()
    if len(found) != 1 or found[0][0] not in range(1, schema.VERSION + 1):
        raise StoreError(
            f"{path} has schema {found[0][0] if found else 'unknown'}; "
            f"this Netzpuls knows {schema.VERSION}",
            hint="use the Netzpuls that wrote it or a newer one",
        )
    return int(found[0][0])


def _take_over(
    connection: duckdb.DuckDBPyConnection, folder: Path, tell: Callable[[str], None]
) -> None:
    """Turn a store of version 1, which had nothing but reports, into one of today."""
    counts = connection.execute(
        "SELECT device, count(*) FROM report GROUP BY device ORDER BY device"
    ).fetchall()
    total = sum(count for _, count in counts)
    tell(f"taking over the store of an older Netzpuls: {total:,} reports")
    connection.execute(
        f"ALTER TABLE report RENAME TO old_report; DROP TABLE schema; {schema.ADDED}"
    )
    old = [name for name in schema.COLUMNS if name not in schema.HEARD]
    done, boards, rows = 0, list[str](), 0
    for number, (board, count) in enumerate(counts, 1):
        boards.append(board)
        rows += count
        if rows < _PIECE_ROWS and number < len(counts):
            continue
        found = connection.execute(
            f"SELECT {', '.join(old)}, {schema.LINK_AND_TAG} FROM old_report "
            "WHERE device IN (SELECT unnest($1::VARCHAR[]))",
            [boards],
        ).fetchall()
        rows_heard = ((*row[:-3], *_heard(row[-3]), *row[-3:]) for row in found)
        increment.add(connection, part.Shelf(connection, folder), pieces.piece(rows_heard))
        done, boards, rows = done + rows, [], 0
        tell(f"taken over: {done:,} of {total:,} reports")
    connection.execute("DROP TABLE old_report")


def _heard(raw: bytes | None) -> air.Heard:
    return (None, None, None) if raw is None else air.heard(wire.unpack(raw))
