"""Those who should not be on a school's network: built with scapy, frame by frame.

Each listens on one interface of its own, attached to the site's switch like any client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hil.lab.loop import Loop
from hil.lab.namespace import Namespace
from hil.lab.relay import drained, packet_socket

with contextlib.suppress(Exception):  # scapy warns of what the machine lacks; nothing of it is used
    logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

INTERFACE = "x0"
BROADCAST = "ff:ff:ff:ff:ff:ff"
_LEASE_S = 3600


class Actor(ABC):
    """Sees every frame on its interface and answers some, from its start to `close`."""

    mac = "02:00:5e:00:53:01"  # locally administered
    delay_s = 0.0

    def __init__(self, loop: Loop, namespace: Namespace, interface: str = INTERFACE) -> None:
        self._loop = loop
        self._socket: socket.socket = packet_socket(namespace, interface)
        loop.call(self._start)

    def _start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        for frame in drained(self._socket):
            if not self.hears(frame):
                continue
            try:
                replies = list(self.answer(Ether(frame)))
            except Exception as error:  # scapy raises whatever strange bytes lead it to
                logging.getLogger(__name__).warning("%s dropped a frame: %s", self, error)
                continue
            for reply in replies:
                later = asyncio.get_running_loop().call_later
                later(self.delay_s, self._send, bytes(reply))

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile, or the interface is down
            self._socket.send(frame)

    @abstractmethod
    def hears(self, frame: bytes) -> bool:
        """Tell, cheaply, whether a frame is worth a look."""

    @abstractmethod
    def answer(self, frame: Packet) -> Iterable[Packet]:
        """Yield what it sends when it has heard a frame."""

    def close(self) -> None:
        """Fall silent."""
        self._loop.call(self._stop)

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class DhcpServer(Actor):
    """A DHCP server that is not the school's.

    Args:
        address: its own.
        network: what it gives addresses of, from `first` on.
        router: the gateway and resolver in its leases.
        refuses: it offers, and then says NAK to every request.
        delay_s: how long it takes for every answer.
    """

    def __init__(
        self,
        loop: Loop,
        namespace: Namespace,
        *,
        address: IPv4Address,
        network: IPv4Network,
        first: IPv4Address,
        router: IPv4Address,
        refuses: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        self.delay_s = delay_s
        self._address = address
        self._network = network
        self._router = router
        self._first = first
        self._refuses = refuses
        self._given: dict[bytes, IPv4Address] = {}
        super().__init__(loop, namespace)

    def hears(self, frame: bytes) -> bool:
        """See `Actor`: IPv4, UDP, to port 67."""
        return frame[12:14] == b"\x08\x00" and frame[23:24] == b"\x11" and frame[36:38] == b"\0\x43"

    def answer(self, frame: Packet) -> Iterable[Packet]:
        """See `Actor`."""
        if DHCP not in frame or BOOTP not in frame or frame[BOOTP].op != 1:
            return
        options = {
            option[0]: option[1:] for option in frame[DHCP].options if isinstance(option, tuple)
        }
        kind = options.get("message-type", (0,))[0]
        if kind == 1:
            yield self._reply(frame, "offer", self._address_for(frame, options))
        elif kind == 3 and self._refuses:
            yield self._reply(frame, "nak", None)
        elif kind == 3:
            chosen = options.get("server_id")
            if chosen is None or chosen[0] == str(self._address):
                yield self._reply(frame, "ack", self._address_for(frame, options))

    def _address_for(self, frame: Packet, options: dict[str, Any]) -> IPv4Address:
        client = bytes(options.get("client_id", (frame[BOOTP].chaddr[:6],))[0])
        return self._given.setdefault(client, self._first + len(self._given))

    def _reply(self, frame: Packet, kind: str, address: IPv4Address | None) -> Packet:
        options: list[object] = [("message-type", kind), ("server_id", str(self._address))]
        if address is not None:
            options += [
                ("lease_time", _LEASE_S),
                ("subnet_mask", str(self._network.netmask)),
                ("router", str(self._router)),
                ("name_server", str(self._router)),
            ]
        asked = frame[BOOTP]
        return (
            Ether(src=self.mac, dst=BROADCAST)
            / IP(src=str(self._address), dst="255.255.255.255")
            / UDP(sport=67, dport=68)
            / BOOTP(
                op=2,
                xid=asked.xid,
                flags=asked.flags,
                yiaddr=str(address or "0.0.0.0"),  # noqa: S104 - a NAK gives none
                siaddr=str(self._address),
                chaddr=asked.chaddr,
            )
            / DHCP(options=[*options, "end"])
        )


class Squatter(Actor):
    """A host that has taken addresses that are the DHCP server's to give.

    It answers ARP and ping for all of `addresses`; a probe for one that is free to use (RFC 5227)
    gets its answer too.
    """

    mac = "02:00:5e:00:53:02"

    def __init__(
        self, loop: Loop, namespace: Namespace, addresses: Callable[[IPv4Address], bool]
    ) -> None:
        self._addresses = addresses
        super().__init__(loop, namespace)

    def hears(self, frame: bytes) -> bool:
        """See `Actor`: an ARP request, or ICMP to our MAC."""
        if frame[12:14] == b"\x08\x06":
            return frame[20:22] == b"\0\1"
        is_icmp = frame[12:14] == b"\x08\x00" and frame[23:24] == b"\x01"
        return is_icmp and frame[:6] == bytes.fromhex(self.mac.replace(":", ""))

    def answer(self, frame: Packet) -> Iterable[Packet]:
        """See `Actor`."""
        if ARP in frame:
            asked = frame[ARP]
            # Who asks for his own address announces it, and may have it.
            if asked.psrc != asked.pdst and self._addresses(IPv4Address(asked.pdst)):
                yield (
                    Ether(src=self.mac, dst=asked.hwsrc)
                    / ARP(op=2, hwsrc=self.mac, psrc=asked.pdst, hwdst=asked.hwsrc, pdst=asked.psrc)
                )
        elif ICMP in frame and frame[ICMP].type == 8:
            asked, echo = frame[IP], frame[ICMP]
            if self._addresses(IPv4Address(asked.dst)):
                yield (
                    Ether(src=self.mac, dst=frame[Ether].src)
                    / IP(src=asked.dst, dst=asked.src)
                    / ICMP(type=0, id=echo.id, seq=echo.seq)
                    / (bytes(echo[Raw].load) if Raw in echo else b"")
                )


def name_server(names: dict[str, str]) -> Callable[[bytes], bytes | None]:
    """Return a function that answers DNS questions from a table, name → IPv4 address."""

    def answer(question: bytes) -> bytes | None:
        query = DNS(question)
        if query.qr or not query.qd:
            return None
        asked = query.qd[0]
        address = names.get(asked.qname.decode("ascii", "replace").rstrip(".").lower())
        records = [DNSRR(rrname=asked.qname, ttl=0, rdata=address)]
        return bytes(
            DNS(
                id=query.id,
                qr=1,
                rd=query.rd,
                ra=1,
                qd=query.qd,
                rcode=0 if address else 3,
                an=records if address and asked.qtype == 1 else [],
            )
        )

    return answer
