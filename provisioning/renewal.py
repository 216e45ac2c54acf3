"""A new certificate for a board that is enrolled, or a new identity: its application stays.

With the key that the board has only its certificate is written, a few sectors: reports that it
holds stay, and what gateways know of it holds. A new key ends the old identity: its certificates
are revoked, and reports that were not sent under it are given up.
"""

from __future__ import annotations

import contextlib
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from fleet import authority, inventory, reportkey
from fleet.errors import NetzpulsError
from fleet.inventory import Board
from provisioning import (
    adapter,
    application,
    check,
    configuration,
    content,
    hashkey,
    identity,
    journal,
    port,
    registry,
    selftest,
)
from provisioning.application import Partition
from provisioning.chip import TABLE_ADDRESS, TABLE_BYTES
from provisioning.desk import Desk, Registered, Screen
from provisioning.errors import DiskError, DiskFullError, ImageError, RenewalError
from provisioning.flash import SELF_TEST_S, Progress
from provisioning.guard import GuardedDisk
from provisioning.journal import Pending
from provisioning.port import Adapter
from provisioning.region import Region
from provisioning.session import Advance, Session, speeds

_SPOOL = "spool/"
_AGAIN = "flash it again: netzpuls board flash keeps what can be kept"


@dataclass(frozen=True)
class RenewalRequest:
    """What a technician asks for.

    Attributes:
        city: the city's folder.
        new_key: make new keys, too, and revoke what the old ones were certified by.
        baud: the line's speed; None for the best that it carries.
    """

    city: Path
    new_key: bool = False
    baud: int | None = None
    self_test_s: float = SELF_TEST_S


@dataclass(frozen=True)
class Renewed:
    """A board that has a new certificate.

    Attributes:
        ended_before: when its certificate would have ended.
        new_key: whether its keys are new, too.
        revoked: how many certificates were revoked for that.
        written_bytes: what was written into its flash.
        seconds: duration by stage, and "total".
        self_test: what the board said of itself.
    """

    port: str
    board: str
    entry: Board
    ended_before: datetime
    new_key: bool
    revoked: int
    written_bytes: int
    seconds: dict[str, float]
    self_test: dict[str, Any]

    @property
    def ending(self) -> str:
        """What became of it, in a few words."""
        keys = f", key {self.entry.key_id}" if self.new_key else ""
        return f"until {self.entry.certificate_expires:%Y-%m-%d}{keys}"

    @property
    def is_good(self) -> bool:
        """Whether nothing is left to do about it."""
        return True

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "port": self.port,
            "board": self.board,
            "site": self.entry.site,
            "room": self.entry.room,
            "key_id": self.entry.key_id,
            "new_key": self.new_key,
            "certificate_expires": self.entry.certificate_expires.isoformat(),
            "ended_before": self.ended_before.isoformat(),
            "revoked": self.revoked,
            "written_bytes": self.written_bytes,
            "seconds": self.seconds,
            "self_test": self.self_test,
        }


def renew(
    request: RenewalRequest,
    port_name: str,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Renewed:
    """Renew the board on a port, hear that it is well, and enrol it with what it has now.

    Raises: NetzpulsError: with what happened to which board and what to do. The registry is as
        it was, then; the journal holds what the next run goes on with.
    """
    return _Renewing(request, port_name, on_progress).run()


def desk(
    request: RenewalRequest,
    find: Callable[[], Sequence[Adapter]],
    screen: Screen,
    expected: Sequence[str] = (),
) -> Desk[Registered[Renewed]]:
    """Make a desk that renews all boards; arguments as for `inspection.desk`.

    Raises: NetzpulsError: what no board could be renewed with, before one is touched.
    """
    known = inventory.load(request.city)
    authority.load(request.city)
    hashkey.ensure(request.city)

    def work(each: Registered[Renewed]) -> Renewed:
        return renew(request, each.adapter.port, lambda step: made.step(each, step))

    made: Desk[Registered[Renewed]] = Desk(
        find, lambda adapter: Registered(adapter, known), work, screen, expected=expected
    )
    return made


class _Renewing:
    """One board's way to another certificate."""

    def __init__(
        self, request: RenewalRequest, port_name: str, on_progress: Callable[[Progress], None]
    ) -> None:
        self._request = request
        self._port = port_name
        self._on_progress = on_progress
        self._city = inventory.load(request.city)
        self._ca = authority.load(request.city)
        self._board = ""
        self._pending: Pending | None = None
        self._seconds: dict[str, float] = {}
        self._written_bytes = 0

    def run(self) -> Renewed:
        begin = time.monotonic()
        line = port.open_port(self._port)
        try:
            renewed = self._run(line)
        except BaseException as error:
            self._note(error)
            with contextlib.suppress(OSError, termios.error):
                if port.has_reset_line(line):
                    port.reset(line)
            raise
        finally:
            line.close()
        self._seconds["total"] = round(time.monotonic() - begin, 3)
        return renewed

    def _run(self, line: Any) -> Renewed:
        city = self._request.city
        with contextlib.ExitStack() as stack:
            with self._stage("connect"):
                known_speed = adapter.speed(adapter.name(self._port))
                bauds = speeds(self._request.baud, known_speed)
                session = stack.enter_context(Session(line, bauds))
            self._board = "np-" + session.mac.replace(":", "")
            with self._stage("prepare"):
                before = self._admit()
                partition = self._partition(session)
                disk = self._opened(session, partition, before)
                pending = self._identity(disk, before)
                entry = before.model_copy(
                    update={
                        "key_id": pending.key_id,
                        "certificate_expires": pending.certificate().not_valid_after_utc,
                    }
                )
                regions = self._regions(disk, partition, pending, entry)
                # Nothing is written, and nothing is left in the journal, before this is known.
                self._pending = pending
                journal.save(city, pending)
            with self._stage("file system"):
                self._write(session, regions)
            with self._stage("self-test"):
                session.restart()
                self_test = self._self_test(line, pending, entry)
            with self._stage("enrol"):
                old = identity.ended(city, pending)
                fresh = {"key_id": pending.key_id, "certificate_expires": entry.certificate_expires}
                fresh["agent"] = str(self_test.get("agent", ""))
                entry = registry.enrol(
                    city,
                    self._board,
                    lambda now: (now or before).model_copy(update=fresh),
                    admitted=before,
                    report_key=pending.report_key,
                    certificate_pem=pending.certificate().public_bytes(serialization.Encoding.PEM),
                    ends=old,
                )
                journal.discard(city, self._board)
        return Renewed(
            port=self._port,
            board=self._board,
            entry=entry,
            ended_before=before.certificate_expires,
            new_key=not pending.keeps,
            revoked=len(old),
            written_bytes=self._written_bytes,
            seconds=self._seconds,
            self_test=self_test,
        )

    def _admit(self) -> Board:
        """Return the registry's entry.

        Raises: RenewalError: it has none, or one that is out of service.
        """
        entry = self._city.boards.get(self._board)
        if entry is None:
            raise RenewalError(
                f"{self._board} on {self._port} is not in the registry",
                hint="to make it one of the city's: netzpuls board flash --help",
            )
        for how, since in (("revoked", entry.revoked), ("retired", entry.retired)):
            if since:
                raise RenewalError(
                    f"{self._board} on {self._port} was {how} on {since:%Y-%m-%d}",
                    hint="if it is to be used again: netzpuls board flash … --reassign",
                )
        return entry

    def _partition(self, session: Session) -> Partition:
        try:
            there = application.partitions(session.read(TABLE_ADDRESS, TABLE_BYTES))
        except ImageError:
            there = []
        found = application.file_system(there, session.flash_bytes)
        if found is None:
            raise RenewalError(
                f"{self._board} on {self._port} holds no MicroPython",
                hint="flash it again: netzpuls board flash --help",
            )
        return found

    def _opened(self, session: Session, partition: Partition, entry: Board) -> GuardedDisk:
        likely = check.files(self._city, self._ca, self._board, entry)
        try:
            return content.opened(session, partition, likely)
        except DiskError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: DiskError) -> RenewalError:
        return RenewalError(f"{self._board} on {self._port}: {error.message}", hint=_AGAIN)

    def _identity(self, disk: GuardedDisk, entry: Board) -> Pending:
        """Return who the board is to be, and what a run that was cut made for it."""
        city = self._request.city
        begun = identity.resumed(city, self._board, entry, self._ca)
        if begun and not begun.keeps:
            return replace(begun, ends=True)  # half of it may be on the board already
        if self._request.new_key:
            return identity.made(city, self._board, self._ca, ends=True)
        return self._held(disk, entry).certified(self._ca)

    def _held(self, disk: GuardedDisk, entry: Board) -> Pending:
        """Return the identity that the board has.

        Raises: RenewalError: it is not the registry's.
        """
        try:
            held = Pending(
                self._board,
                entry.key_id,
                disk.read(content.REPORT_KEY) or b"",
                disk.read(content.CERTIFICATE) or b"",
                disk.read(content.PRIVATE_KEY) or b"",
                keeps=True,
            )
        except DiskError as error:
            raise self._unusable(error) from None
        enrolled = registry.certificate(self._request.city, self._board)
        stored = reportkey.read(self._city.secrets, self._board, entry.key_id)
        if (
            not held.is_whole()
            or enrolled is None
            or held.report_key != stored
            or held.certificate().public_key() != enrolled.public_key()
        ):
            raise self._differs()
        return held

    def _differs(self) -> RenewalError:
        return RenewalError(
            f"{self._board} on {self._port} does not hold the keys that were enrolled",
            hint="give it new ones: add --new-key, or flash it again",
        )

    def _regions(
        self, disk: GuardedDisk, partition: Partition, pending: Pending, entry: Board
    ) -> list[Region]:
        """Return what is to be written, in this order."""
        files = {
            content.CERTIFICATE: pending.certificate_der,
            content.AUTHORITY: self._ca.certificate_der,
        }
        try:
            if pending.keeps:
                for path, wanted in files.items():
                    disk.write(path, wanted)
                extents = disk.changes()
            else:
                for path in disk.names():
                    if path.startswith(_SPOOL):
                        disk.remove(path)  # nobody can check it any more
                files |= {
                    content.PRIVATE_KEY: pending.key_der,
                    content.REPORT_KEY: pending.report_key,
                }
                wanted_files = check.files(self._city, self._ca, self._board, entry) | files
                extents = content.update(disk, wanted_files)
        except DiskFullError:
            raise
        except DiskError as error:
            raise self._unusable(error) from None
        return [Region.of(partition.offset + each.offset, each.content) for each in extents]

    def _write(self, session: Session, regions: Sequence[Region]) -> None:
        missing = [region for region in regions if not session.holds(region)]
        total = sum(len(region.deflated) for region in missing)
        done = 0
        for region in missing:
            session.write(region, self._advance(done, total))
            done += len(region.deflated)
            self._written_bytes += len(region.content)

    def _advance(self, before_bytes: int, total_bytes: int) -> Advance:
        return lambda sent, _: self._say("file system", before_bytes + sent, total_bytes)

    def _self_test(self, line: Any, pending: Pending, entry: Board) -> dict[str, Any]:
        wlan_keys = configuration.wlan_keys(self._city, entry.site, entry.role)
        hidden = (pending.report_key.hex(), hashkey.ensure(self._request.city).hex())
        return selftest.read(
            line,
            self._board,
            self._request.self_test_s,
            (*wlan_keys.values(), *hidden),
            lambda: self._say("self-test"),
        )

    def _note(self, error: BaseException) -> None:
        """Leave in the journal why the board went no further."""
        if self._pending and isinstance(error, NetzpulsError):
            with contextlib.suppress(NetzpulsError):
                journal.save(self._request.city, self._pending.failed(error.message))

    @contextlib.contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        begin = time.monotonic()
        if self._pending:
            self._pending = self._pending.at(stage)
            journal.save(self._request.city, self._pending)
        self._say(stage)
        yield
        self._seconds[stage] = round(time.monotonic() - begin, 3)

    def _say(self, stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        self._on_progress(Progress(self._port, self._board, stage, done_bytes, total_bytes))
