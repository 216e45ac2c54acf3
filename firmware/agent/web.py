"""One visit to a web server with an end: connect, TLS where wanted, ask, read the status.

Nothing is ever followed, and of the answer only the status line is kept, or, where the caller
asks for it, a small body.
"""

import errno

from linkreport.table import (
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    HTTP_SILENT,
    NETWORK_UNREACHABLE,
    OK,
)

from .connection import connect
from .loan import borrow, give_back


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

    With a `context` of `agent.trust` over TLS, else in clear. No path ends the visit after
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
            try:
                sock = await borrow("agent.secure").shake(
                    port, context, sock, text, host=place.host, until_ms=until_ms, seen=seen
                )
            finally:
                give_back("agent.secure")
        if sock and path:
            try:
                await borrow("agent.http").answer(port, sock, until_ms, seen, body_bytes)
            finally:
                give_back("agent.http")
    except OSError:
        seen.reason = HTTP_SILENT
    finally:
        if sock:
            sock.close()
    return seen


def request(host, path, whole=False):
    """Return the bytes that ask for a path; a `whole` answer must not come in chunks."""
    text = "GET %s HTTP/1.%d\r\nHost: %s\r\nUser-Agent: netzpuls\r\nConnection: close\r\n\r\n"
    return (text % (path, 0 if whole else 1, host)).encode()
