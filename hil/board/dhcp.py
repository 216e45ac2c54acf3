"""The DHCP client of an ESP32's driver: lwIP's, with real packets.

As lwIP it takes the first offer, asks with ARP whether somebody has the address before it uses
it, declines it then and waits, starts anew after a refusal, renews at T1 from the server, from T2
on from any, and drops the address when the lease is over.

Sources: lwIP's core/ipv4/dhcp.c; RFC 2131, 2132, 5227.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any, TypeVar

from hil.board.antenna import NO_ADDRESSES, Addresses, is_host
from hil.board.packet import udp_content, udp_packet

SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK = 1, 2, 3, 4, 5, 6

_NOWHERE, _EVERYBODY = "0.0.0.0", "255.255.255.255"  # noqa: S104 - a packet's source, no bind
_Found = TypeVar("_Found")

_BROADCAST_MAC = b"\xff" * 6
_ETH_IP, _ETH_ARP = 0x0800, 0x0806
_FIXED = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")  # up to the magic cookie
_COOKIE = b"\x63\x82\x53\x63"
_BOOT_REQUEST, _BOOT_REPLY, _ETHERNET = 1, 2, 1
_MASK, _ROUTER, _DNS, _HOSTNAME, _BROADCAST = 1, 3, 6, 12, 28
_REQUESTED, _LEASE, _TYPE, _SERVER, _WANTED, _SIZE, _T1, _T2, _CLIENT = (
    *(50, 51, 53, 54, 55, 57, 58, 59),
    61,
)
_PAD, _END = 0, 255
_MESSAGE_BYTES = 1500
_LEAST_BYTES = 300  # of a BOOTP message; relays drop shorter ones
_FOREVER_S = 0xFFFFFFFF
_REQUEST_TRIES = 6
_PROBES = 2
_PORT_TAKEN_S = 0.1
_NAME = b"mpy-esp32"
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_REQUEST = 1


@dataclass(frozen=True)
class Timing:
    """How patient the client is, in seconds.

    Attributes:
        retry_s: until the first repetition; doubled for each further one.
        longest_s: the longest wait between two.
        probe_s: how long an ARP probe may take.
        back_off_s: after an address that somebody else has.
        refused_s: after a NAK. lwIP does not wait at all; two programs would only spin.
    """

    retry_s: float = 2.0
    longest_s: float = 60.0
    probe_s: float = 0.5
    back_off_s: float = 10.0
    refused_s: float = 0.25


@dataclass(frozen=True)
class Message:
    """What a server said."""

    kind: int
    address: str
    server: str
    mask: str | None
    router: str | None
    resolver: str
    lease_s: float | None  # None: for ever
    t1_s: float
    t2_s: float

    @property
    def addresses(self) -> Addresses:
        """What ifconfig() shows, with lwIP's own guesses for what the server left out."""
        first = int(self.address.partition(".")[0])
        mask = self.mask or (
            "255.0.0.0" if first < 128 else "255.255.0.0" if first < 192 else "255.255.255.0"
        )
        network = IPv4Interface((self.address, mask)).network
        router = self.router or str(network.network_address + 1)
        return self.address, mask, router, self.resolver


def parse(data: bytes, transaction: int, mac: bytes) -> Message | None:
    """Read a server's message to this client; None for anything else."""
    if len(data) < _FIXED.size:
        return None
    fixed = _FIXED.unpack_from(data)
    if (fixed[0], fixed[4], fixed[11][:6], fixed[14]) != (_BOOT_REPLY, transaction, mac, _COOKIE):
        return None
    options = _options(data[_FIXED.size :])
    if len(options.get(_TYPE, b"")) != 1:
        return None
    lease = _number(options.get(_LEASE))
    lease_s = None if lease in (None, _FOREVER_S) else float(lease or 0)
    mask = _address(options.get(_MASK))
    try:
        IPv4Interface((_NOWHERE, mask or _NOWHERE))
    except ValueError:
        mask = None
    return Message(
        kind=options[_TYPE][0],
        address=socket.inet_ntoa(fixed[8]),
        server=_address(options.get(_SERVER)) or _NOWHERE,
        mask=mask,
        router=_address(options.get(_ROUTER)),
        resolver=_address(options.get(_DNS)) or NO_ADDRESSES[3],
        lease_s=lease_s,
        t1_s=float(_number(options.get(_T1)) or (lease_s or 0) / 2),
        t2_s=float(_number(options.get(_T2)) or (lease_s or 0) * 7 / 8),
    )


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        found.setdefault(data[at], data[at + 2 : at + 2 + size])
        at += 2 + size
    return found


def _number(value: bytes | None) -> int | None:
    return int.from_bytes(value, "big") if value and len(value) == 4 else None


def _address(value: bytes | None) -> str | None:
    return socket.inet_ntoa(value[:4]) if value and len(value) >= 4 else None


def build(
    kind: int, transaction: int, mac: bytes, options: dict[int, bytes], own: str = _NOWHERE
) -> bytes:
    """Return a client's message; `own` is an address that it already uses."""
    nowhere = bytes(4)
    fixed = _FIXED.pack(
        *(_BOOT_REQUEST, _ETHERNET, 6, 0, transaction, 0, 0),
        *(socket.inet_aton(own), nowhere, nowhere, nowhere),
        *(mac, b"", b"", _COOKIE),
    )
    every = {_TYPE: bytes((kind,)), _CLIENT: bytes((_ETHERNET,)) + mac} | options
    tail = b"".join(bytes((code, len(value))) + value for code, value in every.items())
    return (fixed + tail + bytes((_END,))).ljust(_LEAST_BYTES, b"\0")


class Client:
    """Gets an address for one interface and keeps it.

    UDP port 68 is its own while it runs, as it is lwIP's.
    """

    def __init__(self, interface: str, mac: bytes, timing: Timing) -> None:
        self._interface = interface
        self._mac = mac
        self._timing = timing
        self._transaction = 0
        self._asked = {
            _SIZE: _MESSAGE_BYTES.to_bytes(2, "big"),
            _HOSTNAME: _NAME,
            _WANTED: bytes((_MASK, _ROUTER, _BROADCAST, _DNS)),
        }

    async def run(self, take: Callable[[Addresses | None], None]) -> None:
        """Get addresses and keep them until cancelled; None tells that one was lost."""
        with await self._claim_port() as port:
            while True:
                lease = await self._acquire()
                take(lease.addresses)
                await self._keep(lease, port)
                take(None)

    async def _claim_port(self) -> socket.socket:
        """Bind the client's port as soon as the program on the board lets go of it."""
        while True:
            port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            port.setblocking(False)
            port.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            device = self._interface.encode() + b"\0"
            port.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            try:
                port.bind(("", CLIENT_PORT))
            except OSError:
                port.close()
                await asyncio.sleep(_PORT_TAKEN_S)
            else:
                return port

    # Getting one

    async def _acquire(self) -> Message:
        timing = self._timing
        with _packet_socket(self._interface, _ETH_IP) as link:
            while True:
                offer = await self._discover(link)
                lease = await self._request(link, offer)
                if lease is None:
                    continue
                if lease.kind == NAK:
                    await asyncio.sleep(timing.refused_s)
                elif not await self._is_taken(lease.address):
                    return lease
                else:
                    await self._broadcast(link, DECLINE, _chosen(lease))
                    await asyncio.sleep(timing.back_off_s)

    async def _discover(self, link: socket.socket) -> Message:
        self._transaction = int.from_bytes(os.urandom(4), "big")
        wait_s = self._timing.retry_s
        while True:
            await self._broadcast(link, DISCOVER, self._asked)
            offer = await self._answer(link, (OFFER,), wait_s)
            if offer is not None:
                return offer
            wait_s = min(2 * wait_s, self._timing.longest_s)

    async def _request(self, link: socket.socket, offer: Message) -> Message | None:
        wait_s = self._timing.retry_s
        for _ in range(_REQUEST_TRIES):
            await self._broadcast(link, REQUEST, self._asked | _chosen(offer))
            answer = await self._answer(link, (ACK, NAK), wait_s)
            if answer is not None:
                return answer
            wait_s = min(2 * wait_s, self._timing.longest_s)
        return None

    async def _broadcast(self, link: socket.socket, kind: int, options: dict[int, bytes]) -> None:
        message = build(kind, self._transaction, self._mac, options)
        packet = udp_packet((_NOWHERE, CLIENT_PORT), (_EVERYBODY, SERVER_PORT), message)
        await _send(link, packet, (self._interface, _ETH_IP, 0, 0, _BROADCAST_MAC))

    async def _answer(
        self, link: socket.socket, kinds: tuple[int, ...], wait_s: float
    ) -> Message | None:
        def read(packet: bytes) -> Message | None:
            return self._read(udp_content(packet, CLIENT_PORT), kinds)

        return await _received(link, read, wait_s)

    def _read(self, content: bytes | None, kinds: tuple[int, ...]) -> Message | None:
        message = parse(content, self._transaction, self._mac) if content is not None else None
        if message is None or message.kind not in kinds:
            return None
        return message if message.kind == NAK or is_host(*message.addresses[:2]) else None

    async def _is_taken(self, address: str) -> bool:
        """Ask with ARP whether somebody on the network has an address."""
        wanted = socket.inet_aton(address)
        probe = _ARP.pack(1, _ETH_IP, 6, 4, _ARP_REQUEST, self._mac, bytes(4), bytes(6), wanted)

        def read(packet: bytes) -> bool | None:
            if len(packet) < _ARP.size:
                return None
            sender, owned = _ARP.unpack_from(packet)[5:7]
            return True if owned == wanted and sender != self._mac else None

        with _packet_socket(self._interface, _ETH_ARP) as link:
            for _ in range(_PROBES):
                await _send(link, probe, (self._interface, _ETH_ARP, 0, 0, _BROADCAST_MAC))
                if await _received(link, read, self._timing.probe_s):
                    return True
        return False

    # Keeping it

    async def _keep(self, lease: Message, port: socket.socket) -> None:
        """Renew for as long as the server lets; return when the address is lost."""
        loop = asyncio.get_running_loop()
        while lease.lease_s is not None:
            start = loop.time()
            await asyncio.sleep(lease.t1_s)
            renewed = await self._renew(lease, port, lease.server, start + lease.t2_s)
            if renewed is None:
                renewed = await self._renew(lease, port, _EVERYBODY, start + lease.lease_s)
            if renewed is None or renewed.kind == NAK:
                return
            lease = renewed
        await asyncio.Event().wait()

    async def _renew(
        self, lease: Message, port: socket.socket, server: str, until: float
    ) -> Message | None:
        loop = asyncio.get_running_loop()
        self._transaction = int.from_bytes(os.urandom(4), "big")
        message = build(REQUEST, self._transaction, self._mac, self._asked, lease.address)

        def read(content: bytes) -> Message | None:
            answer = self._read(content, (ACK, NAK))
            is_ours = answer is not None and (answer.kind == NAK or answer.address == lease.address)
            return answer if is_ours else None

        _drain(port)
        while (left_s := until - loop.time()) > 0:
            await _send(port, message, (server, SERVER_PORT))
            answer = await _received(port, read, min(left_s, max(left_s / 2, self._timing.retry_s)))
            if answer is not None:
                return answer
        return None


def _chosen(message: Message) -> dict[int, bytes]:
    return {
        _REQUESTED: socket.inet_aton(message.address),
        _SERVER: socket.inet_aton(message.server),
    }


def _packet_socket(interface: str, protocol: int) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
    link.bind((interface, protocol))
    link.setblocking(False)
    return link


def _drain(port: socket.socket) -> None:
    try:
        while port.recv(_MESSAGE_BYTES):
            pass
    except OSError:  # it is empty
        return


async def _send(link: socket.socket, data: bytes, to: tuple[Any, ...]) -> None:
    """Send; what an interface that is down refuses is lost, as in the air."""
    try:
        await asyncio.get_running_loop().sock_sendto(link, data, to)
    except OSError:
        return


async def _received(
    link: socket.socket, read: Callable[[bytes], _Found | None], wait_s: float
) -> _Found | None:
    """Return the first packet that `read` makes something of; None if none comes in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    packet = await loop.sock_recv(link, _MESSAGE_BYTES)
                except OSError:  # the interface went down, or a server's host said no
                    await asyncio.sleep(0.01)
                    continue
                found = read(packet)
                if found is not None:
                    return found
    except TimeoutError:
        return None
