"""The way of the reports: what a board says of broker and collector when it reaches them again."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from hil.lab.fault.definition import Expected, Scene, fault

_CLOCK_AHEAD_S = 7200


@fault(
    "broker-down",
    "the gateway's broker is stopped, and its host refuses connections",
    Expected(trouble="broker-refused"),
    layer=0,
    part="gateway",
)
def _broker(scene: Scene) -> Iterator[None]:
    scene.site.gateway.stop()
    yield
    scene.site.gateway.start()


@fault(
    "broker-hangs",
    "the gateway's broker hangs: it takes connections and answers nothing",
    Expected(trouble="broker-silent"),
    layer=0,
    part="gateway",
)
def _broker_hangs(scene: Scene) -> Iterator[None]:
    scene.site.gateway.send("broker", signal.SIGSTOP)
    yield
    scene.site.gateway.send("broker", signal.SIGCONT)


@fault(
    "collector-down",
    "the gateway's collector hangs: it takes reports and acknowledges none",
    Expected(trouble="unacknowledged"),
    layer=0,
    part="gateway",
)
def _collector(scene: Scene) -> Iterator[None]:
    scene.site.gateway.send("collector", signal.SIGSTOP)
    yield
    scene.site.gateway.send("collector", signal.SIGCONT)


@fault(
    "gateway-clock-wrong",
    f"the gateway's clock is {_CLOCK_AHEAD_S // 3600} hours ahead",
    Expected(trouble="collector-clock-wrong"),
    layer=0,
    part="gateway",
)
def _clock(scene: Scene) -> Iterator[None]:
    scene.site.gateway.restart(clock_ahead_s=_CLOCK_AHEAD_S)
    yield
    scene.site.gateway.restart()
