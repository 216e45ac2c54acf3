"""Worn flash: sectors of the file system that no longer take writes and erases.

One byte per sector in memory that the board process and the interpreter share: its file system
looks there before it writes (`hil/board/shim/disk.py`), so the board process is asked nothing.
"""

from __future__ import annotations

import os

from hil.board.flash import SECTOR_BYTES, SIZE_BYTES

_SECTORS = SIZE_BYTES // SECTOR_BYTES


class Wear:
    """Which sectors are worn.

    Attributes:
        file_number: of the shared bytes, one for each sector from address 0: 0 is good.
    """

    def __init__(self) -> None:
        self.percent = 0
        self.file_number = os.memfd_create("wear")
        os.truncate(self.file_number, _SECTORS)

    def set(self, percent: int) -> None:
        """Let a share of the sectors fail, spread evenly; 0 mends all."""
        self.percent = percent
        worn = bytes((at + 1) * percent // 100 - at * percent // 100 for at in range(_SECTORS))
        os.pwrite(self.file_number, worn, 0)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.file_number)
