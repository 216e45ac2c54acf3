"""Bosch BME280: temperature, humidity, and the pressure for the SCD4x.

One forced measurement a cycle, everything sampled once, no filter ("weather monitoring").

Source: Bosch Sensortec, BST-BME280-DS002, 3.5.1, 4.2.2 and 4.2.3, in the integers given there.
"""

import struct

from micropython import const

from ..deadline import sleep_ms

_CHIP = const(0x60)
_DURATION_MS = const(10)  # 9.3 at most
_POLLS = const(10)


async def read(i2c, _):
    """Measure once; see the package."""
    address = 0x76
    try:
        chip = i2c.readfrom_mem(address, 0xD0, 1)[0]
    except OSError:
        address = 0x77  # the other way to wire SDO
        chip = i2c.readfrom_mem(address, 0xD0, 1)[0]
    if chip != _CHIP:
        raise ValueError("chip 0x%02x is no BME280" % chip)
    i2c.writeto_mem(address, 0xF2, b"\x01")
    i2c.writeto_mem(address, 0xF4, b"\x25")
    calibration = i2c.readfrom_mem(address, 0x88, 26) + i2c.readfrom_mem(address, 0xE1, 7)
    for _try in range(_POLLS):
        await sleep_ms(_DURATION_MS)
        if not i2c.readfrom_mem(address, 0xF3, 1)[0] & 0x08:
            break
    else:
        raise ValueError("it does not measure")
    raw = i2c.readfrom_mem(address, 0xF7, 8)
    centi_celsius, pressure, humidity = compensate(calibration, raw)
    return None, centi_celsius, (humidity * 10 + 512) >> 10, (pressure + 12800) // 25600


def compensate(calibration, raw):
    """Return 1/100 °C, 1/256 Pa and 1/1024 %; names and steps are the data sheet's."""
    t1, t2, t3, p1, p2, p3, p4, p5, p6, p7, p8, p9 = struct.unpack(
        "<HhhHhhhhhhhh", calibration[:24]
    )
    h1 = calibration[25]
    h2, h3, h4, shared, h5, h6 = struct.unpack("<hBbBbb", calibration[26:])
    h4 = h4 << 4 | shared & 15
    h5 = h5 << 4 | shared >> 4
    adc_p = raw[0] << 12 | raw[1] << 4 | raw[2] >> 4
    adc_t = raw[3] << 12 | raw[4] << 4 | raw[5] >> 4
    adc_h = raw[6] << 8 | raw[7]

    first = ((adc_t >> 3) - (t1 << 1)) * t2 >> 11
    second = (adc_t >> 4) - t1
    t_fine = first + ((second * second >> 12) * t3 >> 14)

    first = t_fine - 128000
    second = first * first * p6 + (first * p5 << 17) + (p4 << 35)
    first = (first * first * p3 >> 8) + (first * p2 << 12)
    first = ((1 << 47) + first) * p1 >> 33
    pressure = 0
    if first:
        pressure = ((1048576 - adc_p << 31) - second) * 3125 // first
        first = p9 * (pressure >> 13) * (pressure >> 13) >> 25
        second = p8 * pressure >> 19
        pressure = (pressure + first + second >> 8) + (p7 << 4)

    x = t_fine - 76800
    factor = ((x * h6 >> 10) * ((x * h3 >> 11) + 32768) >> 10) + 2097152
    x = ((adc_h << 14) - (h4 << 20) - h5 * x + 16384 >> 15) * (factor * h2 + 8192 >> 14)
    x -= ((x >> 15) * (x >> 15) >> 7) * h1 >> 4
    return t_fine * 5 + 128 >> 8, pressure, max(0, min(x, 419430400)) >> 12
