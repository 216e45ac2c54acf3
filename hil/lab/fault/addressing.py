"""Addressing: the router's real dnsmasq stopped or started otherwise, and scapy-built intruders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address

from firmware.linkreport.table import (
    ADDRESS_CONFLICT,
    ADDRESSING,
    FOREIGN_DHCP_SERVER,
    LEASE_REFUSED,
    LEASE_SLOW,
    NO_OFFER,
    POOL_EXHAUSTED,
)
from hil.lab.actor import DhcpServer, Squatter
from hil.lab.fault.definition import WITHOUT_LAN, Expected, Scene, fault

_REPLY_DELAY_S = 0.6  # dnsmasq knows whole seconds only: too slow for boards that hurry


@fault(
    "dhcp-no-offer",
    "the router's DHCP server is stopped",
    Expected(NO_OFFER),
    layer=ADDRESSING,
    part="dhcp",
    roles=WITHOUT_LAN,
)
def _no_offer(scene: Scene) -> Iterator[None]:
    scene.site.network.dhcp.stop()
    yield
    scene.site.network.dhcp.start()


@fault(
    "dhcp-nak",
    "the DHCP server offers addresses and then refuses every request",
    Expected(LEASE_REFUSED),
    layer=ADDRESSING,
    part="dhcp",
    roles=WITHOUT_LAN,
)
def _refused(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    network.dhcp.stop()
    server = DhcpServer(
        network.loop,
        network.stranger,
        address=network.router_address,  # as if the router itself had lost its mind
        network=network.lan,
        first=network.lan[150],
        router=network.router_address,
        refuses=True,
    )
    yield
    server.close()
    network.dhcp.start()


@fault(
    "dhcp-pool-exhausted",
    "all addresses that boards do not hold are leased to others",
    Expected(POOL_EXHAUSTED),
    layer=ADDRESSING,
    part="dhcp",
    roles=WITHOUT_LAN,
)
def _exhausted(scene: Scene) -> Iterator[None]:
    with scene.site.network.full_pool():
        yield


@fault(
    "dhcp-slow",
    f"the DHCP server takes {_REPLY_DELAY_S} s for every answer",
    Expected(LEASE_SLOW),
    layer=ADDRESSING,
    part="dhcp",
    roles=WITHOUT_LAN,
)
def _slow(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    network.dhcp.stop()
    server = DhcpServer(
        network.loop,
        network.stranger,
        address=network.router_address,
        network=network.lan,
        first=network.lan[150],
        router=network.router_address,
        delay_s=_REPLY_DELAY_S,
    )
    with contextlib.closing(server):
        yield
    network.dhcp.start()


@fault(
    "dhcp-rogue",
    "a second DHCP server gives leases with another gateway",
    Expected(FOREIGN_DHCP_SERVER),
    layer=ADDRESSING,
    part="stranger",
    roles=WITHOUT_LAN,
)
def _rogue(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    server = DhcpServer(
        network.loop,
        network.stranger,
        address=network.rogue_address,
        network=network.lan,
        first=network.lan[200],
        router=network.rogue_address,
    )
    yield
    server.close()


@fault(
    "duplicate-address",
    "a host with fixed addresses sits on those that the DHCP server gives next",
    Expected(ADDRESS_CONFLICT),
    layer=ADDRESSING,
    part="stranger",
    roles=WITHOUT_LAN,
)
def _duplicate(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    free = network.free()

    def squats(address: IPv4Address) -> bool:
        return address in free

    with contextlib.closing(Squatter(network.loop, network.stranger, squats)):
        yield
