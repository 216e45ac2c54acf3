"""machine of an ESP32, as far as a board without wires has one."""

import time
from machine import idle, mem8, mem16, mem32, time_pulse_us

from . import channel

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


class Pin:
    """A pin with nothing on it: it remembers what it was told."""

    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING = 1, 2
    WAKE_LOW, WAKE_HIGH = 4, 5
    _levels = {}

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=0, hold=False):
        self._id = id
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=False):
        if pull == Pin.PULL_UP:
            Pin._levels.setdefault(self._id, 1)
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            return Pin._levels.get(self._id, 0)
        Pin._levels[self._id] = 1 if level else 0

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def toggle(self):
        self.value(not self.value())

    def irq(self, handler=None, trigger=3, wake=None):
        return None

    def __repr__(self):
        return "Pin(%s)" % self._id


class Signal:
    """A pin that may be active low."""

    def __init__(self, pin, invert=False):
        self._pin = pin
        self._invert = invert

    def value(self, level=None):
        if level is None:
            return self._pin.value() ^ self._invert
        self._pin.value(bool(level) ^ self._invert)

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


class Timer:
    """A timer needs an interrupt, which this interpreter has no safe way to make."""

    ONE_SHOT, PERIODIC = 0, 1

    def __init__(self, *args, **options):
        raise NotImplementedError("the virtual board has no machine.Timer; use asyncio")
