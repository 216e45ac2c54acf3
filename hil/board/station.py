"""The board's WLAN station: scan, association, address, as the ESP32's driver has them.

States and codes follow MicroPython's ports/esp32/network_wlan.c: after a failure the driver
tries again for ever, or as often as config(reconnects=n) says; only then does status() show
the reason: ESP-IDF's own (200 and more) or the one of IEEE 802.11 that the access point gave.
Once there was an address the driver says "connected" until the association ends, even when the
lease is lost meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hil.board import dhcp, task
from hil.board.antenna import NO_ADDRESSES, Addresses, Antenna
from hil.board.interface import checked
from hil.board.radio import ENTERPRISE, OPEN, WPA2, WPA3, AccessPoint, Network, Radio
from hil.board.run import Request, RequestError

IDLE, CONNECTING, GOT_IP = 1000, 1001, 1010
BEACON_TIMEOUT, NO_AP_FOUND, WRONG_PASSWORD = 200, 201, 202
TOO_MANY_STATIONS, ASSOC_LEAVE, HANDSHAKE_TIMEOUT = 5, 8, 15  # reasons of IEEE 802.11

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
    handshake_s: float = 4.0  # the four-way handshake, when it gets no answer
    lease_s: float = 0.6  # from a network that is only a model
    beacon_timeout_s: float = 6.0
    dhcp: dhcp.Timing = field(default_factory=dhcp.Timing)


REAL = Delays()
INSTANT = Delays(
    scan_s=0.01,
    search_s=0.005,
    search_in_vain_s=0.03,
    association_s=0.005,
    refusal_s=0.01,
    handshake_s=0.02,
    lease_s=0.005,
    beacon_timeout_s=0.05,
    dhcp=dhcp.Timing(retry_s=0.5, longest_s=4.0, probe_s=0.1, back_off_s=1.0),
)


@dataclass(frozen=True)
class _Target:
    ssid: str
    key: str
    bssid: str | None


class Station:
    """One board's station interface, with the antenna behind it.

    The antenna is told whenever what comes through changes: the station decides whether there is
    an association, the antenna carries packets and knows how an address is leased.
    """

    def __init__(self, radio: Radio, antenna: Antenna, mac: bytes, delays: Delays = REAL) -> None:
        self.radio = radio
        self._mac = mac
        self._delays = delays
        self._antenna = antenna
        self._changed = asyncio.Event()
        self._services: dict[str, Callable[[Request], Any]] = {
            "wlan-active": self._activate,
            "wlan-scan-start": self._scan_duration_ms,
            "wlan-scan": self._scan,
            "wlan-connect": self._connect,
            "wlan-disconnect": self._disconnect,
            "wlan-status": lambda _: self.status,
            "wlan-rssi": self._rssi,
            "wlan-address": lambda _: list(self.addresses),
            "wlan-dhcp": lambda _: self._static is None and self._associated() is not None,
            "wlan-set-address": self._set_address,
            "wlan-config": self._config,
            "is-wired": lambda _: self._antenna.is_wired,
            "route": self._route,
            "route-icmp": self._route_icmp,
            "ntp": self._ntp,
        }
        self._task: asyncio.Task[None] | None = None
        self._lease: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._is_active = False
        self._target: _Target | None = None
        self._tries_allowed = 0  # 0: for ever
        self._tries = 0
        self._reason = 0
        self._point: str | None = None  # BSSID of the association
        self._kicked = 0  # the reason that the access point gave
        self._has_had_address = False  # under this association
        self._addresses: Addresses | None = None
        self._static: Addresses | None = None
        self._settings: dict[str, Any] = {}

    @property
    def status(self) -> int:
        """What WLAN.status() returns."""
        if self._has_had_address:
            return GOT_IP
        allowed = self._tries_allowed
        if self._target is not None and (not allowed or self._tries < allowed):
            return CONNECTING
        return self._reason or IDLE

    @property
    def addresses(self) -> Addresses:
        """What ifconfig() shows."""
        return self._addresses or NO_ADDRESSES

    def state(self) -> dict[str, Any]:
        """Describe the station for the control socket."""
        return {
            "active": self._is_active,
            "status": self.status,
            "bssid": self._point,
            "address": self._addresses[0] if self._addresses else None,
            "reason": self._reason,
        }

    def off(self) -> None:
        """Lose the power: everything is forgotten, peers learn nothing."""
        self._antenna.power_off()
        self._stop_joining()
        self._forget()

    def close(self) -> None:
        """Take the antenna down."""
        self.off()
        self._antenna.close()

    def refresh(self) -> None:
        """Take notice that the model changed."""
        self._update_link()
        self._changed.set()

    def kick(self, ssid: str, bssid: str | None, reason: int) -> bool:
        """Let the access point end the association; tell whether there was one."""
        point = self._associated()
        if point is None or point.ssid != ssid or bssid not in (None, point.bssid):
            return False
        self._kicked = reason
        self._changed.set()
        return True

    def serve(self, operation: str, request: Request) -> Any:
        """Answer a shim."""
        if operation not in self._services:
            raise RequestError(f"the virtual board knows no {operation}")
        return self._services[operation](request)

    # The driver

    def _associated(self) -> AccessPoint | None:
        """Return the access point that the station is with, if that one is still heard."""
        point = self.radio.find(self._point) if self._point else None
        return point if point is not None and point.is_heard else None

    def _network(self) -> Network | None:
        """Return the modelled network that packets reach now."""
        point = self._associated()
        behind = point.network if point is not None and self._addresses is not None else None
        return behind if isinstance(behind, Network) else None

    def _update_link(self) -> None:
        point = self._associated()
        self._antenna.update(point.network if point else None, self._addresses)

    async def _join(self, target: _Target) -> None:
        """Try to be connected until told otherwise."""
        while True:
            self._reason = await self._attempt(target)
            self._leave()
            self._tries += 1
            if self._tries_allowed and self._tries >= self._tries_allowed:
                return

    def _leave(self) -> None:
        """Have no association any more."""
        self._stop_lease()
        self._point = self._addresses = None
        self._has_had_address = False
        self._kicked = 0
        self._update_link()

    async def _attempt(self, target: _Target) -> int:
        """Associate and stay until it ends; return the reason for the end."""
        await asyncio.sleep(self._delays.search_s)
        point = self._choose(target)
        if point is None:
            await asyncio.sleep(self._delays.search_in_vain_s)
            return NO_AP_FOUND
        if point.full:
            await asyncio.sleep(self._delays.refusal_s)
            return TOO_MANY_STATIONS
        if point.security != OPEN and not point.handshake:
            await asyncio.sleep(self._delays.handshake_s)
            return HANDSHAKE_TIMEOUT
        if point.security != OPEN and point.key != target.key:
            await asyncio.sleep(self._delays.refusal_s)
            return WRONG_PASSWORD
        await asyncio.sleep(self._delays.association_s)
        self._point = point.bssid
        self._update_link()
        while not self._kicked:
            self._changed.clear()
            if self._associated() is None:
                await self._wait(self._delays.beacon_timeout_s)
                if self._associated() is None:
                    return BEACON_TIMEOUT
            else:
                self._seek_addresses()
                await self._changed.wait()
        return self._kicked

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

    def _seek_addresses(self) -> None:
        """Get an address, if that is not under way; as static as it was set to be."""
        point = self._associated()
        if self._addresses is not None or point is None:
            return
        if self._static is not None:
            self._take(self._static)
        elif point.network is not None and (self._lease is None or self._lease.done()):
            self._lease = task.start(self._antenna.lease(point.network, self._take), "lease")

    def _take(self, addresses: Addresses | None) -> None:
        self._addresses = addresses
        if addresses is not None:
            self._has_had_address = True
            self._reason = self._tries = 0
        self._update_link()

    def _stop_lease(self) -> None:
        if self._lease is not None:
            self._lease.cancel()
            self._lease = None

    def _stop_joining(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._target = None
        self._leave()

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
        if config != "dhcp":
            self._static = checked(config)
            self._stop_lease()
            if self._associated() is not None:
                self._take(self._static)
        elif self._static is not None:
            self._static = None
            self._take(None)
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
