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

import os
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
from ..connection import receive, resolve
from ..deadline import sleep_ms
from ..link import Lease
from . import Result

LAYER = ADDRESSING
NEEDS = ASSOCIATION

_POLL_MS = const(20)
_LONGEST_WAIT_MS = const(700)
_PINGS = const(2)
_PING_MS = const(250)
_PERIODS = const(3)  # a lease that ends before so many is too short to be kept by cycles
_PACKET_BYTES = const(128)


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
        await _take_over(port, config, link, until_ms)
    measures = {"addressing_ms": link.addressing_ms}
    lease = link.lease
    if lease and not await _renewed(port, config, lease, until_ms):
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


def _client(port, name, until_ms):
    """Return a DHCP client whose longest exchange fits into the time that is left."""
    mac = port.mac()
    wait_ms = max(1, until_ms - port.uptime_ms()) // (dhcp.WAITS + _PINGS)
    return dhcp.Client(port, mac, name(mac), max(1, min(_LONGEST_WAIT_MS, wait_ms)))


async def _take_over(port, config, link, until_ms):
    """Take the driver's lease over; where that does not succeed it stays the driver's."""
    address, gateway, resolver = port.lease()
    port.fix(address, port.netmask(), gateway, resolver)
    granted = None
    link.is_blind = False
    try:
        client = _client(port, dhcp.own_id, until_ms)
        try:
            offer = await client.offer(address, config.dhcp_servers)
            granted = offer and await client.request(offer)
        finally:
            client.close()
    except OSError:  # port 68 is taken
        link.is_blind = True
    if granted and granted.lease_s > config.period_s * _PERIODS:
        link.lease = Lease()
        _keep(port, link.lease, granted)
        if granted.address != address:  # the first one is another's by now
            port.fix(granted.address, granted.mask, granted.router, granted.resolver)
        return
    link.is_drivers = True
    port.dhcp()
    await _leased(port, link, until_ms)


def _keep(port, lease, granted):
    lease.server = granted.server
    lease.portal_api = granted.portal_api
    life_ms = granted.lease_s * 1000
    lease.ends_ms = port.uptime_ms() + life_ms
    lease.renew_ms = lease.ends_ms - life_ms // 2
    if granted.lease_s == dhcp.FOREVER_S:
        lease.renew_ms = lease.ends_ms


async def _renewed(port, config, lease, until_ms):
    """Renew the lease if that is due; tell whether it is still ours."""
    if port.uptime_ms() < lease.renew_ms:
        return True
    try:
        client = _client(port, dhcp.own_id, until_ms)
    except OSError:
        return True
    try:
        granted = await client.renew(port.lease()[0])
    finally:
        client.close()
    if granted:
        _keep(port, lease, granted)
    foreign = _foreign(client.servers, config)
    return not client.refused or foreign  # a stranger's no is not our server's


async def _inquire(port, config, until_ms):
    """Ask as a new client would; return a reason and the block of the report."""
    if not port.lease()[0]:
        # Link-local, and everything is in this network: there is no router to ask through.
        mac = port.mac()
        port.fix("169.254.%d.%d" % (mac[4] % 254 + 1, mac[5]), "0.0.0.0", "", "")  # noqa: S104
    try:
        client = _client(port, dhcp.stranger_id, until_ms)
    except OSError:  # port 68 is taken: nothing can be said
        return UNTESTED, {}
    granted = offer = None
    in_use = False
    try:
        offer = await client.offer("", config.dhcp_servers, look_closer=True)
        in_use = offer and await _answers(port, offer.address, client.wait_ms)
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


def _reason(config, client, offer, granted, in_use):
    if _foreign(client.servers, config):
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


def _foreign(servers, config):
    return bool(config.dhcp_servers) and any(s not in config.dhcp_servers for s in servers)


async def _answers(port, address, wait_ms):
    """Tell whether somebody answers a ping."""
    wait_ms = min(wait_ms, _PING_MS)
    net = port.socket
    sock = net.socket(net.AF_INET, net.SOCK_RAW, 1)
    mark = os.urandom(4)
    try:
        sock.setblocking(False)
        port.bind_wlan(sock)
        target = resolve(port, address, 1)
        for _ in range(_PINGS):
            until_ms = port.uptime_ms() + wait_ms
            sock.sendto(_echo(mark), target)
            while port.uptime_ms() < until_ms:
                packet = await receive(port, sock, _PACKET_BYTES, until_ms)
                icmp = packet[(packet[0] & 15) * 4 :] if packet else b""
                if icmp[:1] == b"\0" and icmp[4:8] == mark:
                    return True
    except OSError:  # no way there, as for an address that nobody has
        return False
    finally:
        sock.close()
    return False


def _echo(mark):
    """Pack an ICMP echo request (RFC 792)."""
    total = 0x0800 + sum(struct.unpack(">HH", mark))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">BBH4s", 8, 0, ~total & 0xFFFF, mark)
