"""Sensirion SHT4x: temperature and humidity.

Source: Sensirion, data sheet SHT4x, command overview and conversion of signal output.
"""

from micropython import const

from ..deadline import sleep_ms
from . import words

_ADDRESS = const(0x44)
_MEASURE = b"\xfd"  # high precision
_DURATION_MS = const(10)  # 8.3 at most


async def read(i2c, _):
    """Measure once; see the package."""
    i2c.writeto(_ADDRESS, _MEASURE)
    await sleep_ms(_DURATION_MS)
    raw_t, raw_h = words(i2c.readfrom(_ADDRESS, 6))
    permille = (1250 * raw_h + 32767) // 65535 - 60
    # The formula reaches beyond both ends, where the data sheet wants it cut.
    return None, (17500 * raw_t + 32767) // 65535 - 4500, max(0, min(permille, 1000)), None
