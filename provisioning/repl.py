"""A board's REPL over an open serial port: stop what runs, run something, hear its lines.

mpremote does as much on the command line; as a library it prints what it does not understand, and
cannot be told to stop waiting.

Source: MicroPython, reference/repl: raw mode and raw-paste mode.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import serial

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D = b"\x01", b"\x02", b"\x03", b"\x04"
_PROMPT = b">>> "
_RAW = b"raw REPL; CTRL-B to exit\r\n>"
_RAW_PASTE = b"\x05A\x01"
_READ_S = 0.2
_ASK_AGAIN_S = 4.0  # a board that is busy hears it late; asked twice it would lose its place
_ANSWER_S = 5.0
_GIVE_S = 60.0  # a slow line's, for all of it
_KEPT_BYTES = 64 * 1024


class ReplError(Exception):
    """The board does not answer as a REPL does; the caller says so to people."""


class Repl:
    """The REPL of the board behind a port.

    Args:
        port: open, at the console's speed.
        on_wait: called a few times a second; what it raises ends the waiting.

    Attributes:
        heard: what the board said and nobody took, at most its end.
    """

    def __init__(self, port: serial.Serial, on_wait: Callable[[], None]) -> None:
        self.heard = bytearray()
        self._port = port
        self._on_wait = on_wait
        self._is_over = False
        port.timeout = _READ_S

    def interrupt(self, most_s: float) -> None:
        """Stop whatever runs.

        Raises: ReplError: it does not stop. OSError, termios.error: the port went away.
        """
        until = time.monotonic() + most_s
        while True:
            self._port.write(b"\r" + _CTRL_C)
            try:
                self._await(_PROMPT, min(_ASK_AGAIN_S, max(0.0, until - time.monotonic())))
            except ReplError:
                if time.monotonic() >= until:
                    raise
            else:
                return

    def run(self, source: str) -> None:
        """Have it run Python; to be called after `interrupt`, once.

        Raises: as `interrupt`.
        """
        self._port.write(b"\r" + _CTRL_A)
        self._await(_RAW, _ANSWER_S)
        self._port.write(_RAW_PASTE)
        if self._take(2) != b"R\x01":
            raise ReplError("it knows no raw-paste mode")
        (window,) = struct.unpack("<H", self._take(2))
        left, content = window, source.encode()
        until = time.monotonic() + _GIVE_S
        while content:
            while left == 0 or self.heard or self._port.in_waiting:
                answer = self._take(1)
                if time.monotonic() >= until:
                    raise ReplError("it does not take what it is given")
                if answer != _CTRL_A:
                    raise ReplError(f"it broke off what it was given: {answer!r}")
                left += window
            piece, content = content[:left], content[left:]
            self._port.write(piece)
            left -= len(piece)
        self._port.write(_CTRL_D)
        self._await(_CTRL_D, _ANSWER_S)

    def line(self, most_s: float) -> bytes | None:
        """Return the next line of what runs, None if it has ended.

        Raises: ReplError: none came in time. OSError, termios.error: the port went away.
        """
        until = time.monotonic() + most_s
        while True:
            end, line_end = self.heard.find(_CTRL_D), self.heard.find(b"\n")
            if line_end >= 0 and not 0 <= end < line_end:
                line = bytes(self.heard[:line_end])
                del self.heard[: line_end + 1]
                return line
            if end >= 0:
                return None
            self._read(until)

    def fault(self, most_s: float) -> str:
        """Return what ended that which ran, after `line` was None: a traceback, or "".

        Raises: as `line`.
        """
        until = time.monotonic() + most_s
        while self.heard.count(_CTRL_D) < 2:
            self._read(until)
        return self.heard.split(_CTRL_D)[1].decode("utf-8", "backslashreplace")

    def start_anew(self) -> None:
        """Start the board's program again: without a reset line, by a soft reset.

        Raises: OSError, termios.error: the port went away.
        """
        self._port.write(b"\r" + _CTRL_C + _CTRL_B)
        try:
            self._await(_PROMPT, _ANSWER_S)
        finally:
            self._port.write(_CTRL_D)

    def _await(self, text: bytes, most_s: float) -> None:
        until = time.monotonic() + most_s
        while text not in self.heard:
            self._read(until)
        del self.heard[: self.heard.index(text) + len(text)]

    def _take(self, size: int) -> bytes:
        until = time.monotonic() + _ANSWER_S
        while len(self.heard) < size:
            self._read(until)
        taken = bytes(self.heard[:size])
        del self.heard[:size]
        return taken

    def _read(self, until: float) -> None:
        """Hear what comes.

        Raises: ReplError: the time is up.
        """
        if time.monotonic() >= until:
            raise ReplError("it does not answer")
        self._on_wait()
        self.heard += self._port.read(max(1, self._port.in_waiting))
        del self.heard[:-_KEPT_BYTES]
