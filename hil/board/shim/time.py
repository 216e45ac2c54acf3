"""time of an ESP32 after power-on: the clock counts from 2000-01-01 until somebody sets it.

The epoch stays the unix port's, 1970. The offset to the host's clock is the board process's,
so that it outlives a soft reset.
"""

import time as _real
from time import *

from . import channel

_offset_us = channel.call("clock")


def time_ns():
    return _real.time_ns() + _offset_us * 1000


def time():
    return time_ns() // 1_000_000_000


def gmtime(seconds=None):
    return _real.gmtime(time() if seconds is None else int(seconds))[:8]


localtime = gmtime


def mktime(fields):
    # The unix port reckons in the host's time zone; an ESP32 has none.
    year, month, day, hour, minute, second = fields[:6]
    months = (year - 1970) * 12 + month - 1
    year, month = 1970 + months // 12, months % 12 + 1
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def set_ns(nanoseconds):
    """Set the board's clock; the RTC shims call this."""
    global _offset_us
    _offset_us = (nanoseconds - _real.time_ns()) // 1000
    channel.call("clock", offset_us=_offset_us)
