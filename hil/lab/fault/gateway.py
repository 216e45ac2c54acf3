"""Gateway: the router itself, and the cable to it (a relay in user space: no netem is needed)."""

from __future__ import annotations

from collections.abc import Iterator

from firmware.linkreport.table import GATEWAY, GATEWAY_LOSS, GATEWAY_SILENT, GATEWAY_SLOW
from hil.lab.fault.definition import Expected, Scene, fault
from hil.lab.relay import Impairment

# Of 30 % of all round trips something is lost: (1 - 0.163)² = 0.7.
_LOSS = Impairment(loss=0.163)
_SLOW = Impairment(delay_ms=150, jitter_ms=40)


@fault(
    "gateway-dead",
    "the router is dead: no DHCP, no DNS, no way out",
    Expected(GATEWAY_SILENT),
    layer=GATEWAY,
    part="cable",
)
def _dead(scene: Scene) -> Iterator[None]:
    scene.site.network.router.ip("link set lan down")
    yield
    scene.site.network.router.ip("link set lan up")
    scene.site.network.route_out()


@fault(
    "gateway-loss",
    "30 % of all round trips to the router are lost",
    Expected(GATEWAY_LOSS),
    layer=GATEWAY,
    part="cable",
    is_chance=True,
)
def _loss(scene: Scene) -> Iterator[None]:
    with scene.site.network.impaired(_LOSS):
        yield


@fault(
    "gateway-slow",
    "the way to the router and back takes 300 ms, with jitter",
    Expected(GATEWAY_SLOW),
    layer=GATEWAY,
    part="cable",
)
def _slow(scene: Scene) -> Iterator[None]:
    with scene.site.network.impaired(_SLOW):
        yield
