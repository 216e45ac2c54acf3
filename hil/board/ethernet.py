"""The board's Ethernet: one interface of the kernel, as the ESP32's driver has its own.

States follow MicroPython's ports/esp32/network_lan.c.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hil.board import dhcp, task
from hil.board.antenna import NO_ADDRESSES, Addresses
from hil.board.interface import Interface, checked
from hil.board.netlink import CarrierWatch, Netlink
from hil.board.run import Request, RequestError

INITIALIZED, STARTED, STOPPED, CONNECTED, DISCONNECTED, GOT_IP = range(6)

_TABLE = 200
_METRIC = 200
_MAC_OFFSET = 3  # of the four that a chip has, the last one is Ethernet's


class Ethernet:
    """The LAN of a board; without an interface every request fails, as on a chip without PHY.

    Raises: PortError: the interface is not there, or the kernel refuses.
    """

    def __init__(
        self, netlink: Netlink | None, name: str | None, mac: bytes, timing: dhcp.Timing
    ) -> None:
        self.mac = mac[:5] + bytes((mac[5] + _MAC_OFFSET & 0xFF,))
        self._timing = timing
        self._interface: Interface | None = None
        self._services: dict[str, Callable[[Interface, Request], Any]] = {
            "lan-start": lambda _, __: None,
            "lan-active": self._activate,
            "lan-status": lambda _, __: self.status,
            "lan-mac": lambda _, __: self.mac.hex(),
            "lan-address": lambda _, __: list(self.addresses),
            "lan-set-address": self._set_address,
        }
        self._task: asyncio.Task[None] | None = None
        self._watch: CarrierWatch | None = None
        self._forget()
        if netlink is not None and name is not None:
            self._interface = Interface(netlink, name, self.mac, table=_TABLE, metric=_METRIC)
            self._watch = CarrierWatch()
            asyncio.get_running_loop().add_reader(self._watch.socket, self._look)

    def _forget(self) -> None:
        self.status = INITIALIZED
        self._addresses: Addresses | None = None
        self._static: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """What ifconfig() shows."""
        return self._addresses or NO_ADDRESSES

    def state(self) -> dict[str, Any] | None:
        """Describe it for the control socket; None without an interface."""
        if self._interface is None:
            return None
        address = self._addresses[0] if self._addresses else None
        return {"interface": self._interface.name, "status": self.status, "address": address}

    def off(self) -> None:
        """Lose the power: everything is forgotten, peers learn nothing."""
        if self._interface is not None:
            self._interface.down()
            self._stop(self._interface)
            self._forget()

    def close(self) -> None:
        """Switch it off."""
        self.off()
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.socket)
            self._watch.close()
            self._watch = None

    def knows(self, operation: str) -> bool:
        """Tell whether a request is for it."""
        return operation in self._services

    def serve(self, operation: str, request: Request) -> Any:
        """Answer a shim."""
        if self._interface is None:
            raise RequestError("esp_eth_driver_install failed")
        return self._services[operation](self._interface, request)

    def _activate(self, interface: Interface, request: Request) -> bool:
        is_active = self.status not in (INITIALIZED, STOPPED)
        if request["on"] is not None and request["on"] != is_active:
            if request["on"]:
                self.status = STARTED
                interface.up()
                self._follow(interface)
            else:
                interface.down()
                self._stop(interface)
                self.status = STOPPED
        return self.status not in (INITIALIZED, STOPPED)

    def _look(self) -> None:
        """Take notice that an interface changed."""
        if self._watch is not None and self._interface is not None:
            self._watch.drain()
            self._follow(self._interface)

    def _follow(self, interface: Interface) -> None:
        if self.status in (INITIALIZED, STOPPED):
            return
        has_link = interface.has_carrier
        if has_link and self.status in (STARTED, DISCONNECTED):
            self.status = CONNECTED
            self._seek(interface)
        elif not has_link and self.status in (CONNECTED, GOT_IP):
            self._stop(interface)
            self.status = DISCONNECTED

    def _seek(self, interface: Interface) -> None:
        if self._static is not None:
            self._take(interface, self._static)
        else:
            client = dhcp.Client(interface.name, self.mac, self._timing)
            self._task = task.start(client.run(lambda got: self._take(interface, got)), "lan")

    def _take(self, interface: Interface, addresses: Addresses | None) -> None:
        self._addresses = addresses
        interface.take(addresses)
        if addresses is not None:
            self.status = GOT_IP

    def _stop(self, interface: Interface) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._addresses = None
        interface.take(None)

    def _set_address(self, interface: Interface, request: Request) -> None:
        config = request["config"]
        self._static = None if config == "dhcp" else checked(config)
        if self.status in (CONNECTED, GOT_IP):
            if self._task is not None and self._static is None:
                return  # it runs already
            if self._static is None:
                self._stop(interface)
            elif self._task is not None:
                self._task.cancel()
                self._task = None
            self._seek(interface)
