"""What stands behind an access point in a virtual city: the site's router and the internet.

Real servers on loopback that answer real packets: DNS by scapy, HTTP by the standard library.
The virtual board's antenna leads the addresses that a board sees (10.1.0.1, 203.0.113.80) to
these ports; see `hil.board.radio`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from scapy.layers.dns import DNS, DNSRR

from hil.board.packet import checksum, ip_header

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
_MAX_DATAGRAM_BYTES = 2048
_ECHO_REQUEST = b"\x08\x00"
_NTP_EPOCH_S = 2208988800  # from 1900 to 1970

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)


class _NoContent(BaseHTTPRequestHandler):
    """Answers 204 to what a connectivity check asks, 404 to the rest."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        self.send_response(204 if self.path == "/generate_204" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
        """Say nothing: the boards' reports are the record."""


class _Datagrams:
    """A UDP endpoint on loopback that answers by a function, in a thread of its own."""

    def __init__(self, name: str, answer: Callable[[bytes], bytes | None]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self._socket.recvfrom(_MAX_DATAGRAM_BYTES)
            except OSError:
                return
            if peer is None:  # shut down
                return
            try:
                reply = self._answer(question)
            except Exception as error:  # scapy raises whatever hostile bytes lead it to
                logging.getLogger(__name__).warning("dropped a datagram: %s", error)
                continue
            if reply is not None:
                self._socket.sendto(reply, peer)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # not connected: it wakes the thread all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)


class Internet:
    """The part of the internet that boards look at: a web server and an NTP server."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _NoContent)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="internet", daemon=True
        )
        self._thread.start()
        self._ntp = _Datagrams("ntp", _tell_time)
        self.ntp_port = self._ntp.port

    def close(self) -> None:
        """Stop serving."""
        self._ntp.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tell_time(question: bytes) -> bytes | None:
    """Answer as an NTP server of stratum 2 does: the time, and the question's mark (RFC 5905)."""
    if len(question) < 48 or question[0] & 7 != 3:
        return None
    now = int((time.time() + _NTP_EPOCH_S) * (1 << 32)).to_bytes(8, "big")
    return b"\x24\x02\x00\xec" + bytes(12) + now + question[40:48] + now + now


@dataclass
class Router:
    """A site's router: resolver (forwarding, as dnsmasq does) and default gateway.

    Attributes:
        names: what the internet's DNS knows, name → IPv4 address.
        line_up: while False, names of the internet get no answer; the router itself,
            `localhost` and pings to it still do.
    """

    address: str
    names: dict[str, str]
    line_up: bool = True
    resolver_port: int = field(init=False)
    icmp_port: int = field(init=False)

    def __post_init__(self) -> None:
        self._packed = socket.inet_aton(self.address)
        self._resolver = _Datagrams(f"resolver {self.address}", self._resolve)
        self._icmp = _Datagrams(f"icmp {self.address}", self._echo)
        self.resolver_port = self._resolver.port
        self.icmp_port = self._icmp.port

    def close(self) -> None:
        """Stop answering."""
        self._resolver.close()
        self._icmp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, question: bytes) -> bytes | None:
        query = DNS(question)
        if query.qr or not query.qd:
            return None
        asked = query.qd[0]
        name = asked.qname.decode("ascii", "replace").rstrip(".").lower()
        address = "127.0.0.1" if name == "localhost" else None
        if address is None:
            if not self.line_up:
                return None
            address = self.names.get(name)
        reply = DNS(
            id=query.id,
            qr=1,
            rd=query.rd,
            ra=1,
            qd=query.qd,
            rcode=0 if address else 3,
            an=[DNSRR(rrname=asked.qname, ttl=60, rdata=address)]
            if address and asked.qtype == 1
            else [],
        )
        return bytes(reply)

    def _echo(self, packet: bytes) -> bytes | None:
        """Answer one echo; boards send them by the score, too many for scapy."""
        head = (packet[0] & 0xF) * 4
        icmp = packet[head:]
        is_ours = packet[9] == socket.IPPROTO_ICMP and packet[16:20] == self._packed
        # A real router drops a wrong checksum.
        if not is_ours or icmp[:2] != _ECHO_REQUEST or checksum(icmp):
            return None
        bare = bytes(4) + icmp[4:]
        reply = bare[:2] + checksum(bare).to_bytes(2, "big") + bare[4:]
        source = socket.inet_ntoa(packet[12:16])
        return ip_header(self.address, source, len(reply), protocol=socket.IPPROTO_ICMP) + reply
