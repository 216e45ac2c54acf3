"""The board's LittleFS, over a flash of which only what LittleFS looks at is read or written.

A file system of 2 MB takes half a minute to move at 921600 baud; what a board holds in it, and
what a change of its configuration touches, is a small part. The same content gives the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from littlefs import LittleFS, LittleFSError, UserContext

from provisioning.errors import DiskError, DiskFullError, ImageError

if TYPE_CHECKING:
    from littlefs import LFSConfig

BLOCK_BYTES = 4096

_PROG_BYTES = 32
_CACHE_BYTES = 128
_BLANK = b"\xff" * BLOCK_BYTES
_NOT_THERE = -2
_FULL = -28
_FILE = 1
# Far more than a board has; a damaged folder may lead back into itself.
_DEEPEST = 16
_MOST_FILES = 5000
_HINT = "flash the board again"

Fetch = Callable[[int], bytes]


@dataclass(frozen=True)
class Extent:
    """Neighbouring blocks; `offset` in bytes from the partition's start."""

    offset: int
    content: bytes = field(repr=False)


class Disk:
    """A file system of `size` bytes.

    Args:
        fetch: returns the content of a block by number, asked once a block and only if needed.

    Raises: DiskError: what is there is no file system that can be used.
    """

    def __init__(self, size: int, fetch: Fetch) -> None:
        self._flash = _Flash(fetch)
        with _told():
            self._littlefs = _littlefs(self._flash, size, BLOCK_BYTES)
            self._littlefs.mount()

    def names(self) -> list[str]:
        """List the files by path, sorted, with "/" between folders."""
        with _told():
            return sorted(self._below("", 0))

    def _below(self, folder: str, depth: int) -> list[str]:
        if depth > _DEEPEST:
            raise damaged("folders that never end")
        names: list[str] = []
        folders: list[str] = []
        for number, each in enumerate(self._littlefs.scandir(folder or "/")):
            if number > _MOST_FILES:
                raise damaged("a folder that never ends")
            (names if each.type == _FILE else folders).append(f"{folder}{each.name}")
        for below in folders:
            names += self._below(f"{below}/", depth + 1)
        return names

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if there is none of that name."""
        try:
            with _told(), self._littlefs.open(path, "rb") as stream:
                content: bytes = stream.read()
                return content
        except _MissingError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Make a file hold this; one that does already is left alone."""
        if self.read(path) == content:
            return
        with _told():
            folder = str(PurePosixPath(path).parent)
            if folder != ".":
                self._littlefs.makedirs(folder, exist_ok=True)
            with self._littlefs.open(path, "wb") as stream:
                stream.write(content)

    def remove(self, path: str) -> None:
        """Remove a file that is there."""
        with _told():
            self._littlefs.remove(path)

    def free_bytes(self) -> int:
        """Return how much more fits."""
        with _told():
            blocks = self._littlefs.block_count - self._littlefs.used_block_count
        return int(blocks) * BLOCK_BYTES

    def changes(self) -> list[Extent]:
        """Return what to write, block by block, in this order; some blocks come twice.

        A cut at any moment, within a block too, leaves a file system in which each file is as
        it was or as it is to be: a folder's entries are always written into the other block of
        its two, never over those that hold.
        """
        return self._flash.written()


class _FreshDisk(Disk):
    """A file system on a flash that nothing is known of."""

    def __init__(self, size: int) -> None:
        self._flash = _Flash(lambda _block: _BLANK)
        self._littlefs = _littlefs(self._flash, size)
        self._littlefs.format()
        self._littlefs.mount()

    def changes(self) -> list[Extent]:
        """Return every block that LittleFS has seen.

        Not only those that it wrote: of the two blocks of a folder it writes one, and takes
        the other for newer if that holds one of an earlier life.
        """
        return _extents(sorted(self._flash.blocks.items()))


def fresh(files: Mapping[str, bytes], size: int) -> list[Extent]:
    """Return what a flash must hold so that its partition of `size` bytes holds these files.

    Whatever else is in the partition does no harm.

    Raises: ImageError: the files do not fit.
    """
    disk = _FreshDisk(size)
    try:
        for path in sorted(files):
            disk.write(path, files[path])
    except DiskError as error:
        total = sum(map(len, files.values()))
        raise ImageError(
            f"{len(files)} files with {total} bytes do not fit the board's file system "
            f"of {size} bytes ({error})",
            hint="the image leaves too little room for files: take the official ESP32_GENERIC",
        ) from None
    return disk.changes()


class _Flash(UserContext):
    """Blocks that were looked at; unlike littlefs-python's own it logs no content."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.blocks: dict[int, bytearray] = {}
        self._written: list[tuple[int, bytes]] = []

    def written(self) -> list[Extent]:
        """Return all that was written, in order."""
        return [Extent(block * BLOCK_BYTES, content) for block, content in self._written]

    def read(self, _cfg: LFSConfig, block: int, off: int, size: int) -> bytearray:
        return self._block(block)[off : off + size]

    def prog(self, _cfg: LFSConfig, block: int, off: int, data: bytes) -> int:
        self._block(block)[off : off + len(data)] = data
        if self._written and self._written[-1][0] == block:
            self._written.pop()
        self._written.append((block, bytes(self.blocks[block])))
        return 0

    def erase(self, _cfg: LFSConfig, block: int) -> int:
        self._block(block)[:] = _BLANK
        return 0

    def _block(self, block: int) -> bytearray:
        if block not in self.blocks:
            self.blocks[block] = bytearray(self._fetch(block))
        return self.blocks[block]


def _littlefs(flash: _Flash, size: int, prog_bytes: int = _PROG_BYTES) -> LittleFS:
    """Make a LittleFS, not mounted yet, with MicroPython's own figures for the ESP32.

    With `prog_bytes` of a whole block nothing is appended to a block that is in use, which the
    desk could only do by erasing it.
    """
    return LittleFS(
        flash,
        mount=False,
        block_size=BLOCK_BYTES,
        block_count=size // BLOCK_BYTES,
        read_size=32,
        prog_size=prog_bytes,
        cache_size=max(_CACHE_BYTES, prog_bytes),
        # What a file holds in its folder must fit the board's cache.
        inline_max=_CACHE_BYTES,
        lookahead_size=32,
    )


class _MissingError(DiskError):
    """No such file."""


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LittleFSError as error:
        if error.code == _FULL:
            raise DiskFullError(
                "the board's file system is full: with its reports what is to be written has no "
                "room",
                hint="empty its spool first (docs/provisioning.md, Looking); or give the "
                "reports up: netzpuls board renew --new-key",
            ) from None
        kind = _MissingError if error.code == _NOT_THERE else DiskError
        raise damaged(error.name, kind) from None
    # What littlefs-python makes of some of LittleFS's errors, and of names that are no text.
    except FileNotFoundError:
        raise damaged("LFS_ERR_NOENT", _MissingError) from None
    except (FileExistsError, IsADirectoryError):
        raise damaged("a folder where a file should be, or the other way round") from None
    except UnicodeError:
        raise damaged("a name that is no text") from None
    except (MemoryError, OverflowError):
        raise damaged("a file that is larger than the flash") from None


def damaged(reason: str, kind: type[DiskError] = DiskError) -> DiskError:
    """Return the error that says what is wrong with a board's file system."""
    return kind(f"the board's file system cannot be used: {reason}", hint=_HINT)


def _extents(blocks: list[tuple[int, bytearray]]) -> list[Extent]:
    """Join neighbours that follow each other."""
    runs: list[tuple[int, bytearray]] = []
    for block, content in blocks:
        if runs and runs[-1][0] * BLOCK_BYTES + len(runs[-1][1]) == block * BLOCK_BYTES:
            runs[-1][1].extend(content)
        else:
            runs.append((block, bytearray(content)))
    return [Extent(block * BLOCK_BYTES, bytes(content)) for block, content in runs]
