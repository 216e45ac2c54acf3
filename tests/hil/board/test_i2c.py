"""The sensors of the virtual board: what they answer, when, and what they refuse."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from hil.board.error import WiringError
from hil.board.i2c import I2cBus, crc8

ALL = ("scd4x", "sht4x", "bme280")


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bus(clock: FakeClock) -> I2cBus:
    return I2cBus(ALL, clock)


def ask(bus: I2cBus, clock: FakeClock, command: str, count: int) -> bytes:
    bus.transfer(0x62, bytes.fromhex(command), 0)
    clock.now_s += 0.001
    return bus.transfer(0x62, b"", count)


def refused(bus: I2cBus, address: int, write: bytes = b"", read: int = 0) -> bool:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
        bus.transfer(address, write, read)
    return caught.value.errno == errno.ENODEV


def test_the_checksum_is_that_of_the_data_sheet() -> None:
    assert crc8(b"\xbe\xef") == 0x92


def test_who_is_there_answers_to_its_address(bus: I2cBus) -> None:
    for address in (0x62, 0x44, 0x76):
        assert bus.transfer(address, b"", 0) == b""
    assert refused(bus, 0x77)
    assert refused(I2cBus(), 0x62)


def test_the_scd4x_has_a_value_every_five_seconds(bus: I2cBus, clock: FakeClock) -> None:
    serial = ask(bus, clock, "3682", 9)
    assert serial == bytes.fromhex("f896319f07c23bbe89")
    assert ask(bus, clock, "e4b8", 3) == bytes.fromhex("8000a2")
    bus.change("air", {"co2_ppm": 500, "temperature_c": 25, "humidity_percent": 37})
    bus.transfer(0x62, bytes.fromhex("21b1"), 0)
    clock.now_s += 4.9
    assert ask(bus, clock, "e4b8", 3) == bytes.fromhex("8000a2")
    clock.now_s += 0.2
    assert ask(bus, clock, "e4b8", 3)[:2] == bytes.fromhex("8006")
    # 500 ppm, 25 °C and 37 %: the data sheet's example is one digit off in what it rounds.
    assert ask(bus, clock, "ec05", 9) == bytes.fromhex("01f4336666935eb80d")
    assert ask(bus, clock, "e4b8", 3) == bytes.fromhex("8000a2")
    bus.transfer(0x62, bytes.fromhex("ec05"), 0)
    clock.now_s += 0.001
    assert refused(bus, 0x62, read=9)


def test_the_scd4x_refuses_what_it_cannot_do_while_it_measures(
    bus: I2cBus, clock: FakeClock
) -> None:
    bus.transfer(0x62, bytes.fromhex("21b1"), 0)
    for command in ("21b1", "3682", "2313", "ffff", "21"):
        assert refused(bus, 0x62, bytes.fromhex(command))
    bus.transfer(0x62, bytes.fromhex("3f86"), 0)
    clock.now_s += 0.4
    assert refused(bus, 0x62, bytes.fromhex("21b1"))
    clock.now_s += 0.2
    bus.transfer(0x62, bytes.fromhex("21b1"), 0)


def test_a_measurement_takes_its_time(bus: I2cBus, clock: FakeClock) -> None:
    bus.transfer(0x44, b"\xfd", 0)
    clock.now_s += 0.008
    assert refused(bus, 0x44, read=6)
    clock.now_s += 0.001
    assert len(bus.transfer(0x44, b"", 6)) == 6
    assert refused(bus, 0x44, read=6)
    bus.transfer(0x76, b"\xf2\x01\xf4\x25", 0)
    clock.now_s += 0.009
    assert bus.transfer(0x76, b"\xf3", 1) == b"\x08"
    clock.now_s += 0.001
    assert bus.transfer(0x76, b"\xf3", 1) == b"\x00"
    assert bus.transfer(0x76, b"\xf4", 1) == b"\x24"


def test_an_unmeasured_bme280_holds_what_it_holds_after_power_on(bus: I2cBus) -> None:
    assert bus.transfer(0x76, b"\xf7", 8) == bytes.fromhex("8000008000008000")
    assert bus.transfer(0x76, b"\xd0", 1) == b"\x60"


def test_faults(bus: I2cBus, clock: FakeClock) -> None:
    bus.change("bus", {"fault": "stuck"})
    with pytest.raises(OSError, match="held low") as caught:
        bus.transfer(0x62, b"", 0)
    assert caught.value.errno == errno.ETIMEDOUT
    bus.change("bus", {"fault": None})
    bus.change("scd4x", {"fault": "nack"})
    bus.transfer(0x62, b"", 0)
    assert refused(bus, 0x62, bytes.fromhex("e4b8"))
    bus.change("scd4x", {"fault": "absent"})
    assert refused(bus, 0x62)
    bus.change("scd4x", {"fault": "crc"})
    answer = ask(bus, clock, "e4b8", 3)
    assert crc8(answer[:2]) != answer[2]
    assert bus.state()["fault"] == {"bus": None, "scd4x": "crc", "sht4x": None, "bme280": None}


@pytest.mark.parametrize(
    ("name", "mapping", "message"),
    [
        ("scd30", {"fault": None}, "nothing here is called 'scd30'; there are: air, bus, scd4x"),
        ("bme280", {"fault": "crc"}, "bme280.fault must be null or one of absent, nack, stuck"),
        ("scd4x", {"co2_ppm": 3}, 'an object with one key, "fault"'),
        ("air", {"co2_ppm": "much"}, "air.co2_ppm must be a number from 0 to 65535"),
        ("air", {"co2_ppm": True}, "must be a number"),
        ("air", {"co2": 3}, "air has no 'co2'; it has: co2_ppm"),
        ("air", [], "must be an object"),
    ],
)
def test_wrong_changes(bus: I2cBus, name: str, mapping: Any, message: str) -> None:
    before = bus.state()
    with pytest.raises(WiringError) as caught:
        bus.change(name, mapping)
    assert message in caught.value.message
    assert bus.state() == before


def test_unknown_sensors_are_named() -> None:
    with pytest.raises(WiringError, match="no sensor 'dht22'; there are: scd4x, sht4x, bme280"):
        I2cBus(["dht22"])
