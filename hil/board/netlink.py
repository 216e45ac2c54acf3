"""What the board process tells the kernel about its interfaces: rtnetlink, without a shell.

Each call is one message and its acknowledgement, some 50 µs. Everything concerns the network
namespace that the process was started in.

Source: rtnetlink(7), sock_diag(7), linux/fib_rules.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hil.board.error import PortError

_SOCK_DIAG = 4  # netlink family
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 1, 4, 0x100, 0x400, 0x300
_NEW_LINK, _GET_LINK = 16, 18
_NEW_ADDRESS, _DEL_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DEL_ROUTE, _NEW_RULE, _DEL_RULE = 24, 25, 32, 33
_DIAG_BY_FAMILY, _DESTROY = 20, 21
_LINK_GROUP = 1  # messages about interfaces

_IFF_UP, _IFF_LOWER_UP = 1, 0x10000
_IFLA_ADDRESS = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_NO_PREFIX_ROUTE = 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_SOURCE = 1, 4, 5, 6, 7
_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE = 2, 6, 15
_STATIC, _UNICAST, _UNREACHABLE, _UNIVERSE, _LINK_SCOPE, _TO_TABLE = 4, 1, 7, 0, 253, 1
MAIN_TABLE = 254
_LAST = 1 << 20  # a metric

_HEAD = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, 2 prefix lengths, TOS, table, …, flags
_DIAG = struct.Struct("=BBBxI48s")  # family, protocol, extensions, states, socket id
_ID = slice(4, 52)  # of a socket, in the kernel's answer
_ID_SOURCE = slice(4, 8)  # its own address, within that
_RECEIVE_BYTES = 1 << 16
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Route:
    """Leads packets for a network to an interface, or over it to a gateway.

    Attributes:
        source: the address that a socket without one gets.
    """

    index: int
    to: IPv4Network
    source: IPv4Address
    gateway: IPv4Address | None = None
    table: int = MAIN_TABLE
    metric: int = 0

    def body(self) -> bytes:
        """Return it as the kernel reads it."""
        scope = _UNIVERSE if self.gateway else _LINK_SCOPE
        values = {
            _RTA_DST: self.to.network_address.packed,
            _RTA_OIF: struct.pack("=I", self.index),
            _RTA_SOURCE: self.source.packed,
        }
        if self.gateway:
            values[_RTA_GATEWAY] = self.gateway.packed
        if self.metric:
            values[_RTA_PRIORITY] = struct.pack("=I", self.metric)
        head = _ROUTE.pack(
            socket.AF_INET, self.to.prefixlen, 0, 0, self.table, _STATIC, scope, _UNICAST, 0
        )
        return head + b"".join(_attribute(kind, value) for kind, value in values.items())


class Netlink:
    """A way to the kernel's network settings.

    Raises: PortError: the kernel refused, with what was asked.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)

    def close(self) -> None:
        """Give it back."""
        self._socket.close()

    def set_link(self, index: int, *, up: bool) -> None:
        """Switch an interface on or off."""
        flags = _IFF_UP if up else 0
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, flags, _IFF_UP)
        self._ask(_NEW_LINK, body, what=f"switch an interface {'on' if up else 'off'}")

    def set_mac(self, index: int, mac: bytes) -> None:
        """Give an interface its MAC."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _attribute(_IFLA_ADDRESS, mac)
        self._ask(_NEW_LINK, body, what="set an interface's MAC")

    def has_carrier(self, index: int) -> bool:
        """Tell whether an interface has a link partner."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        answers = self._ask(_GET_LINK, body, what="read an interface")
        return any(_LINK.unpack_from(answer)[3] & _IFF_LOWER_UP for answer in answers)

    def addresses(self, index: int) -> list[IPv4Interface]:
        """Return the IPv4 addresses of an interface."""
        found = []
        body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        for answer in self._ask(_GET_ADDRESS, body, _DUMP, what="read addresses"):
            _, length, _, _, owner = _ADDRESS.unpack_from(answer)
            local = _find(answer, _ADDRESS.size, _IFA_LOCAL)
            if owner == index and local:
                found.append(IPv4Interface((local, length)))
        return found

    def add_address(self, index: int, address: IPv4Interface) -> None:
        """Give an interface an address, without a route to its network."""
        body = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
        body += _attribute(_IFA_LOCAL, address.ip.packed) + _attribute(
            _IFA_ADDRESS, address.ip.packed
        )
        body += _attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
        body += _attribute(_IFA_FLAGS, struct.pack("=I", _NO_PREFIX_ROUTE))
        self._ask(_NEW_ADDRESS, body, _CREATE | _REPLACE, what=f"add the address {address}")

    def remove_address(self, index: int, address: IPv4Interface) -> None:
        """Take an address away; one that is gone already is no error."""
        body = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
        body += _attribute(_IFA_LOCAL, address.ip.packed)
        self._ask_if_there(_DEL_ADDRESS, body, what=f"remove the address {address}")

    def add_route(self, route: Route) -> None:
        """Add a route, or replace the one to the same network with the same metric."""
        self._ask(_NEW_ROUTE, route.body(), _CREATE | _REPLACE, what=f"add a route to {route.to}")

    def remove_route(self, route: Route) -> None:
        """Remove a route; one that is gone already is no error."""
        self._ask_if_there(_DEL_ROUTE, route.body(), what=f"remove the route to {route.to}")

    def close_table(self, table: int) -> None:
        """Let nothing that a table has no better route for try the next table."""
        body = _ROUTE.pack(
            socket.AF_INET, 0, 0, 0, table, _STATIC, _UNIVERSE, _UNREACHABLE, 0
        ) + _attribute(_RTA_PRIORITY, struct.pack("=I", _LAST))
        self._ask(_NEW_ROUTE, body, _CREATE | _REPLACE, what="close a routing table")

    def add_rule(self, source: IPv4Address, table: int) -> None:
        """Send what has a source address by the routes of a table."""
        body = _ROUTE.pack(socket.AF_INET, 0, 32, 0, 0, 0, 0, _TO_TABLE, 0)
        body += _attribute(_FRA_SRC, source.packed) + _attribute(
            _FRA_TABLE, struct.pack("=I", table)
        )
        body += _attribute(_FRA_PRIORITY, struct.pack("=I", table))
        self._ask(_NEW_RULE, body, _CREATE | _REPLACE, what="add a routing rule")

    def remove_rules(self, table: int) -> None:
        """Remove all rules that lead to a table."""
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        body += _attribute(_FRA_TABLE, struct.pack("=I", table))
        what = "remove a routing rule"
        while self._ask_if_there(_DEL_RULE, body, what=what):
            pass

    def _ask(self, kind: int, body: bytes, flags: int = 0, *, what: str) -> list[bytes]:
        try:
            return list(_exchange(self._socket, kind, body, flags))
        except OSError as error:
            raise _refused(what, error) from error

    def _ask_if_there(self, kind: int, body: bytes, *, what: str) -> bool:
        """Remove something; tell whether it was there."""
        try:
            list(_exchange(self._socket, kind, body, 0))
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise _refused(what, error) from error
        return True


def _refused(what: str, error: OSError) -> PortError:
    return PortError(
        f"the kernel refused to {what}: {error.strerror}",
        hint="a board with interfaces must be root of its network namespace: start it with "
        "ip netns exec, or with nsenter in a user namespace",
    )


class CarrierWatch:
    """A socket that becomes readable when an interface changes."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.socket.bind((0, _LINK_GROUP))
        self.socket.setblocking(False)

    def drain(self) -> None:
        """Forget the news: whoever was told looks for itself."""
        try:
            while self.socket.recv(_RECEIVE_BYTES):
                pass
        except OSError:  # nothing more, or more than the kernel could keep
            return

    def close(self) -> None:
        """Give it back."""
        self.socket.close()


def abort_connections(address: IPv4Address) -> None:
    """Abort the TCP connections of an own address, as lwIP does when it loses one.

    On an interface that is down nothing of it leaves. A kernel that cannot do this leaves them to
    their own timeouts.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as diagnosis:
            ask = _DIAG.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, bytes(48))
            for found in list(_exchange(diagnosis, _DIAG_BY_FAMILY, ask, _DUMP)):
                if found[_ID][_ID_SOURCE] == address.packed:
                    body = _DIAG.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, found[_ID])
                    _try(diagnosis, body)
    except OSError:
        return


def _try(diagnosis: socket.socket, body: bytes) -> None:
    try:
        list(_exchange(diagnosis, _DESTROY, body, 0))
    except OSError:  # it ended by itself meanwhile, or is one that only listens
        return


def _exchange(channel: socket.socket, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
    """Send one message; yield the bodies of the answers."""
    is_dump = flags & _DUMP == _DUMP and kind in (_GET_ADDRESS, _DIAG_BY_FAMILY)
    flags |= _REQUEST | (0 if is_dump else _ACK)
    channel.send(_HEAD.pack(_HEAD.size + len(body), kind, flags, 1, 0) + body)
    while True:
        data = channel.recv(_RECEIVE_BYTES)
        while len(data) >= _HEAD.size:
            size, answer, _, _, _ = _HEAD.unpack_from(data)
            content, data = data[_HEAD.size : size], data[(size + 3) & ~3 :]
            if answer == _ERROR:
                number = -int(struct.unpack_from("=i", content)[0])
                if number:
                    raise OSError(number, os.strerror(number))
                return
            if answer == _DONE:
                return
            yield content


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _find(message: bytes, at: int, wanted: int) -> bytes | None:
    while at + 4 <= len(message):
        size, kind = struct.unpack_from("=HH", message, at)
        if size < 4:
            return None
        if kind == wanted:
            return message[at + 4 : at + size]
        at += (size + 3) & ~3
    return None
