"""What stands between the reports and the collector, as a number of term.TROUBLES. On loan."""

import errno
import struct

from linkreport.block import UPLINK_FORMAT
from micropython import const

from .deadline import TimeoutError  # noqa: A004 - see there
from .mqtt import MqttError

_SILENT = const(1)
_REFUSED = const(2)
_UNTRUSTED = const(3)
_OURS_REFUSED = const(4)
_FAILED = const(5)
_UNACKNOWLEDGED = const(6)
_CLOCK_WRONG = const(7)
_CLOCK_OFF_S = const(10)  # an acknowledgement may be on its way for a while
_NO_U32 = const(0xFFFFFFFF)
# mbedTLS knows only numbers.
_TLS_FAILURES = {
    -0x2700: (_UNTRUSTED, "the broker's certificate is not to be trusted"),
    -0x7780: (_OURS_REFUSED, "the broker refused our certificate"),
}


def told(error):
    """Return the number of what ended a connection, and what happened in one line."""
    if isinstance(error, OSError) and error.errno in _TLS_FAILURES:
        return _TLS_FAILURES[error.errno]
    return _number(error), "%s %s" % (type(error).__name__, " ".join(str(error).split()))


def _number(error):
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, OSError):
        if error.errno == errno.ECONNREFUSED:
            return _REFUSED
        return _SILENT if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH) else _FAILED
    if isinstance(error, MqttError):
        return _REFUSED if error.is_refusal else _SILENT if error.is_silence else _FAILED
    return _FAILED


def block(uplink):
    """Return the content of the uplink block, none if all is well and always was."""
    port, spool, trouble = uplink.port, uplink.spool, uplink.trouble
    now_ms = port.uptime_ms()
    if not trouble and abs(uplink.ahead_s) > _CLOCK_OFF_S:
        trouble = _CLOCK_WRONG
    if not uplink.link.online and not port.lan_address():
        uplink.open_ms = None  # what is on its way now may be lost: sent again, it counts anew
    open_ms = 0 if uplink.open_ms is None else now_ms - uplink.open_ms
    # Answers take a second or so; the report before this one went out a period ago.
    if not trouble and open_ms > 500 * uplink.config.period_s:
        trouble = _UNACKNOWLEDGED if uplink.is_taken else _SILENT
    if not trouble and not spool.lost:
        return b""
    silent_s = (now_ms - uplink.acked_at_ms) // 1000 if uplink.acked_at_ms else _NO_U32
    lost = min(spool.lost, _NO_U32)
    return struct.pack(UPLINK_FORMAT, trouble, silent_s, lost, uplink.ahead_s)
