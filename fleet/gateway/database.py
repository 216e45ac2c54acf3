"""The gateway's database: reports.db, SQLite in WAL mode with synchronous=FULL.

What `commit` returned is on disk, whatever happens next; only then is anything acknowledged.
One process writes (the collector), any number read.

A stream is the sequence of reports of one board under one key. `progress` holds how far each is
without a hole: every number up to there is in `report` or, given up by the board, in `loss`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from firmware.linkreport.report import NO_TAG
from fleet.errors import NetzpulsError
from fleet.gateway.intake import FORKED, Refusal, Verified, link_of, tag_of
from fleet.gateway.transfer import CHUNK_ROWS, Row

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x4E5A5031  # "NZP1": tells our database from any other SQLite file

# Names in refusals come from outside and must not fill the disk.
MAX_REFUSAL_ROWS = 1000
OTHERS = "others"

_SCHEMA = """
CREATE TABLE meta (database TEXT NOT NULL);
CREATE TABLE report (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL, key_id INTEGER NOT NULL, seq INTEGER NOT NULL,
    received_s INTEGER NOT NULL, raw BLOB NOT NULL,
    UNIQUE (device, key_id, seq)
);
CREATE TABLE progress (
    device TEXT NOT NULL, key_id INTEGER NOT NULL,
    contiguous_seq INTEGER NOT NULL, updated_s INTEGER NOT NULL,
    PRIMARY KEY (device, key_id)
) WITHOUT ROWID;
CREATE TABLE loss (
    device TEXT NOT NULL, key_id INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, noticed_s INTEGER NOT NULL,
    PRIMARY KEY (device, key_id, first_seq)
) WITHOUT ROWID;
CREATE TABLE chain_break (
    device TEXT NOT NULL, key_id INTEGER NOT NULL, seq INTEGER NOT NULL,
    noticed_s INTEGER NOT NULL,
    PRIMARY KEY (device, key_id, seq)
) WITHOUT ROWID;
CREATE TABLE refusal (
    reason TEXT NOT NULL, device TEXT NOT NULL, count INTEGER NOT NULL, last_s INTEGER NOT NULL,
    PRIMARY KEY (reason, device)
) WITHOUT ROWID;
"""

# What a full disk, a lost mount or a busy file looks like; it can pass, so it is tried again.
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
}
_BUSY_TIMEOUT_S = 5
# Reports behind a hole are as many as fit the boards' flash; counting them must end.
_MOST_COUNTED = 1_000_000
_WAL_LIMIT_BYTES = 16 << 20


class DatabaseError(NetzpulsError):
    """The gateway's database is missing, damaged, or not ours."""

    code = "gateway-database"
    exit_code = 2


class StorageError(Exception):
    """Nothing can be written now; it can pass (a full disk). Nothing of the batch is stored."""


class Stream(NamedTuple):
    """How far a board's reports under one key are here without a hole."""

    device: str
    key_id: int
    contiguous_seq: int


class Note(NamedTuple):
    """Something about a board that the log should say."""

    event: str
    device: str
    detail: str


@dataclass
class Outcome:
    """What one commit did."""

    committed: int = 0
    duplicates: int = 0
    streams: list[Stream] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@dataclass
class _Open:
    """A stream while a transaction works on it."""

    device: str
    key_id: int
    contiguous: int
    highest: int
    tail: bytes
    given_up: int = 0


class Database:
    """The collector's side: opened when first needed, and again after each failure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def open(self) -> str:
        """Open the database, make it if there is none; return its UUID.

        Raises: StorageError: not possible now. DatabaseError: never possible.
        """
        with self._passing():
            found = self._connected().execute("SELECT database FROM meta")
            return str(found.fetchone()[0])

    def stream(self, device: str, key_id: int) -> Stream:
        """Return how far a stream is; 0 if it never began.

        Raises: StorageError: not readable now.
        """
        with self._passing():
            found = self._connected().execute(
                "SELECT contiguous_seq FROM progress WHERE device = ? AND key_id = ?",
                (device, key_id),
            )
            row = found.fetchone()
        return Stream(device, key_id, row[0] if row else 0)

    def commit(
        self, reports: Iterable[Verified], refusals: Iterable[Refusal], now_s: int
    ) -> Outcome:
        """Store all that is new in one transaction; on disk when this returns.

        Raises: StorageError: nothing is stored. DatabaseError: nothing ever will be.
        """
        with self._passing():
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                outcome = _store(connection, reports, list(refusals), now_s)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return outcome

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, cached_statements=64
            )
            try:
                _prepare(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    @contextlib.contextmanager
    def _passing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # A connection that saw the disk fail is not asked again.
            self.close()
            if _kind(error) in _PASSING:
                raise StorageError(str(error)) from error
            raise _damaged(self.path, error) from None


class Reader:
    """The other side: reads while the collector writes."""

    def __init__(self, path: Path) -> None:
        """Open the database for reading.

        Raises: DatabaseError: it is missing, damaged or of a newer version.
        """
        if not path.is_file():
            raise DatabaseError(
                f"there is no {path}", hint="has `netzpuls gateway run` ever run in this folder?"
            )
        self._path = path
        with self._reading():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
            )
            try:
                _check(self._connection, path)
                self.database: str = self._one("SELECT database FROM meta")
                self.last_row: int = self._one("SELECT coalesce(max(row), 0) FROM report")
            except BaseException:
                self._connection.close()
                raise

    def rows(self, after: int, last: int, limit: int | None = None) -> Iterator[Row]:
        """Yield the reports after row `after` up to row `last`, in order, at most `limit`.

        Each chunk is a short read of its own: a long one would keep the collector's
        write-ahead log from being emptied.
        """
        left = limit if limit is not None else last - after
        while left > 0:
            with self._reading():
                chunk = self._connection.execute(
                    "SELECT row, received_s, device, raw FROM report"
                    " WHERE row > ? AND row <= ? ORDER BY row LIMIT ?",
                    (after, last, min(left, CHUNK_ROWS)),
                ).fetchall()
            if not chunk:
                return
            yield from map(Row._make, chunk)
            left -= len(chunk)
            after = chunk[-1][0]

    def holds(self, device: str, key_id: int, seq: int) -> bool:
        """Tell whether a report is here.

        Raises: DatabaseError: the file cannot be read.
        """
        with self._reading():
            found = self._connection.execute(
                "SELECT 1 FROM report WHERE device = ? AND key_id = ? AND seq = ?",
                (device, key_id, seq),
            )
            return found.fetchone() is not None

    def backlog(self, after: int) -> dict[str, int | None]:
        """Return what waits: for city hall, which has read up to row `after`, and for boards.

        Returns: `waiting`, `waiting_since_s`; `unacknowledged`, `unacknowledged_since_s` of
            reports behind a hole in their stream; `received_s` of the newest report.
        Raises: DatabaseError: the file cannot be read.
        """
        with self._reading():
            # Rows are numbered without gaps and never deleted.
            since_s = "SELECT received_s FROM report WHERE row > ? ORDER BY row LIMIT 1"
            oldest = self._connection.execute(since_s, (after,)).fetchone()
            newest = "SELECT received_s FROM report ORDER BY row DESC LIMIT 1"
            last = self._connection.execute(newest).fetchone()
            count, held_s = self._connection.execute(
                "SELECT count(*), min(received_s) FROM (SELECT received_s FROM progress"
                " JOIN report USING (device, key_id) WHERE seq > contiguous_seq LIMIT ?)",
                (_MOST_COUNTED,),
            ).fetchone()
        return {
            "waiting": self.last_row - after,
            "waiting_since_s": oldest and oldest[0],
            "unacknowledged": count,
            "unacknowledged_since_s": held_s,
            "received_s": last and last[0],
        }

    def heard(self) -> dict[str, int]:
        """Return when the newest report of each board came, Unix seconds.

        Raises: DatabaseError: the file cannot be read.
        """
        with self._reading():
            found = self._connection.execute(
                "SELECT device, (SELECT received_s FROM report WHERE device = progress.device"
                " AND key_id = progress.key_id ORDER BY seq DESC LIMIT 1) FROM progress"
                " ORDER BY key_id"
            ).fetchall()
        return {device: received_s for device, received_s in found if received_s is not None}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _one(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _kind(error) in _PASSING:
                raise DatabaseError(
                    f"cannot read {self._path}: {error}",
                    hint="run it as the user that the gateway runs as",
                ) from None
            raise _damaged(self._path, error) from None


def _kind(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; extended codes hold it in the low byte."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _damaged(path: Path, error: sqlite3.Error) -> DatabaseError:
    return DatabaseError(
        f"{path} cannot be used: {error}",
        hint="stop the gateway and move the file away; a new one is made, "
        "and boards send again what was never acknowledged",
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES (?)", (str(uuid.uuid4()),))
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _check(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise DatabaseError(
            f"{path} is no database of a Netzpuls gateway", hint="move the file away"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise DatabaseError(
            f"{path} has version {version}, this Netzpuls knows {SCHEMA_VERSION}",
            hint="install the Netzpuls that made it",
        )


def _store(
    connection: sqlite3.Connection,
    reports: Iterable[Verified],
    refusals: list[Refusal],
    now_s: int,
) -> Outcome:
    outcome = Outcome(refusals=refusals)
    opened: dict[tuple[str, int], _Open] = {}
    for item in reports:
        key = (item.device, item.key_id)
        stream = opened.get(key)
        if stream is None:
            stream = opened[key] = _open(connection, *key)
        _insert(connection, stream, item, now_s, outcome)
    for stream in opened.values():
        _advance(connection, stream, now_s, outcome)
    _count(connection, outcome.refusals, now_s)
    return outcome


def _open(connection: sqlite3.Connection, device: str, key_id: int) -> _Open:
    progress = connection.execute(
        "SELECT contiguous_seq FROM progress WHERE device = ? AND key_id = ?", (device, key_id)
    ).fetchone()
    newest = connection.execute(
        "SELECT seq, raw FROM report WHERE device = ? AND key_id = ? ORDER BY seq DESC LIMIT 1",
        (device, key_id),
    ).fetchone()
    return _Open(
        device,
        key_id,
        contiguous=progress[0] if progress else 0,
        highest=newest[0] if newest else 0,
        tail=tag_of(newest[1]) if newest else NO_TAG,
    )


def _insert(
    connection: sqlite3.Connection, stream: _Open, item: Verified, now_s: int, outcome: Outcome
) -> None:
    present = _raw(connection, stream, item.seq) if item.seq <= stream.highest else None
    if present is None:
        connection.execute(
            "INSERT INTO report (device, key_id, seq, received_s, raw) VALUES (?, ?, ?, ?, ?)",
            (item.device, item.key_id, item.seq, now_s, item.raw),
        )
        outcome.committed += 1
        for seq in _breaks(connection, stream, item):
            connection.execute(
                "INSERT OR IGNORE INTO chain_break VALUES (?, ?, ?, ?)",
                (item.device, item.key_id, seq, now_s),
            )
            outcome.notes.append(
                Note("chain-broken", item.device, f"key_id {item.key_id} seq {seq}")
            )
        if item.seq <= stream.contiguous:
            _found(connection, item)
        if item.seq > stream.highest:
            stream.highest, stream.tail = item.seq, tag_of(item.raw)
    elif present == item.raw:
        outcome.duplicates += 1
    else:
        detail = f"key_id {item.key_id} seq {item.seq} is here with other content"
        outcome.refusals.append(Refusal(FORKED, item.device, detail))
        return
    stream.given_up = max(stream.given_up, item.oldest_seq - 1)


def _breaks(connection: sqlite3.Connection, stream: _Open, item: Verified) -> list[int]:
    """Return the reports whose link does not fit the report before, now that `item` is here."""
    found = []
    if item.seq == stream.highest + 1:
        before: bytes | None = stream.tail
    else:
        raw = _raw(connection, stream, item.seq - 1)
        before = tag_of(raw) if raw else NO_TAG if item.seq == 1 else None
    if before is not None and link_of(item.raw) != before:
        found.append(item.seq)
    if item.seq < stream.highest:
        after = _raw(connection, stream, item.seq + 1)
        if after and link_of(after) != tag_of(item.raw):
            found.append(item.seq + 1)
    return found


def _raw(connection: sqlite3.Connection, stream: _Open, seq: int) -> bytes | None:
    row = connection.execute(
        "SELECT raw FROM report WHERE device = ? AND key_id = ? AND seq = ?",
        (stream.device, stream.key_id, seq),
    ).fetchone()
    return row[0] if row else None


def _advance(connection: sqlite3.Connection, stream: _Open, now_s: int, outcome: Outcome) -> None:
    """Move the contiguous end over what is here and what the board gave up."""
    end = stream.contiguous
    following = connection.execute(
        "SELECT seq FROM report WHERE device = ? AND key_id = ? AND seq > ? ORDER BY seq",
        (stream.device, stream.key_id, end),
    )
    for (seq,) in following:
        lost_end = min(seq - 1, stream.given_up)
        if lost_end > end:
            connection.execute(
                "INSERT INTO loss VALUES (?, ?, ?, ?, ?)",
                (stream.device, stream.key_id, end + 1, lost_end, now_s),
            )
            detail = f"key_id {stream.key_id} seq {end + 1}..{lost_end}"
            outcome.notes.append(Note("reports-lost", stream.device, detail))
            end = lost_end
        if seq != end + 1:
            break
        end = seq
    if end > stream.contiguous:
        connection.execute(
            "INSERT INTO progress VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET contiguous_seq = excluded.contiguous_seq, updated_s = excluded.updated_s",
            (stream.device, stream.key_id, end, now_s),
        )
    outcome.streams.append(Stream(stream.device, stream.key_id, end))


def _found(connection: sqlite3.Connection, item: Verified) -> None:
    """Take a report that was thought lost and came after all out of the losses."""
    stream = (item.device, item.key_id)
    row = connection.execute(
        "SELECT first_seq, last_seq, noticed_s FROM loss"
        " WHERE device = ? AND key_id = ? AND first_seq <= ? AND last_seq >= ?",
        (*stream, item.seq, item.seq),
    ).fetchone()
    if row is None:
        return
    first, last, noticed_s = row
    connection.execute(
        "DELETE FROM loss WHERE device = ? AND key_id = ? AND first_seq = ?", (*stream, first)
    )
    for begin, end in ((first, item.seq - 1), (item.seq + 1, last)):
        if begin <= end:
            connection.execute(
                "INSERT INTO loss VALUES (?, ?, ?, ?, ?)", (*stream, begin, end, noticed_s)
            )


def _count(connection: sqlite3.Connection, refusals: Iterable[Refusal], now_s: int) -> None:
    for (reason, device), count in Counter((r.reason, r.device) for r in refusals).items():
        place = (reason, device)
        known = connection.execute(
            "SELECT 1 FROM refusal WHERE reason = ? AND device = ?", place
        ).fetchone()
        rows = connection.execute("SELECT count(*) FROM refusal").fetchone()[0]
        if not known and rows >= MAX_REFUSAL_ROWS:
            place = (reason, OTHERS)
        connection.execute(
            "INSERT INTO refusal VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET count = count + excluded.count, last_s = excluded.last_s",
            (*place, count, now_s),
        )
