"""The board's WLAN station: scan, association, address, as the ESP32's driver has them.

States and codes follow MicroPython's ports/esp32/network_wlan.c: after a failure the driver
tries again for ever, or as often as config(reconnects=n) says; only then does status() show
the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hil.board import task
from hil.board.antenna import Antenna
from hil.board.radio import ENTERPRISE, OPEN, WPA2, WPA3, AccessPoint, Network, Radio
from hil.board.run import Request, RequestError

IDLE, CONNECTING, GOT_IP = 1000, 1001, 1010
BEACON_TIMEOUT, NO_AP_FOUND, WRONG_PASSWORD, ASSOC_LEAVE = 200, 201, 202, 8

_NO_ADDRESS = ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0")  # noqa: S104 - what ifconfig() shows
_SECURITY = {OPEN: 0, WPA2: 3, ENTERPRISE: 5, WPA3: 6}
_SETTINGS = {"protocol": 7, "pm": 1, "txpower": 20}


@dataclass(frozen=True)
class Delays:
    """How long things take in the air, in seconds."""

    scan_s: float = 2.2
    search_s: float = 0.4  # a known network, found
    search_in_vain_s: float = 2.4
    association_s: float = 0.3
    refusal_s: float = 1.0
    lease_s: float = 0.6
    beacon_timeout_s: float = 6.0


REAL = Delays()
INSTANT = Delays(0.01, 0.005, 0.03, 0.005, 0.01, 0.005, 0.05)


@dataclass(frozen=True)
class _Target:
    ssid: str
    key: str
    bssid: str | None


class Station:
    """One board's station interface, with the antenna behind it."""

    def __init__(self, radio: Radio, mac: bytes, delays: Delays = REAL) -> None:
        self.radio = radio
        self._mac = mac
        self._delays = delays
        self._antenna = Antenna()
        self._changed = asyncio.Event()
        self._services: dict[str, Callable[[Request], Any]] = {
            "wlan-active": self._activate,
            "wlan-scan-start": self._scan_duration_ms,
            "wlan-scan": self._scan,
            "wlan-connect": self._connect,
            "wlan-disconnect": self._disconnect,
            "wlan-status": lambda _: self.status,
            "wlan-rssi": self._rssi,
            "wlan-address": lambda _: list(self._address or _NO_ADDRESS),
            "wlan-dhcp": lambda _: self._static is None,
            "wlan-set-address": self._set_address,
            "wlan-config": self._config,
            "route": self._route,
            "route-icmp": self._route_icmp,
            "ntp": self._ntp,
        }
        self._task: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._is_active = False
        self._target: _Target | None = None
        self._tries_allowed = 0  # 0: for ever
        self._tries = 0
        self._reason = 0
        self._point: str | None = None  # BSSID of the association
        self._address: tuple[str, str, str, str] | None = None
        self._static: tuple[str, str, str, str] | None = None
        self._settings: dict[str, Any] = {}

    @property
    def status(self) -> int:
        """What WLAN.status() returns."""
        if self._address is not None:
            return GOT_IP
        allowed = self._tries_allowed
        if self._target is not None and (not allowed or self._tries < allowed):
            return CONNECTING
        return self._reason or IDLE

    def state(self) -> dict[str, Any]:
        """Describe the station for the control socket."""
        return {
            "active": self._is_active,
            "status": self.status,
            "bssid": self._point,
            "address": self._address[0] if self._address else None,
            "reason": self._reason,
        }

    def off(self) -> None:
        """Lose the power: everything is forgotten, peers learn nothing."""
        self._stop_joining()
        self._antenna.power_off()
        self._forget()

    def close(self) -> None:
        """Take the antenna down."""
        self.off()
        self._antenna.close()

    def refresh(self) -> None:
        """Take notice that the model changed."""
        self._update_link()
        self._changed.set()

    def serve(self, operation: str, request: Request) -> Any:
        """Answer a shim."""
        if operation not in self._services:
            raise RequestError(f"the virtual board knows no {operation}")
        return self._services[operation](request)

    # The driver

    def _associated(self) -> AccessPoint | None:
        """Return the access point that the station is with, if that one still sends."""
        point = self.radio.find(self._point) if self._point else None
        return point if point is not None and point.up else None

    def _network(self) -> Network | None:
        """Return the network that packets reach now."""
        point = self._associated()
        return point.network if point is not None and self._address is not None else None

    def _update_link(self) -> None:
        self._antenna.update(self._network(), self._address[0] if self._address else None)

    async def _join(self, target: _Target) -> None:
        """Try to be connected until told otherwise."""
        while True:
            self._reason = await self._attempt(target)
            self._point = self._address = None
            self._update_link()
            self._tries += 1
            if self._tries_allowed and self._tries >= self._tries_allowed:
                return

    async def _attempt(self, target: _Target) -> int:
        """Associate and stay until it ends; return the reason for the end."""
        await asyncio.sleep(self._delays.search_s)
        point = self._choose(target)
        if point is None:
            await asyncio.sleep(self._delays.search_in_vain_s)
            return NO_AP_FOUND
        if point.security != OPEN and point.key != target.key:
            await asyncio.sleep(self._delays.refusal_s)
            return WRONG_PASSWORD
        await asyncio.sleep(self._delays.association_s)
        self._point = point.bssid
        while True:
            self._changed.clear()
            now = self._associated()
            if now is None:
                await self._wait(self._delays.beacon_timeout_s)
                if self._associated() is None:
                    return BEACON_TIMEOUT
            elif self._address is None and (self._static or (now.network and now.network.dhcp)):
                await asyncio.sleep(self._delays.lease_s)
                self._take_address()
            else:
                await self._changed.wait()

    async def _wait(self, duration_s: float) -> None:
        """Wait for a time, or until an access point that was gone is there again."""
        deadline = asyncio.get_running_loop().time() + duration_s
        while self._associated() is None:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                return

    def _choose(self, target: _Target) -> AccessPoint | None:
        for point in self.radio.in_air():
            if point.ssid != target.ssid or target.bssid not in (None, point.bssid):
                continue
            # With a key the driver looks for a protected network, without one for an open one;
            # stock MicroPython has no 802.1X.
            if (point.security == OPEN) == (not target.key) and point.security != ENTERPRISE:
                return point
        return None

    def _take_address(self) -> None:
        point = self._associated()
        if point is None:
            return
        network = point.network
        if self._static:
            self._address = self._static
        elif network is not None and network.dhcp:
            self._address = (network.address, network.netmask, network.gateway, network.resolver)
        if self._address is not None:
            self._reason = 0
            self._tries = 0
            self._update_link()

    def _stop_joining(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._target = self._point = self._address = None
        self._update_link()

    # What the shims ask for

    def _activate(self, request: Request) -> bool:
        if request["on"] is not None:
            if not request["on"]:
                self._stop_joining()
            self._is_active = bool(request["on"])
        return self._is_active

    def _require_active(self) -> None:
        if not self._is_active:
            raise RequestError("Wifi Not Started")

    @property
    def _is_connecting(self) -> bool:
        return self._task is not None and not self._task.done() and self._point is None

    def _scan_duration_ms(self, _request: Request) -> int:
        return 0 if self._is_connecting else int(self._delays.scan_s * 1000)

    def _scan(self, _request: Request) -> list[list[Any]]:
        if not self._is_active:
            raise RequestError("STA must be active")
        if self._is_connecting:
            return []  # ESP_ERR_WIFI_STATE, which the port takes for nothing found
        return [
            [
                "" if point.hidden else point.ssid,
                point.bssid.replace(":", ""),
                point.channel,
                point.rssi_dbm,
                _SECURITY[point.security],
                point.hidden,
            ]
            for point in self.radio.in_air()
        ]

    def _connect(self, request: Request) -> None:
        self._require_active()
        bssid = request["bssid"]
        if request["ssid"] is None:
            target = self._target
        else:
            where = ":".join(bssid[at : at + 2] for at in range(0, 12, 2)) if bssid else None
            target = _Target(request["ssid"], request["key"] or "", where)
        if target is None:
            raise RequestError("Wifi SSID Invalid")
        if self._is_connecting:
            raise RequestError("Wifi Internal State Error")  # it is connecting: disconnect first
        self._stop_joining()
        self._target = target
        self._tries = self._reason = 0
        self._task = task.start(self._join(target), "station")

    def _disconnect(self, _request: Request) -> None:
        self._require_active()
        was_connected = self._point is not None
        self._stop_joining()
        if was_connected:
            self._reason = ASSOC_LEAVE

    def _rssi(self, _request: Request) -> int:
        point = self._associated()
        if point is None:
            raise RequestError("Wifi Not Connected")
        return point.rssi_dbm

    def _set_address(self, request: Request) -> None:
        config = request["config"]
        if config == "dhcp":
            self._static = None
            return
        address, netmask, gateway, resolver = (str(part) for part in config)
        self._static = (address, netmask, gateway, resolver)
        if self._address is not None:
            self._address = self._static
            self._update_link()
        self._changed.set()

    def _config(self, request: Request) -> Any:
        if "set" in request:
            name, value = request["set"], request["to"]
            if name == "reconnects":
                self._tries_allowed = 0 if value == -1 else int(value) + 1
            elif name in _SETTINGS or name in ("hostname", "dhcp_hostname", "channel"):
                self._settings[name] = value
            elif name == "mac":
                self._mac = bytes.fromhex(value)
            else:
                raise ValueError("unknown config param")
            return None
        name = request["get"]
        if name == "mac":
            return self._mac.hex()
        if name in ("ssid", "essid"):
            return self._target.ssid if self._target else ""
        if name == "channel":
            point = self._associated()
            return point.channel if point else self._settings.get("channel", 1)
        if name == "reconnects":
            return self._tries_allowed - 1
        if name in ("hostname", "dhcp_hostname"):
            return self._settings.get(name, "mpy-esp32")
        if name in _SETTINGS:
            return self._settings.get(name, _SETTINGS[name])
        raise ValueError("unknown config param")

    def _route(self, request: Request) -> tuple[str, int]:
        return self._antenna.endpoint(request["address"], int(request["port"]))

    def _route_icmp(self, request: Request) -> tuple[str, int]:
        return self._antenna.icmp_endpoint(request["address"])

    def _ntp(self, request: Request) -> Request:
        network = self._network()
        if network is None:
            return {"waits": False}
        # Names and unknown addresses lie behind the internet line.
        own = [route for route in network.routes if route.address == request["host"]]
        if any(map(network.is_open, own)) if own else network.line_up:
            return {"us": time.time_ns() // 1000}
        return {"waits": True}
