"""Pins, PWM, LED strips and I2C of an ESP32; the board process keeps what they are told."""

import errno

from . import channel


class Pin:
    """A pin: what drives it is seen from outside the board, nothing but a pull drives it."""

    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING = 1, 2
    WAKE_LOW, WAKE_HIGH = 4, 5
    DRIVE_0, DRIVE_1, DRIVE_2, DRIVE_3 = 0, 1, 2, 3

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=0, hold=False):
        self._id = id._id if isinstance(id, Pin) else int(id)
        if not 0 <= self._id < 40 or self._id in (24, 28, 29, 30, 31):  # machine_pin.h
            raise ValueError("invalid pin")
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=False):
        if pull == Pin.PULL_UP:
            channel.call("pin", pin=self._id, pulled_up=True)
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            return channel.call("pin", pin=self._id)
        channel.call("pin", pin=self._id, level=bool(level))

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
        return "Pin(%d)" % self._id


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


class PWM:
    """A pin that pulses."""

    def __init__(self, dest, *, freq=5000, duty=None, duty_u16=32768, duty_ns=None, invert=0):
        self._pin = Pin(dest)
        self._freq_hz, self._duty = freq, duty_u16
        self.init(duty=duty, duty_ns=duty_ns)

    def init(self, *, freq=None, duty=None, duty_u16=None, duty_ns=None, invert=0):
        if freq is not None:
            self._freq_hz = freq
        if duty is not None:
            duty_u16 = duty * 64
        if duty_ns is not None:
            duty_u16 = duty_ns * self._freq_hz * 65535 // 1000000000
        if duty_u16 is not None:
            self._duty = duty_u16
        if not 0 <= self._duty <= 65535:
            raise ValueError("duty_u16 must be from 0 to 65535")
        channel.call("pwm", pin=self._pin._id, freq_hz=self._freq_hz, duty_u16=self._duty)

    def deinit(self):
        channel.call("pwm", pin=self._pin._id, off=True)

    def freq(self, value=None):
        if value is None:
            return self._freq_hz
        self.init(freq=value)

    def duty(self, value=None):
        if value is None:
            return self._duty // 64
        self.init(duty=value)

    def duty_u16(self, value=None):
        if value is None:
            return self._duty
        self.init(duty_u16=value)

    def duty_ns(self, value=None):
        if value is None:
            return self._duty * 1000000000 // 65535 // self._freq_hz
        self.init(duty_ns=value)


def bitstream(pin, encoding, timing, data):
    """Send bytes to a strip of LEDs."""
    if encoding:
        raise ValueError("encoding")
    channel.call("bitstream", pin=pin._id, data=bytes(data).hex())


class I2C:
    """A bus whose devices are models in the board process."""

    def __init__(self, id=0, *, scl=None, sda=None, freq=400000, timeout=50000):
        if id not in (-1, 0, 1):
            raise ValueError("I2C(%d) doesn't exist" % id)

    def init(self, **options):
        pass

    deinit = init

    def _transfer(self, address, write, size, stop=True):
        data = bytes(write).hex()
        return bytes.fromhex(channel.call("i2c", address=address, write=data, read=size, stop=stop))

    def scan(self):
        return channel.call("i2c-scan")

    def writeto(self, addr, buf, stop=True):
        self._transfer(addr, buf, 0, stop)
        return len(buf)

    def writevto(self, addr, vector, stop=True):
        return self.writeto(addr, b"".join(bytes(part) for part in vector), stop)

    def readfrom(self, addr, nbytes, stop=True):
        return self._transfer(addr, b"", nbytes, stop)

    def readfrom_into(self, addr, buf, stop=True):
        buf[:] = self.readfrom(addr, len(buf), stop)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        return self._transfer(addr, memaddr.to_bytes(addrsize // 8, "big"), nbytes)

    def readfrom_mem_into(self, addr, memaddr, buf, *, addrsize=8):
        buf[:] = self.readfrom_mem(addr, memaddr, len(buf), addrsize=addrsize)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        self._transfer(addr, memaddr.to_bytes(addrsize // 8, "big") + bytes(buf), 0)

    def start(self, *args):
        raise OSError(errno.EIO, "I2C operation not supported")

    stop = readinto = write = start


class SoftI2C(I2C):
    """The same bus."""

    def __init__(self, scl, sda, *, freq=400000, timeout=50000):
        super().__init__(-1)
