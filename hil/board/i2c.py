"""The sensors on the board's I2C bus, down to their registers and the time they take.

    bus = I2cBus(["scd4x", "bme280"])
    bus.transfer(0x62, bytes.fromhex("21b1"), 0)
    bus.change("air", {"co2_ppm": 1450})
    bus.change("scd4x", {"fault": "absent"})

They all measure one air. Faults of a sensor: "absent" (no answer), "nack" (it knows its address
and refuses everything else), "crc" (its checksums are wrong), "stuck" (it never has a new value);
of the bus itself: "stuck" (a line held low).

Sources: Sensirion, data sheets SCD4x and SHT4x; Bosch Sensortec, data sheet BST-BME280-DS002.
"""

from __future__ import annotations

import errno
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from hil.board.error import WiringError

AIR, BUS = "air", "bus"
ABSENT, NACK, CRC, STUCK = "absent", "nack", "crc", "stuck"

Clock = Callable[[], float]

_AIR = {"co2_ppm": 650, "temperature_c": 21.5, "humidity_percent": 42.0, "pressure_hpa": 1013.25}
_LIMITS = {
    "co2_ppm": (0, 65535),
    "temperature_c": (-45, 120),
    "humidity_percent": (0, 100),
    "pressure_hpa": (300, 1100),
}


class RefusedError(OSError):
    """Nobody acknowledged; what MicroPython's I2C raises then."""

    def __init__(self) -> None:
        super().__init__(errno.ENODEV, "no acknowledgement")


def crc8(data: bytes) -> int:
    """Return Sensirion's checksum: polynomial 0x31, start 0xFF."""
    value = 0xFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x31 if value & 0x80 else value << 1) & 0xFF
    return value


class Device(ABC):
    """One sensor.

    Args:
        air: what it measures, by name; changes while it lives.
        clock: seconds.
    """

    name = ""
    address = 0
    faults: tuple[str, ...] = (ABSENT, NACK, CRC, STUCK)

    def __init__(self, air: Mapping[str, float], clock: Clock) -> None:
        self.air = air
        self.clock = clock
        self.fault: str | None = None
        self.power_off()

    @abstractmethod
    def power_off(self) -> None:
        """Forget everything that is not burnt in."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take what was written.

        Raises: RefusedError: it cannot do this, or not now.
        """

    @abstractmethod
    def read(self, count: int) -> bytes:
        """Return what is read.

        Raises: RefusedError: there is nothing to read, or not yet.
        """


class Sensirion(Device):
    """A sensor that takes commands and answers words, each with its checksum."""

    def __init__(self, air: Mapping[str, float], clock: Clock) -> None:
        self._answer: tuple[int, ...] = ()
        self._ready_at = 0.0
        super().__init__(air, clock)

    def power_off(self) -> None:
        """Forget what was asked."""
        self._answer, self._ready_at = (), 0.0

    def answer(self, words: tuple[int, ...], after_ms: float) -> None:
        """Have words ready for reading after a while."""
        self._answer, self._ready_at = words, self.clock() + after_ms / 1000

    def is_busy(self) -> bool:
        """Tell whether the last command still runs."""
        return self.clock() < self._ready_at

    def read(self, count: int) -> bytes:
        """Return the words asked for; once."""
        if self.is_busy() or not self._answer:
            raise RefusedError
        words, self._answer = self._answer, ()
        damage = 0x01 if self.fault == CRC else 0
        parts = (struct.pack(">H", word) for word in words)
        data = b"".join(part + bytes((crc8(part) ^ damage,)) for part in parts)
        return data[:count].ljust(count, b"\xff")  # beyond its end nobody pulls the line down


class Scd4x(Sensirion):
    """CO2 by light, every five seconds once it was told to start."""

    name = "scd4x"
    address = 0x62
    serial = 0xF8969F073BBE

    _START, _STOP, _READY, _READ = 0x21B1, 0x3F86, 0xE4B8, 0xEC05
    _SERIAL, _PRESSURE, _CALIBRATES = 0x3682, 0xE000, 0x2313
    _WHILE_MEASURING = (_STOP, _READY, _READ, _PRESSURE)
    _EVERY_S = 5.0

    def power_off(self) -> None:
        """Stop measuring; the pressure is back at sea level's."""
        super().power_off()
        self._since: float | None = None
        self._taken = 0
        self._pressure_hpa = 1013

    @property
    def is_measuring(self) -> bool:
        """Whether it was started."""
        return self._since is not None

    def _fresh(self) -> int:
        """Return the number of the value that waits, 0 for none."""
        if self._since is None or self.fault == STUCK:
            return 0
        number = int((self.clock() - self._since) / self._EVERY_S)
        return number if number > self._taken else 0

    def write(self, data: bytes) -> None:
        """Take a command."""
        if len(data) < 2 or self.is_busy():
            raise RefusedError
        command = struct.unpack(">H", data[:2])[0]
        if self.is_measuring and command not in self._WHILE_MEASURING:
            raise RefusedError
        if command == self._START:
            self._since, self._taken = self.clock(), 0
            self.answer((), 0)
        elif command == self._STOP:
            self._since = None
            self.answer((), 500)
        elif command == self._READY:
            self.answer((0x8006 if self._fresh() else 0x8000,), 1)
        elif command == self._READ:
            number = self._fresh()
            self._taken = number or self._taken
            self.answer(self._measured() if number else (), 1)
        elif command == self._SERIAL:
            self.answer(struct.unpack(">HHH", self.serial.to_bytes(6, "big")), 1)
        elif command == self._CALIBRATES:
            self.answer((1,), 1)
        elif command == self._PRESSURE and len(data) == 5 and crc8(data[2:4]) == data[4]:
            self._pressure_hpa = struct.unpack(">H", data[2:4])[0]
            self.answer((), 1)
        else:
            raise RefusedError

    def _measured(self) -> tuple[int, int, int]:
        # It counts molecules: thinner air than it was told of looks like less CO2.
        co2_ppm = self.air["co2_ppm"] * self.air["pressure_hpa"] / self._pressure_hpa
        return (
            min(round(co2_ppm), 0xFFFF),
            round((self.air["temperature_c"] + 45) / 175 * 65535),
            round(self.air["humidity_percent"] / 100 * 65535),
        )


class Sht4x(Sensirion):
    """Temperature and humidity, once for each command."""

    name = "sht4x"
    address = 0x44
    serial = 0x0F2A1B3C

    _SERIAL, _RESET = 0x89, 0x94
    _DURATION_MS: ClassVar = {0xFD: 8.3, 0xF6: 4.5, 0xE0: 1.6}

    def write(self, data: bytes) -> None:
        """Take a command."""
        if len(data) != 1 or self.is_busy():
            raise RefusedError
        if data[0] in self._DURATION_MS:
            measured = (
                round((self.air["temperature_c"] + 45) / 175 * 65535),
                round((self.air["humidity_percent"] + 6) / 125 * 65535),
            )
            self.answer(() if self.fault == STUCK else measured, self._DURATION_MS[data[0]])
        elif data[0] == self._SERIAL:
            self.answer((self.serial >> 16, self.serial & 0xFFFF), 0)
        elif data[0] == self._RESET:
            self.answer((), 1)
        else:
            raise RefusedError


class Bme280(Device):
    """Temperature, pressure and humidity, as raw numbers that the reader has to compensate."""

    name = "bme280"
    address = 0x76
    faults = (ABSENT, NACK, STUCK)  # it has no checksums

    _ID, _RESET, _HUMIDITY, _STATUS, _MEASURE, _DATA = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF7
    _FORCED = (1, 2)
    # The example of the data sheet of its sibling BMP280 (3.12), which compensates the same way;
    # humidity as a usual part has it.
    _T = (27504, 26435, -1000)
    _P = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    _H = (75, 362, 0, 313, 50, 30)

    def power_off(self) -> None:
        """All registers as after power-on."""
        self._registers = bytearray(256)
        self._at = 0
        self._measured_at = 0.0
        self._oversampling = 0  # of humidity, taken over with the next write to ctrl_meas
        put = self._registers.__setitem__
        put(self._ID, 0x60)
        put(slice(0x88, 0xA0), struct.pack("<Hhh", *self._T) + struct.pack("<H8h", *self._P))
        h1, h2, h3, h4, h5, h6 = self._H
        nibbles = (h4 & 0x0F) | (h5 & 0x0F) << 4
        put(0xA1, h1)
        put(slice(0xE1, 0xE8), struct.pack("<hBbBbb", h2, h3, h4 >> 4, nibbles, h5 >> 4, h6))
        put(slice(self._DATA, 0xFF), bytes.fromhex("8000008000008000"))

    def write(self, data: bytes) -> None:
        """Take the register to read from, or pairs of register and value."""
        if len(data) == 1:
            self._at = data[0]
            return
        if len(data) % 2:
            raise RefusedError
        for register, value in zip(data[::2], data[1::2], strict=True):
            if register == self._RESET and value == 0xB6:
                self.power_off()
            elif register in (self._HUMIDITY, self._MEASURE, 0xF5):
                self._registers[register] = value
                if register == self._MEASURE:
                    self._begin(value)

    def _begin(self, control: int) -> None:
        self._oversampling = self._registers[self._HUMIDITY] & 7
        if control & 3 in self._FORCED:
            sampled = (control >> 5, control >> 2 & 7, self._oversampling)
            t, p, h = (0 if not each else 1 << min(each, 5) - 1 for each in sampled)
            duration_ms = 1.25 + 2.3 * t + (2.3 * p + 0.575 if p else 0)
            duration_ms += 2.3 * h + 0.575 if h else 0
            self._measured_at = self.clock() + duration_ms / 1000
            self._registers[self._STATUS] = 0x08

    def read(self, count: int) -> bytes:
        """Return registers from the one named last."""
        measuring = self._registers[self._STATUS] & 0x08
        if measuring and self.clock() >= self._measured_at and self.fault != STUCK:
            self._registers[self._STATUS] = 0
            self._registers[self._MEASURE] &= 0xFC  # it sleeps again
            self._measure()
        data = bytes(self._registers[self._at : self._at + count])
        return data.ljust(count, b"\x00")

    def _measure(self) -> None:
        """Find the raw numbers that the data sheet's formulas turn into this air."""
        control = self._registers[self._MEASURE]
        raw_t = raw_p = 0x80000
        raw_h = 0x8000
        if control >> 5:
            raw_t = _inverse(lambda raw: self._celsius(self._fine(raw)), self.air["temperature_c"])
        fine = self._fine(raw_t)
        if control >> 2 & 7:
            raw_p = _inverse(lambda raw: -self._hpa(raw, fine), -self.air["pressure_hpa"])
        if self._oversampling:
            raw_h = _inverse(lambda raw: self._percent(raw, fine), self.air["humidity_percent"], 16)
        data = (raw_p << 4).to_bytes(3, "big") + (raw_t << 4).to_bytes(3, "big")
        self._registers[self._DATA : 0xFF] = data + raw_h.to_bytes(2, "big")

    # Data sheet, 8.1: the formulas in floating point.

    def _fine(self, raw: int) -> float:
        t1, t2, t3 = self._T
        return (raw / 16384 - t1 / 1024) * t2 + (raw / 131072 - t1 / 8192) ** 2 * t3

    def _celsius(self, fine: float) -> float:
        return fine / 5120

    def _hpa(self, raw: int, fine: float) -> float:
        p1, p2, p3, p4, p5, p6, p7, p8, p9 = self._P
        first = fine / 2 - 64000
        second = first * first * p6 / 32768 + first * p5 * 2
        second = second / 4 + p4 * 65536
        first = (p3 * first * first / 524288 + p2 * first) / 524288
        first = (1 + first / 32768) * p1
        pascal = (1048576 - raw - second / 4096) * 6250 / first
        pascal += (p9 * pascal * pascal / 2147483648 + pascal * p8 / 32768 + p7) / 16
        return pascal / 100

    def _percent(self, raw: int, fine: float) -> float:
        h1, h2, h3, h4, h5, h6 = self._H
        value = fine - 76800
        value = (raw - (h4 * 64 + h5 / 16384 * value)) * (
            h2 / 65536 * (1 + h6 / 67108864 * value * (1 + h3 / 67108864 * value))
        )
        return value * (1 - h1 * value / 524288)


def _inverse(rising: Callable[[int], float], wanted: float, bits: int = 20) -> int:
    """Return the argument at which a rising function reaches a value."""
    low, high = 0, (1 << bits) - 1
    while low < high:
        middle = (low + high) // 2
        if rising(middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


DEVICES: dict[str, type[Device]] = {kind.name: kind for kind in (Scd4x, Sht4x, Bme280)}


class I2cBus:
    """The bus with what is wired to it.

    Raises: WiringError: there is no such sensor.
    """

    def __init__(self, names: Iterable[str] = (), clock: Clock = time.monotonic) -> None:
        self._air: dict[str, float] = dict(_AIR)
        self._fault: str | None = None
        self._devices: dict[str, Device] = {}
        for name in names:
            if name not in DEVICES:
                raise WiringError(f"no sensor {name!r}; there are: {', '.join(DEVICES)}")
            self._devices[name] = DEVICES[name](self._air, clock)

    def transfer(self, address: int, write: bytes, read: int) -> bytes:
        """Write, then read, whichever is asked for; nothing of both asks who is there.

        Raises: OSError: ENODEV, nobody acknowledged; ETIMEDOUT, the bus is stuck.
        """
        if self._fault == STUCK:
            raise OSError(errno.ETIMEDOUT, "a line of the bus is held low")
        device = next((d for d in self._devices.values() if d.address == address), None)
        if device is None or device.fault == ABSENT:
            raise RefusedError
        if device.fault == NACK and (write or read):
            raise RefusedError
        if write:
            device.write(write)
        return device.read(read) if read else b""

    def change(self, name: str, mapping: Mapping[str, Any]) -> None:
        """Change the air, or the fault of a sensor or of the bus; a wrong change changes nothing.

        Raises: WiringError: always with what is wrong where.
        """
        if not isinstance(mapping, Mapping):
            raise WiringError("change must be an object")
        if name == AIR:
            for key, value in mapping.items():
                _check_air(key, value)
            self._air.update(mapping)
            return
        if name != BUS and name not in self._devices:
            known = ", ".join((AIR, BUS, *self._devices))
            raise WiringError(f"nothing here is called {name!r}; there are: {known}")
        if set(mapping) != {"fault"}:
            raise WiringError(f'{name}: a change is an object with one key, "fault"')
        fault = mapping["fault"]
        faults = (STUCK,) if name == BUS else self._devices[name].faults
        if fault is not None and fault not in faults:
            raise WiringError(f"{name}.fault must be null or one of {', '.join(faults)}")
        if name == BUS:
            self._fault = fault
        else:
            device = self._devices[name]
            device.fault = fault
            if fault == ABSENT:  # who pulls a sensor out takes its power, too
                device.power_off()

    def power_off(self) -> None:
        """Take the power from all sensors; faults stay."""
        for device in self._devices.values():
            device.power_off()

    def state(self) -> dict[str, Any]:
        """Describe everything for the control socket."""
        faults: dict[str, str | None] = {BUS: self._fault}
        faults |= {name: device.fault for name, device in self._devices.items()}
        return {"air": dict(self._air), "fault": faults}


def _check_air(key: str, value: Any) -> None:
    if key not in _LIMITS:
        raise WiringError(f"air has no {key!r}; it has: {', '.join(_LIMITS)}")
    low, high = _LIMITS[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise WiringError(f"air.{key} must be a number from {low} to {high}")
