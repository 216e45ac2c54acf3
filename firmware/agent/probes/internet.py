"""Internet: does a known web server beyond the line answer 204, and do others prove who they are?

Up to two further `targets` ([{"host", "address", "port"}]) are asked for a TLS handshake, their
certificate verified against what the city trusts (see `agent.trust`). If some answer and some
do not, the line is fine and some target is not: ONE_TARGET_FAILED. If the 204 comes but no target
answers as it should, the first one's failure is told: TLS_INTERCEPTED only if TLS speaks on each
of them, but with certificates that nobody trusted has signed. Certificates that are wrong by
their dates alone are a target's own fault, not an interception.
"""

import struct

from linkreport.block import PORTAL as PORTAL_BLOCK
from linkreport.block import TARGET, TARGET_FORMAT
from linkreport.table import (
    ADDRESSING,
    BEHIND_PORTAL,
    HTTP_UNEXPECTED,
    INTERNET,
    INTERNET_SLOW,
    OK,
    ONE_TARGET_FAILED,
    SERVICE_CERTIFICATE_INVALID,
    TLS_INTERCEPTED,
    UNTESTED,
)
from micropython import const

from ..loan import use
from ..web import is_portal, visit
from . import Result

LAYER = INTERNET
NEEDS = ADDRESSING

_EXPECTED = const(204)
_NOTHING = const(0xFFFF)
_NO_DAYS = const(-32768)
_UNTRUSTED = (TLS_INTERCEPTED, SERVICE_CERTIFICATE_INVALID)


async def probe(port, config, evidence):
    """Ask for the 204, unless the portal probe just did; then for the handshakes."""
    until_ms = port.uptime_ms() + config.deadline_ms["internet"]
    known = evidence.measures
    measures = {}  # type: dict
    reason = OK
    if known.get("http_status") is None:
        web = config.internet
        end_ms = _share(port, until_ms, 1 + len(config.targets))
        seen = await visit(port, web, web.address, end_ms, path=web.path)
        measures["internet_connect_ms"] = seen.connect_ms
        measures["internet_http_ms"] = seen.http_ms
        measures["http_status"] = seen.status
        reason, known = seen.reason, measures
    status = known.get("http_status")
    if status is not None and status != _EXPECTED:
        reason = HTTP_UNEXPECTED
    said = evidence.measures.get(PORTAL_BLOCK)
    if evidence.wlan.portal and (is_portal(status) or (said and said[4] == 1)):
        return Result(BEHIND_PORTAL, measures)
    if config.targets:
        reasons, measures[TARGET] = await _targets(port, config, evidence, until_ms)
        reason = together(reason, reasons)
    if reason == OK:
        took_ms = known["internet_connect_ms"] + known["internet_http_ms"]
        if took_ms > config.thresholds.internet_ms:
            reason = INTERNET_SLOW
    return Result(reason, measures)


def together(web, targets):
    """Return one reason for that of the web server and those of the targets.

    An UNTESTED target says nothing.
    """
    targets = [reason for reason in targets if reason != UNTESTED]
    failed = [reason for reason in targets if reason != OK]
    if not failed and (web == OK or not targets):
        return web
    if web != OK:
        return web if len(failed) == len(targets) else ONE_TARGET_FAILED
    if len(failed) < len(targets):
        return ONE_TARGET_FAILED
    if all(reason == TLS_INTERCEPTED for reason in failed):
        return TLS_INTERCEPTED
    failed = [reason for reason in failed if reason not in _UNTRUSTED]
    return failed[0] if failed and len(targets) > 1 else ONE_TARGET_FAILED


def _share(port, until_ms, parts):
    now_ms = port.uptime_ms()
    return now_ms + (until_ms - now_ms) // parts


async def _targets(port, config, evidence, until_ms):
    """Return a reason for each target, and the block about them."""
    reasons, block = [], b""
    context = use("agent.trust", "trust", evidence.link.identity)
    if context is None:
        return reasons, block
    for number, target in enumerate(config.targets):
        end_ms = _share(port, until_ms, len(config.targets) - number)
        seen = await visit(port, target, target.address, end_ms, context=context, path=None)
        reasons.append(seen.reason)
        block += struct.pack(
            TARGET_FORMAT,
            seen.reason,
            _fit(seen.connect_ms),
            _fit(seen.tls_ms),
            _NO_DAYS if seen.days is None else max(-32767, min(32767, seen.days)),
        )
    return reasons, block


def _fit(value):
    return _NOTHING if value is None else min(value, _NOTHING - 1)
