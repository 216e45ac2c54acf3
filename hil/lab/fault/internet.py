"""Internet: the line cut here or there, one target gone, TLS read along, IPv6, a narrow line."""

from __future__ import annotations

from collections.abc import Iterator

from firmware.linkreport.table import (
    CONNECT_TIMEOUT,
    INTERNET,
    NETWORK_UNREACHABLE,
    OK,
    ONE_TARGET_FAILED,
    RESOLVER_SLOW,
    THROUGHPUT_LOW,
    TLS_INTERCEPTED,
)
from hil.lab import server
from hil.lab.fault.definition import Expected, Scene, fault
from hil.lab.internet import TARGETS

_NARROW_KBIT_S = 1000


@fault(
    "internet-cut-at-router",
    "the line's plug is out of the router, which says so to its clients",
    Expected(CONNECT_TIMEOUT, also=NETWORK_UNREACHABLE),
    layer=INTERNET,
    part="line",
    merged="internet-cut-behind-router: a router says that it has no way, but only a few times a "
    "second, and an ESP32's lwIP does not listen",
)
def _unplugged(scene: Scene) -> Iterator[None]:
    router = scene.site.network.router
    router.ip("link set wan down")
    yield
    router.ip("link set wan up")
    scene.site.network.route_out()


@fault(
    "internet-cut-behind-router",
    "the provider's network swallows all packets of the site",
    Expected(CONNECT_TIMEOUT),
    layer=INTERNET,
    part="line",
)
def _swallowed(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.routed(network.line, "blackhole 203.0.113.0/24"):
        yield


@fault(
    "one-target-dead",
    "one of the internet's hosts that boards look at does not answer",
    Expected(ONE_TARGET_FAILED),
    layer=INTERNET,
    part="line",
)
def _one_target(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.routed(network.line, f"blackhole {TARGETS[1]}/32"):
        yield


@fault(
    "tls-interception",
    "the line answers TLS itself, with certificates of an authority that nobody knows",
    Expected(TLS_INTERCEPTED),
    layer=INTERNET,
    part="line",
)
def _intercepted(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    serve = network.https(server.page("proxy"), network.internet.stranger)
    with network.taken_over(TARGETS[0], serve), network.taken_over(TARGETS[1], serve):
        yield


@fault(
    "ipv6-broken",
    "IPv6 leads nowhere, IPv4 is fine",
    Expected(OK),
    layer=INTERNET,
    part="line6",
    merged="no fault: stock MicroPython asks the resolver for IPv4 addresses alone and never uses "
    "IPv6, so the board cannot see it and says so: up",
)
def _ipv6(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.routed(network.line, "blackhole 2001:db8:ffff::/48"):
        yield


@fault(
    "narrow-line",
    f"the line carries no more than {_NARROW_KBIT_S // 1000} Mbit/s",
    Expected(THROUGHPUT_LOW, also=RESOLVER_SLOW),
    layer=INTERNET,
    part="rate",
    merged="dns-slow: while a neighbour fills the line, the resolver's answers wait behind it, and "
    "the earlier layer is named",
)
def _narrow(scene: Scene) -> Iterator[None]:
    with scene.site.network.limited(_NARROW_KBIT_S):
        yield
