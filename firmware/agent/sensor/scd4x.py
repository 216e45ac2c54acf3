"""Sensirion SCD4x: CO₂, and the temperature and humidity that it needs for it.

It measures every 5 s by itself and calibrates itself (factory setting, which we leave): the
lowest value of a week must have been fresh air. It assumes sea level unless told the pressure.

Source: Sensirion, data sheet SCD4x, the commands named here.
"""

import struct

from micropython import const

from ..deadline import sleep_ms
from . import NOW, PRESSURE, SINCE, crc8, words

_ADDRESS = const(0x62)
_START = b"\x21\xb1"
_STOP = b"\x3f\x86"
_READY = b"\xe4\xb8"
_READ = b"\xec\x05"
_SERIAL = b"\x36\x82"
_PRESSURE = b"\xe0\x00"
_SILENT_MS = const(20000)
_COMMAND_MS = const(2)  # 1 at most


async def read(i2c, state):
    """Return the newest value, nothing but None while there is none yet; see the package."""
    if state[SINCE] is None:
        await _start(i2c)
        state[SINCE] = state[NOW]
    if state[PRESSURE]:
        word = struct.pack(">H", state[PRESSURE])
        i2c.writeto(_ADDRESS, _PRESSURE + word + bytes((crc8(word),)))
        await sleep_ms(_COMMAND_MS)
    if not (await _ask(i2c, _READY, 1))[0] & 0x07FF:
        if state[NOW] - state[SINCE] > _SILENT_MS:
            i2c.writeto(_ADDRESS, _STOP)  # takes 500 ms; the next cycle starts it anew
            raise ValueError("it does not measure")
        return None, None, None, None
    co2_ppm, raw_t, raw_h = await _ask(i2c, _READ, 3)
    state[SINCE] = state[NOW]
    centi_celsius = (17500 * raw_t + 32767) // 65535 - 4500
    return co2_ppm, centi_celsius, (1000 * raw_h + 32767) // 65535, None


async def _start(i2c):
    """Let it measure; if it does so already, since before we restarted, it refuses all of this."""
    try:
        serial = await _ask(i2c, _SERIAL, 3)
        print("netzpuls: sensor scd4x, serial number %04x%04x%04x" % tuple(serial))
    except (OSError, ValueError):
        pass
    try:
        i2c.writeto(_ADDRESS, _START)
    except OSError:
        pass
    await sleep_ms(_COMMAND_MS)


async def _ask(i2c, command, count):
    i2c.writeto(_ADDRESS, command)
    await sleep_ms(_COMMAND_MS)
    return words(i2c.readfrom(_ADDRESS, 3 * count))
