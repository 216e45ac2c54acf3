"""Pins, lamps, sensors and worn flash of a board, as a program and its surroundings see them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.hil.board.desk import Desk


@pytest.fixture(scope="module")
def desk(start: Callable[..., Desk]) -> Desk:
    return start(sensors=("scd4x", "bme280"))


def test_pins_are_seen_from_outside_and_let_go_by_a_reset(desk: Desk) -> None:
    desk.power_cycle()
    said = desk.run("""
        import machine
        led = machine.Pin(2, machine.Pin.OUT, value=1)
        button = machine.Pin(0, machine.Pin.IN, machine.Pin.PULL_UP)
        dark = machine.Signal(machine.Pin(4, machine.Pin.OUT), invert=True)
        dark.off()
        fan = machine.PWM(machine.Pin(5), freq=1000, duty_u16=1000)
        fan.duty_u16(2000)
        print(led.value(), button.value(), machine.Pin(13).value(), fan.freq(), led)
        led.toggle()
        """)
    assert said == "1 1 0 1000 Pin(2)\n"
    wiring = desk.control.state()["wiring"]
    assert wiring["pin"] == {"2": 0, "0": 1, "4": 1}
    assert wiring["pwm"] == {"5": {"freq_hz": 1000, "duty_u16": 2000}}
    desk.power_cycle()
    assert desk.control.state()["wiring"] == {"pin": {}, "pwm": {}, "strip": {}}


def test_a_strip_shows_what_it_was_sent(desk: Desk) -> None:
    desk.run("""
        import machine, neopixel
        strip = neopixel.NeoPixel(machine.Pin(27, machine.Pin.OUT), 2)
        strip[0] = (1, 2, 3)
        strip[1] = (255, 0, 0)
        strip.write()
        machine.bitstream(machine.Pin(26), 0, (400, 850, 800, 450), b"abc")
        """)
    strips = desk.control.state()["wiring"]["strip"]
    assert strips == {"27": "02010300ff00", "26": b"abc".hex()}  # green comes first


I2C = """
import machine
i2c = machine.I2C(0, scl=machine.Pin(22), sda=machine.Pin(21), freq=100000)
def tried(call):
    try:
        return call()
    except OSError as error:
        return error.errno
"""


def test_a_bus_with_sensors(desk: Desk) -> None:
    desk.power_cycle()
    said = desk.run(
        I2C
        + """
print([hex(address) for address in i2c.scan()])
print(i2c.readfrom_mem(0x76, 0xD0, 1), tried(lambda: i2c.writeto(0x44, b"x")))
print(i2c.writeto(0x76, b"\\xd0", False), i2c.readfrom(0x76, 1))
soft = machine.SoftI2C(machine.Pin(22), machine.Pin(21))
chip = bytearray(1)
soft.readfrom_mem_into(0x76, 0xD0, chip)
print(chip)
"""
    )
    assert said.splitlines() == [
        "['0x62', '0x76']",
        "b'`' 19",
        "1 b'`'",
        "bytearray(b'`')",
    ]


def test_sensors_are_changed_from_outside(desk: Desk) -> None:
    desk.control.sensor("bme280", fault="absent")
    desk.control.sensor("air", co2_ppm=1450)
    state = desk.control.state()["sensor"]
    assert (state["air"]["co2_ppm"], state["fault"]["bme280"]) == (1450, "absent")
    assert desk.run(I2C + "print(i2c.scan(), tried(lambda: i2c.readfrom(0x76, 1)))") == "[98] 19\n"
    desk.control.sensor("bus", fault="stuck")
    assert desk.run(I2C + "print(i2c.scan(), tried(lambda: i2c.readfrom(0x62, 1)))") == "[] 110\n"
    desk.control.sensor("bus", fault=None)
    desk.control.sensor("bme280", fault=None)


WRITE = """
def write(name):
    try:
        with open(name, "w") as file:
            file.write("x" * 6000)
        return "written"
    except OSError as error:
        return error.errno
"""


def test_worn_flash_is_read_and_not_written(desk: Desk) -> None:
    assert desk.run(WRITE + "print(write('before'))") == "written\n"
    desk.control.wear(failing=True)
    assert desk.control.state()["wear_percent"] == 100
    said = desk.run(WRITE + "print(write('during'), len(open('before').read()))")
    assert said == "5 6000\n"  # EIO
    desk.run("import esp32; esp32.NVS('test').set_i32('number', 7)")  # another partition
    desk.power_cycle()
    assert desk.run(WRITE + "print(write('during'), len(open('before').read()))") == "5 6000\n"
    desk.control.wear(failing=False)
    desk.power_cycle()
    assert desk.run(WRITE + "print(write('after'), len(open('after').read()))") == "written 6000\n"


def test_flash_may_be_worn_in_part(desk: Desk) -> None:
    """Every tenth sector: not the file system's first two, which hold its root."""
    desk.control.wear(failing=True, percent=10)
    said = desk.run(WRITE + "print({str(write('file%d' % n)) for n in range(20)})")
    assert "5" in said
    assert "written" in said
    desk.control.wear(failing=False)
