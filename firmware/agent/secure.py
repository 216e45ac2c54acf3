"""A small TLS client for probes: handshake with an end, and why it failed.

/identity/roots.der holds the certificates that are trusted, one behind the other. Without that
file a handshake proves only that TLS speaks.

What mbedTLS says of a certificate comes as text in a ValueError, one line a complaint (seen on
MicroPython 1.25). Dates are checked on an ESP32 as well as on the unix port: its builds set
CONFIG_MBEDTLS_HAVE_TIME_DATE. A board whose clock is not known cannot judge them.
A connection takes some 40 KB outside of the GC heap on an ESP32, so there is one at a time.
"""

import errno

from linkreport.table import (
    OK,
    SERVICE_CERTIFICATE_INVALID,
    TLS_INTERCEPTED,
    TLS_SILENT,
    UNTESTED,
)
from micropython import const

from .certificate import not_after_s
from .deadline import sleep_ms

_POLL_MS = const(5)
_UNTRUSTED = const(-0x2700)
# No memory: as the stack tells it, and as parts of mbedTLS do (big numbers, X.509, keys).
_NO_MEMORY = (errno.ENOMEM, 0x10, -0x2880, -0x3F80)
_DAY_S = const(86400)


class Stream:
    """A TLS connection that behaves like a non-blocking socket."""

    def __init__(self, stream, sock):
        self.stream = stream
        self._sock = sock

    def recv(self, size):
        """Receive.

        Raises: OSError: EAGAIN, nothing is there yet; or what TLS says.
        """
        content = self.stream.read(size)
        if content is None:
            raise OSError(errno.EAGAIN)
        return content

    def close(self):
        """Close; after a failed handshake TLS no longer knows the socket below."""
        for each in (self.stream, self._sock):
            try:
                each.close()
            except OSError:
                continue


def trust(identity):
    """Return a TLS context that trusts what `identity`/roots.der holds; None without memory.

    Raises: OSError, ValueError: the file holds something else than certificates.
    """
    import tls

    try:
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE  # type: ignore[attr-defined]
        for certificate in _certificates(identity + "/roots.der"):
            context.load_verify_locations(certificate)
            context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]
    except MemoryError:
        return None
    except OSError as error:
        if error.errno in _NO_MEMORY:
            return None
        raise
    return context


def _certificates(path):
    """Yield one certificate after the other; of more in one call mbedTLS sees only the first."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    try:
        while len(head := file.read(4)) == 4:
            yield head + file.read(head[2] << 8 | head[3])
    finally:
        file.close()


async def shake(port, context, sock, first, *, host, until_ms, seen):
    """Shake hands and send the first bytes, which is what makes mbedTLS shake hands.

    Returns: a Stream; None on failure, and the socket is closed. The Visit `seen` gets `tls_ms`
        and `days`, or the reason.
    """
    start_ms = port.uptime_ms()
    stream = sock
    seen.reason = TLS_SILENT
    try:
        stream = context.wrap_socket(
            sock, server_hostname=host.rstrip("."), do_handshake_on_connect=False
        )
        while port.uptime_ms() < until_ms:
            if stream.write(first):
                seen.reason = OK
                seen.tls_ms = port.uptime_ms() - start_ms
                if hasattr(stream, "getpeercert"):  # not in every build
                    seen.days = _days(port, stream.getpeercert(True))
                return Stream(stream, sock)
            await sleep_ms(_POLL_MS)
    except ValueError as error:
        seen.reason = _complaint(port, str(error))
    except MemoryError:
        seen.reason = UNTESTED
    except OSError as error:
        if error.errno == _UNTRUSTED:
            seen.reason = TLS_INTERCEPTED
        elif error.errno in _NO_MEMORY:
            seen.reason = UNTESTED
    except BaseException:
        Stream(stream, sock).close()
        raise
    Stream(stream, sock).close()
    return None


def _days(port, certificate):
    """Return how many days a certificate is still valid, None if that cannot be told."""
    end_s = not_after_s(certificate or b"")
    return (end_s - port.time_s()) // _DAY_S if end_s and _knows_time(port) else None


def _complaint(port, text):
    """Return the reason for what mbedTLS holds against a certificate."""
    for line in text.split("\n"):
        if line and "validity" not in line:
            return TLS_INTERCEPTED
    return SERVICE_CERTIFICATE_INVALID if _knows_time(port) else UNTESTED


def _knows_time(port):
    return port.recall("clock_set") == 1
