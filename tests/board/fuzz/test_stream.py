"""Streams: HTTP, the portal's JSON and MQTT, from servers that send what they like."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from agent.hello import hello
from agent.http import status
from agent.mqtt import (
    KEPT_BYTES,
    MAX_PACKET_BYTES,
    MqttError,
    Session,
    packet,
    parse_publish,
    read_packet,
)
from agent.probes import portal
from agent.web import Visit, visit
from hypothesis import example, given
from hypothesis import strategies as st
from linkreport import ack
from linkreport.seal import Seal
from linkreport.table import HTTP_SILENT, HTTP_UNEXPECTED, OK
from place import REPORT_KEY
from port.null import NullPort

from tests.board.fuzz.mutant import documents, many, mutants, some

WHERE = ("203.0.113.81", 80)
BODY_BYTES = 1024
VISIT_MS = 5000
CAPTIVE = b'{"captive": true, "user-portal-url": "https://login.example/"}'
PAGES = (
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 302 Found\r\nLocation: http://login.example/\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/captive+json\r\n\r\n" + CAPTIVE,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 400 + b"\r\n" + CAPTIVE,
    b"HTTP/1.1 200 OK\r\nX: " + bytes(3000),
    b"HTTP/1.1 200 " + b"O" * 600 + b"\r\n\r\n",
)
SEAL = Seal(REPORT_KEY)
ACK = ack.pack(1, 5, 1790000000, SEAL)


@given(st.binary(max_size=100) | mutants(*PAGES))
@many
def test_http_status_lines(raw: bytes) -> None:
    for line in (raw, b"HTTP/1.1 " + raw):
        code = status(line)
        assert code is None or 100 <= code <= 999


class Server:
    """A real web server that sends `pieces` to whoever asks, and closes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self.listener.accept()[0] as sock, contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.recv(1024)
                    for piece in self.pieces:
                        sock.sendall(piece)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def visited(server: Server) -> Visit:
    port = NullPort()
    port.socket.routes[WHERE] = ("127.0.0.1", server.number)
    place = portal.Place("login.example.org", WHERE[1])

    async def go() -> Visit:
        return await visit(
            port, place, WHERE[0], port.uptime_ms() + VISIT_MS, body_bytes=BODY_BYTES
        )

    return asyncio.run(go())


@given(st.lists(mutants(*PAGES), max_size=3), st.booleans())
@example([PAGES[2]], False)
@some
def test_web_pages(server: Server, pieces: list[bytes], in_drops: bool) -> None:
    raw = b"".join(pieces)
    server.pieces = [raw[at : at + 7] for at in range(0, len(raw), 7)] if in_drops else pieces
    seen = visited(server)
    assert seen.reason in (OK, HTTP_SILENT, HTTP_UNEXPECTED)
    assert (seen.reason == OK) == (seen.status is not None)
    assert len(seen.body) <= BODY_BYTES
    assert seen.body in raw
    if seen.status is not None:
        assert seen.http_ms < VISIT_MS, "it sent all and closed"
    if raw == PAGES[2]:
        assert portal.captive(seen.body) == 1


@given(documents("captive", "seconds-remaining") | mutants(CAPTIVE))
@example(b"[" * BODY_BYTES)
@example(b'{"a":' + b"[" * (BODY_BYTES - 6) + b"}")
@example(b'{"captive":' * 90)
@example(b'{"captive": 1}')
@example(b'{"captive": "true"}')
@example(b'{"captive": true, "captive": null}')
@example(b"9" * BODY_BYTES)
@many
def test_portal_documents(body: bytes) -> None:
    assert portal.captive(body[:BODY_BYTES]) in (0, 1, 255)


URIS = (
    "https://login.example/api",
    "http://login.example:8080/api?x=1#y",
    "HTTPS://198.51.100.7",
    "http://[2001:db8::1]/api",
    "http://user.example:secret@login.example.org/",
)


@given(mutants(*map(str.encode, URIS)) | st.binary(max_size=300))
@many
def test_portal_uris(raw: bytes) -> None:
    parts = portal.split(raw.decode("latin-1"))
    if parts is not None:
        tls, host, number, path = parts
        assert isinstance(tls, bool)
        assert 0 < number < 65536
        assert path.startswith("/")
        assert all("!" <= c <= "~" for c in host + path)
        assert not set(host) & set("/?#@[]:")


class Stream:
    """What a broker sent; the end of it is the end of the connection."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int) -> bytes:
        piece, self.content = self.content[:size], self.content[size:]
        return piece

    def write(self, content: bytes) -> int:
        return len(content)  # nobody reads it


PACKETS = (
    b"\x20\x02\x00\x00",
    b"\x90\x03\x00\x01\x00",
    b"\x40\x02\x00\x02",
    b"\xd0\x00",
    packet(0x30, b"\x00\x11netzpuls/v1/x/ack" + ACK),
    packet(0x30, bytes(MAX_PACKET_BYTES)),
    packet(0x30, bytes(MAX_PACKET_BYTES + 1)),
    b"\x30\xff\xff\xff\x7f",
    b"\x30\xff\xff\xff\xff\x7f",
)


@given(st.binary(max_size=2000) | mutants(*PACKETS))
@many
def test_mqtt_packets(raw: bytes) -> None:
    with contextlib.suppress(MqttError, EOFError):
        kind, body = asyncio.run(read_packet(Stream(raw)))
        assert len(body) <= KEPT_BYTES
        topic, payload = parse_publish(kind, body)
        assert len(topic) + len(payload) + 2 == len(body)


@given(st.lists(mutants(*PACKETS) | st.binary(max_size=40), max_size=4).map(b"".join))
@example(b"\x20\x00")
@example(b"\x20\x02\x00\xff")
@example(b"\x20\x02\x00\x00\x90\x00")
@example(b"\x20\x02\x00\x00\x90\x03\x00\x01\x80")
@many
def test_mqtt_sessions(raw: bytes) -> None:
    messages = []

    async def go() -> None:
        ended = asyncio.Event()
        session = Session(Stream(raw), lambda *message: messages.append(message), ended)
        receiver = asyncio.create_task(session.receive())
        try:
            await hello(session, "np-1", "a/")
            await session.publish("a/report", b"x")
            await session.ping()
        finally:
            receiver.cancel()

    with contextlib.suppress(MqttError, EOFError):
        asyncio.run(go())
    assert sum(len(topic) + len(payload) for topic, payload in messages) <= len(raw)


@given(st.binary(max_size=60) | mutants(ACK))
@many
def test_acknowledgements(raw: bytes) -> None:
    if raw != ACK:
        with contextlib.suppress(ack.AckError):
            ack.unpack(raw, SEAL)
            raise AssertionError("a forged acknowledgement was taken")
    with contextlib.suppress(ack.AckError):
        ack.unpack(raw, Seal(bytes(32)))
        raise AssertionError("an acknowledgement under another key was taken")


def test_a_portal_document_that_says_no() -> None:
    assert portal.captive(json.dumps({"captive": False}).encode()) == 0
