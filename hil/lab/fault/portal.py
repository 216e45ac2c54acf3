"""Portal: one that is in the way, and the one of a public WLAN that is missing or broken."""

from __future__ import annotations

from collections.abc import Iterator

from firmware.linkreport.table import (
    PORTAL,
    PORTAL_ERROR,
    PORTAL_MISSING,
    PORTAL_SILENT,
    PORTAL_UNEXPECTED,
)
from hil.lab import internet, server
from hil.lab.fault.definition import Expected, Scene, fault


@fault(
    "portal-appears",
    "the line catches all clients before a login page, and the school has none",
    Expected(PORTAL_UNEXPECTED),
    layer=PORTAL,
    part="line",
)
def _appears(scene: Scene) -> Iterator[None]:
    with scene.site.network.caught():
        yield


@fault(
    "portal-missing",
    "the public WLAN lets everybody through without its login page",
    Expected(PORTAL_MISSING),
    layer=PORTAL,
    part="line",
    kind="hotspot",
    roles=("ap-monitor",),
)
def _missing(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    network.let_through()
    with network.routed(network.line, f"unreachable {internet.PORTAL}/32"):
        yield
    network.catch()


@fault(
    "portal-page-dead",
    "the public WLAN's login page does not answer",
    Expected(PORTAL_SILENT),
    layer=PORTAL,
    part="line",
    kind="hotspot",
    roles=("ap-monitor",),
)
def _dead(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.routed(network.line, f"blackhole {internet.PORTAL}/32"):
        yield


@fault(
    "portal-page-error",
    "the public WLAN's login page answers with a server error",
    Expected(PORTAL_ERROR),
    layer=PORTAL,
    part="line",
    kind="hotspot",
    roles=("ap-monitor",),
)
def _error(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.taken_over(
        internet.PORTAL, network.http(server.failing), network.https(server.failing)
    ):
        yield
