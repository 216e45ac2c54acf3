"""The board's flash: a file with the rules and the times of a NOR flash.

Programming only clears bits, erasing sets a whole sector to 0xFF. Each operation returns
how long the part would have been busy; who asked for it waits.

The part is a Winbond W25Q32JV (4 MB). Typical times, datasheet rev. F, "AC Electrical
Characteristics": byte program 30 µs for the first byte, 2.5 µs for each further one; page
program (256 bytes) 0.4 ms; erase of 4 KB 45 ms, 32 KB 120 ms, 64 KB 150 ms, chip 10 s.
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hil.board.error import FlashFileError

SIZE_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 256
SECTOR_BYTES = 4096
BLOCK_BYTES = 65536
JEDEC_ID = bytes((0xEF, 0x40, 0x16))  # Winbond, W25Q32, 2^22 bytes


@dataclass(frozen=True)
class Timing:
    """How long the part is busy, in microseconds."""

    first_byte_us: float = 30
    further_byte_us: float = 2.5
    page_us: float = 400
    sector_us: float = 45_000
    block_us: float = 150_000
    chip_us: float = 10_000_000

    def program_us(self, address: int, size: int) -> float:
        """Return the time to program `size` bytes from `address`, page by page."""
        total, end = 0.0, address + size
        while address < end:
            step = min(end, (address // PAGE_BYTES + 1) * PAGE_BYTES) - address
            total += min(self.page_us, self.first_byte_us + self.further_byte_us * (step - 1))
            address += step
        return total


TYPICAL = Timing()
INSTANT = Timing(0, 0, 0, 0, 0, 0)


class Flash:
    """A 4 MB flash file, made blank if it does not exist.

    Raises: FlashFileError: the file has another size or cannot be opened.
    """

    def __init__(self, path: Path, timing: Timing = TYPICAL) -> None:
        self.path = path
        self.timing = timing
        try:
            self.file_number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FlashFileError(
                f"flash file {path} cannot be opened: {error.strerror}",
                hint="name a file in a folder that you can write to: --flash FILE",
            ) from error
        try:
            status = os.fstat(self.file_number)
            if stat.S_ISREG(status.st_mode) and status.st_size == 0:
                _write_blank(self.file_number)
            else:
                _check(path, status)
            self._memory = mmap.mmap(self.file_number, SIZE_BYTES)
        except BaseException:
            os.close(self.file_number)
            raise

    def close(self) -> None:
        """Write the file back and close it."""
        self._memory.flush()
        self._memory.close()
        os.close(self.file_number)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes, fewer where the flash ends."""
        return self._memory[address : address + size]

    def program(self, address: int, data: bytes) -> float:
        """Clear the bits that are 0 in `data`.

        Returns: busy time in microseconds.
        Raises:  ValueError: outside the flash.
        """
        _check_range(address, len(data))
        end = address + len(data)
        old = int.from_bytes(self._memory[address:end], "little")
        new = old & int.from_bytes(data, "little")
        self._memory[address:end] = new.to_bytes(len(data), "little")
        return self.timing.program_us(address, len(data))

    def erase_sector(self, address: int) -> float:
        """Set the 4 KB sector that holds `address` to 0xFF; return the busy time in µs."""
        return self._erase(address, SECTOR_BYTES, self.timing.sector_us)

    def erase_block(self, address: int) -> float:
        """Set the 64 KB block that holds `address` to 0xFF; return the busy time in µs."""
        return self._erase(address, BLOCK_BYTES, self.timing.block_us)

    def erase_chip(self) -> float:
        """Set everything to 0xFF; return the busy time in µs."""
        return self._erase(0, SIZE_BYTES, self.timing.chip_us)

    def erase_region(self, address: int, size: int) -> float:
        """Erase whole sectors, with 64 KB blocks where they fit, as esptool's stub does.

        Returns: busy time in microseconds.
        Raises:  ValueError: outside the flash or not on sector bounds.
        """
        _check_range(address, size)
        if address % SECTOR_BYTES or size % SECTOR_BYTES:
            raise ValueError("an erase must begin and end on a sector")
        total, end = 0.0, address + size
        while address < end:
            if address % BLOCK_BYTES == 0 and end - address >= BLOCK_BYTES:
                total += self.erase_block(address)
                address += BLOCK_BYTES
            else:
                total += self.erase_sector(address)
                address += SECTOR_BYTES
        return total

    def _erase(self, address: int, size: int, duration_us: float) -> float:
        _check_range(address, 1)
        start = address - address % size
        self._memory[start : start + size] = b"\xff" * size
        return duration_us


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FlashFileError(
            f"flash file {path} is no file", hint="name another one, or a new one: --flash FILE"
        )
    if status.st_size != SIZE_BYTES:
        raise FlashFileError(
            f"flash file {path} has {status.st_size} bytes; the board's flash has {SIZE_BYTES}",
            hint="name a file that does not exist yet to start with a blank flash",
        )


def _check_range(address: int, size: int) -> None:
    if address < 0 or size < 0 or address + size > SIZE_BYTES:
        raise ValueError(f"0x{address:x}+0x{size:x} is outside the flash")


def _write_blank(file_number: int) -> None:
    for _ in range(SIZE_BYTES // BLOCK_BYTES):
        os.write(file_number, b"\xff" * BLOCK_BYTES)
