"""A TLS handshake with an end, and why it failed. On loan.

What mbedTLS says of a certificate comes as text in a ValueError, one line a complaint (seen on
MicroPython 1.25). Dates are checked on an ESP32 as well as on the unix port: its builds set
CONFIG_MBEDTLS_HAVE_TIME_DATE. A board whose clock is not known cannot judge them.
A connection takes some 40 KB outside of the GC heap on an ESP32, so there is one at a time.
"""

from linkreport.table import (
    OK,
    SERVICE_CERTIFICATE_INVALID,
    TLS_INTERCEPTED,
    TLS_SILENT,
    UNTESTED,
)
from micropython import const

from .connection import NO_MEMORY
from .deadline import sleep_ms
from .loan import use
from .stream import Stream

_POLL_MS = const(5)
_UNTRUSTED = const(-0x2700)
_DAY_S = const(86400)


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
        elif error.errno in NO_MEMORY:
            seen.reason = UNTESTED
    except BaseException:
        Stream(stream, sock).close()
        raise
    Stream(stream, sock).close()
    return None


def _days(port, certificate):
    """Return how many days a certificate is still valid, None if that cannot be told."""
    end_s = use("agent.certificate", "not_after_s", certificate or b"")
    return (end_s - port.time_s()) // _DAY_S if end_s and _knows_time(port) else None


def _complaint(port, text):
    """Return the reason for what mbedTLS holds against a certificate."""
    for line in text.split("\n"):
        if line and "validity" not in line:
            return TLS_INTERCEPTED
    return SERVICE_CERTIFICATE_INVALID if _knows_time(port) else UNTESTED


def _knows_time(port):
    return port.recall("clock_set") == 1
