"""What hangs on the chip's pins: lamps, as the levels that drive them, and the I2C bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hil.board.i2c import I2cBus
from hil.board.run import Request, RequestError

_FIRST, _LAST = 0x08, 0x77  # addresses that a scan asks


class Wiring:
    """The pins of one board."""

    def __init__(self, bus: I2cBus) -> None:
        self.bus = bus
        self._services: dict[str, Callable[[Request], Any]] = {
            "pin": self._pin,
            "pwm": self._pulse,
            "bitstream": self._bitstream,
            "i2c": self._transfer,
            "i2c-scan": self._scan,
        }
        self.reset()

    def reset(self) -> None:
        """Let go of all pins, as a reset does; the sensors keep their power."""
        self._levels: dict[int, int] = {}
        self._pulses: dict[int, tuple[int, int]] = {}
        self._strips: dict[int, str] = {}

    def state(self) -> dict[str, Any]:
        """Describe the pins for the control socket: level, PWM, what an LED strip was sent."""
        return {
            "pin": {str(pin): level for pin, level in self._levels.items()},
            "pwm": {
                str(pin): {"freq_hz": freq_hz, "duty_u16": duty}
                for pin, (freq_hz, duty) in self._pulses.items()
            },
            "strip": {str(pin): data for pin, data in self._strips.items()},
        }

    def knows(self, operation: str) -> bool:
        """Tell whether a request is for it."""
        return operation in self._services

    def serve(self, operation: str, request: Request) -> Any:
        """Answer a shim."""
        return self._services[operation](request)

    def _pin(self, request: Request) -> int:
        pin = int(request["pin"])
        if "level" in request:
            self._levels[pin] = 1 if request["level"] else 0
        elif request.get("pulled_up"):
            self._levels.setdefault(pin, 1)
        return self._levels.get(pin, 0)

    def _pulse(self, request: Request) -> None:
        pin = int(request["pin"])
        if request.get("off"):
            self._pulses.pop(pin, None)
        else:
            self._pulses[pin] = int(request["freq_hz"]), int(request["duty_u16"])

    def _bitstream(self, request: Request) -> None:
        self._strips[int(request["pin"])] = bytes.fromhex(request["data"]).hex()

    def _transfer(self, request: Request) -> str:
        write = bytes.fromhex(request["write"])
        try:
            return self.bus.transfer(int(request["address"]), write, int(request["read"])).hex()
        except OSError as error:
            raise RequestError(error.errno or str(error)) from error

    def _scan(self, _request: Request) -> list[int]:
        return [address for address in range(_FIRST, _LAST + 1) if self._answers(address)]

    def _answers(self, address: int) -> bool:
        try:
            self.bus.transfer(address, b"", 0)
        except OSError:
            return False
        return True
