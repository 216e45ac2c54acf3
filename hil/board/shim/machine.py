"""machine of an ESP32, as far as a program can be one."""

import time
from machine import idle, mem8, mem16, mem32, time_pulse_us

from . import channel
from .wiring import I2C, PWM, Pin, Signal, SoftI2C, bitstream

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5

_frequency_hz = 160_000_000


def unique_id():
    return bytes.fromhex(channel.call("mac"))


def reset():
    channel.call("reset")
    while True:  # the power goes before this matters
        time.sleep(1)


def soft_reset():
    raise SystemExit


def reset_cause():
    return channel.call("reset-cause")


def bootloader(timeout=None):
    channel.call("bootloader")
    while True:
        time.sleep(1)


def deepsleep(time_ms=0):
    channel.call("deepsleep", time_ms=time_ms)
    while True:
        time.sleep(1)


def lightsleep(time_ms=0):
    time.sleep_ms(time_ms)


def freq(hertz=None):
    global _frequency_hz
    if hertz is None:
        return _frequency_hz
    if hertz not in (20_000_000, 40_000_000, 80_000_000, 160_000_000, 240_000_000):
        raise ValueError("frequency must be 20MHz, 40MHz, 80Mhz, 160MHz or 240MHz")
    _frequency_hz = hertz


def disable_irq():
    return 0


def enable_irq(state):
    pass


class WDT:
    """Bites for real: the board process resets the board when it is not fed in time."""

    def __init__(self, id=0, timeout=5000):
        if id != 0 or timeout <= 0:
            raise ValueError("WDT timeout too short" if id == 0 else "WDT(%d) doesn't exist" % id)
        channel.call("watchdog", timeout_ms=timeout)

    def feed(self):
        channel.call("watchdog")


class RTC:
    """The clock; it is not set after power-on."""

    def __init__(self, id=0):
        pass

    def datetime(self, fields=None):
        now_ns = time.time_ns()
        if fields is None:
            year, month, day, hour, minute, second, weekday, _ = time.gmtime(
                now_ns // 1_000_000_000
            )
            micro = now_ns // 1000 % 1_000_000
            return (year, month, day, weekday, hour, minute, second, micro)
        year, month, day, _, hour, minute, second, micro = fields
        seconds = time.mktime((year, month, day, hour, minute, second, 0, 0))
        time.set_ns(seconds * 1_000_000_000 + micro * 1000)

    def init(self, fields):
        self.datetime(fields)

    def memory(self, data=None):
        if data is None:
            return bytes.fromhex(channel.call("rtc-memory"))
        if len(data) > 2048:
            raise ValueError("buffer too long")
        channel.call("rtc-memory", data=bytes(data).hex())


class Timer:
    """A timer needs an interrupt, which this interpreter has no safe way to make."""

    ONE_SHOT, PERIODIC = 0, 1

    def __init__(self, *args, **options):
        raise NotImplementedError("the virtual board has no machine.Timer; use asyncio")
