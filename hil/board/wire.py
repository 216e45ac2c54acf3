"""The antenna of a board whose networks are real: interfaces of the kernel.

Association is an interface that is up; everything else is one that is down, which both sides
notice at once. The interpreter's sockets are the kernel's own. `Network`, the other kind, is
carried by relays on loopback: see `hil.board.relay`.
"""

from __future__ import annotations

from collections.abc import Callable

from hil.board import dhcp
from hil.board.antenna import Addresses
from hil.board.interface import Interface
from hil.board.netlink import Netlink
from hil.board.radio import Behind, Wire

_TABLE = 100  # of the first interface
_METRIC = 100  # an ESP32's station goes before its Ethernet


class WireAntenna:
    """The interfaces to the networks behind a board's access points, of which one is up at most.

    Raises: PortError: one is not there, or the kernel refuses.
    """

    is_wired = True

    def __init__(
        self, netlink: Netlink, names: tuple[str, ...], mac: bytes, timing: dhcp.Timing
    ) -> None:
        self._mac = mac
        self._timing = timing
        self._interfaces = {
            name: Interface(netlink, name, mac, table=_TABLE + at, metric=_METRIC)
            for at, name in enumerate(names)
        }

    def update(self, behind: Behind | None, addresses: Addresses | None) -> None:
        """Switch the interfaces; while the access point is silent its address stays."""
        chosen = self._interfaces[behind.interface] if isinstance(behind, Wire) else None
        for interface in self._interfaces.values():
            if interface is not chosen and interface.is_up:
                interface.down()
        for interface in self._interfaces.values():
            if addresses is None or (chosen is not None and interface is not chosen):
                interface.take(None)
        if chosen is not None:
            chosen.take(addresses)
            chosen.up()

    async def lease(self, behind: Behind, take: Callable[[Addresses | None], None]) -> None:
        """Run the DHCP client until cancelled."""
        if isinstance(behind, Wire):
            await dhcp.Client(behind.interface, self._mac, self._timing).run(take)

    def endpoint(self, address: str, port: int) -> tuple[str, int]:
        """Return the address itself."""
        return address, port

    def icmp_endpoint(self, address: str) -> tuple[str, int]:
        """Return the address itself."""
        return address, 1

    def power_off(self) -> None:
        """Switch everything off, then end what was connected: nothing of it leaves."""
        for interface in self._interfaces.values():
            if interface.is_up:
                interface.down()
        for interface in self._interfaces.values():
            interface.take(None)

    def close(self) -> None:
        """Switch everything off."""
        self.power_off()
