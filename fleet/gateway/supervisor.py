"""`netzpuls gateway run`: keeps broker and collector running, and ends both when it ends.

Whichever dies is started again, at once the first time and then ever more slowly. Neither waits
for the other: boards and collector connect again by themselves.

`--only` runs one of the two as a service of systemd. What dies then ends the service with it:
systemd starts it again, counts that, and is told when boards are served (`systemd`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import IO, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fleet import authority, file
from fleet.errors import ConfigurationError
from fleet.gateway import broker, collector, keyring, leash, log, settings, systemd
from fleet.gateway.database import Database, StorageError
from fleet.gateway.errors import GatewayError
from fleet.gateway.settings import Folder, Settings

_BROKER_START_S = 15
_BROKER_POLL_S = 0.05
_STOP_S = 10
_BACKOFF_S = (0.5, 30.0)
# A child that ran this long had no trouble starting: its next end is a new story.
_STEADY_S = 60
_STATE_RETRY_S = 5.0
_LOOK_S = 1.0

Part = Literal["broker", "collector"]
PARTS: tuple[Part, ...] = ("broker", "collector")
# What each child is, in terms of certificates.
_CERTIFICATES: dict[Part, Literal["gateway", "collector"]] = {
    "broker": "gateway",
    "collector": "collector",
}
_EXPIRES_SOON = timedelta(days=30)

_PREPARE = "run `netzpuls gateway prepare` again at city hall and copy what it made"


class _Ended(NamedTuple):
    """A child is gone."""

    child: _Child
    code: int


class _Ready(NamedTuple):
    """The collector is connected and takes reports."""


class _Stop(NamedTuple):
    """Somebody asked the gateway to stop."""


_Event = _Ended | _Ready | _Stop
_Signatures = list[tuple[int, int, int] | None]


@dataclass
class _Child:
    """A program that is kept running."""

    name: str
    command: list[str]
    events: queue.SimpleQueue[_Event]
    hear: Callable[[bytes], None]
    stderr: bool
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    started_s: float = 0.0
    delay_s: float = 0.0
    due_s: float | None = None
    asked: bool = False

    def start(self) -> None:
        """Start it; only ever in the main thread (see leash.tie)."""
        self.due_s = None
        self.starts += 1
        self.started_s = time.monotonic()
        # A process group of its own: Ctrl-C reaches the supervisor alone, which ends the
        # children in order.
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if self.stderr else None,
            process_group=0,
            env=systemd.without(os.environ),  # mosquitto would speak for the service, too early
        )
        self.process = process
        threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def restart(self) -> None:
        """Have it start anew; it does when it has ended."""
        if self.process is not None:
            self.asked = True
            self.process.terminate()

    def stop(self) -> None:
        """End it: politely, and after a while not so."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            log.warning("killed", child=self.name, after_s=_STOP_S)
            self.process.kill()
            self.process.wait()

    def plan_restart(self) -> float:
        """Decide when to start it again; return in how many seconds."""
        now = time.monotonic()
        if now - self.started_s >= _STEADY_S:
            self.delay_s = 0.0
        delay_s = self.delay_s
        self.delay_s = min(max(2 * delay_s, _BACKOFF_S[0]), _BACKOFF_S[1])
        self.due_s = now + delay_s
        self.process = None
        return delay_s

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        output: IO[bytes] | None = process.stdout
        if output:
            with output:
                for line in output:
                    self.hear(line)
        self.events.put(_Ended(self, process.wait()))


@dataclass
class Supervisor:
    """One gateway's two children, or one of them, and what the world may know: state.json."""

    folder: Folder
    settings: Settings
    only: Part | None = None
    verbose: bool = False
    _events: queue.SimpleQueue[_Event] = field(default_factory=queue.SimpleQueue)
    _children: list[_Child] = field(default_factory=list)
    _ready: bool = False
    _state_written: bool = True
    _state_due_s: float = 0.0
    _seen: dict[str, _Signatures] = field(default_factory=dict)

    def run(self) -> None:
        """Run until SIGTERM.

        Raises: NetzpulsError: it cannot begin. KeyboardInterrupt: Ctrl-C, after cleaning up.
        """
        with _only_one(self.folder, self.only), self._stop_on_sigterm():
            boards = check(self.folder, self.settings, self.only)
            self._seen = _signatures(self.folder)
            try:
                if self.only == "collector" or self._start_broker():
                    if self.only == "broker":
                        self._greet()
                    else:
                        self._start_collector()
                    log.info("started", gateway=self.settings.id, boards=boards)
                    self._watch()
            finally:
                self._stop()

    @property
    def _state(self) -> Path:
        return self.folder.broker_state if self.only == "broker" else self.folder.state

    @contextlib.contextmanager
    def _stop_on_sigterm(self) -> Iterator[None]:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._events.put(_Stop())

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _start_broker(self) -> bool:
        """Start it and wait until it answers; not, if the gateway is to stop meanwhile."""
        broker.write(self.folder, self.settings)
        if not self.settings.broker.own:
            if not broker.reachable(self.folder, self.settings):
                place = f"{self.settings.broker.host} port {self.settings.broker.port}"
                log.warning("broker-unreachable", broker=place, hint="trying on")
            return True
        broker.check_port(self.settings)
        child = _Child(
            "broker",
            broker.command(self.folder, self.settings),
            self._events,
            broker.Listener().hear,
            stderr=True,
        )
        self._children.append(child)
        child.start()
        deadline = time.monotonic() + _BROKER_START_S
        while not broker.reachable(self.folder, self.settings):
            with contextlib.suppress(queue.Empty):
                match self._events.get(timeout=_BROKER_POLL_S):
                    case _Ended(_, code):
                        raise GatewayError(
                            f"mosquitto ended at once (exit code {code})",
                            hint="what it said stands above",
                        )
                    case _Stop():
                        return False
            if time.monotonic() > deadline:
                raise GatewayError(
                    f"mosquitto does not answer on port {self.settings.broker.port}",
                    hint="see what it says with: netzpuls gateway run --verbose",
                )
        return True

    def _start_collector(self) -> None:
        command = [
            *leash.module(collector.__name__),
            *("--dir", str(self.folder.path.absolute()), "--parent", str(os.getpid())),
            *(["--verbose"] if self.verbose else []),
        ]
        child = _Child("collector", command, self._events, self._hear_collector, stderr=False)
        self._children.append(child)
        child.start()
        self._write_state()

    def _hear_collector(self, line: bytes) -> None:
        if line.strip() == collector.READY.encode():
            self._events.put(_Ready())

    def _watch(self) -> None:
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.due_s is not None and child.due_s <= now:
                    child.start()
                    self._write_state()
            waits = [child.due_s - now for child in self._children if child.due_s is not None]
            try:
                event = self._events.get(timeout=max(0, min([*waits, _LOOK_S])))
            except queue.Empty:
                self._look_around()
                continue
            match event:
                case _Stop():
                    return
                case _Ready():
                    self._greet()
                case _Ended(child, code):
                    self._recover(child, code)

    def _look_around(self) -> None:
        """Have a child start anew whose certificates, or list of revoked ones, were changed.

        Mosquitto would read some of them again on SIGHUP, but not the CA's, and a board that was
        revoked would keep the connection that it has.
        """
        if not self._state_written and time.monotonic() >= self._state_due_s:
            self._write_state()
        seen = _signatures(self.folder)
        for child in self._children:
            if seen[child.name] != self._seen[child.name]:
                log.info("certificates-changed", restarts=child.name)
                child.restart()
        self._seen = seen

    def _greet(self) -> None:
        first, self._ready = not self._ready, True
        self._write_state()
        if first:
            place = f"{self.settings.broker.host}:{self.settings.broker.port}"
            log.info("ready", gateway=self.settings.id, broker=place, folder=self.folder.path)
            systemd.notify("READY=1")

    def _recover(self, child: _Child, code: int) -> None:
        hopeless = code == ConfigurationError.exit_code and child.starts == 1
        if child.name == "collector" and hopeless:
            raise ConfigurationError("the collector cannot begin", hint="its reason stands above")
        if child.name == "collector":
            self._ready = False
        if child.asked:
            child.asked, child.process, child.due_s = False, None, time.monotonic()
            if child.name == "broker":
                self._write_configuration()
            self._write_state()
            return
        if self.only is not None:
            child.process = None
            raise GatewayError(f"the {child.name} ended ({_why(code)})", hint="systemd restarts it")
        delay_s = child.plan_restart()
        log.warning("child-ended", child=child.name, why=_why(code), restart_in_s=delay_s)
        self._write_state()

    def _write_configuration(self) -> None:
        """Name the list of revoked certificates to the broker, now that there may be one."""
        try:
            broker.write(self.folder, self.settings)
        except GatewayError as error:
            # A full disk must not end what boards are served by; the collector refuses them.
            log.error(error.code, detail=error.message, hint=error.hint)

    def _stop(self) -> None:
        systemd.notify("STOPPING=1")
        # The collector first: what it has in hand it can still acknowledge.
        for child in reversed(self._children):
            child.stop()
        with contextlib.suppress(OSError):
            self._state.unlink()
        if self._children:
            log.info("stopped", gateway=self.settings.id)

    def _write_state(self) -> None:
        pids = {child.name: child.process and child.process.pid for child in self._children}
        state = {
            "gateway": self.settings.id,
            "ready": self._ready,
            "port": self.settings.broker.port,
            "pids": {"supervisor": os.getpid()} | pids,
            "restarts": {child.name: child.starts - 1 for child in self._children},
        }
        try:
            file.write(self._state, json.dumps(state, indent=2) + "\n")
        except OSError as error:
            # A full disk must not end what waits for room on it.
            if self._state_written:
                log.warning("state-not-written", file=self._state, detail=error.strerror)
            self._state_written = False
            self._state_due_s = time.monotonic() + _STATE_RETRY_S
        else:
            self._state_written = True


def _signatures(folder: Folder) -> dict[str, _Signatures]:
    """Return what tells whether the files changed that each child reads when it starts."""
    files = {
        name: [folder.ca, folder.certificate(part), folder.key(part)]
        for name, part in _CERTIFICATES.items()
    }
    files["broker"].append(folder.revoked)
    return {name: [collector.signature(path) for path in paths] for name, paths in files.items()}


def check(folder: Folder, chosen: Settings, only: Part | None = None) -> int | None:
    """Look at all that a start needs; return the number of boards, which the collector needs.

    Raises: ConfigurationError: something is missing, wrong or expired. DatabaseError: the
        database is damaged.
    """
    broker.tls(folder, chosen)
    ca = _certificate(folder.ca)
    paths = []
    if only != "broker":
        paths.append(folder.certificate("collector"))
    if only != "collector" and chosen.broker.own:
        paths.append(folder.certificate("gateway"))
    for path in paths:
        certificate = _certificate(path)
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigurationError(
                f"{path} is not from the CA in {folder.ca}", hint=_PREPARE
            ) from None
    if only == "broker":
        return None  # it sees neither the boards' keys nor the database
    boards = len(keyring.load(folder.boards))
    database = Database(folder.database)
    try:
        database.open()
    except StorageError:
        log.warning("cannot-store-yet", folder=folder.path)  # the collector says why, and waits
    finally:
        database.close()
    return boards


def _certificate(path: Path) -> x509.Certificate:
    try:
        certificate = authority.read_certificate(path)
    except authority.AuthorityError as error:
        raise ConfigurationError(error.message, hint=_PREPARE) from None
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta():
        raise ConfigurationError(
            f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}", hint=_PREPARE
        )
    if left < _EXPIRES_SOON:
        log.warning("certificate-expires", file=path, days=left.days, hint=_PREPARE)
    return certificate


@contextlib.contextmanager
def _only_one(folder: Folder, only: Part | None) -> Iterator[None]:
    """Hold the folder, or the part's of it, for this process.

    Raises: GatewayError: another one runs there.
    """
    held = [] if only == "broker" else [folder.path]
    if only != "collector":
        held.append(file.private_folder(folder.broker))
    with contextlib.ExitStack() as lock:
        try:
            for path in held:
                lock.enter_context(file.locked(path, wait=False))
        except BlockingIOError:
            raise GatewayError(
                f"a gateway runs in {folder.path} already{_holder(folder)}",
                hint=f"stop that one first; its process ids are in {folder.state.name}",
            ) from None
        yield


def _holder(folder: Folder) -> str:
    try:
        return f" (process {json.loads(folder.state.read_text())['pids']['supervisor']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _why(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def run(path: Path, *, only: Part | None = None, verbose: bool = False) -> None:
    """Run the gateway in a folder, or one part of it, until SIGTERM or Ctrl-C."""
    log.configure(verbose=verbose)
    folder = Folder(path)
    Supervisor(folder, settings.load(folder), only, verbose).run()
