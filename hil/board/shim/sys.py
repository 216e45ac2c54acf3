"""sys of an ESP32: the same interpreter, another platform."""

from collections import namedtuple
from sys import *
from sys import path  # not in its dictionary

platform = "esp32"
implementation = namedtuple("implementation", ("name", "version", "_machine", "_mpy", "_build"))(
    implementation.name,
    implementation.version,
    "Generic ESP32 module with ESP32",
    implementation._mpy,
    "ESP32_GENERIC",
)
