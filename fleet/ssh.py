"""SSH to gateways: the one module that knows Fabric.

    host = Host("gw-mitte", "gateway gw-mitte", "10.0.0.7", host_key="ssh-ed25519 AAAA…")
    with Session(host, Deadlines()) as session:
        with session.command(["netzpuls", "gateway", "read", …]) as command:
            command.stdout.read(…)
            command.finish()

Host keys are strict on every hop: what the inventory names, else what the user's known_hosts
holds; no key is ever taken on trust. Fabric by itself takes any, also from a jump host, so its
policy is replaced on each connection. Nothing waits without end: every step has its deadline,
and the whole session one more, after which the connection is closed under whatever hangs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import shlex
import socket
import threading
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self

import paramiko
from fabric import Config, Connection  # type: ignore[import-untyped]
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    NoValidConnectionsError,
    PasswordRequiredException,
    SSHException,
)

from fleet.errors import READABLE, ConfigurationError, HostError, HostKeyError
from fleet.text import printable

KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("~/.ssh/known_hosts"))

_STDERR_BYTES = 8192
_SLICE_S = 0.25
_EXIT_S = 5.0
_BUFFER_BYTES = 1 << 16
# `timeout` on the other side: after its time it says TERM, and KILL so much later.
_KILL_AFTER_S = 2
_TIMED_OUT = 124
_NOT_FOUND = {126, 127}

# Paramiko reports to whoever listens, and without a handler Python prints it, traceback included.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Host:
    """Where to log in, and what it must prove.

    Attributes:
        id: short name, for results.
        label: what errors call it, `gateway gw-mitte`.
        host_key: public key in OpenSSH's form; None asks known_hosts.
        identity_file: private key; None asks the user's agent and default keys.
        jump: host that the connection passes through.
    """

    id: str
    label: str
    address: str
    port: int = 22
    user: str = "netzpuls"
    host_key: str | None = None
    identity_file: Path | None = None
    jump: Host | None = None

    @property
    def name(self) -> str:
        """The name under which known_hosts keeps its keys."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


@dataclass(frozen=True)
class Deadlines:
    """How long each step may take, in seconds.

    `silence_s` is the longest pause in a command's output, `session_s` bounds everything.
    """

    connect_s: float = 10.0
    banner_s: float = 10.0
    auth_s: float = 15.0
    channel_s: float = 10.0
    silence_s: float = 30.0
    session_s: float = 600.0

    @property
    def shortest_s(self) -> float:
        """The time after which a failed step is one that waited in vain."""
        return min(self.connect_s, self.banner_s, self.auth_s, self.channel_s)


class Session:
    """One login on one host, through its jump host if it has one.

    Raises: HostKeyError, HostError: on entering, when the host cannot be reached, does not
        prove what it must, or does not let us in.
    """

    def __init__(
        self,
        host: Host,
        deadlines: Deadlines | None = None,
        known_hosts: Sequence[Path] = KNOWN_HOSTS,
    ) -> None:
        self.host = host
        self.deadlines = deadlines or Deadlines()
        self._known_hosts = known_hosts
        self._connections: list[Connection] = []
        self._ends_at = math.inf
        self._expired = False
        self._closed = False
        self._watchdog: threading.Timer | None = None
        self._command: Command | None = None

    def __enter__(self) -> Self:
        self._ends_at = time.monotonic() + self.deadlines.session_s
        self._watchdog = threading.Timer(self.deadlines.session_s, self._expire)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            if self.host.jump:
                self._connect(self.host.jump, None)
            self._connect(self.host, self._connections[0] if self._connections else None)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, from any thread; what waits on it stops waiting."""
        self._closed = True
        if self._watchdog:
            self._watchdog.cancel()
        if self._command:
            # A host does not end a command because its output goes nowhere.
            self._command.terminate()
        for connection in reversed(self._connections):
            # Not Fabric's close(): it leaves a connection alone that is not open yet.
            connection.client.close()

    @property
    def remaining_s(self) -> float:
        """What is left of the session's time; 0 once it has expired."""
        return 0.0 if self._expired else max(0.0, self._ends_at - time.monotonic())

    @contextlib.contextmanager
    def command(self, arguments: Sequence[str]) -> Iterator[Command]:
        """Start a command; it ends with the block, with the session's deadline, or by itself.

        Raises: HostError: the host does not start it.
        """
        # exec: the shell makes way, so that a signal to the session reaches `timeout`, which
        # passes it on. Should the line die, `timeout` ends the command on its own.
        limit_s = max(1, math.ceil(self.remaining_s))
        line = f"exec timeout -k {_KILL_AFTER_S} {limit_s} {shlex.join(arguments)}"
        with self._explained(self.host):
            if self._closed:
                raise SSHException("it was closed")  # Fabric would open it again, without end
            channel = self._connections[-1].create_session()
            channel.exec_command(line.encode())
        self._command = command = Command(self, channel, shlex.join(arguments))
        try:
            yield command
        finally:
            self._command = None
            command.terminate()
            channel.close()

    def _connect(self, host: Host, jump: Connection | None) -> None:
        deadlines = self.deadlines
        key = _identity(host.identity_file) if host.identity_file else None
        with self._explained(host):
            connection = Connection(
                host.address,
                user=host.user,
                port=host.port,
                config=_config(),
                gateway=jump,
                connect_kwargs={
                    # Not Fabric's connect_timeout, which it rounds down to whole seconds.
                    "timeout": min(deadlines.connect_s, self.remaining_s),
                    "banner_timeout": deadlines.banner_s,
                    "auth_timeout": deadlines.auth_s,
                    "channel_timeout": deadlines.channel_s,
                    "pkey": key,
                    "allow_agent": key is None,
                    "look_for_keys": host.identity_file is None,
                },
            )
            connection.client.set_missing_host_key_policy(_Strict(host))
            for kind, public in _expected_keys(host, self._known_hosts):
                connection.client.get_host_keys().add(host.name, kind, public)
            self._connections.append(connection)
            try:
                connection.open()
            except (BadHostKeyException, AuthenticationException, ChannelException):
                raise
            except SSHException as error:
                # Paramiko has no error of its own for having no key to show either.
                transport = connection.client.get_transport()
                if transport is not None and transport.initial_kex_done:
                    raise AuthenticationException(str(error)) from None
                raise
            if self._closed:
                raise SSHException("closed while it connected")

    def _expire(self) -> None:
        self._expired = True
        self.close()

    @contextlib.contextmanager
    def _explained(self, host: Host) -> Iterator[None]:
        """Turn whatever goes wrong on the way into an error that names the hop."""
        since = time.monotonic()
        try:
            yield
        except (OSError, EOFError, SSHException, ValueError) as error:
            if not self.remaining_s:
                raise self.timed_out() from None
            waited_s = time.monotonic() - since
            # Paramiko has no error of its own for a peer that keeps silent after TCP connected.
            if waited_s >= self.deadlines.shortest_s and not isinstance(error, BadHostKeyException):
                _explain(host, TimeoutError(), waited_s)
            _explain(host, error, waited_s)

    def timed_out(self) -> HostError:
        """Return the error for a session that used up its time."""
        return HostError(
            f"{self.host.label} ({self.host.name}) did not finish within "
            f"{self.deadlines.session_s:g} s",
            hint="what came is kept; run the command again, or give it more time with --timeout",
        )


class Command:
    """A command that runs on a host."""

    def __init__(self, session: Session, channel: paramiko.Channel, line: str) -> None:
        self._session = session
        self._channel = channel
        self._line = line
        self._stderr = bytearray()
        self.stdout: BinaryIO = io.BufferedReader(_Output(self), _BUFFER_BYTES)

    def send(self, data: bytes) -> None:
        """Give the command its whole stdin, and end that.

        Raises: HostError: it takes nothing for too long, or the session's time is used up.
        """
        session = self._session
        self._channel.settimeout(min(session.deadlines.silence_s, session.remaining_s))
        try:
            self._channel.sendall(data)
            self._channel.shutdown_write()
        except TimeoutError:
            if not session.remaining_s:
                raise session.timed_out() from None
            raise self._silent() from None
        except OSError:
            return  # it has ended: what it says on stdout, or `finish`, tells why

    def write(self, data: bytes) -> None:
        """Give the command more of its stdin, while another thread reads its stdout.

        Raises: HostError: it takes nothing for too long, has ended, or the session's time is
            used up.
        """
        session, rest = self._session, data
        silent_at = time.monotonic() + session.deadlines.silence_s
        while rest:
            try:
                rest = rest[self._channel.send(rest) :]
            except TimeoutError:  # the reader's, which is shorter
                if not session.remaining_s:
                    raise session.timed_out() from None
                if time.monotonic() >= silent_at:
                    raise self._silent() from None
            except OSError:
                raise self._broken() from None

    def end(self, patience_s: float) -> None:
        """Tell the command that its stdin ends, and wait for it to end, but not for long."""
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()
        self._channel.status_event.wait(min(patience_s, self._session.remaining_s))

    def finish(self) -> None:
        """Wait for the end of a command whose output was read, but not for long.

        One that sends on when nobody reads is ended with the block.

        Raises: HostError: it failed, in its own words; or the connection broke.
        """
        session, host = self._session, self._session.host
        self._channel.status_event.wait(min(_EXIT_S, session.remaining_s))
        self._drain()
        code = self._channel.exit_status if self._channel.exit_status_ready() else -1
        runs_on = code < 0 and not self._channel.closed and session.remaining_s > 0
        if code == 0 or runs_on:
            return
        if not session.remaining_s or code == _TIMED_OUT:
            raise session.timed_out()
        if code < 0:
            raise self._broken()
        said = [line for line in printable_lines(self._stderr) if line]
        if code in _NOT_FOUND:
            raise HostError(
                f"{host.label} ({host.name}) cannot run {self._line.split()[0]!r}: "
                f"{said[-1] if said else f'exit code {code}'}",
                hint="is Netzpuls installed there? give its full path as `command` in "
                "inventory.toml",
            )
        hints = [line.removeprefix("hint: ") for line in said if line.startswith("hint: ")]
        errors = [line.removeprefix("error: ") for line in said if not line.startswith("hint: ")]
        raise HostError(
            f"{host.label} ({host.name}): {'; '.join(errors[-2:]) or f'exit code {code}'}",
            hint=f"on that host: {hints[-1]}" if hints else f"log in there and run: {self._line}",
        )

    def terminate(self) -> None:
        """Ask the host to end the command, if it still runs."""
        if not self._channel.closed and not self._channel.exit_status_ready():
            with contextlib.suppress(OSError, EOFError, SSHException):
                _signal(self._channel, "TERM")

    def read(self, size: int) -> bytes:
        """Return what comes next on stdout, at most `size` bytes; nothing at its end.

        Raises: HostError: silence for too long, or the session's time is used up.
        """
        session = self._session
        silent_at = time.monotonic() + session.deadlines.silence_s
        self._channel.settimeout(_SLICE_S)
        while True:
            self._drain()
            try:
                data: bytes = self._channel.recv(size)
            except TimeoutError:
                if time.monotonic() >= silent_at:
                    raise self._silent() from None
                continue
            if not data and not session.remaining_s:
                raise session.timed_out()
            return data

    def _silent(self) -> HostError:
        session = self._session
        return HostError(
            f"{session.host.label} ({session.host.name}) has been silent for "
            f"{session.deadlines.silence_s:g} s",
            hint="the line or the host hangs; what came is kept, run the command again",
        )

    def _broken(self) -> HostError:
        host = self._session.host
        return HostError(
            f"{host.label} ({host.name}): the connection broke",
            hint="what came is kept; run the command again to go on from there",
        )

    def _drain(self) -> None:
        """Take what is on stderr, so that it cannot fill the window; keep its end."""
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(_BUFFER_BYTES)
            if not data:
                return
            self._stderr += data
            del self._stderr[:-_STDERR_BYTES]


class _Output(io.RawIOBase):
    """A command's stdout as a raw stream."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._command.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Strict(paramiko.MissingHostKeyPolicy):
    """Refuses a host of which no key is known."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> NoReturn:
        host = self._host
        raise HostKeyError(
            f"{host.label} ({host.name}): its host key is not known; it showed "
            f"{key.get_name()} {key.fingerprint}",
            hint=_compare(key) + f"if it is the same, add to its table in inventory.toml: "
            f'host_key = "{key.get_name()} {key.get_base64()}"',
            details={"host": host.id, "known": None, "shown": key.fingerprint},
        )


def printable_lines(text: bytes | bytearray) -> list[str]:
    """Return the lines of a peer's output, made safe to show."""
    return [printable(line.strip()) for line in bytes(text).splitlines()]


def _compare(key: paramiko.PKey) -> str:
    kind = key.get_name().removeprefix("ssh-").partition("-")[0]
    return f"compare it at the host itself: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub; "


def _explain(host: Host, error: Exception, waited_s: float) -> NoReturn:
    """Raise the error for a hop that failed."""
    where = f"{host.label} ({host.name})"
    if isinstance(error, BadHostKeyException):
        known, shown = error.expected_key, error.key
        raise HostKeyError(
            f"{where}: its host key has changed: known is {known.get_name()} {known.fingerprint}, "
            f"it showed {shown.get_name()} {shown.fingerprint}",
            hint="if nobody reinstalled that host, somebody is in between: do not log in. Else "
            + _compare(shown)
            + f"then replace the old key in {'inventory.toml' if host.host_key else 'known_hosts'}",
            details={
                "host": host.id,
                "known": known.fingerprint,
                "shown": shown.fingerprint,
            },
        ) from None
    if isinstance(error, AuthenticationException):
        if host.identity_file and _identity(host.identity_file) is None:
            raise HostError(
                f"{where}: the key {host.identity_file} has a passphrase and is not in an "
                "ssh-agent",
                hint=f"ssh-add {host.identity_file}",
            ) from None
        key = f"the key {host.identity_file}" if host.identity_file else "a key of your agent"
        raise HostError(
            f"{where} does not let {host.user} in: {printable(str(error))}",
            hint=f"is {key} in ~{host.user}/.ssh/authorized_keys there? try: "
            f"ssh -p {host.port} {host.user}@{host.address} true",
        ) from None
    if isinstance(error, socket.gaierror):
        what, hint = "the name is not known", "correct its host in inventory.toml, or ask your DNS"
    elif isinstance(error, ChannelException):
        what = f"the jump host cannot reach it ({printable(error.text)})"
        hint = "is it up, and may the jump host forward to it (AllowTcpForwarding)?"
    elif isinstance(error, NoValidConnectionsError | ConnectionRefusedError):
        what, hint = "refuses the connection", "is it up, and is sshd listening on that port?"
    elif isinstance(error, TimeoutError):
        what = f"no answer within {waited_s:.0f} s"
        hint = "is it up, and does a route or VPN lead there?"
    elif isinstance(error, SSHException | EOFError):
        what = f"no SSH session: {printable(str(error)) or 'it hung up'}"
        hint = f"try: ssh -v -p {host.port} {host.user}@{host.address} true"
    else:
        reason = error.strerror if isinstance(error, OSError) else None
        what = printable(reason or str(error) or type(error).__name__)
        hint = f"try: ssh -v -p {host.port} {host.user}@{host.address} true"
    raise HostError(f"{where}: {what}", hint=hint) from None


def _config() -> Config:
    # lazy: neither fabric.yaml nor ssh_config of whoever runs this changes what it does.
    return Config(overrides={"load_ssh_configs": False}, lazy=True)


def _public(host: Host) -> tuple[str, paramiko.PKey]:
    """Return the kind and the key of an inventory's host_key.

    Raises: ConfigurationError: it is no public key.
    """
    kind, _, rest = (host.host_key or "").strip().partition(" ")
    try:
        data = b64decode(rest.split()[0], validate=True)
        return kind, paramiko.PKey.from_type_string(kind, data)
    except (IndexError, Base64Error, SSHException, ValueError, UnknownKeyType):
        raise ConfigurationError(
            f"{host.label}: its host_key in inventory.toml is no public key",
            hint="it looks like `ssh-ed25519 AAAA…`, as in /etc/ssh/ssh_host_ed25519_key.pub",
        ) from None


def _expected_keys(host: Host, known_hosts: Sequence[Path]) -> Iterator[tuple[str, paramiko.PKey]]:
    if host.host_key:
        yield _public(host)
        return
    for path in (each.expanduser() for each in known_hosts):
        with contextlib.suppress(FileNotFoundError):
            found = _known_hosts(path, path.stat().st_mtime_ns).lookup(host.name)
            yield from (found or {}).items()


@lru_cache
def _known_hosts(path: Path, _changed_ns: int) -> paramiko.HostKeys:
    """Read a known_hosts file, once as long as it does not change.

    Raises: ConfigurationError: it cannot be read.
    """
    try:
        return paramiko.HostKeys(str(path))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except InvalidHostKey as error:
        raise ConfigurationError(
            f"{path} has a line that is no host key: {printable(str(error.line), 80)}",
            hint="mend or remove that line",
        ) from None


@lru_cache
def _identity(path: Path) -> paramiko.PKey | None:
    """Read a private key once; None if only the agent can open it.

    Raises: ConfigurationError: it cannot be read or is no private key.
    """
    try:
        key: paramiko.PKey = paramiko.PKey.from_path(path)
    except (PasswordRequiredException, TypeError):
        return None  # cryptography says TypeError where a passphrase is needed
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the key {path}: {error.strerror}", hint=READABLE
        ) from None
    except (ValueError, SSHException, UnknownKeyType):
        raise ConfigurationError(
            f"{path} is no private key for SSH",
            hint="identity_file in inventory.toml names the private half, not the .pub file",
        ) from None
    return key


def public_key(host: Host) -> str:
    """Return the public half of the key that logs in on a host; "" if none is known here.

    Where only an agent can open the private key, its .pub file tells.

    Raises: ConfigurationError: the key cannot be read or is none.
    """
    if host.identity_file is None:
        return ""
    key = _identity(host.identity_file)
    if key is not None:
        return f"{key.get_name()} {key.get_base64()}"
    beside = host.identity_file.with_name(host.identity_file.name + ".pub")
    try:
        kind, data = beside.read_text(encoding="ascii").split()[:2]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{beside} is no public key: {error}", hint=READABLE) from None
    return f"{kind} {data}"


def _signal(channel: paramiko.Channel, name: str) -> None:
    """Ask the host to signal the command (RFC 4254, 6.9); Paramiko has no call for it."""
    message = paramiko.Message()
    message.add_byte(b"\x62")  # SSH_MSG_CHANNEL_REQUEST
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    transport: Any = channel.transport
    transport._send_user_message(message)  # noqa: SLF001 - as Paramiko's own requests do
