"""What can be wrong in a soak, how it is made, and by what a report shows it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from firmware.linkreport import block, table
from firmware.linkreport.report import Report
from hil.lab import server
from tests.board.soak.world import World, portal

# Bits of an order, as tests/board/lib/soak.py has them.
NO_NETWORK, LOSE, REFUSED, NO_LEASE, SILENT, LOSS, FAILS, FULL, RAISES, NO_MEMORY = (
    1 << bit for bit in range(10)
)
PATIENCE_MS = 300
UNTRUSTED, BROKER_REFUSED, FAILED, UNACKNOWLEDGED, CLOCK_WRONG = 3, 2, 5, 6, 7
AIR, LEASE, GATEWAY, DNS, WEB, TARGET, PAGE, UPLINK, FLASH, PROBE, CLOCK, TIME = range(12)


def _nothing(_world: World) -> None:
    """It is the board's own."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        part: what it is about; there is one fault of a part at a time.
        shows: whether a report shows it.
        flags, status, step_s: the board's order.
        texts: parts of the exceptions that it may let the board survive.
        patience_ms: real waiting for the collector in a cycle; less where it does not answer.
        least_cycles: it shows only after a while.
    """

    name: str
    part: int
    shows: Callable[[Report], bool]
    flags: int = 0
    status: int = 0
    step_s: int = 0
    strike: Callable[[World], None] = _nothing
    heal: Callable[[World], None] = _nothing
    texts: tuple[str, ...] = ()
    patience_ms: int = PATIENCE_MS
    least_cycles: int = 3


def _reason(*numbers: int) -> Callable[[Report], bool]:
    return lambda report: any(number in report.layer_reasons for number in numbers)


def blocks(report: Report) -> dict[int, bytes]:
    """Return the extension blocks of a report by kind."""
    found, at, raw = {}, 0, report.extensions
    while at < len(raw):
        found[raw[at]] = raw[at + 2 : at + 2 + raw[at + 1]]
        at += 2 + raw[at + 1]
    return found


def uplink(report: Report) -> tuple[int, int, int, int]:
    """Return trouble, silence in s, reports lost, s ahead; all zero if there is no such block."""
    content = blocks(report).get(block.UPLINK)
    return struct.unpack(block.UPLINK_FORMAT, content) if content else (0, 0, 0, 0)


def _trouble(number: int) -> Callable[[Report], bool]:
    return lambda report: uplink(report)[0] == number


def _never(_report: Report) -> bool:
    """No report tells of it; the world sees it."""
    return False


def _given_up(report: Report) -> bool:
    """Nothing more can be kept, or the oldest had to go for it."""
    return table.FLASH_FAILED in report.layer_reasons or uplink(report)[2] > 0


def _text(part: bytes) -> Callable[[Report], bool]:
    return lambda report: part in blocks(report).get(block.ERROR, b"")


def _set(name: str, value: object) -> Callable[[World], None]:
    return lambda world: setattr(world, name, value)


FAULTS = (
    Fault("no-network", AIR, _reason(table.NETWORK_NOT_FOUND), flags=NO_NETWORK | LOSE, status=200),
    Fault("wrong-key", AIR, _reason(table.WRONG_KEY), flags=LOSE | REFUSED, status=202),
    Fault("beacons-lost", AIR, _reason(table.BEACON_LOST), flags=LOSE | REFUSED, status=200),
    Fault("kicked", AIR, _reason(table.ASSOCIATION_LOST), flags=LOSE, status=4),
    Fault(
        "no-lease",
        AIR,
        _reason(table.NO_OFFER, table.NO_LEASE),
        flags=LOSE | NO_LEASE,
        strike=_set("dhcp", False),
        heal=_set("dhcp", True),
    ),
    Fault(
        "dhcp-silent",
        LEASE,
        _reason(table.NO_OFFER),
        strike=_set("dhcp", False),
        heal=_set("dhcp", True),
    ),
    Fault("gateway-silent", GATEWAY, _reason(table.GATEWAY_SILENT), flags=SILENT),
    Fault("gateway-loss", GATEWAY, _reason(table.GATEWAY_LOSS), flags=LOSS),
    Fault(
        "dns-dead",
        DNS,
        _reason(table.RESOLVER_SILENT),
        strike=_set("dns", "silent"),
        heal=_set("dns", "well"),
    ),
    Fault(
        "dns-nxdomain",
        DNS,
        _reason(table.NAME_NOT_FOUND),
        strike=_set("dns", "nxdomain"),
        heal=_set("dns", "well"),
    ),
    Fault(
        "dns-hijack",
        DNS,
        _reason(table.RESOLVER_WRONG_ADDRESS),
        strike=_set("dns", "hijack"),
        heal=_set("dns", "well"),
    ),
    Fault(
        "portal",
        WEB,
        _reason(table.PORTAL_UNEXPECTED),
        strike=_set("web", portal),
        heal=_set("web", server.no_content),
    ),
    Fault(
        "internet-silent",
        WEB,
        _reason(table.HTTP_SILENT, table.ONE_TARGET_FAILED),
        strike=_set("web", server.silent),
        heal=_set("web", server.no_content),
    ),
    Fault(
        "internet-refused",
        WEB,
        _reason(table.CONNECT_REFUSED, table.ONE_TARGET_FAILED),
        strike=lambda world: world.refuse("web"),
        heal=lambda world: world.listen("web"),
    ),
    Fault(
        "tls-intercepted",
        TARGET,
        _reason(table.TLS_INTERCEPTED),
        strike=World.intercept,
        heal=lambda world: world.serve_tls(world.city.ca),
    ),
    Fault(
        "service-error",
        PAGE,
        _reason(table.SERVICE_ERROR),
        strike=_set("page", server.failing),
        heal=_set("page", server.page("zwei")),
    ),
    Fault(
        "broker-killed",
        UPLINK,
        _trouble(BROKER_REFUSED),
        strike=World.kill_gateway,
        heal=World.start_gateway,
    ),
    Fault(
        "broker-strange",
        UPLINK,
        _trouble(UNTRUSTED),
        strike=World.lead_astray,
        heal=World.lead_right,
    ),
    Fault("broker-cut", UPLINK, _trouble(FAILED), strike=World.cut, heal=World.lead_right),
    Fault(
        "collector-away",
        UPLINK,
        _trouble(UNACKNOWLEDGED),
        strike=World.pause_collector,
        heal=World.resume_collector,
        patience_ms=10,
    ),
    Fault(
        "acknowledgements-forged",
        UPLINK,
        _text(b"AckError"),
        strike=World.forge,
        texts=("AckError",),
    ),
    Fault("flash-fails", FLASH, _reason(table.FLASH_FAILED), flags=FAILS),
    Fault("flash-full", FLASH, _given_up, flags=FULL),
    Fault("probe-raises", PROBE, _text(b"injected"), flags=RAISES, texts=("injected",)),
    Fault("no-memory", PROBE, _text(b"MemoryError"), flags=NO_MEMORY, texts=("MemoryError",)),
    # Of time the board asks every six hours, and again after ten minutes.
    Fault(
        "time-server-silent",
        TIME,
        _never,
        strike=_set("ntp", False),
        heal=_set("ntp", True),
        least_cycles=380,
    ),
    Fault("clock-ahead", CLOCK, _trouble(CLOCK_WRONG), step_s=5400),
    Fault("clock-behind", CLOCK, _trouble(CLOCK_WRONG), step_s=-5400),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
