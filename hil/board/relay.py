"""Relays between the board's sockets and loopback: what the radio link and the line carry.

The interpreter's sockets are real and connect to relays in this process; each relay leads
to where the radio model says. Where the way is cut a relay behaves as the air does: new
connections get no answer, established ones stand still and go on when the way is back,
datagrams are lost. Nothing is closed by a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from hil.board import task
from hil.board.antenna import Addresses
from hil.board.packet import ip_header
from hil.board.radio import ICMP, TCP, UDP, Behind, Network

_LOOPBACK = "127.0.0.1"
_UNREACHABLE = "127.255.255.255"  # a broadcast address: connect() fails at once, ENETUNREACH
_BACKLOG = 16
_DATAGRAM_BYTES = 65535
_CHUNK_BYTES = 65536
_PEERS = 32  # sockets of the board that one UDP relay tells apart
_ORPHAN_S = 60.0  # how long a peer does not notice that the board lost its power
_ANY = ("0.0.0.0", "255.255.255.255")  # noqa: S104 - as the board says it; never bound
_LISTENING = " 0A "
_ICMP_TTL = 255


class Gate:
    """Open while packets come through."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether packets come through now."""
        return self._event.is_set()

    def turn(self, *, is_open: bool) -> None:
        """Open or close."""
        if is_open:
            self._event.set()
        else:
            self._event.clear()

    async def passed(self) -> None:
        """Wait until it is open."""
        await self._event.wait()


class Stream:
    """One TCP connection of the board, carried on by two sockets of ours."""

    def __init__(self, board: socket.socket, peer: socket.socket, gate: Gate) -> None:
        self._board = board
        self._peer = peer
        self._gate = gate
        self._task = task.start(self._run(), "stream")

    @property
    def is_done(self) -> bool:
        """Whether both sides have closed."""
        return self._task.done()

    def cut(self) -> socket.socket:
        """Stop relaying; return the peer's socket, which is still open."""
        self._end(self._board.close)
        return self._peer

    def abort(self) -> None:
        """Reset both sides."""
        self._end(self._reset)

    def _end(self, close: Callable[[], object]) -> None:
        # Not before the loop has let go of the sockets: their numbers may be given anew at once.
        self._task.add_done_callback(lambda _task: close())
        self._task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(self._board, self._peer))
                group.create_task(self._pump(self._peer, self._board))
        except* OSError:
            # One side was reset: the other one learns it, as soon as the way is open.
            await self._gate.passed()
            self._reset()
        else:
            self._board.close()
            self._peer.close()

    def _reset(self) -> None:
        _reset(self._board)
        _reset(self._peer)

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gate.passed()
            data = await loop.sock_recv(source, _CHUNK_BYTES)
            await self._gate.passed()
            if not data:
                with contextlib.suppress(OSError):  # it may be closed already
                    sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)


class Relay:
    """Stands for one address and port that the board sees, for TCP and UDP."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self._loop = asyncio.get_running_loop()
        self._listener, self._udp = _bind_both()
        self.local_port: int = self._listener.getsockname()[1]
        self._tcp_gate = Gate()
        self._tcp_to: tuple[str, int] | None = None
        self._udp_to: tuple[str, int] | None = None
        self._is_listening = False
        self._is_accepting = False
        self._fillers: list[socket.socket] = []
        self._streams: list[Stream] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._peers: dict[tuple[str, int], socket.socket] = {}
        self._loop.add_reader(self._udp, self._from_board)

    def update(self, network: Network | None) -> None:
        """Follow a change of the link, the line or the routes."""
        tcp = network.route(TCP, self.address, self.port) if network else None
        udp = network.route(UDP, self.address, self.port) if network else None
        if tcp is not None:
            self._tcp_to = tcp.to
        is_open = network is not None and tcp is not None and network.is_open(tcp)
        self._udp_to = udp.to if udp and network and network.is_open(udp) else None
        self._tcp_gate.turn(is_open=is_open)
        if is_open:
            self._accept_on()
        elif network is None or tcp is not None or not network.knows(self.address):
            self._ignore()

    def power_off(self) -> list[socket.socket]:
        """Close all that is the board's; return the peers' sockets, which notice nothing."""
        orphans = [stream.cut() for stream in self._streams if not stream.is_done]
        self._streams.clear()
        for connecting in self._connecting:
            connecting.cancel()
        self._loop.remove_reader(self._listener)
        self._loop.remove_reader(self._udp)
        for peer in self._peers.values():
            self._loop.remove_reader(peer)
        for item in (self._listener, self._udp, *self._fillers, *self._peers.values()):
            item.close()
        return orphans

    def abort(self) -> None:
        """Reset all connections: the board has another address now."""
        for stream in self._streams:
            stream.abort()
        self._streams.clear()

    # TCP

    def _accept_on(self) -> None:
        if self._is_accepting:
            return
        self._listener.listen(_BACKLOG)
        self._is_listening = self._is_accepting = True
        self._loop.add_reader(self._listener, self._accept)

    def _ignore(self) -> None:
        """Leave new connections unanswered: keep the kernel's queue full, so it drops SYNs."""
        if self._is_listening and not self._is_accepting:
            return
        self._loop.remove_reader(self._listener)
        self._listener.listen(0)
        self._is_listening, self._is_accepting = True, False
        filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect((_LOOPBACK, self.local_port))
        self._fillers.append(filler)

    def _accept(self) -> None:
        try:
            board, where = self._listener.accept()
        except OSError:
            return
        board.setblocking(False)
        for filler in self._fillers:
            if filler.getsockname() == where:
                self._fillers.remove(filler)
                filler.close()
                board.close()
                return
        connecting = task.start(self._connect(board), "connect")
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, board: socket.socket) -> None:
        peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        peer.setblocking(False)
        try:
            if self._tcp_to is None:
                raise ConnectionRefusedError
            await self._loop.sock_connect(peer, self._tcp_to)
            for item in (board, peer):
                item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            peer.close()
            _reset(board)
            return
        except asyncio.CancelledError:
            peer.close()
            board.close()
            raise
        self._streams = [stream for stream in self._streams if not stream.is_done]
        self._streams.append(Stream(board, peer, self._tcp_gate))

    # UDP

    def _from_board(self) -> None:
        try:
            data, board = self._udp.recvfrom(_DATAGRAM_BYTES)
        except OSError:
            return
        if self._udp_to is None:
            return
        peer = self._peers.get(board) or self._new_peer(board)
        with contextlib.suppress(OSError):  # lost, as datagrams are
            peer.sendto(data, self._udp_to)

    def _new_peer(self, board: tuple[str, int]) -> socket.socket:
        if len(self._peers) >= _PEERS:
            oldest = self._peers.pop(next(iter(self._peers)))
            self._loop.remove_reader(oldest)
            oldest.close()
        peer = _udp_socket()
        self._peers[board] = peer
        self._loop.add_reader(peer, self._to_board, peer, board)
        return peer

    def _to_board(self, peer: socket.socket, board: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            data = peer.recv(_DATAGRAM_BYTES)
            if self._udp_to is not None:
                self._udp.sendto(data, board)


class IcmpRelay:
    """Carries the board's ICMP packets to one address, as IP packets in UDP."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._socket, self._peer = _udp_socket(), _udp_socket()
        self.local_port: int = self._socket.getsockname()[1]
        self._to: tuple[str, int] | None = None
        self._source = "0.0.0.0"  # noqa: S104 - an IP header's source, not a bind
        self._board: tuple[str, int] | None = None
        self._number = 0
        self._loop.add_reader(self._socket, self._from_board)
        self._loop.add_reader(self._peer, self._to_board)

    def update(self, network: Network | None, source: str | None) -> None:
        """Follow a change of the link, the line or the routes."""
        route = network.route(ICMP, self.address) if network else None
        self._to = route.to if route and network and network.is_open(route) else None
        self._source = source or self._source

    def close(self) -> None:
        """Stop relaying."""
        for item in (self._socket, self._peer):
            self._loop.remove_reader(item)
            item.close()

    def _from_board(self) -> None:
        with contextlib.suppress(OSError):
            data, self._board = self._socket.recvfrom(_DATAGRAM_BYTES)
            if self._to is not None:
                self._number = self._number + 1 & 0xFFFF
                head = ip_header(
                    self._source,
                    self.address,
                    len(data),
                    protocol=socket.IPPROTO_ICMP,
                    number=self._number,
                    ttl=_ICMP_TTL,
                )
                self._peer.sendto(head + data, self._to)

    def _to_board(self) -> None:
        with contextlib.suppress(OSError):
            data = self._peer.recv(_DATAGRAM_BYTES)
            if self._to is not None and self._board is not None:
                self._socket.sendto(data, self._board)


class RelayAntenna:
    """All relays of a board.

    Args:
        lease_s: how long the network takes to give an address.
    """

    is_wired = False

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._behind: Behind | None = None
        self._network: Network | None = None
        self._source: str | None = None
        self._relays: dict[tuple[str, int], Relay] = {}
        self._icmp: dict[str, IcmpRelay] = {}
        self._closed: list[socket.socket] = []
        self._orphans: set[socket.socket] = set()

    def update(self, behind: Behind | None, addresses: Addresses | None) -> None:
        """Follow the station: without an address packets reach nothing."""
        self._behind = behind
        network = behind if isinstance(behind, Network) and addresses else None
        source = addresses[0] if addresses else None
        if source and self._source and source != self._source:
            for relay in self._relays.values():
                relay.abort()
        self._network, self._source = network, source or self._source
        for relay in self._relays.values():
            relay.update(network)
        for icmp in self._icmp.values():
            icmp.update(network, source)

    async def lease(self, behind: Behind, take: Callable[[Addresses | None], None]) -> None:
        """Give the address that the model names, once, if the network has DHCP."""
        if isinstance(behind, Network) and behind.dhcp:
            await asyncio.sleep(self._lease_s)
            if self._behind is not None:  # else the answer is lost
                take((behind.address, behind.netmask, behind.gateway, behind.resolver))

    def endpoint(self, address: str, port: int) -> tuple[str, int]:
        """Return where on loopback a socket of the board must go for an address."""
        network = self._network
        if address == _ANY[0] or address == self._source:  # to bind to: any port is free here
            return _LOOPBACK, 0
        if network is None:
            return _UNREACHABLE, port or 1
        tcp, udp = network.route(TCP, address, port), network.route(UDP, address, port)
        if tcp is None and udp is None and network.knows(address):
            return _LOOPBACK, self._closed_port()
        is_dead = tcp and network.is_open(tcp) and not _is_listening(tcp.to[1])
        if is_dead and udp is None:
            return _LOOPBACK, self._closed_port()
        relay = self._relays.get((address, port))
        if relay is None:
            relay = self._relays[address, port] = Relay(address, port)
            relay.update(network)
        return _LOOPBACK, relay.local_port

    def icmp_endpoint(self, address: str) -> tuple[str, int]:
        """Return where on loopback ICMP packets to an address must go."""
        if self._network is None:
            return _UNREACHABLE, 1
        icmp = self._icmp.get(address)
        if icmp is None:
            icmp = self._icmp[address] = IcmpRelay(address)
            icmp.update(self._network, self._source)
        return _LOOPBACK, icmp.local_port

    def power_off(self) -> None:
        """Fall silent; who was connected learns it only by its own timeouts."""
        loop = asyncio.get_running_loop()
        for relay in self._relays.values():
            for orphan in relay.power_off():
                self._orphans.add(orphan)
                loop.call_later(_ORPHAN_S, self._bury, orphan)
        for icmp in self._icmp.values():
            icmp.close()
        self._relays.clear()
        self._icmp.clear()
        self._network = self._source = None

    def close(self) -> None:
        """Close everything."""
        self.power_off()
        for item in (*self._orphans, *self._closed):
            item.close()
        self._orphans.clear()
        self._closed.clear()

    def _bury(self, orphan: socket.socket) -> None:
        self._orphans.discard(orphan)
        _reset(orphan)

    def _closed_port(self) -> int:
        """Return a port on which nothing will ever listen: connections are refused."""
        if not self._closed:
            self._closed = list(_bind_both())
        port: int = self._closed[0].getsockname()[1]
        return port


def _bind_both() -> tuple[socket.socket, socket.socket]:
    """Bind a TCP and a UDP socket to the same free port of loopback."""
    while True:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind((_LOOPBACK, 0))
        tcp.setblocking(False)
        try:
            return tcp, _udp_socket(tcp.getsockname()[1])
        except OSError:  # the UDP port is taken: try the next
            tcp.close()


def _udp_socket(port: int = 0) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.bind((_LOOPBACK, port))
    except OSError:
        udp.close()
        raise
    udp.setblocking(False)
    return udp


def _reset(item: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        item.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    item.close()


def _is_listening(port: int) -> bool:
    """Tell whether a server listens on a TCP port, without connecting to it."""
    table = Path("/proc/net/tcp").read_text(encoding="ascii")
    return any(f":{port:04X} " in line and _LISTENING in line for line in table.splitlines())
