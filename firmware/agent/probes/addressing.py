"""Addressing: does DHCP give a lease, and is there a gateway in it?"""

from linkreport.table import ADDRESSING, ASSOCIATION, LEASE_WITHOUT_GATEWAY, NO_LEASE, OK
from micropython import const

from ..deadline import sleep_ms
from . import Result

LAYER = ADDRESSING
NEEDS = ASSOCIATION

_POLL_MS = const(20)


async def probe(port, config, evidence):
    """Wait for the lease; one that is there already counts as verified."""
    link = evidence.link
    until_ms = port.uptime_ms() + config.deadline_ms["addressing"]
    address, gateway, resolver = port.lease()
    while not address and port.uptime_ms() < until_ms:
        await sleep_ms(_POLL_MS)
        address, gateway, resolver = port.lease()
    link.online = bool(address and gateway)
    if not address:
        return Result(NO_LEASE, {})
    if link.addressing_ms is None:
        link.addressing_ms = port.uptime_ms() - link.associated_at_ms
    evidence.gateway, evidence.resolver = gateway, resolver
    reason = OK if gateway else LEASE_WITHOUT_GATEWAY
    return Result(reason, {"addressing_ms": link.addressing_ms})
