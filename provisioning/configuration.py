"""A board's config.json: what the inventory says, put into the board's own words.

What the board's own defaults say already is left out. The WLANs' keys stand beside the
inventory, in secrets/wlan.toml:

    [key]
    school = "the key of [wlan.school]"
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import firmware
from fleet.errors import READABLE, ConfigurationError, UsageError
from fleet.inventory import INVENTORY_FILE, Inventory, Portal, Role, Service, Site, Wlan
from fleet.text import printable
from provisioning.errors import ImageError, WlanKeyError

VERSION = 1
WLAN_FILE = "wlan.toml"

_JOINABLE = ("open", "wpa2-psk", "wpa3-sae")
# IEEE 802.11: a passphrase of 8 to 63 printable ASCII characters.
_WLAN_KEY = re.compile(r"[ -~]{8,63}")
_AGENT_CHECK = Path(firmware.__file__).parent / "agent" / "config.py"


@dataclass(frozen=True)
class Recipient:
    """The board that a configuration is for, and what of it the inventory does not hold.

    Attributes:
        wlan_keys: by the WLAN's id, as the function of that name returns them.
        hash_key: hides which foreign access points the board hears.
        hardware: what hangs on it, None for nothing.
    """

    board: str
    key_id: int
    site: str
    role: Role
    wlan_keys: Mapping[str, str] = field(repr=False)
    hash_key: bytes = field(repr=False)
    hardware: str | None = None


def configuration(inventory: Inventory, to: Recipient) -> dict[str, Any]:
    """Return what one board must know, as the agent reads it."""
    place = inventory.site(to.site)
    gateway = inventory.gateway(place.gateway)
    measurement = inventory.measurement
    wlan, *watch = [
        network(inventory.wlans[each], to.wlan_keys[each], place.bssids.get(each))
        for each in _joined(place, to.role)
    ]
    content: dict[str, Any] = {
        "version": VERSION,
        "board": to.board,
        "key_id": to.key_id,
        "role": to.role,
        "period_s": measurement.period_s,
        "wlan": wlan,
        "uplink": {
            "host": gateway.broker_host,
            "port": gateway.broker_port,
            "server_name": place.gateway,
        },
        "resolver": measurement.resolver.model_dump(exclude_defaults=True),
        "internet": measurement.internet.model_dump(),
        "ntp": measurement.ntp,
        "thresholds": measurement.thresholds.model_dump(),
        "hash_key": to.hash_key.hex(),
    }
    optional: dict[str, Any] = {
        "watch": watch,
        "dhcp_servers": place.dhcp_servers,
        "targets": [each.model_dump() for each in measurement.target],
        "services": [_with_port(each) for each in inventory.services(to.site)],
        "throughput": measurement.throughput and measurement.throughput.model_dump(),
        "deadline_ms": dict(measurement.deadline_ms),
        **inventory.hardware_of(to.hardware).model_dump(exclude_none=True),
    }
    return content | {k: v for k, v in optional.items() if v not in (None, [], {})}


def _joined(place: Site, role: Role) -> list[str]:
    """Return the WLANs that a board at a site joins, the measured one first."""
    return [place.wlan, *(place.watch if role == "ap-monitor" else [])]


def network(wlan: Wlan, key: str, bssids: list[str] | None = None) -> dict[str, Any]:
    """Return what a board must know of a WLAN; `bssids` are a site's own, instead of all."""
    content: dict[str, Any] = {
        "ssid": wlan.ssid,
        "key": key,
        "security": wlan.security,
        "bssids": wlan.bssids if bssids is None else bssids,
    }
    return content | ({"portal": _with_port(wlan.portal)} if wlan.portal else {})


def _with_port(target: Portal | Service) -> dict[str, Any]:
    return target.model_dump() | {"port": target.port or (443 if target.tls else 80)}


def encoded(inventory: Inventory, to: Recipient) -> bytes:
    """Return config.json, checked by the code that will read it.

    Raises: ConfigurationError: the board would refuse it.
    """
    content = encode(configuration(inventory, to))
    check(content)
    return content


def encode(content: dict[str, Any]) -> bytes:
    """Return config.json: the same content gives the same bytes."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def check(content: bytes) -> None:
    """Ask the code that goes onto the board whether the board will accept this config.json.

    Raises: ConfigurationError: it will not; with its reason.
    """
    agent = _agent_check()
    try:
        agent.parse(content)
    except agent.ConfigError as refusal:
        raise ConfigurationError(
            f"the board would refuse its configuration: {printable(str(refusal))}",
            hint=f"mend it in {INVENTORY_FILE}",
        ) from None


@functools.cache
def _agent_check() -> ModuleType:
    # Loaded as a file, as it is flashed: the agent is cargo here, not a library.
    spec = importlib.util.spec_from_file_location("netzpuls_agent_config", _AGENT_CHECK)
    if spec is None or spec.loader is None:
        raise ImageError(f"cannot read the agent's {_AGENT_CHECK}", hint="install Netzpuls again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wlan_keys(inventory: Inventory, site: str, role: Role) -> dict[str, str]:
    """Return the keys of the WLANs that a board at a site joins, by id; "" for an open one.

    Raises: as `keys`.
    """
    return keys(inventory, _joined(inventory.site(site), role), f"site {site!r}")


def keys(inventory: Inventory, wlan_ids: Iterable[str], whose: str) -> dict[str, str]:
    """Return the keys of WLANs that boards join, by id; "" for an open one.

    Raises:
        UsageError: boards cannot join one of them.
        WlanKeyError: a key is not there, or cannot be one.
    """
    found = {}
    for wlan_id in wlan_ids:
        wlan = inventory.wlans[wlan_id]
        if wlan.security not in _JOINABLE:
            raise UsageError(
                f"boards cannot join the WLAN {wlan_id!r} of {whose}: {wlan.security}",
                hint="MicroPython on the ESP32 has no 802.1X; name a WLAN with a shared key",
            )
        found[wlan_id] = "" if wlan.security == "open" else _shared_key(inventory, wlan_id, wlan)
    return found


def _shared_key(inventory: Inventory, wlan_id: str, wlan: Wlan) -> str:
    path = inventory.secrets / WLAN_FILE
    line = f'{wlan_id} = "the key of {wlan.ssid}"'
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8")).get("key", {})
    except FileNotFoundError:
        raise WlanKeyError(
            f"no key for the WLAN {wlan_id!r}: there is no {path}",
            hint=f"make that file (mode 600) with the lines: [key] and: {line}",
        ) from None
    except OSError as error:
        raise WlanKeyError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except ValueError:
        # What the parser says could quote the file.
        raise WlanKeyError(
            f"{path} is not valid TOML", hint=f"it should hold: [key] and lines like: {line}"
        ) from None
    key = known.get(wlan_id) if isinstance(known, dict) else None
    if key is None:
        raise WlanKeyError(
            f"no key for the WLAN {wlan_id!r} in {path}", hint=f"add below [key]: {line}"
        )
    if not isinstance(key, str) or not _WLAN_KEY.fullmatch(key):
        raise WlanKeyError(
            f"the key of the WLAN {wlan_id!r} in {path} cannot be one",
            hint="8 to 63 printable ASCII characters, in quotes",
        )
    return key
