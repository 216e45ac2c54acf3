"""DHCP from whoever answers: messages of any bytes, and servers that offer what cannot be."""

from __future__ import annotations

import contextlib
import struct

import test_dhcp
from agent import dhcp, dhcp_message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linkreport import block
from test_dhcp import COOKIE, MAC, NOWHERE, PORTAL, FakeServer, answer, option

from tests.board.fuzz.mutant import many, mutants

DEADLINE_MS = 120
LATE_MS = 200  # for a machine that is busy

TOLD = (
    option(51, b"\x00\x00\x0e\x10")
    + option(1, b"\xff\xff\xff\x00")
    + option(3, b"\x0a\x01\x00\x01")
    + option(6, b"\x0a\x01\x00\x35")
    + option(114, PORTAL)
)
ANSWERS = (
    answer(dhcp.OFFER, options=TOLD),
    answer(dhcp.ACK, options=TOLD + bytes(60)),
    answer(dhcp.NAK, address=NOWHERE),
    answer(dhcp.ACK, options=option(52, b"\x03"), file=TOLD + b"\xff", sname=TOLD[:20] + b"\xff"),
    answer(dhcp.ACK, options=option(114, b"http://portal.example") * 3),
)


@st.composite
def options(draw: st.DrawFn) -> bytes:
    """Options whose lengths lie, that come twice, overload fields or have no end."""
    found = b""
    for _ in range(draw(st.integers(0, 12))):
        code = draw(
            st.sampled_from((0, 1, 3, 6, 51, 52, 53, 54, 61, 114, 255)) | st.integers(0, 255)
        )
        content = draw(st.binary(max_size=12) | st.sampled_from((bytes(4), b"\xff" * 4, b"\x03")))
        lie = draw(st.sampled_from((0, 0, 0, 0, 1, 200)))
        found += bytes((code, min(255, len(content) + lie))) + content
    return found


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from((dhcp.OFFER, dhcp.ACK, dhcp.NAK, 0, 255)))
    overload = draw(st.sampled_from((b"", b"", *(option(52, bytes((n,))) for n in range(5)))))
    message = answer(
        kind,
        address=draw(st.sampled_from(("10.1.0.77", NOWHERE, "127.0.0.1", "255.255.255.255"))),
        server=draw(st.sampled_from(("10.1.0.1", NOWHERE, "255.255.255.255"))),
        options=overload + draw(options()),
        file=draw(options())[:128],
        sname=draw(options())[:64],
        end=draw(st.sampled_from((b"\xff", b"", b"\x03\xff"))),
    )
    return message[: draw(st.sampled_from((1472, 1472, 300, 241)))]


@given(st.binary(max_size=600) | mutants(*ANSWERS) | messages())
@example(answer(dhcp.OFFER, server=NOWHERE))
@example(answer(dhcp.NAK, address=NOWHERE, server=NOWHERE))
@example(answer(dhcp.ACK, options=option(114, b"a" * 255) * 4))
@many
def test_dhcp_answers(message: bytes) -> None:
    with contextlib.suppress(dhcp_message.NotAnAnswerError):
        found = dhcp_message.parse(message, MAC)
        assert found.kind in (dhcp.OFFER, dhcp.ACK, dhcp.NAK)
        assert message[28:34] == MAC
        assert message[236:240] == COOKIE
        assert len(dhcp.packed(found.server)) == 4, "everything that is asked of it needs this"
        assert found.kind == dhcp.NAK or len(dhcp.packed(found.address)) == 4
        for address in (found.mask, found.router, found.resolver):
            assert address == "" or len(dhcp.packed(address)) == 4
        assert 0 <= found.lease_s <= dhcp.FOREVER_S
        assert all("!" <= c <= "~" for c in found.portal_api)


class Server(FakeServer):
    """Answers each message with what is drawn, under the number that was asked for."""

    def __init__(self, replies: list[bytes]) -> None:
        super().__init__()
        self.replies = replies

    def reply(self, message: bytes) -> list[bytes]:
        number = message[4:8]
        return [each[:4] + number + each[8:] for each in self.replies]


@given(st.lists(mutants(*ANSWERS) | messages(), min_size=1, max_size=4))
@example([answer(dhcp.OFFER, server=NOWHERE), answer(dhcp.ACK, server=NOWHERE)])
@example([answer(dhcp.OFFER, options=TOLD), answer(dhcp.NAK, address=NOWHERE)])
@example([answer(dhcp.OFFER), answer(dhcp.ACK)])
@settings(max_examples=30)
def test_the_probe_ends_with_a_verdict(replies: list[bytes]) -> None:
    case = test_dhcp.AddressingTest()
    case.setUp()
    case.server = Server(replies)
    case.configure(deadline_ms={"addressing": DEADLINE_MS})
    start_ms = case.port.uptime_ms()
    for result in case.cycles(case.again):
        assert 0 < result.reason < 256
        told = result.measures.get(block.LEASE)
        if told:
            _, server, count, took_ms = struct.unpack(block.LEASE_FORMAT, told)
            assert server != bytes(4)
            assert 1 <= count <= 8
            assert took_ms == 0xFFFF or took_ms <= DEADLINE_MS + LATE_MS
    assert case.port.uptime_ms() - start_ms <= 2 * (DEADLINE_MS + LATE_MS)
