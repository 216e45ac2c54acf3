"""The NVS partition in the format of ESP-IDF, so that its own tools can read and write it.

Pages of 4 KB: a header, a bitmap of entry states, 126 entries of 32 bytes. Written are
32-bit numbers and blobs, as `esp32.NVS` does; anything else that is there is kept.
Source: ESP-IDF, "Non-Volatile Storage Library", section "Internals".
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from hil.board.flash import SECTOR_BYTES, Flash
from hil.board.image import DATA, NVS, Partition

NOT_FOUND, NO_SPACE, NAME_TOO_LONG, VALUE_TOO_LONG = -0x1102, -0x1105, -0x1109, -0x110E

_ACTIVE, _FULL = 0xFFFFFFFE, 0xFFFFFFFC
_VERSION_2 = 0xFE
_HEADER = struct.Struct("<IIB19sI")
_ITEM = struct.Struct("<BBBBI16s8s")
_ENTRIES_AT, _ENTRY_BYTES, _ENTRIES = 64, 32, 126
_EMPTY, _WRITTEN, _ERASED = 3, 2, 0
_U8, _I32, _BLOB_DATA, _BLOB_INDEX = 0x01, 0x14, 0x42, 0x48
_ANY_CHUNK = 0xFF
_NAME_BYTES = 15
_CHUNK_BYTES = (_ENTRIES - 1) * _ENTRY_BYTES  # what one page can hold of a blob


class NvsError(Exception):
    """What ESP-IDF answers with; `code` is its esp_err_t, negative as MicroPython shows it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVS error -0x{-code:x}")
        self.code = code


@dataclass
class _Item:
    """One item as it stands in flash: its first entry and the data entries behind it."""

    page: int
    index: int
    raw: bytes
    namespace: int
    kind: int
    span: int
    chunk: int
    key: str


class Nvs:
    """Named values of a board, by namespace."""

    def __init__(self, flash: Flash, partitions: list[Partition]) -> None:
        self._flash = flash
        found = next((p for p in partitions if (p.kind, p.subtype) == (DATA, NVS)), None)
        self._pages = (
            [found.address + at for at in range(0, found.size, SECTOR_BYTES)] if found else []
        )

    def open(self, namespace: str) -> None:
        """Check the name of a namespace; it is made with its first value."""
        _check_name(namespace)

    def get(self, namespace: str, key: str, kind: str) -> int | str:
        """Return a number, or a blob in hexadecimal. Raises: NvsError: not found."""
        number = self._namespace(namespace)
        for item in self._items():
            if (item.namespace, item.key) != (number, key):
                continue
            if kind == "number" and item.kind == _I32:
                return int(struct.unpack_from("<i", item.raw, 24)[0])
            if kind == "blob" and item.kind == _BLOB_INDEX:
                return self._blob(item).hex()
        raise NvsError(NOT_FOUND)

    def set(self, namespace: str, key: str, number: int | None = None, blob: str = "") -> None:
        """Write a value at once. Raises: NvsError: no room, or a name or value too long."""
        _check_name(key)
        data = None if number is not None else bytes.fromhex(blob)
        items = [_pack(_I32, key, struct.pack("<i", number or 0) + b"\xff" * 4)]
        if data is not None:
            if len(data) > _CHUNK_BYTES:
                raise NvsError(VALUE_TOO_LONG)
            size_and_crc = struct.pack("<HHI", len(data), 0xFFFF, _crc(data))
            index = struct.pack("<IBBH", len(data), 1, 0, 0xFFFF)
            items = [
                _pack(_BLOB_DATA, key, size_and_crc, data, chunk=0),
                _pack(_BLOB_INDEX, key, index),
            ]
        space = self._namespace(namespace, is_made=True)
        old = [i for i in self._items() if (i.namespace, i.key) == (space, key)]
        new = [_renumber(raw, space) for raw in items]
        self._append(new, replaces=old)

    def erase(self, namespace: str, key: str) -> None:
        """Remove a value. Raises: NvsError: not found."""
        space = self._namespace(namespace)
        found = [i for i in self._items() if (i.namespace, i.key) == (space, key)]
        if not found:
            raise NvsError(NOT_FOUND)
        for item in found:
            self._mark(item.page, item.index, item.span, _ERASED)

    # Reading

    def _namespace(self, name: str, *, is_made: bool = False) -> int:
        taken = {i.key: i.raw[24] for i in self._items() if (i.namespace, i.kind) == (0, _U8)}
        if name in taken:
            return taken[name]
        if not is_made:
            raise NvsError(NOT_FOUND)
        _check_name(name)
        number = max(taken.values(), default=0) + 1
        self._append([_pack(_U8, name, bytes((number,)) + b"\xff" * 7)], replaces=[])
        return number

    def _blob(self, index: _Item) -> bytes:
        size, count, start = struct.unpack_from("<IBB", index.raw, 24)
        chunks = {
            i.chunk: i.raw[_ENTRY_BYTES:][: struct.unpack_from("<H", i.raw, 24)[0]]
            for i in self._items()
            if (i.namespace, i.key, i.kind) == (index.namespace, index.key, _BLOB_DATA)
        }
        data = b"".join(chunks.get(number, b"") for number in range(start, start + count))
        if len(data) != size:
            raise NvsError(NOT_FOUND)
        return data

    def _items(self) -> list[_Item]:
        pages = []
        for address in self._pages:
            state, sequence, *_ = _HEADER.unpack(self._flash.read(address, _HEADER.size))
            if state in (_ACTIVE, _FULL):
                pages.append((sequence, address))
        return [item for _, address in sorted(pages) for item in self._page_items(address)]

    def _page_items(self, address: int) -> list[_Item]:
        page = self._flash.read(address, SECTOR_BYTES)
        items, index = [], 0
        while index < _ENTRIES:
            at = _ENTRIES_AT + index * _ENTRY_BYTES
            span = 1
            if _state(page, index) == _WRITTEN:
                entry = page[at : at + _ENTRY_BYTES]
                namespace, kind, span, chunk, crc, key, _ = _ITEM.unpack(entry)
                if crc == _crc(entry[:4] + entry[8:]) and 0 < span <= _ENTRIES - index:
                    raw = page[at : at + span * _ENTRY_BYTES]
                    name = key.split(b"\0")[0].decode("utf-8", "replace")
                    items.append(_Item(address, index, raw, namespace, kind, span, chunk, name))
                else:
                    span = 1
            index += span
        return items

    # Writing

    def _append(self, items: list[bytes], replaces: list[_Item]) -> None:
        if not self._has_room(items):
            self._compact(items, replaces)
            return
        for raw in items:
            self._write(raw)
        for item in replaces:
            self._mark(item.page, item.index, item.span, _ERASED)

    def _has_room(self, items: list[bytes]) -> bool:
        spans = [len(raw) // _ENTRY_BYTES for raw in items]
        free = _ENTRIES - self._used(page) if (page := self._active()) is not None else 0
        blank = sum(self._is_blank(page) for page in self._pages)
        for span in spans:
            if span > free:
                blank, free = blank - 1, _ENTRIES
            free -= span
        return blank > 0  # one page stays blank, as the format asks

    def _write(self, raw: bytes) -> None:
        span = len(raw) // _ENTRY_BYTES
        page = self._active()
        if page is None or _ENTRIES - self._used(page) < span:
            page = self._new_page(page)
        index = self._used(page)
        self._flash.program(page + _ENTRIES_AT + index * _ENTRY_BYTES, raw)
        self._mark(page, index, span, _WRITTEN)

    def _compact(self, items: list[bytes], replaces: list[_Item]) -> None:
        """Write all that is valid afresh, because the pages are full of what is not."""
        gone = {(item.page, item.index) for item in replaces}
        kept = [item.raw for item in self._items() if (item.page, item.index) not in gone]
        before = [self._flash.read(page, SECTOR_BYTES) for page in self._pages]
        for page in self._pages:
            self._flash.erase_sector(page)
        if self._pages and self._has_room([*kept, *items]):
            for raw in [*kept, *items]:
                self._write(raw)
            return
        for page, content in zip(self._pages, before, strict=True):
            self._flash.erase_sector(page)
            self._flash.program(page, content)
        raise NvsError(NO_SPACE)

    def _new_page(self, full: int | None) -> int:
        sequences = [
            _HEADER.unpack(self._flash.read(page, _HEADER.size))[1]
            for page in self._pages
            if not self._is_blank(page)
        ]
        if full is not None:
            self._flash.program(full, _FULL.to_bytes(4, "little"))
        page = next((page for page in self._pages if self._is_blank(page)), None)
        if page is None:
            raise NvsError(NO_SPACE)
        body = struct.pack("<IB19s", max(sequences, default=-1) + 1, _VERSION_2, b"\xff" * 19)
        header = _ACTIVE.to_bytes(4, "little") + body + _crc(body).to_bytes(4, "little")
        self._flash.program(page, header)
        return page

    def _active(self) -> int | None:
        for page in self._pages:
            if int.from_bytes(self._flash.read(page, 4), "little") == _ACTIVE:
                return page
        return None

    def _used(self, page: int) -> int:
        """Return the index behind the last entry that was ever written."""
        content = self._flash.read(page, _ENTRIES_AT)
        used = [index for index in range(_ENTRIES) if _state(content, index) != _EMPTY]
        return max(used, default=-1) + 1

    def _is_blank(self, page: int) -> bool:
        return self._flash.read(page, _ENTRIES_AT) == b"\xff" * _ENTRIES_AT

    def _mark(self, page: int, index: int, span: int, state: int) -> None:
        for entry in range(index, index + span):
            shift = entry % 4 * 2
            self._flash.program(
                page + _HEADER.size + entry // 4, bytes((0xFF & ~(3 << shift) | state << shift,))
            )


def _state(page: bytes, index: int) -> int:
    return page[_HEADER.size + index // 4] >> index % 4 * 2 & 3


def _crc(data: bytes) -> int:
    return zlib.crc32(data, 0xFFFFFFFF)


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= _NAME_BYTES:
        raise NvsError(NAME_TOO_LONG)


def _pack(
    kind: int, key: str, value: bytes, data: bytes = b"", *, chunk: int = _ANY_CHUNK
) -> bytes:
    span = 1 + -(-len(data) // _ENTRY_BYTES)
    head = bytes((0, kind, span, chunk))
    tail = key.encode().ljust(16, b"\0") + value
    entry = head + _crc(head + tail).to_bytes(4, "little") + tail
    return entry + data.ljust((span - 1) * _ENTRY_BYTES, b"\xff")


def _renumber(raw: bytes, space: int) -> bytes:
    head, tail = bytes((space,)) + raw[1:4], raw[8:_ENTRY_BYTES]
    return head + _crc(head + tail).to_bytes(4, "little") + tail + raw[_ENTRY_BYTES:]
