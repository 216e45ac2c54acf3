"""What a report tells beyond its core: extension blocks as named values with units.

    decode(report.extensions)
    {"lease": {"duration_s": 3600, "server": "10.1.0.1", "servers": 1, "lease_ms": 41},
     "service": [{"reason": "ok", "service_ms": 88, "http_status": 200, "certificate_days": 41}],
     "unknown": [{"kind": 77, "content": "0102"}],
     "malformed": [{"kind": 8, "content": "00", "error": "1 bytes where path has 13"}]}

None stands for what was not measured. Whatever the bytes are, there is an answer: what cannot be
understood is kept as hex under `unknown` or `malformed`.

Source: docs/wire.md; tests/golden/block-v1.json is the contract.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from firmware.linkreport import block, term
from firmware.linkreport import report as wire
from fleet.text import printable

# How an access point protects itself, as `firmware/port` numbers it.
SECURITIES = ("open", "personal", "enterprise")

_RCODES = {
    0: "ok",
    1: "format-error",
    2: "server-failure",
    3: "name-not-found",
    4: "not-implemented",
    5: "refused",
    254: "wrong-address",
    255: "nothing",
}


def _name_of(names: tuple[str, ...], kind: str) -> Callable[[int], str]:
    return lambda number: names[number] if number < len(names) else f"{kind}-{number}"


def _rcode(number: int) -> str:
    return _RCODES.get(number) or f"rcode-{number}"


def _colons(raw: bytes) -> str | None:
    return raw.hex(":") if any(raw) else None


def _address(raw: bytes) -> str | None:
    return str(IPv4Address(raw)) if any(raw) else None


def _nibbles(raw: bytes) -> list[int]:
    return [half for byte in raw for half in (byte >> 4, byte & 15)]


def _sensors(bits: int) -> list[str]:
    name = _name_of(block.SENSORS, "sensor")
    return [name(number) for number in range(8) if bits >> number & 1]


def _hundredth(number: int) -> float:
    return number / 100


def _tenth(number: int) -> float:
    return number / 10


_reason = term.reason_name
_yes = bool
_Show = Callable[[Any], Any]


@dataclass(frozen=True)
class Kind:
    """How one kind of block is read.

    Attributes:
        number, name: of the block.
        format: of its structure; empty for a text.
        fields: their names in order; a second item turns the number or bytes into what is shown.
        many: whether the content is a list of such structures.
    """

    number: int
    name: str
    format: str
    fields: tuple[tuple[str, _Show | None], ...]
    many: bool = False


KINDS = (
    Kind(block.ERROR, "error", "", (("text", None),)),
    Kind(block.AGENT, "agent", "", (("text", None),)),
    Kind(
        block.AIR,
        "air",
        block.AIR_FORMAT,
        (
            ("own_access_points", None),
            ("foreign_networks", None),
            ("foreign_on_channel", None),
            ("strongest_foreign_dbm", None),
            ("foreign_by_channel", _nibbles),
        ),
    ),
    Kind(
        block.OWN,
        "own",
        block.OWN_FORMAT,
        (
            ("bssid", _colons),
            ("rssi_dbm", None),
            ("channel", None),
            ("security", _name_of(SECURITIES, "security")),
        ),
        many=True,
    ),
    Kind(
        block.FOREIGN,
        "foreign",
        block.FOREIGN_FORMAT,
        (("hash", bytes.hex), ("channel", None), ("rssi_dbm", None)),
        many=True,
    ),
    Kind(
        block.ASSOCIATION,
        "association",
        block.ASSOCIATION_FORMAT,
        (("driver_status", None), ("lost", None), ("attempts", None)),
    ),
    Kind(
        block.LEASE,
        "lease",
        block.LEASE_FORMAT,
        (("duration_s", None), ("server", _address), ("servers", None), ("lease_ms", None)),
    ),
    Kind(
        block.PATH,
        "path",
        block.PATH_FORMAT,
        (("echoes", None), ("rtt_min_us", None), ("rtt_p95_us", None), ("jitter_us", None)),
    ),
    Kind(
        block.REFERENCE,
        "reference",
        block.REFERENCE_FORMAT,
        (("answer", _rcode), ("reference_ms", None)),
    ),
    Kind(
        block.PORTAL,
        "portal",
        block.PORTAL_FORMAT,
        (("http_status", None), ("portal_ms", None), ("captive", _yes)),
    ),
    Kind(
        block.TARGET,
        "target",
        block.TARGET_FORMAT,
        (
            ("reason", _reason),
            ("connect_ms", None),
            ("handshake_ms", None),
            ("certificate_days", None),
        ),
        many=True,
    ),
    Kind(
        block.SERVICE,
        "service",
        block.SERVICE_FORMAT,
        (
            ("reason", _reason),
            ("service_ms", None),
            ("http_status", None),
            ("certificate_days", None),
        ),
        many=True,
    ),
    Kind(
        block.THROUGHPUT,
        "throughput",
        block.THROUGHPUT_FORMAT,
        (("board_kbit_s", None), ("moved_kib", None)),
    ),
    Kind(
        block.SENSOR,
        "sensor",
        block.SENSOR_FORMAT,
        (
            ("failed", _sensors),
            ("co2_ppm", None),
            ("temperature_c", _hundredth),
            ("humidity_percent", _tenth),
        ),
    ),
    Kind(
        block.UPLINK,
        "uplink",
        block.UPLINK_FORMAT,
        (
            ("trouble", _name_of(term.TROUBLES, "trouble")),
            ("since_acknowledged_s", None),
            ("lost_reports", None),
            ("collector_ahead_s", None),
        ),
    ),
    Kind(
        block.WATCH,
        "watch",
        block.WATCH_FORMAT,
        (
            ("number", None),
            ("state", _name_of(term.STATES, "state")),
            ("layer", _name_of(term.LAYERS, "layer")),
            ("reason", _reason),
            ("rssi_dbm", None),
        ),
        many=True,
    ),
)

_BY_NUMBER = {kind.number: kind for kind in KINDS}
# What says "not measured", by a field's format. Where 255 has a meaning, it is not here.
_NOTHING = {
    "B": 0xFF,
    "H": 0xFFFF,
    "I": 0xFFFFFFFF,
    "b": -(1 << 7),
    "h": -(1 << 15),
    "i": -(1 << 31),
}
_MEANT = {("reference", "answer")}


def decode(extensions: bytes) -> dict[str, Any]:
    """Return the blocks by name, with None for what was not measured.

    A structure is a dict, a list of structures a list, a text a string without control
    characters. Never raises, whatever the bytes are.
    """
    found: dict[str, Any] = {}
    unknown: list[dict[str, Any]] = []
    malformed: list[dict[str, Any]] = []
    for number, content, fault in _split(extensions):
        kind = _BY_NUMBER.get(number)
        said = fault
        if not said and kind is None:
            unknown.append({"kind": number, "content": content.hex()})
            continue
        if not said and kind is not None:
            said = f"a second {kind.name}" if kind.name in found else _misfit(kind, content)
            if not said:
                found[kind.name] = _read(kind, content)
                continue
        malformed.append({"kind": number, "content": content.hex(), "error": said})
    if unknown:
        found["unknown"] = unknown
    if malformed:
        found["malformed"] = malformed
    return found


def core(report: wire.Report) -> dict[str, Any]:
    """Return what the core of a report measured, without what it did not."""
    nothing = {
        "rssi_dbm": wire.NO_RSSI,
        "channel": wire.NO_U8,
        "gateway_rtt_us": wire.NO_U32,
        "gateway_loss_percent": wire.NO_U8,
        "heap_free_bytes": wire.NO_U32,
    }
    names = wire.Report._fields[wire.Report._fields.index("rssi_dbm") : -1]
    values = {name: getattr(report, name) for name in names if name not in ("bssid", "reset_cause")}
    measured = {k: v for k, v in values.items() if v != nothing.get(k, wire.NO_U16)}
    bssid = _colons(report.bssid)
    return measured | ({"bssid": bssid} if bssid else {})


def layers(report: wire.Report) -> dict[str, str]:
    """Return the reason of each layer by name."""
    return {
        layer: term.reason_name(reason)
        for layer, reason in zip(term.LAYERS[1:], report.layer_reasons, strict=True)
    }


def _split(extensions: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Yield (kind, content, fault); a rest that is cut short is the last one."""
    at = 0
    while at < len(extensions):
        number = extensions[at]
        end = at + 2 + (extensions[at + 1] if at + 1 < len(extensions) else 0)
        content = bytes(extensions[at + 2 : end])
        whole = at + 1 < len(extensions) and end <= len(extensions)
        yield number, content, "" if whole else "it is cut short"
        at = end


def _misfit(kind: Kind, content: bytes) -> str:
    """Return what is wrong with a content's length, "" if nothing."""
    if not kind.format:
        return ""
    size = struct.calcsize(kind.format)
    fits = len(content) % size == 0 if kind.many else len(content) == size
    return "" if fits else f"{len(content)} bytes where {kind.name} has {size}"


def _read(kind: Kind, content: bytes) -> Any:
    if not kind.format:
        return printable(content)
    entries = [_entry(kind, values) for values in struct.iter_unpack(kind.format, content)]
    return entries if kind.many else entries[0]


def _entry(kind: Kind, values: tuple[Any, ...]) -> dict[str, Any]:
    codes = re.findall(r"\d*([a-zA-Z])", kind.format)
    shown = {}
    for (name, show), code, value in zip(kind.fields, codes, values, strict=True):
        nothing = b"\xff" * len(value) if code == "s" else _NOTHING[code]
        measured = value != nothing or (kind.name, name) in _MEANT
        shown[name] = (show(value) if show else value) if measured else None
    return shown
