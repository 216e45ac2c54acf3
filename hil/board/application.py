"""A stand-in for the official MicroPython image, for boards that are programs.

    netzpuls lab image stand-in.bin
    esptool --port PATH --baud 921600 write-flash 0x1000 stand-in.bin

It has the layout (that since 1.26), size and entropy of the official image, so that flashing it
takes as long; boot ROM and esptool accept it. It holds no program: the virtual board runs the
real unix MicroPython in its place, and a real board would not start.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from hil.board.image import (
    APP,
    BOOTLOADER_ADDRESS,
    CHECKSUM_SEED,
    DATA,
    DIGEST_MAGIC,
    EXTENDED_HEADER,
    FACTORY,
    HEADER,
    IMAGE_MAGIC,
    NVS,
    PHY,
    SEGMENT,
    TABLE_ADDRESS,
    Partition,
    xor,
)

TEXT = (
    "Netzpuls stand-in image: NOT MicroPython. It has the layout, size and entropy of the "
    "official ESP32_GENERIC image and no program. It only starts on a virtual board; a real "
    "board needs the official image from https://micropython.org/download/ESP32_GENERIC/"
)
VERSION = "stand-in, not MicroPython"
PARTITIONS = (
    Partition(DATA, NVS, 0x9000, 0x6000, "nvs"),
    Partition(DATA, PHY, 0xF000, 0x1000, "phy_init"),
    Partition(APP, FACTORY, 0x10000, 0x1F0000, "factory"),
)

_APPLICATION_ADDRESS = 0x10000
_BOOTLOADER_BYTES = 23_000
_APPLICATION_BYTES = 1_670_000  # with the boot loader and the gap about the official 1.7 MB
_DESCRIPTION = struct.Struct("<II8s32s32s16s16s32s32s80s")
_DESCRIPTION_MAGIC = 0xABCD5432
# Bytes below this become 0: the rest then deflates to about 0.64, as the official image does.
_ZERO_BELOW = 127
_ENTROPY = bytes(byte if byte >= _ZERO_BELOW else 0 for byte in range(256))


def build_image(seed: str = "netzpuls", partitions: Sequence[Partition] = PARTITIONS) -> bytes:
    """Return the image, to be written at 0x1000; the same bytes for the same seed."""
    parts = {
        BOOTLOADER_ADDRESS: _bootloader(seed),
        TABLE_ADDRESS: _table(partitions),
        _APPLICATION_ADDRESS: _application(seed),
    }
    end = max(address + len(data) for address, data in parts.items())
    image = bytearray(b"\xff" * (end - BOOTLOADER_ADDRESS))
    for address, data in parts.items():
        start = address - BOOTLOADER_ADDRESS
        image[start : start + len(data)] = data
    return bytes(image)


def _bootloader(seed: str) -> bytes:
    code = _noise(f"{seed} bootloader", _BOOTLOADER_BYTES)
    return _image([(0x3FFF0030, TEXT.encode()), (0x40080000, code)])


def _application(seed: str) -> bytes:
    description = _DESCRIPTION.pack(
        _DESCRIPTION_MAGIC,
        0,
        bytes(8),
        VERSION.encode(),
        b"netzpuls-stand-in",
        b"00:00:00",
        b"Jan  1 2000",
        b"none",
        hashlib.sha256(seed.encode()).digest(),
        bytes(80),
    )
    data = description + TEXT.encode().ljust(512, b"\0")
    code_bytes = _APPLICATION_BYTES - len(data)
    constant_bytes = code_bytes // 4
    return _image(
        [
            (0x3F400020, data + _noise(f"{seed} constants", constant_bytes)),
            (0x400D0000, _noise(f"{seed} code", code_bytes - constant_bytes)),
        ]
    )


def _image(segments: list[tuple[int, bytes]]) -> bytes:
    out = bytearray(HEADER.pack(IMAGE_MAGIC, len(segments), 2, 0x20, segments[-1][0]))
    out += EXTENDED_HEADER.pack(0xEE, bytes(3), 0, 0, 0, 399, bytes(4), 1)
    state = CHECKSUM_SEED
    for load_address, data in segments:
        padded = data + bytes(-len(data) % 4)
        # Mapped memory repeats the flash's position within a page of 64 KB.
        within = (len(out) + SEGMENT.size) & 0xFFFF if load_address >= 0x400D0000 else 0
        out += SEGMENT.pack(load_address | within, len(padded)) + padded
        state ^= xor(padded)
    out += bytes(15 - len(out) % 16) + bytes((state,))
    return bytes(out + hashlib.sha256(out).digest())


def _table(partitions: Sequence[Partition]) -> bytes:
    entries = b"".join(partition.pack() for partition in partitions)
    digest = hashlib.md5(entries, usedforsecurity=False).digest()
    return entries + struct.pack("<H14s", DIGEST_MAGIC, b"\xff" * 14) + digest


def _noise(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size).translate(_ENTROPY)
