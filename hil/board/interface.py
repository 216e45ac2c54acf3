"""One network interface of the kernel in the hands of a board."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from hil.board.antenna import Addresses, is_host
from hil.board.error import PortError
from hil.board.netlink import MAIN_TABLE, Netlink, Route, abort_connections

_ANYWHERE = IPv4Network("0.0.0.0/0")
_LIMITED_BROADCAST = IPv4Network("255.255.255.255/32")
_SETTINGS = Path("/proc/sys/net/ipv4")
# An address is answered for, and used, on its own interface only, as with two chips' drivers;
# what a board leaves behind when its power goes must not speak for long.
_TUNING = {
    "conf/{name}/arp_ignore": "1",
    "conf/{name}/arp_announce": "2",
    "conf/{name}/rp_filter": "0",
    "conf/all/rp_filter": "0",
    "tcp_orphan_retries": "1",
}


class Interface:
    """Switches one interface and gives it its address and routes.

    It is down until `up`. What has its address as the source leaves by it, whatever else the
    board has.

    Args:
        table: number of a routing table that is this interface's own.
        metric: the lower, the sooner sockets without an address use it.
    Raises: PortError: there is no such interface, or the kernel refuses.
    """

    def __init__(self, netlink: Netlink, name: str, mac: bytes, *, table: int, metric: int) -> None:
        self.name = name
        self.mac = mac
        self.is_up = False
        self._netlink = netlink
        self._table = table
        self._metric = metric
        self._addresses: Addresses | None = None
        self._routes: list[Route] = []
        try:
            self._index = socket.if_nametoindex(name)
        except OSError as error:
            known = ", ".join(each for _, each in socket.if_nameindex())
            raise PortError(
                f"there is no interface {name} here; there are: {known}",
                hint="start the board in the network namespace that has it: ip netns exec NAME …",
            ) from error
        self.down()
        netlink.set_mac(self._index, mac)
        self._forget_others()
        self._tune()
        netlink.close_table(table)

    def _forget_others(self) -> None:
        """Remove what an earlier board left."""
        self._netlink.remove_rules(self._table)
        for address in self._netlink.addresses(self._index):
            self._netlink.remove_address(self._index, address)

    def _tune(self) -> None:
        for pattern, value in _TUNING.items():
            path = _SETTINGS / pattern.format(name=self.name)
            try:
                path.write_text(value, encoding="ascii")
            except OSError as error:
                raise PortError(
                    f"{path} cannot be set: {error.strerror}",
                    hint="the board needs a /proc that it may write to, as root of its network "
                    "namespace",
                ) from error
        try:
            Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1", "ascii")
        except OSError as error:
            if error.errno != errno.ENOENT:  # a kernel without IPv6 is as good
                raise PortError(f"IPv6 cannot be switched off on {self.name}") from error

    @property
    def has_carrier(self) -> bool:
        """Whether there is a link partner; never while it is down."""
        return self.is_up and self._netlink.has_carrier(self._index)

    def up(self) -> None:
        """Switch it on, with the address that it has."""
        if not self.is_up:
            self._netlink.set_link(self._index, up=True)
            self.is_up = True
            self._add_routes()  # the kernel forgets them whenever an interface goes down

    def down(self) -> None:
        """Switch it off: nothing leaves from now on. The address stays."""
        self._netlink.set_link(self._index, up=False)
        self.is_up = False

    def take(self, addresses: Addresses | None) -> None:
        """Use another address, or none; connections of the old one are aborted."""
        old, self._addresses = self._addresses, addresses
        if addresses == old:
            return
        if old is not None:
            if addresses is None or addresses[0] != old[0]:
                abort_connections(IPv4Address(old[0]))
            for route in self._routes:
                self._netlink.remove_route(route)
            self._netlink.remove_rules(self._table)
            self._netlink.remove_address(self._index, _interface(old))
        self._routes = self._routes_for(addresses) if addresses else []
        if addresses is not None:
            self._netlink.add_address(self._index, _interface(addresses))
            self._netlink.add_rule(IPv4Address(addresses[0]), self._table)
            if self.is_up:
                self._add_routes()

    def _routes_for(self, addresses: Addresses) -> list[Route]:
        own, gateway = _interface(addresses), IPv4Address(addresses[2])
        reserved = (own.network.network_address, own.network.broadcast_address)
        routes = []
        for table, metric in ((MAIN_TABLE, self._metric), (self._table, 0)):
            routes += [
                Route(self._index, to, own.ip, None, table, metric)
                for to in (own.network, _LIMITED_BROADCAST)
            ]
            if gateway in own.network and gateway not in (own.ip, *reserved):
                routes.append(Route(self._index, _ANYWHERE, own.ip, gateway, table, metric))
        return routes

    def _add_routes(self) -> None:
        for route in self._routes:
            self._netlink.add_route(route)


def _interface(addresses: Addresses) -> IPv4Interface:
    return IPv4Interface((addresses[0], addresses[1]))


def checked(config: Sequence[Any]) -> Addresses:
    """Return what ifconfig() was given, if an interface can have it.

    Raises: ValueError: four addresses are needed, a host's first, then a netmask.
    """
    address, netmask, gateway, resolver = (str(part) for part in config)
    own = IPv4Interface((address, netmask))
    if not is_host(address, netmask):
        raise ValueError(f"{own} is no host's address")
    return str(own.ip), str(own.netmask), str(IPv4Address(gateway)), str(IPv4Address(resolver))
