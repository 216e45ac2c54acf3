"""The physical limit of flashing a board: what must go over its line and into its flash."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hil.board.flash import SECTOR_BYTES, Flash
from provisioning import application, disk
from provisioning.region import Region
from tests.provisioning.test_disk import read_files

_BITS_PER_BYTE = 10


def files(flash: Path, image: Path) -> dict[str, bytes]:
    """Return what the desk has put into the file system of a board's flash file."""
    vfs = application.load(image).file_system()
    content = flash.read_bytes()[vfs.offset : vfs.offset + vfs.size]
    found = read_files(content)
    return {name: each for name, each in found.items() if not name.startswith("spool/")}


def regions(image: Path, files: dict[str, bytes]) -> list[Region]:
    """Return what must be written onto a blank board, and nothing else."""
    loaded = application.load(image)
    vfs = loaded.file_system()
    extents = disk.fresh(files, vfs.size)
    return [*loaded.regions, *(Region.of(vfs.offset + e.offset, e.content) for e in extents)]


def of(regions: Iterable[Region], baud: int, folder: Path) -> dict[str, float]:
    """Return the limits in seconds for a flash with a W25Q32's typical figures.

    A stub that receives while it programs cannot be faster than the slower of line and flash
    (`overlapped_s`), one that does not cannot be faster than both together (`sum_s`).
    """
    line_s = busy_us = 0.0
    part = Flash(folder / "limit.bin")
    try:
        for region in regions:
            sectors = -(-len(region.content) // SECTOR_BYTES) * SECTOR_BYTES
            busy_us += part.erase_region(region.address, sectors)
            busy_us += part.timing.program_us(region.address, len(region.content))
            line_s += len(region.deflated) * _BITS_PER_BYTE / baud
    finally:
        part.close()
    flash_s = busy_us / 1e6
    return {
        "line_s": round(line_s, 3),
        "flash_s": round(flash_s, 3),
        "sum_s": round(line_s + flash_s, 3),
        "overlapped_s": round(max(line_s, flash_s), 3),
    }
