r"""How reports travel from a gateway to city hall: a binary stream that notices its own end.

    header line   netzpuls-transfer 1 {"database", "gateway", "first_row", "last_row"}\n
    chunks        u32 length ‖ zlib of at most 4096 rows, each
                  u64 row ‖ u32 received_s ‖ u8 length ‖ device ‖ u16 length ‖ raw report
    end           u32 0 ‖ u32 number of rows ‖ SHA-256 of header line and all uncompressed rows

Integers are big-endian. Each chunk carries zlib's own checksum, so a reader may commit chunk
by chunk and ask again after the last row it has.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

from fleet.errors import NetzpulsError
from fleet.text import printable

CHUNK_ROWS = 4096
MAX_DEVICE_BYTES = 255
MAX_RAW_BYTES = 1024

_MAGIC = b"netzpuls-transfer 1 "
_MAX_HEADER_BYTES = 4096
_MAX_ROW = 2**63 - 1  # SQLite's
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LENGTH = struct.Struct(">I")
_ROW = struct.Struct(">QIB")
_RAW = struct.Struct(">H")
_END = struct.Struct(">I32s")
# No chunk needs more, so a broken or hostile gateway cannot ask for more memory.
_MAX_CHUNK_BYTES = CHUNK_ROWS * (_ROW.size + MAX_DEVICE_BYTES + _RAW.size + MAX_RAW_BYTES)
# Fast and small enough: tags are random and do not compress at any level.
_LEVEL = 1


class TransferError(NetzpulsError):
    """A stream from a gateway is no transfer, was cut short or was altered."""

    code = "transfer"


class Row(NamedTuple):
    """One report as the gateway keeps it."""

    row: int
    received_s: int
    device: str
    raw: bytes


@dataclass(frozen=True)
class Header:
    """What a stream says of itself: rows after `first_row`, up to `last_row`."""

    database: str
    gateway: str
    first_row: int
    last_row: int


def write(stream: BinaryIO, header: Header, rows: Iterable[Row]) -> int:
    """Write one transfer; return the number of rows.

    Raises: ValueError: a device or report is longer than the format holds.
    """
    line = _MAGIC + json.dumps(asdict(header)).encode() + b"\n"
    digest = hashlib.sha256(line)
    stream.write(line)
    count = 0
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK_ROWS)):
        payload = b"".join(map(_pack, chunk))
        digest.update(payload)
        packed = zlib.compress(payload, _LEVEL)
        stream.write(_LENGTH.pack(len(packed)) + packed)
        count += len(chunk)
    stream.write(_LENGTH.pack(0) + _END.pack(count, digest.digest()))
    stream.flush()
    return count


def read(stream: BinaryIO) -> tuple[Header, Iterator[list[Row]]]:
    """Read the header of a transfer; return it and the chunks that follow.

    Raises: TransferError: here or while iterating: not a transfer, cut short, or altered.
    """
    line = stream.readline(_MAX_HEADER_BYTES)
    header = _parse_header(line)
    return header, _chunks(stream, header, line)


def _chunks(stream: BinaryIO, header: Header, line: bytes) -> Iterator[list[Row]]:
    digest = hashlib.sha256(line)
    count, last = 0, header.first_row
    while length := _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]:
        if length > _MAX_CHUNK_BYTES:
            raise _altered(f"a chunk of {length} bytes")
        payload = _unzip(_exactly(stream, length))
        digest.update(payload)
        chunk = _unpack(payload)
        if not 0 < len(chunk) <= CHUNK_ROWS:
            raise _altered("a chunk with no row or too many")
        for row in chunk:
            if not last < row.row <= header.last_row:
                raise _altered(f"row {row.row} after row {last}")
            last = row.row
        count += len(chunk)
        yield chunk
    told, sha256 = _END.unpack(_exactly(stream, _END.size))
    if told != count or sha256 != digest.digest():
        raise _altered("its checksum is wrong")


def _parse_header(line: bytes) -> Header:
    if not line.startswith(_MAGIC) or not line.endswith(b"\n"):
        said = printable(line.rstrip(b"\r\n"), 80)
        raise TransferError(
            f'the gateway did not answer with reports but with "{said}"'
            if line
            else "the gateway sent nothing",
            hint="log in there and run: netzpuls gateway read --dir DIR --after 0 | head -c 200",
        )
    try:
        header = Header(**json.loads(line[len(_MAGIC) :]))
    except (ValueError, TypeError, RecursionError):
        raise _altered("its header is not readable") from None
    kinds = [type(value) for value in asdict(header).values()]
    if (
        kinds != [str, str, int, int]
        or not _UUID.fullmatch(header.database)
        or not 0 <= header.first_row <= header.last_row <= _MAX_ROW
    ):
        raise _altered("its header has a wrong value")
    return header


def _pack(row: Row) -> bytes:
    number, received_s, name, raw = row
    device = name.encode()
    if len(device) > MAX_DEVICE_BYTES or len(raw) > MAX_RAW_BYTES:
        raise ValueError(f"row {number} does not fit the transfer format")
    return _ROW.pack(number, received_s, len(device)) + device + _RAW.pack(len(raw)) + raw


def _unpack(payload: bytes) -> list[Row]:
    rows: list[Row] = []
    names: dict[bytes, str] = {}
    at, end = 0, len(payload)
    try:
        while at < end and len(rows) <= CHUNK_ROWS:
            number, received_s, device_bytes = _ROW.unpack_from(payload, at)
            begin = at + _ROW.size
            at = begin + device_bytes
            (raw_bytes,) = _RAW.unpack_from(payload, at)
            device = payload[begin:at]
            name = names.get(device)
            if name is None:
                name = names[device] = device.decode("ascii")
            begin = at + _RAW.size
            at = begin + raw_bytes
            rows.append(Row(number, received_s, name, payload[begin:at]))
    except (struct.error, UnicodeDecodeError):
        raise _altered("a row is not readable") from None
    if at > end:
        raise _altered("a row is cut short")
    return rows


def _unzip(packed: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        payload = inflate.decompress(packed, _MAX_CHUNK_BYTES)
    except zlib.error as error:
        raise _altered(f"a chunk is damaged ({error})") from None
    if not inflate.eof or inflate.unused_data:
        raise _altered("a chunk has a wrong length")
    return payload


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts = []
    missing = size
    while missing:
        part = stream.read(missing)
        if not part:
            raise TransferError(
                f"the transfer was cut short: {missing} bytes of {size} did not come",
                hint="collect again: what came is kept, and it goes on from there",
            )
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _altered(what: str) -> TransferError:
    return TransferError(
        f"the transfer was altered on its way: {what}",
        hint="collect again; if it comes back, check the gateway's disk and memory",
    )
