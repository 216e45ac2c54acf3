"""Datagrams from the air: an answer of the right form, or the module's own error."""

from __future__ import annotations

import contextlib
import struct

from agent import dns, ntp
from agent.probes import gateway
from hypothesis import example, given
from hypothesis import strategies as st

from tests.board.fuzz.mutant import many, mutants

NAME = "probe.example.org"
QUESTION = dns.query(0xABCD, NAME)
MARK = b"12345678"
IDENTIFIER = 0x1234
_MAX_NAME_BYTES = 255


def header(count: int, flags: bytes = b"\x81\x80") -> bytes:
    return QUESTION[:2] + flags + struct.pack(">HHHH", 1, count, 0, 0) + QUESTION[12:]


def record(owner: bytes, kind: int, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return owner + struct.pack(">HHIH", kind, 1, 60, length & 0xFFFF) + content


POINTER = b"\xc0\x0c"
ADDRESS = record(POINTER, 1, b"\xcb\x00\x71\x50")
ALIAS = record(POINTER, 5, b"\x03www" + POINTER) + record(
    b"\xc0" + bytes((len(QUESTION) + 12,)), 1, b"\xcb\x00\x71\x50"
)
ANSWERS = (
    header(1) + ADDRESS,
    header(2) + ALIAS,
    header(3) + ADDRESS * 3,
    header(0, b"\x81\x83"),
    header(1) + record(b"\x03abc" * 10 + POINTER, 16, bytes(40)),
)


def names(message_bytes: int) -> st.SearchStrategy[bytes]:
    """Names of labels and pointers that lead anywhere, with or without an end."""
    label = st.binary(min_size=1, max_size=63).map(lambda text: bytes((len(text),)) + text)
    pointer = st.integers(0, message_bytes).map(lambda at: struct.pack(">H", 0xC000 | at))
    odd = st.binary(min_size=1, max_size=1)
    return st.lists(label | pointer | odd, max_size=6).map(b"".join) | pointer


@st.composite
def woven_answers(draw: st.DrawFn) -> bytes:
    """Answers whose records point at each other and lie about their lengths."""
    body = b""
    count = draw(st.integers(0, 6))
    for _ in range(count):
        owner = draw(names(512))
        content = draw(names(512) | st.binary(max_size=8))
        lie = draw(st.sampled_from((0, 0, 0, 1, -1, 300, 0xFFFF)))
        kind = draw(st.sampled_from((1, 5, 16)))
        body += record(owner, kind, content, len(content) + lie)
    return header(draw(st.sampled_from((count, count + 1, 0xFFFF)))) + body


def read_answer(message: bytes) -> None:
    with contextlib.suppress(dns.NotAnAnswerError):
        rcode, addresses = dns.parse(message, QUESTION)
        assert 0 <= rcode <= 15
        assert all(dns.literal(address) for address in addresses)


@given(st.binary(max_size=600) | mutants(*ANSWERS) | woven_answers())
@many
def test_dns_answers(message: bytes) -> None:
    read_answer(message)
    read_answer(header(3) + message)


def folded() -> bytes:
    """An answer of 511 bytes whose last name would have 12 KB: labels read at every other byte."""
    start = len(header(0)) + len(record(POINTER, 16, b""))
    # Read from start + 2n on, labels of 63 bytes end at a pointer to start + 2 (n - 1).
    pointers = [12] + [start + 2 * number for number in range(31)]
    text = bytes((63,)) * (6 * 64) + struct.pack(">32H", *(0xC000 | at for at in pointers))
    return (
        header(2) + record(POINTER, 16, text) + struct.pack(">H", 0xC000 | start + 62) + bytes(14)
    )


@given(st.just(folded()) | woven_answers())
@example(folded())
@many
def test_a_dns_name_is_no_longer_than_a_name_can_be(message: bytes) -> None:
    read_answer(message)
    for at in range(12, min(len(message), 512)):
        with contextlib.suppress(dns.NotAnAnswerError):
            assert len(dns._name(message[:512], at)[0]) < _MAX_NAME_BYTES


def ntp_answer(seconds: int, first: int = 0x24, stratum: int = 2, mark: bytes = MARK) -> bytes:
    sent = struct.pack(">II", seconds, 0)
    return bytes((first, stratum)) + bytes(22) + mark + bytes(8) + sent


TIMES = (ntp_answer(0xEAC5_0000), ntp_answer(1), ntp_answer(0xFFFFFFFF), ntp_answer(0, stratum=0))


@given(st.binary(max_size=100) | mutants(*TIMES), st.integers(0, 5000))
@example(ntp_answer(0xFFFFFFFF), 5000)
@many
def test_ntp_answers(packet: bytes, way_ms: int) -> None:
    told = ntp.parse(packet, MARK, way_ms)
    assert told is None or 0 <= told + 62_000_000 < 4_300_000_000
    assert told is None or packet[24:32] == MARK


@given(st.binary(max_size=100), st.binary(max_size=100))
@many
def test_echo_replies_of_others(packet: bytes, rest: bytes) -> None:
    assert gateway.answered(packet, IDENTIFIER) == 0
    assert gateway.answered(b"\x45" + rest, IDENTIFIER) == 0


def reply(seq: int) -> bytes:
    request = gateway.request(IDENTIFIER, seq)
    icmp = b"\x00\x00\x00\x00" + request[4:]
    return b"\x45" + bytes(19) + icmp[:2] + struct.pack(">H", gateway.checksum(icmp)) + icmp[4:]


@given(mutants(reply(1), reply(0), reply(0xFFFF)))
@many
def test_echo_replies(packet: bytes) -> None:
    seq = gateway.answered(packet, IDENTIFIER)
    assert seq == 0 or packet[(packet[0] & 15) * 4 :] == reply(seq)[20:]
