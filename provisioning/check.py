"""Is this board what the registry says? Asked of its flash, which even a dead board answers.

Nothing is written. At the end the board starts anew and says itself how it is.
"""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from fleet import authority, inventory, reportkey
from fleet.authority import Authority
from fleet.inventory import Board, Inventory
from fleet.text import printable
from provisioning import (
    adapter,
    application,
    configuration,
    content,
    hashkey,
    image,
    journal,
    port,
    registry,
    root,
    selftest,
)
from provisioning.application import Application, Image, Partition
from provisioning.bench import TESTED
from provisioning.chip import TABLE_ADDRESS, TABLE_BYTES
from provisioning.errors import DiskError, ImageError, SelfTestError
from provisioning.flash import SELF_TEST_S, Progress
from provisioning.guard import GuardedDisk
from provisioning.journal import Pending
from provisioning.session import Session, speeds

WARN_BEFORE = timedelta(days=30)

_LAST_WORDS = "fault.txt"
_SPOOL = "spool/"
_SHOWN = 5
# Without a file system there is no agent to wait for, only the console's own words.
_NO_AGENT_S = 5.0


@dataclass(frozen=True)
class CheckRequest:
    """What a technician asks for.

    Attributes:
        city: the city's folder.
        image: the MicroPython image that the board should have; None: not compared.
        baud: the line's speed; None for the best that it carries.
    """

    city: Path
    port: str
    image: Image | None = None
    baud: int | None = None
    self_test_s: float = SELF_TEST_S


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `told` says what was seen."""

    what: str
    ok: bool
    told: str


@dataclass(frozen=True)
class Checked:
    """A board that was looked at.

    Attributes:
        entry: what the registry has of it, None for nothing.
        self_test: what the board said of itself, None if it did not.
    """

    port: str
    board: str
    entry: Board | None
    findings: list[Finding]
    self_test: dict[str, Any] | None = field(default=None)

    @property
    def ok(self) -> bool:
        """Whether all is as the registry says."""
        return all(finding.ok for finding in self.findings)

    @property
    def in_service(self) -> bool:
        """Whether the registry has it, neither retired nor revoked."""
        return bool(self.entry and not self.entry.revoked and not self.entry.retired)

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "port": self.port,
            "board": self.board,
            "registry": self.entry and self.entry.model_dump(mode="json"),
            "good": self.ok,
            "findings": [
                {"what": each.what, "ok": each.ok, "told": each.told} for each in self.findings
            ],
            "self_test": self.self_test,
        }


def check_board(
    request: CheckRequest, on_progress: Callable[[Progress], None] = lambda _: None
) -> Checked:
    """Compare a board with the registry; start it, and hear what it says.

    Raises: NetzpulsError: it could not be looked at: no port, no board, a lost line.
    """
    return _Checking(request, on_progress).run()


class _Checking:
    """One board under the glass."""

    def __init__(self, request: CheckRequest, on_progress: Callable[[Progress], None]) -> None:
        self._request = request
        self._on_progress = on_progress
        self._city = inventory.load(request.city)
        self._ca = authority.load(request.city)
        self._image = application.load(request.image) if request.image else None
        self._findings: list[Finding] = []
        self._board = ""

    def run(self) -> Checked:
        request = self._request
        line = port.open_port(request.port)
        try:
            with contextlib.ExitStack() as stack:
                self._say("connect")
                known_speed = adapter.speed(adapter.name(request.port))
                session = stack.enter_context(Session(line, speeds(request.baud, known_speed)))
                self._board = "np-" + session.mac.replace(":", "")
                entry = self._city.boards.get(self._board)
                self._say("check")
                self._note_entry(entry)
                partition = self._application(session)
                if partition:
                    self._file_system(session, partition, entry)
                self._say("self-test")
                session.restart()
                self_test = self._self_test(line, self._secrets(entry))
        except BaseException:
            with contextlib.suppress(OSError, termios.error):
                if port.has_reset_line(line):
                    port.reset(line)
            raise
        finally:
            line.close()
        return Checked(request.port, self._board, entry, self._findings, self_test)

    def _say(self, stage: str) -> None:
        self._on_progress(Progress(self._request.port, self._board, stage))

    def _note(self, what: str, ok: bool, told: str) -> None:
        self._findings.append(Finding(what, ok, told))

    def _note_entry(self, entry: Board | None) -> None:
        if entry is None:
            begun = any(each.board == self._board for each in journal.boards(self._city.folder))
            told = "; it was begun and not finished" if begun else ""
            self._note("registry", False, "it is not in the registry" + told)
        elif entry.revoked:
            self._note("registry", False, f"it was revoked on {entry.revoked:%Y-%m-%d}")
        elif entry.retired:
            self._note("registry", False, f"it was retired on {entry.retired:%Y-%m-%d}")
        else:
            place = f"{entry.site}, {printable(entry.room)}, {entry.role}"
            tested = f", tested {TESTED[entry.tested]}" if entry.tested else ""
            self._note("registry", True, f"{place}, enrolled {entry.enrolled:%Y-%m-%d}{tested}")

    def _application(self, session: Session) -> Partition | None:
        """Look at what runs on the board; return its file system's partition."""
        table = session.read(TABLE_ADDRESS, TABLE_BYTES)
        try:
            partitions = application.partitions(table)
        except ImageError as error:
            self._note("MicroPython", False, error.message)
            return None
        vfs = application.file_system(partitions, session.flash_bytes)
        if vfs is None:
            self._note("MicroPython", False, "there is none: the board is blank, or another's")
        elif self._image is None:
            self._note(
                "MicroPython", True, "its partitions are there; --micropython FILE compares it"
            )
        elif session.chip_name != self._image.chip.name:
            told = f"{_called(self._image)} is for {self._image.chip.name}, not {session.chip_name}"
            self._note("MicroPython", False, told)
        elif all(session.holds(region) for region in self._image.regions):
            self._note("MicroPython", True, _called(self._image))
        else:
            self._note("MicroPython", False, f"it is not {_called(self._image)}, or is damaged")
        return vfs

    def _file_system(self, session: Session, partition: Partition, entry: Board | None) -> None:
        wanted = files(self._city, self._ca, self._board, entry) if entry else image.agent_files()
        before = len(self._findings)
        try:
            self._files(session, partition, wanted, entry)
        except DiskError as error:
            del self._findings[before:]
            self._note("file system", False, error.message)

    def _files(
        self, session: Session, partition: Partition, wanted: dict[str, bytes], entry: Board | None
    ) -> None:
        """Look at what the file system holds.

        Raises: DiskError: it cannot be used.
        """
        disk = content.opened(session, partition, wanted)
        names = disk.names()
        self._note("file system", True, f"{disk.free_bytes() // 1024} KiB are free")
        if entry:
            self._identity(disk, entry)
        differing = [
            name
            for name in sorted(wanted)
            if name != content.PRIVATE_KEY and disk.read(name) != wanted[name]
        ]
        foreign = [each for each in names if each not in wanted and content.is_ours(each)]
        if differing or foreign:
            told = "differ: " + _few(differing) if differing else ""
            told += ("; " if told and foreign else "") + (
                "are not the agent's: " + _few(foreign) if foreign else ""
            )
            self._note("files", False, told)
        else:
            self._note("files", True, f"{len(wanted)}, each as it should be")
        segments = [each for each in names if each.startswith(_SPOOL)]
        self._note("spool", True, f"{len(segments)} segments")
        words = disk.read(_LAST_WORDS)
        if words:
            told = words.decode("ascii", "replace")
            self._note("last words", False, printable(selftest.hidden(told, self._secrets(entry))))

    def _identity(self, disk: GuardedDisk, entry: Board) -> None:
        held = Pending(
            self._board,
            entry.key_id,
            disk.read(content.REPORT_KEY) or b"",
            disk.read(content.CERTIFICATE) or b"",
            disk.read(content.PRIVATE_KEY) or b"",
        )
        certificate = registry.certificate(self._request.city, self._board)
        stored = reportkey.read(self._city.secrets, self._board, entry.key_id)
        if not held.is_whole():
            self._note("identity", False, "its keys and its certificate do not fit together")
            return
        if stored != held.report_key:
            self._note("identity", False, f"its report key is not key {entry.key_id}")
            return
        if certificate is None or held.certificate() != certificate:
            self._note("identity", False, "its certificate is not the one that was enrolled")
            return
        end = held.certificate().not_valid_after_utc
        good = end > datetime.now(UTC) + WARN_BEFORE
        self._note("identity", good, f"key {entry.key_id}, certificate until {end:%Y-%m-%d}")

    def _patience_s(self) -> float:
        asked = self._request.self_test_s
        stands = any(finding.what == "file system" and finding.ok for finding in self._findings)
        return asked if stands else min(asked, _NO_AGENT_S)

    def _secrets(self, entry: Board | None) -> tuple[str, ...]:
        """Return what the board may know and must not be shown, whatever it says."""
        stored = entry and reportkey.read(self._city.secrets, self._board, entry.key_id)
        return (
            hashkey.ensure(self._request.city).hex(),
            *((stored.hex(),) if stored else ()),
            *(
                configuration.wlan_keys(self._city, entry.site, entry.role).values()
                if entry
                else ()
            ),
        )

    def _self_test(self, line: Any, secrets: tuple[str, ...]) -> dict[str, Any] | None:
        try:
            told = selftest.read(
                line,
                self._board,
                self._patience_s(),
                secrets,
                lambda: self._say("self-test"),
            )
        except SelfTestError as error:
            self._note("self-test", False, error.message)
            return None
        self._note("self-test", True, _health(told))
        return told


def files(city: Inventory, ca: Authority, board: str, entry: Board) -> dict[str, bytes]:
    """Return what a board's file system should hold by the registry.

    Its private key is a placeholder: only the board has it.
    """
    certificate = registry.certificate(city.folder, board)
    found = image.agent_files() | {
        "config.json": _configuration(city, board, entry),
        content.AUTHORITY: ca.certificate_der,
        content.PRIVATE_KEY: bytes(content.PRIVATE_KEY_BYTES),
    }
    roots = root.anchors(city)
    if roots:
        found[root.BOARD_PATH] = roots
    if certificate:
        found[content.CERTIFICATE] = certificate.public_bytes(serialization.Encoding.DER)
    stored = reportkey.read(city.secrets, board, entry.key_id)
    if stored:
        found[content.REPORT_KEY] = stored
    return found


def _configuration(city: Inventory, board: str, entry: Board) -> bytes:
    return configuration.encoded(
        city,
        configuration.Recipient(
            board=board,
            key_id=entry.key_id,
            site=entry.site,
            role=entry.role,
            wlan_keys=configuration.wlan_keys(city, entry.site, entry.role),
            hash_key=hashkey.ensure(city.folder),
            hardware=entry.hardware,
        ),
    )


def _called(loaded: Application) -> str:
    return f"{printable(loaded.path.name)} ({loaded.version or 'without a version'})"


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(printable, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _health(told: dict[str, Any]) -> str:
    return (
        f"agent {told.get('agent')}, boot {told.get('boot')} ({told.get('reset_cause')}), "
        f"{told.get('heap_free_bytes')} bytes of heap free, {told.get('radio')} networks in the air"
    )
