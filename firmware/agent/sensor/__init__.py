"""The classroom's air: CO₂, temperature, humidity. A sensor that fails is said and stops nothing.

    "sensors": ["scd4x", "bme280"], "i2c": {"sda": 21, "scl": 22}

One module for each sensor, on loan while it is read. Each has

    async def read(i2c, state)

and returns (CO₂ in ppm, temperature in 1/100 °C, relative humidity in 1/1000, pressure in hPa),
None for what it does not measure. It raises OSError when the bus says no, and ValueError for an
answer that cannot be right.
"""

import struct

from linkreport.block import SENSOR_FORMAT, SENSORS
from micropython import const

from ..deadline import TimeoutError, within_ms  # noqa: A004 - see there
from ..loan import borrow, give_back

# The state, a list that outlives a cycle and is empty at first: bits of the sensors that failed
# and were told; uptime at which the SCD4x last gave sign of measuring (None: it must be started);
# level of the CO₂ light. Then what drivers need to know of this cycle: uptime, and pressure in
# hPa (None: unknown).
FAILED, SINCE, LEVEL, NOW, PRESSURE = 0, 1, 2, 3, 4

_NO_TEMPERATURE = const(-32768)
_NOTHING = const(0xFFFF)
_DEADLINE_MS = const(400)  # of each sensor; good ones need 15 ms


async def read(port, config, state, faults):
    """Read the sensors of the configuration, and set the CO₂ light.

    Returns: the content of a SENSOR block.
    """
    values = [None] * 4
    failed = 0
    if not state:
        state.extend((0, None, 0, 0, None))
    state[NOW] = port.uptime_ms()
    state[PRESSURE] = None
    # The SCD4x last: a BME280 tells it the pressure, and both know the temperature better.
    for name in sorted(config.sensors, key=lambda name: name == "scd4x"):
        bit = 1 << SENSORS.index(name)
        found, trouble = await _ask(port, name, state)
        if trouble or any(value is not None for value in found):
            _tell(name, bit, trouble, state, faults)
        failed |= state[FAILED] & bit  # one that was just started has yet to prove itself
        values = [old if old is not None else new for old, new in zip(values, found)]
        state[PRESSURE] = values[3]
    if config.light is not None:
        _show(port, config, values[0], failed, state)
    co2_ppm, centi_celsius, permille, _ = values
    return struct.pack(
        SENSOR_FORMAT,
        failed,
        _NOTHING if co2_ppm is None else co2_ppm,
        _NO_TEMPERATURE if centi_celsius is None else centi_celsius,
        _NOTHING if permille is None else permille,
    )


async def _ask(port, name, state):
    """Return what a sensor measures and "", or nothing and what is wrong with it."""
    try:
        return await within_ms(_measure(port, name, state), _DEADLINE_MS), ""
    except TimeoutError:
        trouble = "no answer in time"
    except OSError as error:
        trouble = "no answer: %s" % error
    except Exception as error:  # a broken driver stops no report, either
        trouble = "%s %s" % (type(error).__name__, error)
    finally:
        give_back("agent.sensor." + name)
    if name == "scd4x":
        state[SINCE] = None
    return (None,) * 4, trouble


async def _measure(port, name, state):
    i2c = port.i2c()
    if i2c is None:
        raise ValueError("no pins for I2C")
    found = await borrow("agent.sensor." + name).read(i2c, state)
    for value, low, high in zip(found, (250, -4000, 0, 300), (40000, 8500, 1000, 1100)):
        if value is not None and not low <= value <= high:
            raise ValueError("a value of %d" % value)
    return found


def _tell(name, bit, trouble, state, faults):
    """Say once that a sensor fails, and once that it is back."""
    if trouble and not state[FAILED] & bit:
        faults.note(OSError("sensor %s: %s" % (name, trouble)))
    elif not trouble and state[FAILED] & bit:
        print("netzpuls: sensor", name, "is back")
    state[FAILED] = state[FAILED] | bit if trouble else state[FAILED] & ~bit


def _show(port, config, co2_ppm, failed, state):
    if co2_ppm is None and not failed & 1 << SENSORS.index("scd4x"):
        return  # its next value is on the way
    light = borrow("agent.light")
    state[LEVEL] = light.level(co2_ppm, config.thresholds.co2_ppm, state[LEVEL])
    give_back("agent.light")
    port.light(state[LEVEL])


def words(raw):
    """Return the 16-bit words of a Sensirion answer.

    Raises: ValueError: a checksum is wrong.
    """
    for at in range(0, len(raw), 3):
        if crc8(raw[at : at + 2]) != raw[at + 2]:
            raise ValueError("wrong checksum")
    return [raw[at] << 8 | raw[at + 1] for at in range(0, len(raw), 3)]


def crc8(data):
    """Return Sensirion's checksum: polynomial 0x31, start 0xFF."""
    value = 0xFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) & 0xFF ^ (0x31 if value & 0x80 else 0)
    return value
