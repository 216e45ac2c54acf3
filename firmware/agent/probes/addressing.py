"""Addressing: does DHCP give a lease, to us and to a client that comes new?

The driver's own client gets the first lease, for it is robust. MicroPython hides what it was
told, so the board then takes the lease over: the same address as a static one, confirmed by an
exchange of our own, renewed at half its time. Every cycle after that asks as a new client
would (`agent.dhcp`): its answer, or its silence, is the verdict on the server.

Where the exchange that takes the lease over is not answered, the network drops what is not the
driver's: the driver keeps the lease, and whether there is one is all that is seen.

Port 68 cannot be had on an ESP32 whose Ethernet has a lease, too: lwIP's client holds it for all
interfaces, and stopping it would give the Ethernet's address back (DHCPRELEASE). Then a lease
that is there says nothing of the server: this layer is untested.

An address that is in use is found by a ping, for lwIP's sockets cannot send ARP (RFC 2131,
4.4.1): a host that ignores pings is not found.
"""

import struct

from linkreport import block
from linkreport.table import (
    ADDRESS_CONFLICT,
    ADDRESSING,
    ASSOCIATION,
    FOREIGN_DHCP_SERVER,
    LEASE_REFUSED,
    LEASE_SLOW,
    LEASE_WITHOUT_GATEWAY,
    NO_LEASE,
    NO_OFFER,
    OK,
    POOL_EXHAUSTED,
    UNTESTED,
)
from micropython import const

from .. import dhcp
from ..deadline import sleep_ms
from ..loan import borrow, give_back
from . import Result

LAYER = ADDRESSING
NEEDS = ASSOCIATION

_POLL_MS = const(20)


async def probe(port, config, evidence):
    """See that there is a lease, keep it, and ask for another one."""
    link = evidence.link
    until_ms = port.uptime_ms() + config.deadline_ms["addressing"]
    half_ms = config.deadline_ms["addressing"] // 2
    if link.lease and port.uptime_ms() >= link.lease.ends_ms:
        link.renounce()
    if not await _leased(port, link, until_ms - half_ms):
        link.online = False
        if not link.holds():
            return Result(UNTESTED, {})
        reason, measures = await _inquire(port, config, until_ms)
        link.renounce()  # the driver goes on asking
        return Result(NO_LEASE if reason in (OK, LEASE_SLOW, UNTESTED) else reason, measures)
    if link.lease is None and not link.is_drivers:
        try:
            await borrow("agent.lease").take_over(port, config, link, until_ms)
        finally:
            give_back("agent.lease")
        if link.is_drivers:  # it starts anew
            await _leased(port, link, until_ms)
    measures = {"addressing_ms": link.addressing_ms}
    lease = link.lease
    if lease and port.uptime_ms() >= lease.renew_ms:
        try:
            renewed = await borrow("agent.lease").renewed(port, config, lease, until_ms)
        finally:
            give_back("agent.lease")
        if not renewed:
            link.renounce()
            link.online = False
            return Result(LEASE_REFUSED, measures)
    address, gateway, resolver = port.lease()
    link.online = bool(address and gateway)
    evidence.gateway, evidence.resolver, evidence.lease = gateway, resolver, lease
    if not address:
        return Result(NO_LEASE, measures)
    reason = UNTESTED if link.is_blind else OK
    if lease:
        reason, blocks = await _inquire(port, config, until_ms)
        measures.update(blocks)
    if not gateway and reason in (OK, LEASE_SLOW, UNTESTED):
        reason = LEASE_WITHOUT_GATEWAY
    return Result(reason, measures)


async def _leased(port, link, until_ms):
    """Wait for an address; tell whether there is one."""
    while not port.lease()[0] and link.holds() and port.uptime_ms() < until_ms:
        await sleep_ms(_POLL_MS)
    if not port.lease()[0]:
        return False
    if link.addressing_ms is None:
        link.addressing_ms = port.uptime_ms() - link.associated_at_ms
    return True


async def _inquire(port, config, until_ms):
    """Ask as a new client would; return a reason and the block of the report."""
    if not port.lease()[0]:
        # Link-local, and everything is in this network: there is no router to ask through.
        mac = port.mac()
        port.fix("169.254.%d.%d" % (mac[4] % 254 + 1, mac[5]), "0.0.0.0", "", "")  # noqa: S104
    try:
        client = dhcp.client(port, dhcp.stranger_id, until_ms)
    except OSError:  # port 68 is taken: nothing can be said
        return UNTESTED, {}
    granted = offer = None
    in_use = False
    try:
        offer = await client.offer("", config.dhcp_servers, look_closer=True)
        in_use = offer and await _is_used(port, offer.address, client.wait_ms)
        if offer and not in_use:
            granted = await client.request(offer)
            if granted:
                client.release(granted)
    finally:
        client.close()
    blocks = {}
    if client.servers:
        best = granted or offer
        blocks[block.LEASE] = struct.pack(
            block.LEASE_FORMAT,
            granted.lease_s if granted else dhcp.FOREVER_S,
            dhcp.packed(best.server if best else client.servers[0]),
            len(client.servers),
            min(client.ms, 0xFFFE) if granted else 0xFFFF,
        )
    return _reason(config, client, offer, granted, in_use), blocks


async def _is_used(port, address, wait_ms):
    try:
        return await borrow("agent.ping").answers(port, address, wait_ms)
    finally:
        give_back("agent.ping")


def _reason(config, client, offer, granted, in_use):
    if dhcp.foreign(client.servers, config):
        return FOREIGN_DHCP_SERVER
    if not offer:
        return POOL_EXHAUSTED if client.alive else NO_OFFER
    if in_use:
        return ADDRESS_CONFLICT
    if not granted:
        return LEASE_REFUSED if client.refused else NO_LEASE
    if not granted.router:
        return LEASE_WITHOUT_GATEWAY
    return LEASE_SLOW if client.ms > config.thresholds.lease_ms else OK
