"""File systems that lie: LittleFS metadata changed by chance, with checksums that are right.

Source: the LittleFS specification (SPEC.md): tags, XOR chain, CRC.
"""

from __future__ import annotations

import random
import struct
import zlib

from provisioning.disk import BLOCK_BYTES

Entry = tuple[int, bytes]

_TYPES = (0x001, 0x002, 0x0FF, 0x200, 0x201, 0x202, 0x401, 0x4FF, 0x500, 0x501, 0x600, 0x601, 0x7FF)
_WORDS = (0, 1, 2, 3, 511, 512, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_DELETED = 0x3FF


def lie(content: bytes, seed: int) -> bytes:
    """Return a file system in which some metadata are others."""
    chance, lying = random.Random(seed), bytearray(content)
    blocks = [each for each in range(len(content) // BLOCK_BYTES) if _is_metadata(content, each)]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.choice(blocks[:8]) * BLOCK_BYTES
        revision, entries = _parse(bytes(lying[at : at + BLOCK_BYTES]))
        for _ in range(chance.choice((1, 1, 2, 5))):
            number = chance.randrange(len(entries))
            entries[number] = _other(chance, entries[number], blocks)
        lying[at : at + BLOCK_BYTES] = _built(revision, entries)
    return bytes(lying)


def _is_metadata(content: bytes, block: int) -> bool:
    _, entries = _parse(content[block * BLOCK_BYTES :][:BLOCK_BYTES])
    return any(_is_checksum(tag) for tag, _ in entries)


def _is_checksum(tag: int) -> bool:
    kind = tag >> 20 & 0x7FF
    return kind & 0x700 == 0x500 and kind != 0x5FF


def _parse(block: bytes) -> tuple[bytes, list[Entry]]:
    entries: list[Entry] = []
    at, before = 4, 0xFFFFFFFF
    while at + 4 <= len(block):
        tag = struct.unpack_from(">I", block, at)[0] ^ before
        size = 0 if tag & 0x3FF == _DELETED else tag & 0x3FF
        if tag >> 31 or at + 4 + size > len(block):
            break
        entries.append((tag, block[at + 4 : at + 4 + size]))
        at += 4 + size
        before = tag ^ (tag >> 20 & 1) << 31 if _is_checksum(tag) else tag
    return block[:4], entries


def _built(revision: bytes, entries: list[Entry]) -> bytes:
    block, before, checked = bytearray(revision), 0xFFFFFFFF, _crc(revision)
    for tag, content in entries:
        head = struct.pack(">I", tag ^ before)
        if _is_checksum(tag):
            block += head + struct.pack("<I", _crc(head, checked)) + content[4:]
            before, checked = tag ^ (tag >> 20 & 1) << 31, 0xFFFFFFFF
        else:
            block += head + content
            before, checked = tag, _crc(head + content, checked)
    return bytes(block[:BLOCK_BYTES]).ljust(BLOCK_BYTES, b"\xff")


def _crc(content: bytes, before: int = 0xFFFFFFFF) -> int:
    return zlib.crc32(content, before ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _other(chance: random.Random, entry: Entry, blocks: list[int]) -> Entry:
    tag, content = entry
    match chance.randrange(5):
        case 0:  # where a folder or a file is, or how long
            word = struct.pack("<I", chance.choice((*_WORDS, chance.choice(blocks))))
            at = chance.randrange(max(1, len(content) // 4)) * 4
            content = (content[:at] + word + content[at + 4 :])[: len(content)]
        case 1:  # a folder that is in itself
            pair = struct.pack("<II", chance.choice(blocks), chance.choice(blocks))
            content = (pair + content[8:])[: len(content)]
        case 2:
            tag = tag & ~(0x7FF << 20) | chance.choice(_TYPES) << 20
        case 3:
            size = chance.choice((0, 1, 4, 8, 100, 0x3FE))
            tag, content = tag & ~0x3FF | size, (content + bytes(size))[:size]
        case _:
            content = chance.randbytes(len(content))
    return tag, content
