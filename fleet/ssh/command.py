"""A command that runs on a host, within its session's deadlines."""

from __future__ import annotations

import contextlib
import io
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import paramiko
from paramiko.ssh_exception import SSHException

from fleet.errors import HostError
from fleet.text import printable

if TYPE_CHECKING:
    from fleet.ssh.session import Session

_STDERR_BYTES = 8192
_SLICE_S = 0.25
_EXIT_S = 5.0
_NEAR_END_S = 2.0
_BUFFER_BYTES = 1 << 16
# What `timeout` says on the other side, or the shell.
_TIMED_OUT = 124
_NOT_FOUND = {126, 127}


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
        except (OSError, EOFError):
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
            except (OSError, EOFError):
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

    def wait(self) -> int:
        """Wait for the end of a command whose output was read; return its exit code.

        Raises: HostError: its time is used up, the connection broke, or a signal ended it.
        """
        session = self._session
        self._channel.status_event.wait(session.remaining_s)
        code = self._channel.exit_status if self._channel.exit_status_ready() else -1
        # Near its end the session's own deadline and that of `timeout` are the same.
        if not session.remaining_s or (code == _TIMED_OUT and session.remaining_s < _NEAR_END_S):
            raise session.timed_out()
        if code < 0:
            raise self._broken()
        return code

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
            except EOFError:  # it broke while we said that more may come
                raise self._broken() from None
            if not data and not session.remaining_s:
                raise session.timed_out()
            return data

    def _silent(self) -> HostError:
        session = self._session
        return HostError(
            f"{session.host.label} ({session.host.name}) has been silent for "
            f"{round(session.deadlines.silence_s, 1):g} s",
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
            try:
                data = self._channel.recv_stderr(_BUFFER_BYTES)
            except EOFError:
                return
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


def printable_lines(text: bytes | bytearray) -> list[str]:
    """Return the lines of a peer's output, made safe to show."""
    return [printable(line.strip()) for line in bytes(text).splitlines()]


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
