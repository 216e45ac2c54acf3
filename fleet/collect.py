"""Collecting: pull what is new on the gateways over SSH into the city's store.

First each gateway is given its roster (`fleet.gateway.roster`), so that a board that was revoked
is locked out even where the line breaks afterwards. A gateway that cannot take it is collected
all the same.

A gateway's reports come in chunks. As many as come in a moment are verified together with the
city's own report keys and committed together with the cursor that says how far the gateway was
read; where the line breaks, what came whole before is committed too, and the next collection goes
on from there. What is refused is counted and said; it never goes into the store.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shlex import split
from threading import Lock
from typing import Any

from fleet import batch, reportkey, runner, visit
from fleet.errors import HostError, NetzpulsError, UsageError
from fleet.gateway import intake, roster, transfer
from fleet.gateway.roster import RosterError
from fleet.gateway.transfer import TransferError
from fleet.inventory import Inventory
from fleet.login import host_of
from fleet.runner import Stop
from fleet.seal import Seal
from fleet.ssh import Deadlines, Pool, Session
from fleet.store import Cursor, Gap, Store, Writer, gaps, tidying
from fleet.text import printable
from fleet.visit import Visit

DEFAULT_PARALLEL = 16
DEFAULT_TIMEOUT_S = 600.0
# Besides the reasons of `fleet.gateway.intake`: what came in after its board was revoked.
BOARD_REVOKED = "board-revoked"
_LINE_BYTES = 1 << 16
# So many reports at once go to a day file at once (`fleet.store.part`), which costs a third; some
# 20 MB of memory hold them.
PIECE_ROWS = 1 << 16
_PIECE_S = 10.0

Progress = Callable[["Collected"], None]


class CollectionError(NetzpulsError):
    """Some gateways, or all, could not be collected; each has its own error."""

    code = "gateways-failed"


@dataclass
class Collected:
    """What came from one gateway, so far.

    Attributes:
        refused: reports that are not in the store, by reason.
        lost: reports that its boards made, that are in no store and never will be.
        breaks: places where a board's report does not vouch for the one before.
        roster: which files of its roster the gateway has taken; None if it did not.
        certificates: when the gateway's certificates end.
        read: all that it had has come.
    """

    gateway: str
    rows: int = 0
    new: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    breaks: int = 0
    roster: list[str] | None = None
    certificates: dict[str, datetime] = field(default_factory=dict)
    duration_s: float = 0.0
    done: bool = False
    read: bool = False
    error: NetzpulsError | None = None

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        document = {
            "gateway": self.gateway,
            "ok": self.error is None,
            "rows": self.rows,
            "new": self.new,
            "duplicates": self.duplicates,
            "refused": dict(self.refused),
            "lost": self.lost,
            "chain_breaks": self.breaks,
            "roster": self.roster,
            "certificates": {name: end.isoformat() for name, end in self.certificates.items()},
            "duration_s": round(self.duration_s, 3),
        }
        return document | (self.error.document() if self.error else {})


class Seals:
    """The seals of all boards of a city; each key is read when it is first needed."""

    def __init__(self, secrets: Path) -> None:
        self._secrets = secrets
        self._seals: dict[tuple[str, int], Seal] = {}
        self._lock = Lock()

    def seal(self, device: str, key_id: int) -> Seal | None:
        """Return the seal of one of a board's keys, None if there is no such key.

        Raises: ConfigurationError: the key file cannot be read or is no key.
        """
        with self._lock:
            seal = self._seals.get((device, key_id))
            if seal is None and (key := reportkey.read(self._secrets, device, key_id)):
                # Only what is there: names of boards that are not would fill the memory.
                seal = self._seals[device, key_id] = Seal(key)
            return seal


def collect(
    city: Inventory,
    gateways: Sequence[str] = (),
    *,
    again: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    parallel: int = DEFAULT_PARALLEL,
    pool: Pool | None = None,
    on_progress: Progress = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Collected]:
    """Pull what is new from gateways, side by side.

    Args:
        city: whose gateways, keys and store.
        gateways: which of them; all if none is named.
        again: read from the beginning, for reports that were refused before.
        timeout_s: how long one gateway may take in all.
        parallel: how many at a time.
        pool: keeps the connections for the next collection; without one they end with this one.
        on_progress: called from worker threads after each piece and at each gateway's end.
        tell: hears what happens to the store before.

    Returns: one entry per gateway; what went wrong with it stands there.
    Raises: UsageError: no such gateway. StoreError: the store cannot be used at all.
    """
    hosts = {gateway: host_of(city, gateway) for gateway in gateways or sorted(city.gateways)}
    if not hosts:
        raise UsageError(
            f"{city.folder} has no gateway", hint="add a [gateway.…] to inventory.toml"
        )
    results = {gateway: Collected(gateway) for gateway in hosts}
    store = Store(city.folder)
    with (
        store.writing(tell) as writer,
        Pool() if pool is None else nullcontext(pool) as connections,
    ):
        cursors = {} if again else writer.cursors()
        pull = _Pull(city, writer, on_progress)

        def work(gateway: str, stop: Stop) -> None:
            session = Session(hosts[gateway], Deadlines(session_s=timeout_s), pool=connections)
            began = time.monotonic()
            try:
                with stop.closing(session), session:
                    pull.run(session, results[gateway], cursors.get(gateway))
            finally:
                results[gateway].duration_s = time.monotonic() - began

        # closing: an interrupt keeps the loop's frame alive, and work would go on behind it.
        with closing(runner.run(list(hosts), work, parallel)) as outcomes:
            for outcome in outcomes:
                result = results[outcome.target]
                result.error = outcome.error
                result.done = True
                on_progress(result)
        visit.remember(
            store.folder,
            {
                gateway: Visit(
                    collected=datetime.now(UTC).replace(microsecond=0),
                    certificates=result.certificates,
                )
                for gateway, result in results.items()
                if result.read
            },
        )
        with tidying(tell):
            _let_go(city, writer)
    with store.reading() as connection:
        _count_gaps(city, results, gaps(connection))
    return list(results.values())


def _let_go(city: Inventory, writer: Writer) -> None:
    """Let the store go of what the city does not want to keep for longer."""
    now_s, kept = int(time.time()), city.retention
    if kept.raw_s or kept.sealed_s or kept.interval_s:
        writer.expire(
            raw_before_s=now_s - kept.raw_s if kept.raw_s else None,
            sealed_before_s=now_s - kept.sealed_s if kept.sealed_s else None,
            interval_before_s=now_s - kept.interval_s if kept.interval_s else None,
        )


class _Pull:
    """What pulling from any gateway needs."""

    def __init__(self, city: Inventory, writer: Writer, on_progress: Progress) -> None:
        self._city = city
        self._seals = Seals(city.secrets)
        self._revoked_s = {
            board_id: board.revoked.timestamp()
            for board_id, board in city.boards.items()
            if board.revoked
        }
        self._writer = writer
        self._on_progress = on_progress

    def run(self, session: Session, result: Collected, cursor: Cursor | None) -> None:
        refusal: NetzpulsError | None = None
        try:
            self._give_roster(session, result)
        except NetzpulsError as error:
            refusal = error
        self._read(session, result, cursor)
        result.read = True
        if refusal:
            raise RosterError(
                f"{result.gateway} was collected, but does not know who may report: "
                f"{refusal.message}",
                hint=refusal.hint,
            )

    def _give_roster(self, session: Session, result: Collected) -> None:
        gateway = self._city.gateways[result.gateway]
        files = roster.of(self._city, result.gateway)
        arguments = [*split(gateway.command), "gateway", "roster", "--dir", gateway.data_dir]
        with session.command(arguments) as command:
            line = command.stdout.readline(_LINE_BYTES)
            if not line:
                command.finish()
            greeting = roster.greeting(line)
            self._check_identity(session, result, greeting.gateway)
            result.certificates = dict(greeting.certificates)
            command.send(roster.missing(files, greeting.have))
            line = command.stdout.readline(_LINE_BYTES)
            command.finish()
            result.roster = roster.answered(line)

    def _check_identity(self, session: Session, result: Collected, gateway: str) -> None:
        if gateway != result.gateway:
            folder = self._city.gateways[result.gateway].data_dir
            raise HostError(
                f"{session.host.label} ({session.host.name}): in {folder} there lives "
                f"{printable(gateway)!r}",
                hint="correct its host, ssh_port or data_dir in inventory.toml",
            )

    def _read(self, session: Session, result: Collected, cursor: Cursor | None) -> None:
        gateway = self._city.gateways[result.gateway]
        arguments = [*split(gateway.command), "gateway", "read", "--dir", gateway.data_dir]
        if cursor:
            arguments += ["--after", str(cursor.row), "--database", cursor.database]
        with session.command(arguments) as command:
            try:
                header, chunks = transfer.read(command.stdout)
                self._check_identity(session, result, header.gateway)
                for rows in _pieces(chunks):
                    self._ingest(result, Cursor(header.database, rows[-1].row), rows)
                    self._on_progress(result)
            except TransferError:
                # A command that failed says why; if it did not, the stream itself is at fault.
                command.finish()
                raise
            command.finish()
        if not result.rows:
            self._ingest(result, Cursor(header.database, header.first_row), [])

    def _ingest(self, result: Collected, cursor: Cursor, rows: Sequence[transfer.Row]) -> None:
        valid = [
            row
            for row in rows
            if (since_s := self._revoked_s.get(row.device)) is None or row.received_s < since_s
        ]
        examined = batch.examine(result.gateway, valid, self._seals)
        ingested = self._writer.take(examined.piece, (result.gateway, cursor))
        refused = {BOARD_REVOKED: len(rows) - len(valid), intake.FORKED: ingested.forks}
        result.refused += examined.refused + Counter(refused)  # which leaves out what is 0
        result.rows += len(rows)
        result.new += ingested.new
        result.duplicates += ingested.duplicates


def _pieces(chunks: Iterable[list[transfer.Row]]) -> Iterator[list[transfer.Row]]:
    """Put chunks together; what came before it broke comes, too."""
    rows: list[transfer.Row] = []
    since_s = time.monotonic()
    broke: NetzpulsError | None = None
    try:
        for chunk in chunks:
            rows += chunk
            if len(rows) >= PIECE_ROWS or time.monotonic() - since_s >= _PIECE_S:
                yield rows
                rows, since_s = [], time.monotonic()
    except NetzpulsError as error:
        broke = error
    if rows:
        yield rows
    if broke:
        raise broke


def _count_gaps(city: Inventory, results: dict[str, Collected], found: Sequence[Gap]) -> None:
    for gap in found:
        board = city.boards.get(gap.device)
        site = city.sites.get(board.site) if board else None  # a retired one's may be no more
        result = results.get(site.gateway) if site else None
        if result:
            result.lost += gap.lost
            result.breaks += gap.breaks
