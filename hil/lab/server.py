"""The small servers of the lab's internet: HTTP, HTTPS, portal page, SNTP, a slow resolver.

All run on the lab's one event loop; each listens in the namespace that it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hil.lab.loop import Loop
from hil.lab.namespace import Namespace

HTTP_PORT, HTTPS_PORT, DNS_PORT, NTP_PORT = 80, 443, 53, 123
_REQUEST_S = 10.0
_REQUEST_BYTES = 16384
_BACKLOG = 32
_PIECE_BYTES = 16384
_NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970
_NTP = struct.Struct(">BBBbII4sQQQQ")
_REASONS = {200: "OK", 204: "No Content", 302: "Found", 404: "Not Found", 500: "Server Error"}


@dataclass(frozen=True)
class Reply:
    """What an HTTP server says to a request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def head(self) -> bytes:
        """Return status line and headers."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS[self.status]}"]
        fields = {"Content-Length": str(len(self.body)), "Connection": "close"} | self.headers
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join((*lines, "", "")).encode()


Answer = Callable[[str], Reply | None]


def no_content(path: str) -> Reply:
    """Answer 204 to what a connectivity check asks, and bytes to who wants some."""
    if path == "/generate_204":
        return Reply(204)
    head, _, size = path.rpartition("/")
    if head == "/bytes" and size.isdigit():
        return Reply(200, bytes(min(int(size), 1 << 20)))
    return Reply(404)


def page(text: str) -> Answer:
    """Answer every request with a page."""
    body = f"<!doctype html><title>{text}</title><h1>{text}</h1>\n".encode()
    return lambda _path: Reply(200, body, {"Content-Type": "text/html"})


def portal_api(captive: bool) -> Answer:
    """Answer as RFC 8908 says."""
    body = json.dumps({"captive": captive}).encode()
    return lambda _path: Reply(200, body, {"Content-Type": "application/captive+json"})


def redirect(where: str) -> Answer:
    """Lead every request elsewhere, as a portal does."""
    return lambda _path: Reply(302, b"", {"Location": where})


def failing(_path: str) -> Reply:
    """Answer as a broken server does."""
    return Reply(500)


def silent(_path: str) -> None:
    """Take the request and never answer."""


class HttpServer:
    """HTTP, or HTTPS with a context, at one address, from its start to `close`."""

    def __init__(
        self,
        loop: Loop,
        namespace: Namespace,
        address: str,
        answer: Answer,
        *,
        context: ssl.SSLContext | None = None,
        port: int | None = None,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._context = context
        self._clients: set[asyncio.Task[None]] = set()
        port = port or (HTTPS_PORT if context else HTTP_PORT)
        self._socket = _bound(namespace, socket.SOCK_STREAM, address, port)
        self._server = loop.run(self._start())

    async def _start(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._serve, sock=self._socket, ssl=self._context, backlog=_BACKLOG
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                reply = self._answer(_path(head))
                if reply is None:
                    await asyncio.sleep(_REQUEST_S)
                    return
                writer.write(reply.head())
                for at in range(0, len(reply.body), _PIECE_BYTES):
                    writer.write(reply.body[at : at + _PIECE_BYTES])
                    await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ssl.SSLError):
            pass  # a client that goes away or says nothing is no trouble of the server
        except asyncio.CancelledError:
            pass  # by close(); asyncio's streams would print it
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    def close(self) -> None:
        """Stop, and drop who is connected."""
        self._loop.run(self._stop())

    async def _stop(self) -> None:
        self._server.close()
        for client in self._clients:
            client.cancel()


def _path(head: bytes) -> str:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    return words[1].decode("ascii", "replace") if len(words) > 1 else ""


def _bound(namespace: Namespace, kind: int, address: str, port: int) -> socket.socket:
    found = namespace.socket(socket.AF_INET, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setblocking(False)
    try:
        found.bind((address, port))
    except OSError:
        found.close()
        raise
    return found


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr)


class UdpServer:
    """Answers datagrams at one address by a function; None is no answer.

    With `delay_s`, answers are late by so much.
    """

    def __init__(
        self,
        loop: Loop,
        namespace: Namespace,
        where: tuple[str, int],
        answer: Callable[[bytes], bytes | None],
        delay_s: float = 0.0,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._delay_s = delay_s
        self._socket = _bound(namespace, socket.SOCK_DGRAM, *where)
        self._transport = loop.run(self._start())

    async def _start(self) -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self._take), sock=self._socket
        )
        return transport

    def _take(self, data: bytes, peer: tuple[str, int]) -> None:
        answer = self._answer(data)
        if answer is not None:
            later = asyncio.get_running_loop().call_later
            later(self._delay_s, self._send, answer, peer)

    def _send(self, data: bytes, peer: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(data, peer)

    def close(self) -> None:
        """Stop answering."""
        self._loop.call(self._transport.close)


def ntp(request: bytes) -> bytes | None:
    """Answer an SNTP client with this machine's time.

    Source: RFC 5905 7.3 (client 3, server 4; stratum 2; the client's transmit time comes back).
    """
    if len(request) < _NTP.size or request[0] & 7 != 3:
        return None
    version = request[0] >> 3 & 7
    now = _ntp_time(time.time_ns())
    origin = struct.unpack(">Q", request[40:48])[0]
    return _NTP.pack(version << 3 | 4, 2, request[2], -20, 0, 0, b"LAB\0", now, origin, now, now)


def _ntp_time(now_ns: int) -> int:
    seconds, rest_ns = divmod(now_ns, 1_000_000_000)
    return seconds + _NTP_EPOCH_S << 32 | (rest_ns << 32) // 1_000_000_000
