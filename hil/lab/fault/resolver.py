"""Resolver: the router's real dnsmasq stopped or started otherwise; a slow one built with scapy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from firmware.linkreport.table import (
    NAME_NOT_FOUND,
    RESOLVER,
    RESOLVER_SILENT,
    RESOLVER_SLOW,
    RESOLVER_WRONG_ADDRESS,
)
from hil.lab.actor import name_server
from hil.lab.fault.definition import Expected, Scene, fault
from hil.lab.internet import DOMAIN, NAMES
from hil.lab.server import DNS_PORT, UdpServer

_HIJACKED_TO = "198.51.100.66"  # a documentation network (RFC 5737): nobody
_SLOW_S = 0.4


@fault(
    "dns-dead",
    "the router's DNS server is stopped",
    Expected(RESOLVER_SILENT),
    layer=RESOLVER,
    part="dns",
)
def _dead(scene: Scene) -> Iterator[None]:
    scene.site.network.dns.stop()
    yield
    scene.site.network.dns.start()


@fault(
    "dns-hangs",
    "the router's DNS server takes questions and does not answer",
    Expected(RESOLVER_SILENT),
    layer=RESOLVER,
    part="dns",
    merged="dns-dead: no answer is no answer; a UDP client cannot see whether somebody listens",
)
def _hangs(scene: Scene) -> Iterator[None]:
    scene.site.network.dns.pause()
    yield
    scene.site.network.dns.resume()


@fault(
    "dns-slow",
    f"the router's DNS server takes {_SLOW_S} s for an answer",
    Expected(RESOLVER_SLOW),
    layer=RESOLVER,
    part="dns",
)
def _slow(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    network.dns.stop()
    where = (str(network.router_address), DNS_PORT)
    slow = UdpServer(network.loop, network.router, where, name_server(NAMES), _SLOW_S)
    with contextlib.closing(slow):
        yield
    network.dns.start()


@fault(
    "dns-nxdomain",
    f"the router's DNS server says of all names below {DOMAIN} that they do not exist",
    Expected(NAME_NOT_FOUND),
    layer=RESOLVER,
    part="dns",
)
def _nxdomain(scene: Scene) -> Iterator[None]:
    dns = scene.site.network.dns
    dns.restart(f"address=/{DOMAIN}/")
    yield
    dns.restart()


@fault(
    "dns-hijack",
    "the router's DNS server leads every name to one address",
    Expected(RESOLVER_WRONG_ADDRESS),
    layer=RESOLVER,
    part="dns",
)
def _hijack(scene: Scene) -> Iterator[None]:
    dns = scene.site.network.dns
    dns.restart(f"address=/#/{_HIJACKED_TO}")
    yield
    dns.restart()
