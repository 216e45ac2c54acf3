"""What the flash of one board is to hold, beside what it holds: new, or an earlier life's.

A board that is one of the city's already keeps its identity and its spool: in its file system only
the files that differ are written. Any other board gets a new file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from provisioning import disk
from provisioning.application import Application, Partition
from provisioning.chip import TABLE_ADDRESS, TABLE_BYTES
from provisioning.disk import BLOCK_BYTES, Extent
from provisioning.errors import DiskError, DiskFullError
from provisioning.guard import GuardedDisk
from provisioning.region import Region

REPORT_KEY = "identity/report.key"
CERTIFICATE = "identity/board.der"
PRIVATE_KEY = "identity/board.key.der"
AUTHORITY = "identity/ca.der"
PRIVATE_KEY_BYTES = 138  # an ECDSA P-256 key as PKCS #8 in DER

# What the desk puts there, and nobody else; what is not wanted any more goes.
_OURS = ("agent/", "linkreport/", "port/", "boot.py", "main.py", "identity/roots.der")
# So many blocks are asked for by one digest, for each answer takes its time.
_ASKED_AT_ONCE = 8


class Flash(Protocol):
    """The part of `provisioning.session.Session` that is needed here."""

    def read(self, address: int, size: int) -> bytes:
        """Read the flash."""

    def holds(self, region: Region) -> bool:
        """Tell whether the flash holds a region's content."""


def found(
    flash: Flash, application: Application, partition: Partition, likely: Mapping[str, bytes]
) -> GuardedDisk | None:
    """Open the file system of a board as it is, None if there is none that can be kept.

    Args:
        flash: the board's.
        application: what it is to run; another partition table keeps nothing.
        partition: where its files are.
        likely: files that the board may hold just so; they are compared by digest and not read.
    """
    table = application.content[TABLE_ADDRESS - application.chip.start :][:TABLE_BYTES]
    if flash.read(TABLE_ADDRESS, len(table)) != table:
        return None
    try:
        return opened(flash, partition, likely)
    except DiskError:
        return None


def opened(flash: Flash, partition: Partition, likely: Mapping[str, bytes]) -> GuardedDisk:
    """Open the file system in a partition; `likely` as for `found`.

    Raises: DiskError: there is none, or it is damaged.
    """
    extents = disk.fresh(likely, partition.size)
    return GuardedDisk(partition.size, _Fetch(flash, partition.offset, extents))


def is_ours(path: str) -> bool:
    """Tell whether a file is one that only the desk puts onto a board."""
    return path.startswith(_OURS)


def update(board: GuardedDisk, files: Mapping[str, bytes]) -> list[Extent]:
    """Return what must be written so that a board's file system holds these files.

    What the board itself has written stays: its spool, its last words.

    Raises: DiskError: the file system is damaged or full.
    """
    for path in board.names():
        if path not in files and is_ours(path):
            board.remove(path)
    for path in sorted(files):
        board.write(path, files[path])
    return board.changes()


def updated(board: GuardedDisk, files: Mapping[str, bytes]) -> list[Extent] | None:
    """As `update`, None if the file system proves too damaged to be kept.

    Raises: DiskFullError: it is full of what the board has written.
    """
    try:
        return update(board, files)
    except DiskFullError:
        raise
    except DiskError:
        return None


class _Fetch:
    """Blocks of a board's flash; those that a new file system would have are not moved."""

    def __init__(self, flash: Flash, start: int, likely: list[Extent]) -> None:
        self._flash = flash
        self._start = start
        self._likely = {
            each.offset // BLOCK_BYTES + number: each.content[at : at + BLOCK_BYTES]
            for each in likely
            for number, at in enumerate(range(0, len(each.content), BLOCK_BYTES))
        }
        self._same: dict[int, bool] = {}

    def __call__(self, block: int) -> bytes:
        if self._is_likely(block):
            return self._likely[block]
        return self._flash.read(self._start + block * BLOCK_BYTES, BLOCK_BYTES)

    def _is_likely(self, block: int) -> bool:
        if block not in self._likely:
            return False
        if block not in self._same:
            first = block - block % _ASKED_AT_ONCE
            group = [n for n in range(first, first + _ASKED_AT_ONCE) if n in self._likely]
            is_run = group == list(range(group[0], group[-1] + 1))
            if is_run and self._holds(group):
                self._same |= dict.fromkeys(group, True)
            else:
                self._same |= {each: self._holds([each]) for each in group}
        return self._same[block]

    def _holds(self, blocks: list[int]) -> bool:
        content = b"".join(self._likely[block] for block in blocks)
        return self._flash.holds(Region(self._start + blocks[0] * BLOCK_BYTES, content, b""))
