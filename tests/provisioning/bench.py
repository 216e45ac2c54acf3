"""A board that can be made to fail at any point: the virtual board's loader on a pty.

It runs no program; after a restart it says what the test lets it say.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hil.board import slip
from hil.board.flash import INSTANT, Flash
from hil.board.loader import Loader

MAC = bytes.fromhex("240ac4123456")
BOARD = "np-240ac4123456"
SYNC = 0x08
FLASH_WRITING = (0x03, 0x11)  # FLASH_DATA, FLASH_DEFL_DATA
FLASH_MD5 = 0x13


def self_test(**changes: Any) -> bytes:
    document = {"ok": True, "board": BOARD, "agent": "0.1.0", "config": "ok", "identity": "ok"}
    return b"NETZPULS SELFTEST " + json.dumps(document | changes).encode() + b"\r\n"


class Board:
    """The board at the other end of `port`.

    Attributes:
        registers: words by address that differ from a good board's.
        console: what it says after a restart.
        on_frame: sees each command and its count before it is carried out.
        flash: its flash, kept over restarts.
        starts: how often it was restarted.
        carries_baud: the highest speed of its line; what comes faster is lost.
    """

    def __init__(self, folder: Path, mac: bytes = MAC) -> None:
        self._mac = mac
        self.flash = Flash(folder / "flash.bin", INSTANT)
        self.registers: dict[int, int] = {}
        self.console = b"ets Jul 29 2019 12:21:46\r\n" + self_test(board=f"np-{mac.hex()}")
        self.on_frame: Callable[[int, int], None] = lambda _command, _count: None
        self.starts = 0
        self.is_deaf = False
        self.carries_baud = 3_000_000
        self._counts: dict[int, int] = {}
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self._open = [self._master, slave]
        self._stop, stopped = os.pipe()
        self._open += [self._stop]
        self._thread = threading.Thread(target=self._serve, args=(stopped,))
        self._thread.start()

    def unplug(self) -> None:
        """Take the port away, as a pulled cable does."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []

    def close(self) -> None:
        if self._open:
            self.unplug()
        self._thread.join()
        self.flash.close()

    def _serve(self, stopped: int) -> None:
        loader, decoder = Loader(self.flash, self._mac), slip.Decoder()
        master = self._master
        with os.fdopen(stopped), contextlib.suppress(OSError):
            while True:
                readable, _, _ = select.select([master, stopped], [], [])
                if stopped in readable:
                    return
                for frame in decoder.feed(os.read(master, 65536)):
                    if self._handle(loader, frame):
                        loader, decoder = Loader(self.flash, self._mac), slip.Decoder()
                        break

    def _handle(self, loader: Loader, frame: bytes) -> bool:
        """Answer one frame; tell whether the board was restarted by it."""
        command = frame[1] if len(frame) > 1 else 0
        count = self._counts[command] = self._counts.get(command, 0) + 1
        self.on_frame(command, count)
        if self.is_deaf:
            return False
        if loader.baud > self.carries_baud:
            return command == SYNC  # an adapter with reset lines would have reset it now
        loader._registers._fixed |= self.registers
        answer = loader.handle(frame)
        if answer is None:
            return False
        os.write(self._master, answer.data)
        if answer.reboot:
            self.starts += 1
            os.write(self._master, self.console)
        return answer.reboot


@contextlib.contextmanager
def board(folder: Path) -> Iterator[Board]:
    opened = Board(folder)
    try:
        yield opened
    finally:
        opened.close()
