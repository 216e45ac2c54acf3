"""Run mode: the real unix MicroPython as a child process, in the place of the chip's own.

The child finds `network`, `machine`, `esp32`, `ntptime` and others as shims (see
`hil/board/shim`), which ask this process over a socket pair: frames of 8 hex digits of
length and a JSON object, answered by {"value": …}, {"errno": n} or {"error": "text"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hil.board.place import Place

CTRL_C = 0x03
HEAP_BYTES = 1 << 20

_START = Path(__file__).parent / "shim" / "start.py"
_HEAD_BYTES = 8
_FRAME_LIMIT_BYTES = 1 << 20
_INPUT_LIMIT_BYTES = 1 << 22
_BACKLOG_BYTES = 2048  # more unsent output than this makes print() wait, as a UART does
_INTERRUPT_TRIES = 200
_INTERRUPT_STEP_S = 0.001
_PR_SET_PDEATHSIG = 1
_LONE_NEWLINE = re.compile(rb"(?<!\r)\n")
_libc = ctypes.CDLL(None, use_errno=True)

Request = dict[str, Any]


class RequestError(Exception):
    """What a shim raises on the board: OSError(errno), or OSError(text)."""

    def __init__(self, reason: int | str) -> None:
        super().__init__(reason)
        self.reason = reason


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends."""
    parent = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Interpreter:
    """One MicroPython with a console; it may be started anew on the same console.

    Attributes:
        output: takes what the board prints.
        backlog: how many bytes of it wait on the line.
        request: answers one request of a shim; raises RequestError.
        ended: told when the process is gone, with its exit status (negative: a signal).
    """

    def __init__(
        self,
        command: list[str],
        flash_file: int,
        wear_file: int,
        *,
        output: Callable[[bytes], None],
        backlog: Callable[[], int],
        request: Callable[[str, Request], Any],
        ended: Callable[[int], None],
    ) -> None:
        self._command = command
        self._flash_file = flash_file
        self._wear_file = wear_file
        self._output = output
        self._backlog = backlog
        self._request = request
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._stdin_read, self._stdin_write = os.pipe()
        self._stdout_read, self._stdout_write = os.pipe()
        os.set_blocking(self._stdin_write, False)
        os.set_blocking(self._stdout_read, False)
        self._process: subprocess.Popen[bytes] | None = None
        self._place: Place | None = None
        self._pid_file = -1
        self._channel: socket.socket | None = None
        self._received = bytearray()
        self._waiting_input = bytearray()
        self._interrupt_char = -1
        self._is_booting = True
        self._is_interrupted_early = False
        self._is_interrupting = False
        self._is_raw = False
        self._ends_with_return = False
        self._is_reading = False

    def start(self) -> None:
        """Start the process; what the host has typed ahead is still there for it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *self._command,
                    str(_START),
                    str(_START.parent.parent),
                    str(theirs.fileno()),
                    str(self._flash_file),
                    str(self._wear_file),
                ],
                stdin=self._stdin_read,
                stdout=self._stdout_write,
                stderr=self._stdout_write,
                pass_fds=(theirs.fileno(), self._flash_file, self._wear_file),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the board has one thread
                cwd="/",
                env={},
            )
        ours.setblocking(False)
        self._channel = ours
        self._place = None
        self._received.clear()
        self._interrupt_char = -1
        self._is_booting = True
        self._is_interrupted_early = False
        self._is_raw = False
        self._pid_file = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pid_file, self._exited)
        self._loop.add_reader(ours, self._read_channel)
        self.read_on()

    def kill(self) -> None:
        """End the process as a power cut does, and forget its console."""
        if self._process is not None:
            self._process.kill()
            self._reap()
        if self._stdin_read >= 0:
            self._loop.remove_reader(self._stdout_read)
            self._loop.remove_writer(self._stdin_write)
            for number in (
                self._stdin_read,
                self._stdin_write,
                self._stdout_read,
                self._stdout_write,
            ):
                os.close(number)
            self._stdin_read = -1

    def type(self, data: bytes) -> None:
        """Give bytes from the host to the program; Ctrl-C interrupts it if it lets itself be."""
        if self._interrupt_char >= 0:
            *parts, data = data.split(bytes((self._interrupt_char,)))
            for part in parts:
                self._write_input(part)
                self._interrupt()
        elif self._is_booting and CTRL_C in data:
            self._is_interrupted_early = True
            data = data.replace(bytes((CTRL_C,)), b"")
        self._write_input(data)

    def read_on(self) -> None:
        """Take output again: the line has room."""
        if not self._is_reading and self._stdin_read >= 0:
            self._is_reading = True
            self._loop.add_reader(self._stdout_read, self._read_output)

    # Console

    def _write_input(self, data: bytes) -> None:
        if len(self._waiting_input) + len(data) > _INPUT_LIMIT_BYTES:
            return  # nobody reads: a UART's buffer loses bytes too
        self._waiting_input += data
        self._push_input()

    def _push_input(self) -> None:
        try:
            while self._waiting_input:
                del self._waiting_input[: os.write(self._stdin_write, self._waiting_input)]
        except BlockingIOError:
            self._loop.add_writer(self._stdin_write, self._push_input)
            return
        self._loop.remove_writer(self._stdin_write)

    def _read_output(self) -> None:
        if self._backlog() > _BACKLOG_BYTES:
            self._is_reading = False
            self._loop.remove_reader(self._stdout_read)
            return
        self._drain_output(once=True)

    def _drain_output(self, *, once: bool = False) -> None:
        while True:
            try:
                data = os.read(self._stdout_read, 4096)
            except BlockingIOError:
                return
            self._output(data if self._is_raw else self._cook(data))
            if once:
                return

    def _cook(self, data: bytes) -> bytes:
        """Turn lone newlines into carriage return and newline, as the chip's console does."""
        joined = self._ends_with_return and data.startswith(b"\n")
        self._ends_with_return = data.endswith(b"\r")
        if joined:
            return b"\n" + _LONE_NEWLINE.sub(b"\r\n", data[1:])
        return _LONE_NEWLINE.sub(b"\r\n", data)

    # Interrupts

    def _interrupt(self) -> None:
        """Interrupt the program; as on the chip that is one interrupt until it has come."""
        if not self._is_interrupting:
            self._send_interrupt(_INTERRUPT_TRIES)

    def _send_interrupt(self, tries: int) -> None:
        """Send SIGINT, if possible where it does no harm; see `hil.board.place`."""
        self._is_interrupting = False
        process = self._process
        if process is None or self._interrupt_char < 0:
            return
        process.send_signal(signal.SIGSTOP)
        if process.returncode is not None:  # it ended meanwhile
            return
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        is_busy = tries > 0 and self._place is not None and self._place.is_busy()
        if not is_busy:
            process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        if is_busy:
            self._is_interrupting = True
            self._loop.call_later(_INTERRUPT_STEP_S, self._send_interrupt, tries - 1)

    def _set_interrupt(self, request: Request) -> None:
        if self._place is None and self._process is not None:
            self._place = Place(self._process.pid)
        self._interrupt_char = int(request["char"])
        self._is_raw = bool(request.get("raw"))
        if self._is_interrupted_early and self._interrupt_char >= 0:
            self._is_interrupted_early = False
            self._loop.call_soon(self._interrupt)

    # Requests of the shims

    def _read_channel(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            data = channel.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(channel)
            return
        self._received += data
        while len(self._received) >= _HEAD_BYTES:
            try:
                size = int(self._received[:_HEAD_BYTES], 16)
            except ValueError:
                size = -1
            if not 0 <= size <= _FRAME_LIMIT_BYTES:
                self._loop.remove_reader(channel)  # not a shim's words: no answer any more
                return
            if len(self._received) < _HEAD_BYTES + size:
                return
            frame = bytes(self._received[_HEAD_BYTES : _HEAD_BYTES + size])
            del self._received[: _HEAD_BYTES + size]
            self._drain_output()  # what was printed before the request comes before its effect
            answer = json.dumps(self._answer(frame)).encode()
            with contextlib.suppress(OSError):
                channel.sendall(b"%08x" % len(answer) + answer)

    def _answer(self, frame: bytes) -> Request:
        try:
            request = json.loads(frame)
            operation = request.pop("op")
            if operation == "interrupt":
                self._set_interrupt(request)
                return {"value": None}
            if operation == "booted":
                self._is_booting = self._is_interrupted_early = False
                return {"value": None}
            return {"value": self._request(operation, request)}
        except RequestError as error:
            return {"errno" if isinstance(error.reason, int) else "error": error.reason}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return {"error": f"the virtual board does not understand this: {error}"}

    # End of the process

    def _exited(self) -> None:
        self._drain_output()
        self._ended(self._reap())

    def _reap(self) -> int:
        process, self._process = self._process, None
        self._loop.remove_reader(self._pid_file)
        os.close(self._pid_file)
        if self._channel is not None:
            self._loop.remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        return process.wait() if process is not None else 0
