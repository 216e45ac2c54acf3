import dataclasses
import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.gateway import transfer
from fleet.gateway.transfer import Header, Row, TransferError

HEADER = Header("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "gw-north", 7, 1_000_000)
DEVICES = st.from_regex(r"np-[0-9a-f]{12}", fullmatch=True)


@st.composite
def rows(draw: st.DrawFn, max_size: int = 12) -> list[Row]:
    steps = draw(st.lists(st.integers(1, 50), max_size=max_size))
    number, found = HEADER.first_row, []
    for step in steps:
        number += step
        raw = draw(st.binary(max_size=300))
        found.append(Row(number, draw(st.integers(0, 2**32 - 1)), draw(DEVICES), raw))
    return found


def packed(content: list[Row], header: Header = HEADER) -> bytes:
    stream = io.BytesIO()
    assert transfer.write(stream, header, content) == len(content)
    return stream.getvalue()


def unpacked(raw: bytes) -> list[Row]:
    header, chunks = transfer.read(io.BytesIO(raw))
    assert header == HEADER
    return [row for chunk in chunks for row in chunk]


@given(rows())
def test_what_is_written_is_read(content: list[Row]) -> None:
    assert unpacked(packed(content)) == content


def test_many_rows_come_in_chunks_and_a_dribbling_stream_is_no_matter() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 1000))

    content = [Row(8 + n, n, "np-240ac4123456", bytes(104)) for n in range(10_000)]
    _, chunks = transfer.read(Dribble(packed(content)))
    found = list(chunks)
    assert [len(chunk) for chunk in found] == [4096, 4096, 1808]
    assert [row for chunk in found for row in chunk] == content


@given(rows(), st.data())
def test_a_stream_that_is_cut_is_noticed(content: list[Row], data: st.DataObject) -> None:
    whole = packed(content)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TransferError):
        unpacked(whole[:cut])


@given(rows(), st.data())
def test_a_stream_that_is_altered_is_noticed(content: list[Row], data: st.DataObject) -> None:
    altered = bytearray(packed(content))
    at = data.draw(st.integers(0, len(altered) - 1))
    altered[at] ^= 1 << data.draw(st.integers(0, 7))
    # Deflate has a few bits that mean nothing; only these may change unseen.
    try:
        _, chunks = transfer.read(io.BytesIO(bytes(altered)))
        found = [row for chunk in chunks for row in chunk]
    except TransferError:
        return
    assert found == content


def test_rows_out_of_order_or_beyond_the_header_are_refused() -> None:
    first, second = Row(9, 0, "np-a", b"x"), Row(8, 0, "np-a", b"y")
    for content in ([first, second], [first, first], [Row(7, 0, "np-a", b"x")]):
        with pytest.raises(TransferError, match="altered"):
            unpacked(packed(content))
    with pytest.raises(TransferError, match="altered"):
        unpacked(packed([Row(HEADER.last_row + 1, 0, "np-a", b"x")]))


def test_chatter_before_the_header_is_quoted_safely() -> None:
    with pytest.raises(TransferError, match=r'"Welcome to gw-north \\x1b\[31m"'):
        transfer.read(io.BytesIO(b"Welcome to gw-north \x1b[31m\n" + packed([])))
    with pytest.raises(TransferError, match="sent nothing"):
        transfer.read(io.BytesIO(b""))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"{", b'{"database": 1}', b"[" * 3000])
def test_a_header_that_is_not_ours_is_refused(text: bytes) -> None:
    with pytest.raises(TransferError):
        transfer.read(io.BytesIO(b"netzpuls-transfer 1 " + text + b"\n"))


@pytest.mark.parametrize(
    "change",
    [
        {"database": "x; reboot"},
        {"database": "\ud800"},
        {"first_row": -1},
        {"first_row": HEADER.last_row + 1},
        {"last_row": 2**63},
        {"last_row": True},
    ],
)
def test_a_header_says_only_what_a_gateway_could(change: dict[str, Any]) -> None:
    with pytest.raises(TransferError, match="wrong value"):
        unpacked(packed([], dataclasses.replace(HEADER, **change)))


@pytest.mark.parametrize("count", [0, transfer.CHUNK_ROWS + 1])
def test_a_chunk_holds_some_rows_and_not_too_many(count: int) -> None:
    payload = b"".join(transfer._pack(Row(8 + n, 0, "", b"")) for n in range(count))
    chunk = zlib.compress(payload)
    head = packed([]).split(b"\n")[0] + b"\n"
    with pytest.raises(TransferError, match="no row or too many"):
        unpacked(head + struct.pack(">I", len(chunk)) + chunk)


def test_a_chunk_cannot_ask_for_much_memory() -> None:
    head = packed([]).split(b"\n")[0] + b"\n"
    with pytest.raises(TransferError, match="a chunk of 4294967295 bytes"):
        unpacked(head + b"\xff\xff\xff\xff" + bytes(100))
