"""Kinds of boards: `[hardware]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fleet.document import Table

NO_HARDWARE = "none"
# An ESP32's outputs; the others are the console's and the flash chip's, or not there at all
# (firmware/agent/config.py).
PIN_MAX, PINS_TAKEN = 33, {1, 3, 6, 7, 8, 9, 10, 11, 24, 28, 29, 30, 31}


def _pin(number: int) -> int:
    if number in PINS_TAKEN:
        raise ValueError("must be a pin there is, no pin of the console (1, 3) or flash (6 to 11)")
    return number


Pin = Annotated[int, Field(ge=0, le=PIN_MAX), AfterValidator(_pin)]
Lamps = Annotated[list[Pin], Field(min_length=3, max_length=3)]


# Presets of firmware/port/lan.py; these pins are the Ethernet's on all of them (RMII, MDC, MDIO).
Lan = Literal[
    "esp32-ethernet-kit",
    "lilygo-t-internet-poe",
    "olimex-esp32-gateway",
    "olimex-esp32-poe",
    "wt32-eth01",
]
LAN_PINS = {18, 19, 21, 22, 23, 25, 26, 27}
Sensor = Literal["scd4x", "sht4x", "bme280"]


class I2c(Table):
    """The pins of the sensors' bus."""

    sda: Pin
    scl: Pin


class Hardware(Table):
    """What hangs on a board besides its chip; `lan` is a preset.

    `led` is a pin, `light` that of a ring of WS2812, or the pins of a green, yellow and red lamp.
    """

    lan: Lan | None = None
    sensors: Annotated[list[Sensor], Field(max_length=3)] = Field(default_factory=list)
    i2c: I2c | None = None
    light: Pin | Lamps | None = None
    led: Pin | None = None
