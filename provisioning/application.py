"""The application image: MicroPython for the board, as micropython.org publishes it.

One file holds boot loader, partition table and application, and starts at the flash address at
which the chip's ROM looks for the boot loader. Everything else that has to be known of the flash is
read from its partition table. Since 1.26 that names no place for files any more: MicroPython takes
what the flash has behind the last partition.

Source: ESP-IDF, "Partition Tables" and "Firmware Image Format"; MicroPython, ports/esp32/main.c
(boardctrl_startup) and modules/flashbdev.py.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.text import printable
from provisioning.chip import CHIPS, ESP32, TABLE_ADDRESS, TABLE_BYTES, Chip, by_image
from provisioning.chip import name as chip_name
from provisioning.errors import ImageError
from provisioning.region import Region

_LONGEST_BYTES = 16 << 20  # the largest flash of an ESP32; a device may have no end
_ENTRY = struct.Struct("<2sBBII16sI")
_ENTRY_MAGIC = b"\xaa\x50"
_DIGEST_MAGIC = b"\xeb\xeb" + b"\xff" * 14
_APPLICATION, _DATA = 0, 1
_NVS, _FAT = 2, 0x81
_FILES = ("vfs", "ffat")  # the labels that MicroPython looks for
LEAST_FLASH_BYTES = 4 << 20
OTA = 0  # subtype of the partition that says which application starts

# The application's own description, at the start of its first segment.
_DESCRIPTION = struct.Struct("<I12x32s32s")
_DESCRIPTION_MAGIC = 0xABCD5432
# What `netzpuls lab image` calls itself there.
_STAND_IN = "netzpuls-stand-in"

_HEADER_BYTES = 24
_SEGMENT = struct.Struct("<II")
_IMAGE_MAGIC = 0xE9
_CHECKSUM_SEED = 0xEF
_HINT = f"get {ESP32.build} (the .bin, not the .app-bin) from {ESP32.official}"

_deflating = threading.Lock()


@dataclass(frozen=True)
class Partition:
    """One line of the partition table; `offset` and `size` in bytes."""

    label: str
    type: int
    subtype: int
    offset: int
    size: int


@dataclass(frozen=True)
class Application:
    """A checked application image.

    Attributes:
        version: what it says of itself, "" if nothing.
        stand_in: it only starts on virtual boards.
        data: the partitions that the board writes itself, but the file system: settings, which
            application starts, radio calibration.
        regions: what is to be written: all of the image but these.
    """

    path: Path
    content: bytes = field(repr=False)
    chip: Chip
    sha256: str
    version: str
    stand_in: bool
    partitions: tuple[Partition, ...]
    data: tuple[Partition, ...]
    regions: tuple[Region, ...] = field(repr=False)

    @property
    def end(self) -> int:
        """The flash address behind the image."""
        return self.chip.start + len(self.content)

    def file_system(self, flash_bytes: int = LEAST_FLASH_BYTES) -> Partition:
        """Return where its files are on a board with so much flash, at least `flash_bytes`."""
        found = file_system(self.partitions, max(flash_bytes, LEAST_FLASH_BYTES))
        if found is None:  # an image without is refused when it is read
            raise ImageError(f"{self.path} has no room for files", hint=_HINT)
        return found

    @property
    def flash_bytes(self) -> int:
        """How much flash a board needs."""
        least = self.file_system()
        return least.offset + least.size

    def document(self) -> dict[str, Any]:
        """Return what it is as `--json` prints it."""
        return {
            "file": printable(self.path.name),
            "bytes": len(self.content),
            "sha256": self.sha256,
            "version": self.version,
            "stand_in": self.stand_in,
        }


# An image that is a file yet, or was read, and perhaps checked, already.
Image = Path | Application


def load(image: Image | None) -> Application:
    """Read an application image and check all that can be checked without a board.

    Raises: ImageError: none was given, it cannot be read, is damaged or for another chip.
    """
    if isinstance(image, Application):
        return image
    if image is None:
        raise ImageError(
            "no MicroPython image given",
            hint=f"real board: add --micropython-version X.Y.Z, or {_HINT}; virtual board: make a "
            "stand-in with `netzpuls lab image FILE`; then add --micropython FILE",
        )
    try:
        with image.open("rb") as stream:
            content = stream.read(_LONGEST_BYTES)
    except OSError as error:
        raise ImageError(
            f"cannot read the MicroPython image {image}: {error.strerror}", hint=_HINT
        ) from None
    return parse(image, content)


def parse(path: Path, content: bytes) -> Application:
    """Return the application image that a file holds.

    Raises: ImageError: it is damaged or for another chip.
    """
    try:
        return _parse(path, content)
    except _DamagedError as damage:
        raise ImageError(f"{path} cannot be flashed: {damage}", hint=_HINT) from None


class _DamagedError(Exception):
    """What is wrong with an image, in words that follow "cannot be flashed: "."""


def _parse(path: Path, content: bytes) -> Application:
    chip = _check_firmware(content, 0, "boot loader", None)
    at = TABLE_ADDRESS - chip.start
    partitions = _partitions(content[at : at + TABLE_BYTES])
    if not partitions:
        raise _DamagedError(f"it holds no partition table at {TABLE_ADDRESS:#x}")
    applications = [p for p in partitions if p.type == _APPLICATION]
    if not applications:
        raise _DamagedError("its partition table names no application")
    _check_firmware(content, applications[0].offset - chip.start, "application", chip)
    files = file_system(partitions, LEAST_FLASH_BYTES)
    data = tuple(p for p in partitions if p.type == _DATA and p is not files)
    if files is None:
        raise _DamagedError("its partition table leaves no room for files (vfs)")
    if not any(p.subtype == _NVS for p in data):
        raise _DamagedError("its partition table names no nvs partition")
    if chip.start + len(content) > files.offset:
        raise _DamagedError("it reaches into its own vfs partition")
    project, version = _description(content, applications[0].offset - chip.start)
    return Application(
        path=path,
        content=content,
        chip=chip,
        sha256=hashlib.sha256(content).hexdigest(),
        version=version,
        stand_in=project == _STAND_IN,
        partitions=tuple(partitions),
        data=data,
        regions=_regions(content, chip.start, data),
    )


def _regions(content: bytes, first: int, data: tuple[Partition, ...]) -> tuple[Region, ...]:
    """Deflate an image once for a whole tray of boards: it takes a second."""
    with _deflating:
        return _deflated(content, first, data)


@functools.lru_cache(maxsize=1)
def _deflated(content: bytes, first: int, data: tuple[Partition, ...]) -> tuple[Region, ...]:
    regions, at, end = [], first, first + len(content)
    for start, after in [*sorted((p.offset, p.offset + p.size) for p in data), (end, end)]:
        if at < min(start, end):
            regions.append(Region.of(at, content[at - first : min(start, end) - first]))
        at = max(at, after)
    return tuple(regions)


def partitions(table: bytes) -> list[Partition]:
    """Read a partition table; what is none has no partitions.

    Raises: ImageError: it is damaged.
    """
    try:
        return _partitions(table)
    except _DamagedError as damage:
        raise ImageError(str(damage), hint=_HINT) from None


def file_system(partitions: Sequence[Partition], flash_bytes: int) -> Partition | None:
    """Return where MicroPython keeps its files, None if nowhere.

    Args:
        partitions: those of the table.
        flash_bytes: how much flash the board has.
    """
    for label in _FILES:
        for each in partitions:
            if each.type == _DATA and each.label == label:
                return each
    start = max((each.offset + each.size for each in partitions), default=0)
    has_application = any(each.type == _APPLICATION for each in partitions)
    if not has_application or start >= flash_bytes:
        return None
    return Partition(_FILES[0], _DATA, _FAT, start, flash_bytes - start)


def _partitions(table: bytes) -> list[Partition]:
    partitions = []
    for offset in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        entry = table[offset : offset + _ENTRY.size]
        if entry[:16] == _DIGEST_MAGIC:
            # ESP-IDF calls for MD5 here; it guards against damage, not against attack.
            if hashlib.md5(table[:offset], usedforsecurity=False).digest() != entry[16:]:
                raise _DamagedError("its partition table is damaged")
            break
        if entry[:2] != _ENTRY_MAGIC:
            break
        _, kind, subtype, start, size, label, _ = _ENTRY.unpack(entry)
        name = label.rstrip(b"\0").decode("ascii", "replace")
        partitions.append(Partition(name, kind, subtype, start, size))
    return partitions


def _description(content: bytes, offset: int) -> tuple[str, str]:
    """Return the project and the version that an application names."""
    at = offset + _HEADER_BYTES + _SEGMENT.size
    if at + _DESCRIPTION.size > len(content):
        return "", ""
    magic, version, project = _DESCRIPTION.unpack_from(content, at)
    if magic != _DESCRIPTION_MAGIC:
        return "", ""
    return _text(project), _text(version)


def _text(field: bytes) -> str:
    return printable(field.partition(b"\0")[0])


def _check_firmware(content: bytes, offset: int, what: str, chip: Chip | None) -> Chip:
    """Check one firmware image: chip, completeness, checksum and digest; return its chip."""
    image = content[offset:]
    if len(image) < _HEADER_BYTES or image[0] != _IMAGE_MAGIC:
        raise _DamagedError(f"there is no {what} at {offset:#x} in it")
    (image_id,) = struct.unpack_from("<H", image, 12)
    found = by_image(image_id)
    if found is None or (chip and found != chip):
        wanted = chip.name if chip else ", ".join(each.name for each in CHIPS)
        raise _DamagedError(f"its {what} is for {chip_name(image_id)}, not {wanted}")
    end, checksum = _HEADER_BYTES, _CHECKSUM_SEED
    has_digest = bool(image[23])
    for _ in range(image[1]):
        if end + _SEGMENT.size > len(image):
            raise _DamagedError(f"its {what} is cut short")
        _, size = _SEGMENT.unpack_from(image, end)
        end += _SEGMENT.size
        if not has_digest:
            checksum = functools.reduce(operator.xor, image[end : end + size], checksum)
        end += size
    end += 16 - end % 16  # padded so that the checksum is the last byte of a 16-byte line
    if end + 32 * has_digest > len(image):
        raise _DamagedError(f"its {what} is cut short")
    if has_digest:
        is_whole = hashlib.sha256(image[:end]).digest() == image[end : end + 32]
    else:
        is_whole = checksum == image[end - 1]
    if not is_whole:
        raise _DamagedError(f"its {what} is damaged")
    return found
