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

import pytest

from fleet.errors import NetzpulsError
from hil.board import slip
from hil.board.flash import INSTANT, Flash
from hil.board.loader import Loader
from provisioning import disk, journal, port
from provisioning.flash import FlashRequest, flash_board
from tests.provisioning.test_disk import read_files

MAC = bytes.fromhex("240ac4123456")
BOARD = "np-240ac4123456"
SYNC = 0x08
FLASH_WRITING = (0x03, 0x11)  # FLASH_DATA, FLASH_DEFL_DATA
FLASH_MD5 = 0x13
VFS, VFS_BYTES = 0x200000, 0x200000
# Must never be seen in output, logs, errors or process arguments.
WLAN_KEY = "Geheim-Schulnetz-4711"


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


def tree(city: Path) -> dict[str, bytes]:
    """Return a city's files but the journal; CA and hash key may have been made meanwhile."""
    return {
        str(path.relative_to(city)): path.read_bytes()
        for path in city.rglob("*")
        if path.is_file()
        and path.name not in ("ca.pem", "ca.key", "hash.key")
        and path.parent.name != journal.FOLDER
    }


def arguments(request: FlashRequest) -> list[str]:
    return [
        "board", "flash", "--city", str(request.city), "--port", request.port,
        "--site", request.site, "--room", request.room, "--role", request.role,
        "--micropython", str(request.image),
    ]  # fmt: skip


def files(board: Board) -> dict[str, bytes]:
    return read_files(board.flash.read(VFS, VFS_BYTES))


def refused(request: FlashRequest, kind: type[NetzpulsError]) -> NetzpulsError:
    """Flash a board that must fail: nothing of it may be left behind, and the port is free."""
    before = tree(request.city)
    with pytest.raises(kind) as caught:
        flash_board(request)
    assert tree(request.city) == before
    assert caught.value.hint
    assert WLAN_KEY not in json.dumps(caught.value.document())
    port.open_port(request.port).close()
    return caught.value


def put(board: Board, name: str, content: bytes) -> None:
    """Write a file as the board does."""
    opened = disk.Disk(
        VFS_BYTES, lambda block: board.flash.read(VFS + block * 4096, disk.BLOCK_BYTES)
    )
    opened.write(name, content)
    for extent in opened.changes():
        board.flash.erase_region(VFS + extent.offset, len(extent.content))
        board.flash.program(VFS + extent.offset, extent.content)
