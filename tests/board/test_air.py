"""The firmware's sensor drivers on the virtual board's register-level sensors."""

from __future__ import annotations

import asyncio
import struct
import time
from types import SimpleNamespace

import pytest

# As the board imports it; see conftest.
from agent import sensor  # type: ignore[import-not-found]
from agent.fault import Faults  # type: ignore[import-not-found]
from linkreport.block import SENSOR_FORMAT  # type: ignore[import-not-found]
from port.null import NullPort  # type: ignore[import-not-found]

from hil.board.i2c import I2cBus

NOTHING = (0xFFFF, -0x8000, 0xFFFF)


class Wire:
    """machine.I2C on a bus of ours."""

    def __init__(self, bus: I2cBus) -> None:
        self._bus = bus

    def writeto(self, address: int, data: bytes) -> None:
        self._bus.transfer(address, data, 0)

    def readfrom(self, address: int, count: int) -> bytes:
        return self._bus.transfer(address, b"", count)

    def readfrom_mem(self, address: int, register: int, count: int) -> bytes:
        return self._bus.transfer(address, bytes((register,)), count)

    def writeto_mem(self, address: int, register: int, data: bytes) -> None:
        self._bus.transfer(address, bytes((register,)) + data, 0)


class Room:
    """A board's sensors in a room, and a clock that can be put forward."""

    def __init__(self, *names: str) -> None:
        self.ahead_s = 0.0
        self.bus = I2cBus(names, lambda: time.monotonic() + self.ahead_s)
        self.port = NullPort()
        self.port.bus = Wire(self.bus)
        uptime_ms = self.port.uptime_ms
        self.port.uptime_ms = lambda: uptime_ms() + int(self.ahead_s * 1000)
        thresholds = SimpleNamespace(co2_ppm=(1000, 2000))
        self.config = SimpleNamespace(sensors=names, light=4, thresholds=thresholds)
        self.faults = Faults()
        self.restart()

    def restart(self) -> None:
        """The board starts anew; its sensors keep their power."""
        self._state: list[object] = []

    def read(self) -> tuple[int, ...]:
        """Let a minute pass and read."""
        self.ahead_s += 60
        block = asyncio.run(sensor.read(self.port, self.config, self._state, self.faults))
        return struct.unpack(SENSOR_FORMAT, block)

    def air(self, **values: float) -> None:
        self.bus.change("air", values)


@pytest.mark.parametrize("other", ["sht4x", "bme280"])
def test_what_the_room_has_is_what_is_read(other: str) -> None:
    room = Room("scd4x", other)
    room.read()
    for co2_ppm, celsius, percent, hpa in (
        (415, -12.5, 3, 870),
        (1400, 21.3, 47.5, 1013),
        (4800, 38, 96, 1040),
    ):
        room.air(co2_ppm=co2_ppm, temperature_c=celsius, humidity_percent=percent)
        room.air(pressure_hpa=hpa if other == "bme280" else 1013)
        failed, read_ppm, centi_celsius, permille = room.read()
        assert failed == 0
        # What the pressure's rounding to hPa takes away is far below what the sensor promises.
        assert abs(read_ppm - co2_ppm) <= co2_ppm // 500
        assert abs(centi_celsius - celsius * 100) <= 1
        assert abs(permille - percent * 10) <= 1
    assert room.faults.count == 0
    assert room.port.lights == [1, 2, 3]


def test_without_a_barometer_thin_air_looks_like_less_co2() -> None:
    room = Room("scd4x")
    room.read()
    room.air(co2_ppm=1000, pressure_hpa=955)  # Munich, 520 m above the sea
    assert room.read()[1] == 943


@pytest.mark.parametrize(
    ("name", "fault", "bit"),
    [
        ("scd4x", "absent", 1),
        ("scd4x", "nack", 1),
        ("scd4x", "crc", 1),
        ("scd4x", "stuck", 1),
        ("sht4x", "absent", 2),
        ("sht4x", "nack", 2),
        ("sht4x", "crc", 2),
        ("sht4x", "stuck", 2),
        ("bme280", "absent", 4),
        ("bme280", "nack", 4),
        ("bme280", "stuck", 4),
        ("bus", "stuck", 7),
    ],
)
def test_a_fault_is_said_once_and_its_end_is_noticed(name: str, fault: str, bit: int) -> None:
    room = Room("scd4x", "sht4x", "bme280")
    room.read()
    assert room.read()[0] == 0
    room.bus.change(name, {"fault": fault})
    for _ in range(4):
        failed, co2_ppm, _, _ = room.read()
    assert failed == bit
    assert (co2_ppm == 0xFFFF) == bool(bit & 1)
    assert room.faults.count == bit.bit_count()
    room.bus.change(name, {"fault": None})
    for _ in range(3):
        failed, co2_ppm, centi_celsius, _ = room.read()
    assert failed == 0
    assert abs(co2_ppm - 650) <= 1
    assert abs(centi_celsius - 2150) <= 1


def test_a_restarted_board_reads_on_at_once() -> None:
    room = Room("scd4x")
    room.read()
    room.read()
    room.restart()
    assert room.read()[:2] == (0, 650)


def test_a_sensor_that_lost_its_power_is_started_anew() -> None:
    room = Room("scd4x")
    room.read()
    room.read()
    room.bus.power_off()
    found = [room.read() for _ in range(4)]
    assert found[0] == (1, *NOTHING)
    assert found[-1][:2] == (0, 650)
