"""What carries the packets of a station: relays on loopback, or interfaces of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Protocol

from hil.board.radio import Behind

Addresses = tuple[str, str, str, str]  # address, netmask, gateway, resolver: as ifconfig() has them
NO_ADDRESSES: Addresses = ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0")  # noqa: S104 - no bind

_LOOPBACK, _MULTICAST = 127, 224  # first bytes of addresses
_LONGEST_SHARED = 30  # a longer prefix leaves no room for addresses of the network itself


def is_host(address: str, netmask: str) -> bool:
    """Tell whether an interface can have an address: one host's, and not its network's."""
    try:
        own = IPv4Interface((address, netmask))
    except ValueError:
        return False
    first = own.ip.packed[0]
    reserved = (own.network.network_address, own.network.broadcast_address)
    is_one = own.network.prefixlen > _LONGEST_SHARED or own.ip not in reserved
    return 0 < first < _MULTICAST and first != _LOOPBACK and is_one


class Antenna(Protocol):
    """One board's way into the networks behind its access points."""

    is_wired: bool  # the interpreter's sockets are the kernel's own and need no relay

    def update(self, behind: Behind | None, addresses: Addresses | None) -> None:
        """Follow the station.

        Args:
            behind: what the access point leads to; None while nothing comes through.
            addresses: what the station has now.
        """

    async def lease(self, behind: Behind, take: Callable[[Addresses | None], None]) -> None:
        """Be the driver's DHCP client until cancelled; tell what it gets and what it loses."""

    def endpoint(self, address: str, port: int) -> tuple[str, int]:
        """Return where a socket of the board must go for an address."""

    def icmp_endpoint(self, address: str) -> tuple[str, int]:
        """Return where ICMP packets to an address must go."""

    def power_off(self) -> None:
        """Fall silent; who was connected learns it only by its own timeouts."""

    def close(self) -> None:
        """Give back what it holds."""
