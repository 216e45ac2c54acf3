"""The bench of a technician's desk: its WLAN as boards see it, and its gateway, made of real parts.

    with Workbench(city, log, internet) as bench:
        radio = {"access_points": [bench.access_point(1), …]}

The city's inventory has `TABLES`, and secrets/wlan.toml the key of `WLAN_ID`.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, Self

from fleet import authority, inventory
from fleet.gateway import prepare
from fleet.gateway.settings import Folder
from hil.gateway import GatewayProcess
from hil.site import LOOPBACK, Internet, Router

WLAN_ID = "bench"
SSID = "Werkbank"
TIME_ADDRESS = "203.0.113.123"
_ROUTER_ADDRESS = "10.201.0.1"
_BROKER_ADDRESS, _BROKER_PORT = "10.201.0.2", 8883

# What belongs into the inventory, by table.
TABLES: dict[str, dict[str, Any]] = {
    "wlan": {WLAN_ID: {"ssid": SSID, "security": "wpa2-psk"}},
    "bench": {"wlan": WLAN_ID, "broker_host": _BROKER_ADDRESS, "broker_port": _BROKER_PORT},
}


class Workbench:
    """Gateway, router and access point of a bench, from entering to leaving.

    Args:
        city: the city's folder.
        log: where the gateway's words go.
        internet: whose time server the bench reaches.
        key: the WLAN's.
    """

    def __init__(self, city: Path, log: Path, internet: Internet, key: str) -> None:
        self.port = free_port()
        known = inventory.load(city)
        ca = authority.ensure(city, known.city.id)
        plan = prepare.plan_bench(known, ca, listen=LOOPBACK, port=self.port)
        prepare.apply(plan)
        self.folder: Folder = plan.folder
        self.gateway = GatewayProcess(plan.folder, log)
        self._internet = internet
        self._key = key
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        name = "pool.ntp.org"
        self._router = self._stack.enter_context(Router(_ROUTER_ADDRESS, {name: TIME_ADDRESS}))
        self._stack.callback(self.gateway.stop)
        self.gateway.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def access_point(self, number: int) -> dict[str, Any]:
        """Return the access point as the board of a number sees it; see `hil.board.radio`."""
        network, router = _ROUTER_ADDRESS.rpartition(".")[0], self._router
        return {
            "ssid": SSID,
            "bssid": "a4:2b:b1:00:00:01",
            "channel": 11,
            "rssi_dbm": -48,
            "security": "wpa2-psk",
            "key": self._key,
            "network": {
                "address": f"{network}.{20 + number}",
                "netmask": "255.255.255.0",
                "gateway": _ROUTER_ADDRESS,
                "resolver": _ROUTER_ADDRESS,
                "routes": [
                    route("icmp", _ROUTER_ADDRESS, 0, router.icmp_port),
                    route("udp", _ROUTER_ADDRESS, 53, router.resolver_port),
                    route("tcp", _BROKER_ADDRESS, _BROKER_PORT, self.port),
                    route("udp", TIME_ADDRESS, 123, self._internet.ntp_port) | {"line": True},
                ],
            },
        }


def route(protocol: str, address: str, port: int, to: int) -> dict[str, Any]:
    """Return how packets to an address that boards see reach a port on loopback."""
    return {"protocol": protocol, "address": address, "port": port, "to": f"{LOOPBACK}:{to}"}


def free_port() -> int:
    """Return a TCP port on loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
