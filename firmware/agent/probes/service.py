"""Service: do the city's own services answer as they should, such as the school platform?

    "services": [{"name": "Lernplattform", "host": "lernen.example.org", "port": 443,
                  "path": "/", "tls": true, "status": 200}]

Up to four, one after the other; names are asked from the lease's resolver, and the time told is
without that. If all of them fail, the first one's reason is the layer's.
"""

import struct

from linkreport.block import SERVICE as BLOCK
from linkreport.block import SERVICE_FORMAT
from linkreport.table import (
    DOWN,
    HTTP_UNEXPECTED,
    INTERNET,
    OK,
    RESOLVER,
    SERVICE,
    SERVICE_CERTIFICATE_EXPIRING,
    SERVICE_CERTIFICATE_INVALID,
    SERVICE_ERROR,
    SERVICE_NAME_NOT_FOUND,
    SERVICE_SILENT,
    SERVICE_SLOW,
    SOME_SERVICES_FAILED,
    TLS_INTERCEPTED,
    UNTESTED,
    reason_state,
)
from micropython import const

from ..loan import borrow, give_back, use
from ..web import Visit, visit
from . import Result

LAYER = SERVICE
NEEDS = INTERNET

_NOTHING = const(0xFFFF)
_NO_DAYS = const(-32768)


async def probe(port, config, evidence):
    """Visit each service."""
    until_ms = port.uptime_ms() + config.deadline_ms["service"]
    services = config.services
    reasons, block, context = [], b"", None
    for number, service in enumerate(services):
        now_ms = port.uptime_ms()
        end_ms = now_ms + (until_ms - now_ms) // (len(services) - number)
        if service.tls and context is None:
            context = use("agent.trust", "trust", evidence.link.identity)
        wait_ms = (end_ms - now_ms) // 2
        try:
            address = await borrow("agent.dns").find(port, evidence.resolver, service.host, wait_ms)
        finally:
            give_back("agent.dns")
        seen, took_ms = Visit(), 0
        # Without a resolver nothing is known of the service.
        reason = SERVICE_NAME_NOT_FOUND if evidence.works(RESOLVER) else UNTESTED
        if address and service.tls and context is None:
            reason = UNTESTED
        elif address:
            start_ms = port.uptime_ms()
            trusted = context if service.tls else None
            seen = await visit(port, service, address, end_ms, context=trusted, path=service.path)
            took_ms = port.uptime_ms() - start_ms
            reason = _judged(config.thresholds, service, seen, took_ms)
        reasons.append(reason)
        block += struct.pack(
            SERVICE_FORMAT,
            reason,
            _NOTHING if seen.status is None else min(took_ms, _NOTHING - 1),
            _NOTHING if seen.status is None else seen.status,
            _NO_DAYS if seen.days is None else max(-32767, min(32767, seen.days)),
        )
    return Result(together(reasons), {BLOCK: block} if block else {})


def together(reasons):
    """Return one reason for those of the services; UNTESTED ones say nothing."""
    reasons = [reason for reason in reasons if reason != UNTESTED]
    failed = [reason for reason in reasons if reason_state(reason) == DOWN]
    if failed:
        return failed[0] if len(failed) == len(reasons) else SOME_SERVICES_FAILED
    for reason in reasons:
        if reason != OK:
            return reason
    return OK if reasons else UNTESTED


def _judged(thresholds, service, seen, took_ms):
    if seen.status is None:
        if seen.reason == UNTESTED:
            return UNTESTED
        if seen.reason in (TLS_INTERCEPTED, SERVICE_CERTIFICATE_INVALID):
            return SERVICE_CERTIFICATE_INVALID
        return SERVICE_ERROR if seen.reason == HTTP_UNEXPECTED else SERVICE_SILENT
    if seen.status != service.status:
        return SERVICE_ERROR
    if seen.days is not None and seen.days < thresholds.certificate_days:
        return SERVICE_CERTIFICATE_EXPIRING
    return SERVICE_SLOW if took_ms > thresholds.service_ms else OK
