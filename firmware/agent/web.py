"""One visit to a web server with an end: connect, TLS where wanted, ask, read the status.

Nothing is ever followed, and of the answer only the status line is kept, or, where the caller
asks for it, a small body.
"""

import errno

from linkreport.table import (
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    HTTP_SILENT,
    HTTP_UNEXPECTED,
    NETWORK_UNREACHABLE,
    OK,
)
from micropython import const

from .connection import connect, receive

_MAX_LINE_BYTES = const(256)
_MAX_HEADER_BYTES = const(2048)
_PIECE_BYTES = const(256)


class Visit:
    """What was seen; None for what was not.

    Attributes:
        reason: OK if there was an HTTP status, or after a bare TLS handshake, if that went
            well; else what the visit ended with: CONNECT_TIMEOUT, CONNECT_REFUSED,
            NETWORK_UNREACHABLE, TLS_SILENT, TLS_INTERCEPTED (the certificate is not to be
            trusted), SERVICE_CERTIFICATE_INVALID (it would be, but for its dates),
            UNTESTED (no memory for TLS, or only the dates do not fit and the clock is not known),
            HTTP_SILENT, HTTP_UNEXPECTED (something came that is not HTTP).
        connect_ms, tls_ms, http_ms: how long each step took.
        status: the HTTP status.
        days: how long the certificate is still valid.
        body: as much of it as was asked for.
    """

    def __init__(self):
        self.reason = OK
        self.connect_ms = self.tls_ms = self.http_ms = None
        self.status = self.days = None
        self.body = b""

    def portal(self):
        """Tell whether the answer is what login pages give instead of a 204."""
        return is_portal(self.status)


def is_portal(status):
    """Tell whether a status is what login pages give instead of a 204; see RFC 6585 for 511."""
    return status is not None and (status in (200, 511) or 300 <= status < 400)


async def visit(port, place, address, until_ms, *, context=None, path="/", body_bytes=0):
    """Visit `place` (host, port), which is at an address; return a Visit.

    With a `context` of `secure.trust()` over TLS, else in clear. No path ends the visit after
    the TLS handshake. Of a body longer than `body_bytes` the rest is left.
    """
    seen = Visit()
    start_ms = port.uptime_ms()
    try:
        sock = await connect(port, address, place.port, max(1, until_ms - start_ms))
    except OSError as error:
        number = error.errno
        if number == errno.ETIMEDOUT:
            seen.reason = CONNECT_TIMEOUT
        else:
            refused = number == errno.ECONNREFUSED
            seen.reason = CONNECT_REFUSED if refused else NETWORK_UNREACHABLE
        return seen
    seen.connect_ms = port.uptime_ms() - start_ms
    text = request(place.host, path or "/", body_bytes > 0)
    try:
        if context is None:
            sock.send(text)
        else:
            from .secure import shake

            sock = await shake(
                port, context, sock, text, host=place.host, until_ms=until_ms, seen=seen
            )
        if sock and path:
            await _answer(port, sock, until_ms, seen, body_bytes)
    except OSError:
        seen.reason = HTTP_SILENT
    finally:
        if sock:
            sock.close()
    return seen


async def _answer(port, sock, until_ms, seen, body_bytes):
    start_ms = port.uptime_ms()
    raw = b""
    while b"\n" not in raw and len(raw) < _MAX_LINE_BYTES:
        more = await _more(port, sock, _MAX_LINE_BYTES - len(raw), until_ms)
        if not more:
            break
        raw += more
    now_ms = port.uptime_ms()
    if not raw or (now_ms >= until_ms and b"\n" not in raw):
        seen.reason = HTTP_SILENT
        return
    seen.http_ms = now_ms - start_ms
    seen.status = status(raw)
    if seen.status is None:
        seen.reason = HTTP_UNEXPECTED
    elif body_bytes:
        seen.body = await _body(port, sock, until_ms, raw, body_bytes)


async def _body(port, sock, until_ms, raw, body_bytes):
    """Return what follows the headers; b"" if those have no end."""
    while len(raw) < _MAX_HEADER_BYTES + body_bytes:
        end = raw.find(b"\r\n\r\n")
        if end > _MAX_HEADER_BYTES or (end < 0 and len(raw) > _MAX_HEADER_BYTES):
            return b""
        if end >= 0 and len(raw) - end - 4 >= body_bytes:
            break
        more = await _more(port, sock, _PIECE_BYTES, until_ms)
        if not more:
            break
        raw += more
    end = raw.find(b"\r\n\r\n")
    return raw[end + 4 :][:body_bytes] if end >= 0 else b""


async def _more(port, sock, size, until_ms):
    """Return what comes; b"" when nothing more does, however that is told."""
    try:
        return await receive(port, sock, size, until_ms) if port.uptime_ms() < until_ms else b""
    except OSError:
        return b""


def request(host, path, whole=False):
    """Return the bytes that ask for a path; a `whole` answer must not come in chunks."""
    text = "GET %s HTTP/1.%d\r\nHost: %s\r\nUser-Agent: netzpuls\r\nConnection: close\r\n\r\n"
    return (text % (path, 0 if whole else 1, host)).encode()


def status(line):
    """Return the status code of an HTTP status line, None if it is none."""
    code = line[9:12]
    if line[:7] != b"HTTP/1." or line[8:9] != b" " or line[12:13] not in (b" ", b"\r", b"\n", b""):
        return None
    if len(code) != 3 or not all(48 <= digit <= 57 for digit in code) or code[0] < 49:
        return None
    return int(code)
