"""Service: the school platform dead, broken, or with a certificate about to expire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from firmware.linkreport.table import (
    SERVICE,
    SERVICE_CERTIFICATE_EXPIRING,
    SERVICE_ERROR,
    SERVICE_SILENT,
)
from hil.lab import server
from hil.lab.fault.definition import Expected, Scene, fault
from hil.lab.internet import PLATFORM

_EXPIRES_IN = timedelta(days=5)


@fault(
    "service-dead",
    "the learning platform does not answer",
    Expected(SERVICE_SILENT),
    layer=SERVICE,
    part="platform",
)
def _dead(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.routed(network.line, f"blackhole {PLATFORM}/32"):
        yield


@fault(
    "service-error",
    "the learning platform answers with a server error",
    Expected(SERVICE_ERROR),
    layer=SERVICE,
    part="platform",
)
def _error(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    with network.taken_over(PLATFORM, network.https(server.failing)):
        yield


@fault(
    "service-certificate-expiring",
    f"the learning platform's certificate is valid for {_EXPIRES_IN.days} days more",
    Expected(SERVICE_CERTIFICATE_EXPIRING),
    layer=SERVICE,
    part="platform",
)
def _expiring(scene: Scene) -> Iterator[None]:
    network = scene.site.network
    serve = network.https(server.page("Lernplattform"), valid=_EXPIRES_IN)
    with network.taken_over(PLATFORM, serve):
        yield
