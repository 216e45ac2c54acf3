"""What an ESP32 looks for in its flash before it starts: boot loader, partitions, application.

Sources: ESP-IDF, "App Image Format" and "Partition Tables".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hil.board.flash import SIZE_BYTES, Flash

BOOTLOADER_ADDRESS = 0x1000
TABLE_ADDRESS = 0x8000
IMAGE_MAGIC = 0xE9
ENTRY_MAGIC = 0x50AA
DIGEST_MAGIC = 0xEBEB
ENTRY = struct.Struct("<HBBII16sI")
HEADER = struct.Struct("<BBBBI")
EXTENDED_HEADER = struct.Struct("<B3sHBHH4sB")
SEGMENT = struct.Struct("<II")
CHECKSUM_SEED = 0xEF
APP, DATA = 0x00, 0x01
FACTORY, PHY, NVS, FAT = 0x00, 0x01, 0x02, 0x81

_TABLE_BYTES = 0xC00
_DIGEST_BYTES = 32


class NotBootableError(Exception):
    """Nothing that could be started; the message is what a real board prints."""


@dataclass(frozen=True)
class Partition:
    """One entry of the partition table."""

    kind: int
    subtype: int
    address: int
    size: int
    label: str

    def pack(self) -> bytes:
        """Return the entry as it stands in flash."""
        label = self.label.encode()
        return ENTRY.pack(ENTRY_MAGIC, self.kind, self.subtype, self.address, self.size, label, 0)


def check_bootable(flash: Flash) -> list[Partition]:
    """Return the partitions of a flash that holds all that is needed to start.

    Raises: NotBootableError: with the lines that boot ROM and boot loader print.
    """
    magic = flash.read(BOOTLOADER_ADDRESS, 4)
    if magic[0] != IMAGE_MAGIC:
        raise NotBootableError(f"invalid header: 0x{int.from_bytes(magic, 'little'):08x}")
    if (problem := check_image(flash, BOOTLOADER_ADDRESS, TABLE_ADDRESS)) is not None:
        raise NotBootableError(f"csum err: {problem}")
    partitions = read_partitions(flash)
    application = next((p for p in partitions if p.kind == APP), None)
    if application is None:
        raise NotBootableError("E (64) boot: No bootable app partitions in the partition table")
    end = application.address + application.size
    if (problem := check_image(flash, application.address, end)) is not None:
        raise NotBootableError(
            f"E (78) esp_image: {problem}\r\n"
            "E (84) boot: Factory app partition is not bootable\r\n"
            "E (90) boot: No bootable app partitions in the partition table"
        )
    return partitions


def file_system(partitions: Sequence[Partition]) -> Partition | None:
    """Return where MicroPython keeps its files.

    Where the table does not name a place it is the rest of the flash, as it makes it itself since
    1.26 (ports/esp32/main.c, boardctrl_startup).
    """
    for label in ("vfs", "ffat"):
        for each in partitions:
            if each.kind == DATA and each.label == label:
                return each
    start = max((each.address + each.size for each in partitions), default=SIZE_BYTES)
    if start >= SIZE_BYTES:
        return None
    return Partition(DATA, FAT, start, SIZE_BYTES - start, "vfs")


def read_partitions(flash: Flash) -> list[Partition]:
    """Read the partition table and check it against its digest, if it has one."""
    table = flash.read(TABLE_ADDRESS, _TABLE_BYTES)
    partitions: list[Partition] = []
    magic = 0
    for start in range(0, _TABLE_BYTES, ENTRY.size):
        magic, kind, subtype, address, size, label, _flags = ENTRY.unpack_from(table, start)
        if magic == DIGEST_MAGIC:
            digest = hashlib.md5(table[:start], usedforsecurity=False).digest()
            if table[start + 16 : start + ENTRY.size] != digest:
                raise NotBootableError("E (64) flash_parts: MD5 mismatch of the partition table")
        elif magic == 0xFFFF and partitions:
            return partitions
        elif magic != ENTRY_MAGIC or address + size > SIZE_BYTES:
            break
        else:
            text = label.rstrip(b"\0").decode("ascii", "replace")
            partitions.append(Partition(kind, subtype, address, size, text))
    raise NotBootableError(
        f"E (60) flash_parts: partition {len(partitions)} invalid magic number 0x{magic:x}\r\n"
        "E (64) boot: Failed to verify partition table\r\n"
        "E (70) boot: load partition table error!"
    )


def check_image(flash: Flash, start: int, limit: int) -> str | None:
    """Return what is wrong with the image at `start`, or None if it is whole."""
    head = flash.read(start, HEADER.size + EXTENDED_HEADER.size)
    magic, segments, *_ = HEADER.unpack_from(head)
    if magic != IMAGE_MAGIC:
        return f"image at 0x{start:x} has invalid magic byte (nothing flashed here?)"
    has_digest = EXTENDED_HEADER.unpack_from(head, HEADER.size)[-1]
    position, state = start + len(head), CHECKSUM_SEED
    for index in range(segments):
        if position + SEGMENT.size > limit:
            return f"image at 0x{start:x} is longer than its partition"
        _load_address, size = SEGMENT.unpack(flash.read(position, SEGMENT.size))
        position += SEGMENT.size
        if position + size > limit:
            return f"segment {index} has an invalid length 0x{size:x}"
        state ^= xor(flash.read(position, size))
        position += size
    position += 15 - (position - start) % 16
    if flash.read(position, 1) != bytes((state,)):
        return f"Checksum failed. Calculated 0x{state:x}"
    position += 1
    if has_digest:
        digest = hashlib.sha256(flash.read(start, position - start)).digest()
        if flash.read(position, _DIGEST_BYTES) != digest:
            return "Image hash failed - image is corrupt"
    return None


def xor(data: bytes) -> int:
    """Return the exclusive or of all bytes, folding halves onto each other."""
    value, size = int.from_bytes(data, "little"), len(data)
    while size > 1:
        half = (size + 1) // 2
        value = value >> 8 * half ^ value & (1 << 8 * half) - 1
        size = half
    return value
