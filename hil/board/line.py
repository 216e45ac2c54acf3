"""The serial line of a board: bytes in both directions at the speed of its baud rate.

A `Line` has one or more ports (a pty, a TCP port that speaks RFC 2217). What the board
sends goes to every open port, as one UART would drive several receivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hil.board.error import PortError

DEFAULT_BAUD = 115200
_BITS_PER_BYTE = 10  # start bit, eight data bits, stop bit
_TCGETS2 = 0x802C542A  # struct termios2, whose speeds are plain numbers
_SLICE_S = 0.01  # one wait covers this much of the line's time
_NEAR_S = 0.0015  # sooner than a timer can be trusted: do it now, the debt is kept
_DRIFT_S = 0.02  # how far a late timer may be caught up
_REOPEN_S = 0.04  # how often a closed pty is looked at
_STUCK_S = 0.3  # a host that opens the port and does not read loses what was sent


class Pace:
    """When bytes that go over the line one after another have all gone over it."""

    def __init__(self, is_paced: bool) -> None:
        self._is_paced = is_paced
        self._free_at = 0.0

    def take(self, size: int, baud: int, now: float) -> float:
        """Return the time at which `size` more bytes are through, at the earliest `now`."""
        if not self._is_paced:
            return now
        start = self._free_at if now - self._free_at < _DRIFT_S else now
        self._free_at = start + size * _BITS_PER_BYTE / baud
        return self._free_at


class Port(Protocol):
    """One way by which a host reaches the line."""

    @property
    def pending_bytes(self) -> int:
        """How much the host has not taken yet."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the host, or drop them if none is there."""

    def close(self) -> None:
        """Take the port away."""


class LogPort:
    """A file that takes all that the board sends; it may be read while a port is in use.

    Raises: PortError: it cannot be written.
    """

    pending_bytes = 0

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise PortError(
                f"the log {path} cannot be written: {error.strerror}",
                hint="name another one: --log FILE",
            ) from error

    def write(self, data: bytes) -> None:
        """Append; what does not fit on the disk is lost."""
        with contextlib.suppress(OSError):
            self._file.write(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Line:
    """The board's UART: paced, and without flow control, as the real one is."""

    def __init__(self, is_paced: bool, receive: Callable[[bytes], None]) -> None:
        self.is_paced = is_paced
        self.baud = DEFAULT_BAUD
        self.ports: list[Port] = []
        self.drained: Callable[[], None] | None = None
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._outgoing: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._out_pace = Pace(is_paced)
        self._in_pace = Pace(is_paced)
        self._sender: asyncio.TimerHandle | None = None
        self._is_sending = False

    @property
    def slice_bytes(self) -> int:
        """How many bytes one wait covers."""
        return max(16, int(self.baud / _BITS_PER_BYTE * _SLICE_S)) if self.is_paced else 16384

    @property
    def backlog_bytes(self) -> int:
        """How much waits to be sent or to be read by a host."""
        return self._backlog_bytes + sum(port.pending_bytes for port in self.ports)

    def write(self, data: bytes) -> None:
        """Send bytes to the host."""
        if data:
            self._outgoing.append(data)
            self._backlog_bytes += len(data)
            if self._sender is None and not self._is_sending:
                self._send()

    def clear(self) -> None:
        """Forget what was not sent yet: the chip was reset."""
        self._outgoing.clear()
        self._backlog_bytes = 0

    def close(self) -> None:
        """Close all ports."""
        if self._sender is not None:
            self._sender.cancel()
        for port in self.ports:
            port.close()

    def incoming(self, data: bytes) -> float:
        """Take bytes from a port.

        Returns: how long the port must wait, in seconds, before it reads on; the board
            has the bytes by then.
        """
        now = self._loop.time()
        wait_s = self._in_pace.take(len(data), self.baud, now) - now
        if wait_s < _NEAR_S:
            self._receive(data)
            return 0.0
        self._loop.call_later(wait_s, self._receive, data)
        return wait_s

    def port_drained(self) -> None:
        """Let the board send on once nothing waits any more."""
        if self.drained is not None and not self.backlog_bytes:
            self.drained()

    def _send(self) -> None:
        self._sender = None
        self._is_sending = True
        while self._outgoing:
            data = self._take()
            now = self._loop.time()
            wait_s = self._out_pace.take(len(data), self.baud, now) - now
            if wait_s >= _NEAR_S:
                self._sender = self._loop.call_later(wait_s, self._deliver, data)
                self._is_sending = False
                return
            self._emit(data)
        self._is_sending = False
        self.port_drained()

    def _deliver(self, data: bytes) -> None:
        self._emit(data)
        self._send()

    def _emit(self, data: bytes) -> None:
        for port in self.ports:
            port.write(data)

    def _take(self) -> bytes:
        data = self._outgoing.popleft()
        limit = self.slice_bytes
        while len(data) < limit and self._outgoing:
            data += self._outgoing.popleft()
        if len(data) > limit:
            self._outgoing.appendleft(data[limit:])
            data = data[:limit]
        self._backlog_bytes -= len(data)
        return data


class PtyPort:
    """A pseudo-terminal behind a symbolic link. It has no DTR and RTS.

    Raises: PortError: the link exists already or cannot be made.
    """

    def __init__(self, line: Line, link: Path, closed: Callable[[], None]) -> None:
        self._line = line
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._master, slave = os.openpty()
        try:
            tty.setraw(slave)
            self.device = os.ttyname(slave)
            os.set_blocking(self._master, False)
            _make_link(link, self.device)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)  # held open, it would hide that the host closed the port
        self._link = link
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLIN)
        self._is_open = False
        self._pending = bytearray()
        self._stuck: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_gone = False
        self._await_host()

    @property
    def pending_bytes(self) -> int:
        """How much the host has not taken yet."""
        return len(self._pending)

    def close(self) -> None:
        """Remove the link and the terminal."""
        if self._is_gone:
            return
        self._is_gone = True
        with contextlib.suppress(OSError):
            if str(self._link.readlink()) == self.device:
                self._link.unlink()
        for timer in (self._timer, self._stuck):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        os.close(self._master)

    def write(self, data: bytes) -> None:
        """Hand bytes to the host, or drop them if none has the port open."""
        if not self._is_open and self._has_host():
            self._host_came()
        if not self._is_open:
            return
        self._pending += data
        if self._stuck is None:
            self._flush()

    def _has_host(self) -> bool:
        events = self._poll.poll(0)
        return not events or not events[0][1] & select.POLLHUP or bool(events[0][1] & select.POLLIN)

    def _await_host(self) -> None:
        """Wait for a host to open the port: a terminal without one reports a hang-up for ever."""
        self._timer = None
        if self._has_host():
            self._host_came()
        else:
            self._timer = self._loop.call_later(_REOPEN_S, self._await_host)

    def _host_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_open = True
        self._loop.add_reader(self._master, self._read)

    def _host_went(self) -> None:
        self._loop.remove_reader(self._master)
        self._is_open = False
        self._give_up()
        self._timer = self._loop.call_later(_REOPEN_S, self._await_host)
        self._closed()

    def _read(self) -> None:
        try:
            data = os.read(self._master, self._line.slice_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._host_went()
            return
        self._line.baud = _baud(self._master)
        wait_s = self._line.incoming(data)
        if wait_s:
            self._loop.remove_reader(self._master)
            self._timer = self._loop.call_later(wait_s, self._read_on)

    def _read_on(self) -> None:
        self._timer = None
        self._loop.add_reader(self._master, self._read)
        self._read()  # what came meanwhile follows without a gap

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: os.write(self._master, self._pending)]
                self._unstick()
        except BlockingIOError:
            if self._stuck is None:
                self._stuck = self._loop.call_later(_STUCK_S, self._give_up)
                self._loop.add_writer(self._master, self._flush)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._give_up()
        else:
            self._line.port_drained()

    def _give_up(self) -> None:
        self._pending.clear()
        self._unstick()
        self._line.port_drained()

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
            self._loop.remove_writer(self._master)


def _make_link(link: Path, device: str) -> None:
    try:
        link.symlink_to(device)
    except FileExistsError as error:
        raise PortError(
            f"{link} exists already",
            hint=f"choose another --link, or remove it if its board is gone: rm {link}",
        ) from error
    except OSError as error:
        raise PortError(
            f"{link} cannot be made: {error.strerror}",
            hint="name a link in a folder that exists and that you can write to: --link PATH",
        ) from error


def _baud(master: int) -> int:
    """Return the speed that the host has set, also one that termios has no constant for."""
    try:
        answer = fcntl.ioctl(master, _TCGETS2, bytes(44))
    except OSError:
        speed = termios.tcgetattr(master)[5]
        return _CONSTANT_BAUD.get(speed, DEFAULT_BAUD)
    return int(struct.unpack("<4IB19xII", answer)[-1]) or DEFAULT_BAUD


_CONSTANT_BAUD = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name.startswith("B") and name[1:].isdigit() and name != "B0"
}
