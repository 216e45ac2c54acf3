"""Portal: is there a login page where none belongs, or none where one does?

A known web server that should answer 204 is asked by its address; a redirect or a page instead
of that is a portal's. The lease may name the portal's own word on it (RFC 8910), which is
RFC 8908's JSON. Where a portal belongs, `wlan.portal` names its page, and that is asked, at the
address of the configuration: no redirect is ever followed.

    "portal": {"host": "login.example.org", "address": "203.0.113.81", "port": 443,
               "path": "/", "tls": true}

A portal that belongs there but has an open way for this board alone (an allow-listed MAC) is as
good as one that redirects: only its page must answer. If neither the internet nor the page's
address can be reached, the line may be to blame as well, and this layer stays untested.
"""

import json
import struct

from linkreport.block import PORTAL as BLOCK
from linkreport.block import PORTAL_FORMAT
from linkreport.table import (
    ADDRESSING,
    CONNECT_REFUSED,
    HTTP_UNEXPECTED,
    OK,
    PORTAL,
    PORTAL_ERROR,
    PORTAL_MISSING,
    PORTAL_SILENT,
    PORTAL_UNEXPECTED,
    SERVICE_CERTIFICATE_INVALID,
    TLS_INTERCEPTED,
    UNTESTED,
)
from micropython import const

from ..loan import borrow, give_back, use
from ..web import visit
from . import Result

LAYER = PORTAL
NEEDS = ADDRESSING

_MAX_JSON_BYTES = const(1024)
_MAX_URI_BYTES = const(255)
_NO_API = const(255)
_NOTHING = const(0xFFFF)


class Place:
    """A web server that is not in the configuration."""

    def __init__(self, host, port):
        self.host = host
        self.port = port


async def probe(port, config, evidence):
    """Ask for the 204, the portal's API and the portal's page, as far as there are any."""
    until_ms = port.uptime_ms() + config.deadline_ms["portal"]
    page = evidence.wlan.portal
    api = evidence.lease.portal_api if evidence.lease else ""

    def share(parts):
        now_ms = port.uptime_ms()
        return now_ms + (until_ms - now_ms) // parts

    web = config.internet
    left = 1 + (page is not None) + bool(api)
    seen = await visit(port, web, web.address, share(left), path=web.path)
    measures = {}  # type: dict
    if seen.status is not None:  # the internet probe need not ask again
        measures["internet_connect_ms"] = seen.connect_ms
        measures["internet_http_ms"] = seen.http_ms
        measures["http_status"] = seen.status
    captive = _NO_API
    if api:
        captive = await _captive(port, evidence, api, share(left - 1))
    there = seen.portal() or captive == 1
    if page is None:
        if captive != _NO_API:
            measures[BLOCK] = struct.pack(PORTAL_FORMAT, _NOTHING, _NOTHING, captive)
        if there:
            return Result(PORTAL_UNEXPECTED, measures)
        return Result(UNTESTED if seen.status is None else OK, measures)
    context = _trust(evidence) if page.tls else None
    if page.tls and context is None:
        return Result(UNTESTED, measures)
    shown = await visit(port, page, page.address, until_ms, context=context, path=page.path)
    measures[BLOCK] = struct.pack(
        PORTAL_FORMAT,
        _NOTHING if shown.status is None else shown.status,
        _NOTHING if shown.http_ms is None else min(_took_ms(shown), _NOTHING - 1),
        captive,
    )
    return Result(_judged(shown, there, seen.status is not None), measures)


def _judged(shown, there, answers):
    """Return the reason for an expected portal's page.

    The portal was seen elsewhere: `there`. The internet answered, or somebody in its place:
    `answers`.
    """
    if shown.status is not None:
        return OK if 200 <= shown.status < 400 else PORTAL_ERROR
    if shown.reason in (HTTP_UNEXPECTED, TLS_INTERCEPTED, SERVICE_CERTIFICATE_INVALID):
        return PORTAL_ERROR
    if shown.reason == UNTESTED:  # without memory or time there is no telling
        return UNTESTED
    if there or shown.connect_ms is not None or shown.reason == CONNECT_REFUSED:
        return PORTAL_SILENT
    return PORTAL_MISSING if answers else UNTESTED


def _took_ms(shown):
    return shown.connect_ms + (shown.tls_ms or 0) + shown.http_ms


def _trust(evidence):
    return use("agent.trust", "trust", evidence.link.identity)


async def _captive(port, evidence, uri, until_ms):
    """Return what the API says: 1 captive, 0 not, 255 if it says nothing that can be used."""
    parts = split(uri)
    if parts is None:
        return _NO_API
    tls, host, number, path = parts
    wait_ms = (until_ms - port.uptime_ms()) // 2
    try:
        address = await borrow("agent.dns").find(port, evidence.resolver, host, wait_ms)
    finally:
        give_back("agent.dns")
    context = _trust(evidence) if tls else None
    if not address or (tls and context is None):
        return _NO_API
    place = Place(host, number)
    seen = await visit(
        port, place, address, until_ms, context=context, path=path, body_bytes=_MAX_JSON_BYTES
    )
    return captive(seen.body) if seen.status == 200 else _NO_API


def captive(body):
    """Read RFC 8908's JSON: 1 captive, 0 not, 255 if it is something else."""
    if body.rstrip()[-1:] != b"}":  # MicroPython forgives a document that is cut off
        return _NO_API
    try:
        document = json.loads(body)
    except (ValueError, RuntimeError, MemoryError):  # the latter two: nested too deeply
        return _NO_API
    word = document.get("captive") if isinstance(document, dict) else None
    return int(word) if isinstance(word, bool) else _NO_API


def split(uri):
    """Return (TLS or not, host, port, path) of a URI, None for one that a board cannot use."""
    if len(uri) > _MAX_URI_BYTES or not all(33 <= byte <= 126 for byte in uri.encode()):
        return None
    scheme, mark, rest = uri.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in ("http", "https"):
        return None
    cut = min([rest.find(c) for c in "/?#" if c in rest] or [len(rest)])
    path = rest[cut:].partition("#")[0]
    host, _, number = rest[:cut].partition(":")
    if host.lower().strip("abcdefghijklmnopqrstuvwxyz0123456789-._"):
        return None
    if not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        return None
    number = number or ("443" if scheme == "https" else "80")
    if not number.isdigit() or len(number) > 5 or not 0 < int(number) < 65536:
        return None
    return scheme == "https", host, int(number), path if path[:1] == "/" else "/" + path
