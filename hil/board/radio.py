"""What is in the air around a board: access points, and the network behind each.

The model is JSON, given to a board with `--radio FILE` and changed by its control socket:

    {"access_points": [
      {"ssid": "school-north", "bssid": "a4:2b:b0:00:00:01", "channel": 6, "rssi_dbm": -58,
       "security": "wpa2-psk", "key": "correct horse", "up": true,
       "network": {
         "address": "10.1.0.23", "netmask": "255.255.255.0", "gateway": "10.1.0.1",
         "resolver": "10.1.0.1", "dhcp": true, "line_up": true,
         "routes": [
           {"protocol": "icmp", "address": "10.1.0.1", "to": "127.0.0.1:40001"},
           {"protocol": "udp", "address": "10.1.0.1", "port": 53, "to": "127.0.0.1:40002"},
           {"protocol": "tcp", "address": "203.0.113.80", "port": 80, "to": "127.0.0.1:40003",
            "line": true}]}}]}

A route leads an address that the board sees to a port on loopback; `line` says that it goes
over the site's internet line and ends where that is cut. Without `network`, a board can
associate but gets no address.

A board with interfaces of its own (`--interface wl0`) reaches the network through one of them:
then `network` has one key, "interface": "wl0", and addresses come from that network itself.

What an access point may do to a board: "full": true (no room for another station),
"handshake": false (the four-way handshake gets no answer).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hil.board.error import RadioError

OPEN, WPA2, WPA3, ENTERPRISE = "open", "wpa2-psk", "wpa3-sae", "wpa2-enterprise"
UDP, TCP, ICMP = "udp", "tcp", "icmp"
SENSITIVITY_DBM = -97  # of an ESP32 at 1 Mbit/s: what is weaker is not heard at all

_Built = TypeVar("_Built")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def _checked(check: Callable[[Any, str], Any], **options: Any) -> Any:
    return field(metadata={"check": check}, **options)


def _text(shortest: int, longest: int) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not shortest <= len(value.encode()) <= longest:
            raise RadioError(f"{where} must be text of {shortest} to {longest} bytes")
        return value

    return check


def _number(lowest: int, highest: int) -> Callable[[Any, str], int]:
    def check(value: Any, where: str) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise RadioError(f"{where} must be a whole number from {lowest} to {highest}")
        return value

    return check


def _one_of(*choices: str) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        if value not in choices:
            raise RadioError(f"{where} must be one of {', '.join(choices)}")
        return str(value)

    return check


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RadioError(f"{where} must be true or false")
    return value


def _mac(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _MAC.fullmatch(value.lower()):
        raise RadioError(f"{where} must look like a4:2b:b0:00:00:01")
    return value.lower()


def _address(value: Any, where: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as error:
        raise RadioError(f"{where} must be an IPv4 address") from error


def _endpoint(value: Any, where: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not (port.isdigit() and 0 < int(port) < 65536) or not host.startswith("127."):
        raise RadioError(f"{where} must be a port on loopback, such as 127.0.0.1:40001")
    return _address(host, where), int(port)


@dataclass(frozen=True)
class Route:
    """Where an address that the board sees leads to."""

    protocol: str = _checked(_one_of(UDP, TCP, ICMP))
    address: str = _checked(_address)
    to: tuple[str, int] = _checked(_endpoint)
    port: int = _checked(_number(0, 65535), default=0)
    line: bool = _checked(_flag, default=False)

    def __post_init__(self) -> None:
        if (self.protocol == ICMP) != (self.port == 0):
            raise RadioError(f"a {self.protocol} route to {self.address}: port is for udp and tcp")


def _routes(value: Any, where: str) -> tuple[Route, ...]:
    return tuple(
        _build(Route, item, f"{where}[{at}]") for at, item in enumerate(_list(value, where))
    )


@dataclass(frozen=True)
class Network:
    """What a board gets behind an access point."""

    address: str = _checked(_address)
    netmask: str = _checked(_address)
    gateway: str = _checked(_address)
    resolver: str = _checked(_address)
    dhcp: bool = _checked(_flag, default=True)
    line_up: bool = _checked(_flag, default=True)
    routes: tuple[Route, ...] = _checked(_routes, default=())

    def route(self, protocol: str, address: str, port: int = 0) -> Route | None:
        """Return the route for a packet, if there is one."""
        for route in self.routes:
            if (route.protocol, route.address, route.port) == (protocol, address, port):
                return route
        return None

    def is_open(self, route: Route) -> bool:
        """Tell whether packets come through."""
        return self.line_up or not route.line

    def knows(self, address: str) -> bool:
        """Tell whether a host is there and can be reached."""
        return any(r.address == address and self.is_open(r) for r in self.routes)


@dataclass(frozen=True)
class Wire:
    """The interface that leads to the network behind an access point."""

    interface: str = _checked(_text(1, 15))


Behind = Network | Wire


def _network(value: Any, where: str) -> Behind | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and "interface" in value:
        return _build(Wire, value, where)
    return _build(Network, value, where)


@dataclass(frozen=True)
class AccessPoint:
    """One BSSID."""

    ssid: str = _checked(_text(1, 32))
    bssid: str = _checked(_mac)
    channel: int = _checked(_number(1, 14))
    rssi_dbm: int = _checked(_number(-127, 0))
    security: str = _checked(_one_of(OPEN, WPA2, WPA3, ENTERPRISE), default=OPEN)
    key: str = _checked(_text(0, 64), default="")
    up: bool = _checked(_flag, default=True)
    hidden: bool = _checked(_flag, default=False)
    full: bool = _checked(_flag, default=False)
    handshake: bool = _checked(_flag, default=True)
    network: Behind | None = _checked(_network, default=None)  # noqa: RUF009 - it is a field()

    def __post_init__(self) -> None:
        if self.security in (WPA2, WPA3) and len(self.key) < 8:
            raise RadioError(f"access point {self.ssid}: {self.security} needs a key of 8 to 64")

    @property
    def is_heard(self) -> bool:
        """Whether it sends, and loud enough."""
        return self.up and self.rssi_dbm >= SENSITIVITY_DBM


class Radio:
    """The model, as one board's antenna meets it.

    Args:
        interfaces: the board's own; without any its networks are relays on loopback.
    Raises: RadioError: always with what is wrong where.
    """

    def __init__(self, document: Any = None, interfaces: tuple[str, ...] = ()) -> None:
        self._interfaces = interfaces
        self._document: dict[str, Any] = {"access_points": []}
        self.access_points: tuple[AccessPoint, ...] = ()
        self.set({"access_points": []} if document is None else document)

    @classmethod
    def load(cls, path: Path, interfaces: tuple[str, ...] = ()) -> Radio:
        """Read a model from a file."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")), interfaces)
        except OSError as error:
            raise RadioError(f"radio model {path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RadioError(f"radio model {path} is not JSON: {error}") from error
        except RadioError as error:
            raise RadioError(f"radio model {path}: {error.message}", hint=error.hint) from error

    def document(self) -> dict[str, Any]:
        """Return the model as JSON has it."""
        return self._document

    def set(self, document: Any) -> None:
        """Replace the model; a wrong one changes nothing."""
        if not isinstance(document, Mapping) or set(document) != {"access_points"}:
            raise RadioError('a radio model is an object with one key, "access_points"')
        items = _list(document["access_points"], "access_points")
        built = tuple(
            _build(AccessPoint, item, f"access_points[{at}]") for at, item in enumerate(items)
        )
        bssids = [point.bssid for point in built]
        twice = next((bssid for bssid in bssids if bssids.count(bssid) > 1), None)
        if twice:
            raise RadioError(f"access_points: the BSSID {twice} is there twice")
        for point in built:
            self._check_reach(point)
        self._document, self.access_points = {"access_points": items}, built

    def _check_reach(self, point: AccessPoint) -> None:
        """See that the board can reach what is behind an access point."""
        behind, known = point.network, ", ".join(self._interfaces)
        if isinstance(behind, Wire) and behind.interface not in self._interfaces:
            raise RadioError(
                f"access point {point.ssid}: the board has no interface {behind.interface}; "
                f"it has: {known or 'none'}",
                hint=f"start it with --interface {behind.interface}",
            )
        if isinstance(behind, Network) and self._interfaces:
            raise RadioError(
                f"access point {point.ssid}: a board with interfaces reaches its networks through "
                f'them: "network": {{"interface": …}}; it has: {known}'
            )

    def change(self, ssid: str, change: Any, bssid: str | None = None) -> int:
        """Change all access points of a name, or one BSSID of it; return how many.

        `change` holds the keys to set; in `network`, too, keys that are absent stay.
        """
        if not isinstance(change, Mapping):
            raise RadioError("change must be an object with keys of an access point")
        items, changed = [], 0
        for item, point in zip(self._document["access_points"], self.access_points, strict=True):
            if point.ssid == ssid and bssid in (None, point.bssid):
                items.append(_merge(item, change))
                changed += 1
            else:
                items.append(item)
        if not changed:
            known = ", ".join(sorted({point.ssid for point in self.access_points})) or "none"
            raise RadioError(f"no access point {ssid} {bssid or ''}; there are: {known}")
        self.set({"access_points": items})
        return changed

    def find(self, bssid: str) -> AccessPoint | None:
        """Return the access point with a BSSID, whether it is up or not."""
        return next((point for point in self.access_points if point.bssid == bssid), None)

    def in_air(self) -> list[AccessPoint]:
        """Return the access points that are heard, strongest first."""
        return sorted((p for p in self.access_points if p.is_heard), key=lambda p: -p.rssi_dbm)


def _merge(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old) | dict(change)
    before, after = old.get("network"), change.get("network")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        merged["network"] = dict(before) | dict(after)
    return merged


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RadioError(f"{where} must be a list")
    return value


def _build(kind: type[_Built], document: Any, where: str) -> _Built:
    """Make a dataclass of a JSON object, checking every key."""
    if not isinstance(document, Mapping):
        raise RadioError(f"{where} must be an object")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for key in document:
        if key not in known:
            raise RadioError(f"{where} has no key {key!r}; it has: {', '.join(known)}")
    values = {}
    for name, item in known.items():
        if name in document:
            values[name] = item.metadata["check"](document[name], f"{where}.{name}")
        elif item.default is MISSING:
            raise RadioError(f"{where} lacks the key {name!r}")
    return kind(**values)
