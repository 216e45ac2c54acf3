"""From a blank board to an enrolled one, in one esptool session.

`plan` checks everything that can be checked before the board is touched; `flash_board`
does it. Boards may be flashed side by side from threads of one process.
"""

from __future__ import annotations

import contextlib
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import serial
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fleet import authority, inventory, reportkey
from fleet.authority import Authority
from fleet.errors import NetzpulsError
from fleet.inventory import NO_HARDWARE, SECRETS_FOLDER, Board, Inventory, Role, Tested
from provisioning import (
    adapter,
    application,
    bench,
    configuration,
    content,
    disk,
    hashkey,
    identity,
    image,
    journal,
    port,
    registry,
    root,
    selftest,
)
from provisioning.application import OTA, Application, Image
from provisioning.bench import Bench
from provisioning.chip import CHIPS
from provisioning.configuration import Recipient
from provisioning.errors import ChipError, ReassignError
from provisioning.guard import GuardedDisk
from provisioning.journal import Pending
from provisioning.region import Region
from provisioning.session import Advance, Session, speeds
from provisioning.trial import STEPS, Trial

SELF_TEST_S = 60.0
# Of the registry's entry, what is new by flashing.
_SHOWN = {
    "site", "room", "role", "hardware", "key_id", "chip", "mac", "agent", "tested", "enrolled",
    "certificate_expires",
}  # fmt: skip


@dataclass(frozen=True)
class FlashRequest:
    """What a technician asks for.

    Attributes:
        city: the city's folder.
        port: a serial port, or a URL that pyserial understands.
        image: the MicroPython application image.
        baud: the line's speed; None for the best that it carries.
        reassign: take a board that the registry has elsewhere or as revoked.
        hardware: what hangs on the board, by the inventory; "none" for nothing, None for what
            the registry says of it.
        no_bench: test the board alone, although the inventory has a bench.
    """

    city: Path
    port: str
    site: str
    room: str
    role: Role
    image: Image | None
    baud: int | None = None
    reassign: bool = False
    self_test_s: float = SELF_TEST_S
    hardware: str | None = None
    no_bench: bool = False


@dataclass(frozen=True)
class Found:
    """A board that has told who it is."""

    port: str
    board: str
    chip: str
    mac: str


@dataclass(frozen=True)
class Plan:
    """What will be written, as far as it is known before the board is."""

    request: FlashRequest
    inventory: Inventory
    application: Application
    files: dict[str, bytes]
    wlan_keys: dict[str, str] = field(repr=False)
    bench: Bench | None

    def at(self, port: str, room: str) -> Self:
        """Return the same for another board and room of the site."""
        return replace(self, request=replace(self.request, port=port, room=room))

    def document(self) -> dict[str, Any]:
        """Return the plan as `--json` prints it."""
        site = self.inventory.site(self.request.site)
        return {
            "port": self.request.port,
            "site": self.request.site,
            "room": self.request.room,
            "role": self.request.role,
            "hardware": self.request.hardware,
            "wlan": site.wlan,
            "gateway": site.gateway,
            "bench": self.bench and self.bench.document(),
            "baud": self.request.baud,
            "image": self.application.document(),
            "write": self.writes(),
        }

    def writes(self) -> list[dict[str, Any]]:
        """Return what may be written and where, as `--json` prints it."""
        vfs = self.application.file_system()
        return [
            {
                "what": "application",
                "address": self.application.chip.start,
                "bytes": len(self.application.content),
            },
            {"what": "file system", "address": vfs.offset, "bytes": vfs.size},
        ]


Settle = Callable[[Found], Plan]


@dataclass(frozen=True)
class Progress:
    """How far one board is.

    Attributes:
        board: its id, "" as long as it is not known.
        stage: "connect", "room" (if it is asked for then), "prepare", "application",
            "file system", "self-test", a step of `trial`, or "enrol".
        done_bytes: sent on the line, compressed; 0 where nothing is sent.
        total_bytes: to be sent on the line, 0 where nothing is.
    """

    port: str
    board: str
    stage: str
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Flashed:
    """A board that is enrolled.

    Attributes:
        seconds: duration by stage, and "total".
        self_test: what the board said of itself.
        not_tested: steps of `trial` that only a bench tests.
    """

    port: str
    board: str
    entry: Board
    application: Application
    seconds: dict[str, float]
    self_test: dict[str, Any]
    not_tested: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """What became of it, in a few words."""
        return f"enrolled, {self.seconds['total']:.1f} s"

    @property
    def is_good(self) -> bool:
        """Whether nothing is left to do about it."""
        return True

    def document(self) -> dict[str, Any]:
        """Return the result as `--json` prints it."""
        return {
            "port": self.port,
            "board": self.board,
            **self.entry.model_dump(mode="json", include=_SHOWN),
            "image": self.application.document(),
            "seconds": self.seconds,
            "self_test": self.self_test,
            "not_tested": list(self.not_tested),
        }


def plan(request: FlashRequest) -> Plan:
    """Check a request without touching the board.

    Raises: NetzpulsError: with what is wrong and what to do.
    """
    prepared = prepare(request)
    prepared.inventory.room(request.site, request.room)
    port.check(request.port)
    return prepared


def prepare(request: FlashRequest) -> Plan:
    """Check a request as `plan` does, but for its port and its room; see `Plan.at`.

    Raises: NetzpulsError: with what is wrong and what to do.
    """
    city = inventory.load(request.city)
    wlan_keys = configuration.wlan_keys(city, request.site, request.role)
    # Checked now with another board's name and secrets: later only those change.
    configuration.encoded(
        city,
        Recipient(
            board="np-000000000000",
            key_id=1,
            site=request.site,
            role=request.role,
            wlan_keys=wlan_keys,
            hash_key=bytes(hashkey.KEY_BYTES),
            hardware=_hardware(request, None),
        ),
    )
    loaded = application.load(request.image)
    files = image.agent_files()
    roots = root.anchors(city)
    if roots:
        files[root.BOARD_PATH] = roots
    return Plan(
        request, city, loaded, files, wlan_keys, None if request.no_bench else bench.of(city)
    )


def flash_board(
    request: FlashRequest, on_progress: Callable[[Progress], None] = lambda _: None
) -> Flashed:
    """Flash, test and enrol one board. Safe to call from several threads for several ports.

    Args:
        request: which board, and what it is to become.
        on_progress: told each step; what it raises stops the work.

    Raises: NetzpulsError: with what happened to which board and what to do. The registry is as
        it was, then; the journal holds what the next run goes on with.
    """
    return carry_out(plan(request), on_progress)


def carry_out(
    planned: Plan,
    on_progress: Callable[[Progress], None] = lambda _: None,
    settle: Settle | None = None,
) -> Flashed:
    """Do what was planned; as `flash_board`.

    `settle` is asked for the plan once the board has told who it is, as the stage "room": its
    port, city and speed are those of `planned`. What it raises stops the work.
    """
    return _Flashing(planned, on_progress, settle).run()


class _Flashing:
    """One board's way through the stages."""

    def __init__(
        self, planned: Plan, on_progress: Callable[[Progress], None], settle: Settle | None
    ) -> None:
        self._plan = planned
        self._on_progress = on_progress
        self._settle = settle
        self._board = ""
        self._current = ""
        self._pending: Pending | None = None
        self._seconds: dict[str, float] = {}

    @property
    def _request(self) -> FlashRequest:
        return self._plan.request

    def run(self) -> Flashed:
        begin = time.monotonic()
        ca = authority.ensure(self._request.city, self._plan.inventory.city.id)
        line = port.open_port(self._request.port)
        try:
            entry, self_test = self._run(line, ca)
        except BaseException as error:
            self._note(error)
            # Whatever is in its flash: a board is not left waiting in its boot loader.
            with contextlib.suppress(OSError, termios.error):
                if port.has_reset_line(line):
                    port.reset(line)
            raise
        finally:
            line.close()
        self._seconds["total"] = round(time.monotonic() - begin, 3)
        return Flashed(
            port=self._request.port,
            board=self._board,
            entry=entry,
            application=self._plan.application,
            seconds=self._seconds,
            self_test=self_test,
            not_tested=() if self._plan.bench else STEPS,
        )

    def _run(self, line: serial.Serial, ca: Authority) -> tuple[Board, dict[str, Any]]:
        with contextlib.ExitStack() as stack:
            with self._stage("connect"):
                adapter_name = adapter.name(self._request.port)
                bauds = speeds(self._request.baud, adapter.speed(adapter_name))
                session = stack.enter_context(Session(line, bauds))
            self._board = "np-" + session.mac.replace(":", "")
            if self._settle:
                with self._stage("room"):
                    found = Found(self._request.port, self._board, session.chip, session.mac)
                    self._plan = self._settle(found)
            request, parts = self._request, self._plan.application
            with self._stage("prepare"):
                known, hardware = self._admit(session)
                hash_key = hashkey.ensure(request.city)
                there = self._found(session, known, hardware, hash_key, ca)
                pending = identity.choose(request.city, self._board, known, there, ca)
                self._pending = pending
                journal.save(request.city, pending)
                if self._plan.bench:
                    self._plan.bench.admit()
                files = self._files(pending, hardware, hash_key, ca)
                kept = content.updated(there, files) if pending.keeps and there else None
                place = parts.file_system(session.flash_bytes)
                extents = disk.fresh(files, place.size) if kept is None else kept
                file_system = [
                    Region.of(place.offset + each.offset, each.content) for each in extents
                ]
            is_new = self._write(session, "application", parts.regions)
            # What an earlier life left there would be taken for this one's. The settings of a
            # board that goes on are its own; which application starts is the new one's.
            for area in parts.data:
                if not pending.keeps or (is_new and area.subtype == OTA):
                    session.erase(area.offset, area.size)
            self._write(session, "file system", file_system)
            adapter.remember(adapter_name, session.baud)
            with self._stage("self-test"):
                session.restart()
                hidden = self._secrets(pending, hash_key)
                self_test = selftest.read(
                    line,
                    self._board,
                    request.self_test_s,
                    hidden,
                    self._wait,
                )
            to = self._recipient(pending, hardware, hash_key)
            config = bench.content(self._plan.inventory, to, self._plan.bench)
            trial = Trial(
                line, self._board, config, self._plan.bench, hidden, self._stage, self._wait
            )
            self_test |= trial.run()
            with self._stage("enrol"):
                flashed = Board(
                    site=request.site,
                    room=request.room,
                    role=request.role,
                    hardware=hardware,
                    key_id=pending.key_id,
                    chip=session.chip,
                    mac=session.mac,
                    agent=str(self_test.get("agent", "")),
                    tested=self._tested(pending, known),
                    enrolled=datetime.now(UTC).replace(microsecond=0),
                    certificate_expires=pending.certificate().not_valid_after_utc,
                )
                entry = registry.enrol(
                    request.city,
                    self._board,
                    lambda _: flashed,
                    admitted=known,
                    report_key=pending.report_key,
                    certificate_pem=_pem(pending.certificate()),
                    ends=identity.ended(request.city, pending),
                )
                journal.discard(request.city, self._board)
        return entry, self_test

    def _found(
        self,
        session: Session,
        known: Board | None,
        hardware: str | None,
        hash_key: bytes,
        ca: Authority,
    ) -> GuardedDisk | None:
        """Open the file system of a board that may keep it."""
        city = self._request.city
        if known is None or known.revoked:
            return None
        stored = reportkey.read(city / SECRETS_FOLDER, self._board, known.key_id)
        certificate = registry.certificate(city, self._board)
        if stored is None or certificate is None:
            return None
        pending = Pending(
            self._board, known.key_id, stored, _der(certificate), bytes(content.PRIVATE_KEY_BYTES)
        )
        likely = self._files(pending, hardware, hash_key, ca)
        loaded = self._plan.application
        return content.found(session, loaded, loaded.file_system(session.flash_bytes), likely)

    def _files(
        self, pending: Pending, hardware: str | None, hash_key: bytes, ca: Authority
    ) -> dict[str, bytes]:
        """Return all that the board's file system is to hold, beside what the board writes."""
        to = self._recipient(pending, hardware, hash_key)
        config = configuration.encoded(self._plan.inventory, to)
        return self._plan.files | {
            "config.json": config,
            content.AUTHORITY: ca.certificate_der,
            content.CERTIFICATE: pending.certificate_der,
            content.PRIVATE_KEY: pending.key_der,
            content.REPORT_KEY: pending.report_key,
        }

    def _tested(self, pending: Pending, known: Board | None) -> Tested:
        """Return which self-test the board passed; of one that goes on the better one."""
        before = known.tested if known and pending.keeps else None
        return "bench" if self._plan.bench else before or "alone"

    def _recipient(self, pending: Pending, hardware: str | None, hash_key: bytes) -> Recipient:
        return Recipient(
            board=self._board,
            key_id=pending.key_id,
            site=self._request.site,
            role=self._request.role,
            wlan_keys=self._plan.wlan_keys,
            hash_key=hash_key,
            hardware=hardware,
        )

    def _secrets(self, pending: Pending, hash_key: bytes) -> tuple[str, ...]:
        """Return what the board knows and must not be shown, whatever it says."""
        keys = (*self._plan.wlan_keys.values(), pending.report_key.hex(), hash_key.hex())
        return (*keys, *(self._plan.bench.secrets(pending) if self._plan.bench else ()))

    def _admit(self, session: Session) -> tuple[Board | None, str | None]:
        """Return the registry's entry and the hardware if this board may be enrolled here.

        Raises:
            ChipError: the board has too little flash.
            ReassignError: the registry has the board elsewhere, or as revoked.
        """
        request, loaded = self._request, self._plan.application
        if session.chip_name != loaded.chip.name:
            raise ChipError(
                f"{self._board} on {request.port} is an {session.chip_name}, and "
                f"{loaded.path} is for {loaded.chip.name}; nothing was written",
                hint=_image_hint(session.chip_name),
            )
        needed = loaded.flash_bytes
        if session.flash_bytes < needed:
            raise ChipError(
                f"{self._board} on {request.port} has {session.flash_bytes // 1024} KiB of flash, "
                f"the image needs {needed // 1024} KiB",
                hint="take a board with at least 4 MB",
            )
        city = inventory.load(request.city)
        known = city.boards.get(self._board)
        if known and not request.reassign:
            check_free(self._board, known, request.site, request.room)
        return known, _hardware(request, known)

    def _write(self, session: Session, stage: str, regions: Iterable[Region]) -> bool:
        """Write the regions that the board does not hold already; tell whether there were any."""
        with self._stage(stage):
            missing = [region for region in regions if not session.holds(region)]
            total = sum(len(region.deflated) for region in missing)
            done = 0
            for region in missing:
                session.write(region, self._advance(stage, done, total))
                done += len(region.deflated)
        return bool(missing)

    def _advance(self, stage: str, before_bytes: int, total_bytes: int) -> Advance:
        return lambda sent, _: self._say(stage, before_bytes + sent, total_bytes)

    @contextlib.contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        begin = time.monotonic()
        self._current = stage
        if self._pending:
            self._pending = self._pending.at(stage)
            journal.save(self._request.city, self._pending)
        self._say(stage)
        yield
        self._seconds[stage] = round(time.monotonic() - begin, 3)

    def _note(self, error: BaseException) -> None:
        """Leave in the journal why the board went no further."""
        if self._pending and isinstance(error, NetzpulsError):
            with contextlib.suppress(NetzpulsError):
                journal.save(self._request.city, self._pending.failed(error.message))

    def _wait(self) -> None:
        """Hear while a board is waited for whether the work is to stop."""
        self._say(self._current)

    def _say(self, stage: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        self._on_progress(Progress(self._request.port, self._board, stage, done_bytes, total_bytes))


def check_free(board: str, known: Board, site: str, room: str | None) -> None:
    """Check that a board that the registry knows may be enrolled at a place without being asked.

    Raises: ReassignError: the registry has it elsewhere, as revoked, or as retired.
    """
    if known.revoked:
        raise ReassignError(
            f"{board} was revoked on {known.revoked:%Y-%m-%d}",
            hint="if it may report again, add --reassign",
        )
    if known.retired:
        raise ReassignError(
            f"{board} was retired on {known.retired:%Y-%m-%d}",
            hint="if it is to be used again, add --reassign",
        )
    if known.site != site or room not in (None, known.room):
        raise ReassignError(
            f"{board} is registered at {known.site}, {known.room}",
            hint=f"if it moves to {', '.join(filter(None, (site, room)))}, add --reassign",
        )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _hardware(request: FlashRequest, known: Board | None) -> str | None:
    if request.hardware is None:
        return known.hardware if known else None
    return None if request.hardware == NO_HARDWARE else request.hardware


def _image_hint(chip_name: str) -> str:
    chip = next(each for each in CHIPS if each.name == chip_name)
    return f"get {chip.build} from {chip.official}"
