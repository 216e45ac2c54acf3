"""The chips that a board may have, and how each one's flash begins.

Source: ESP-IDF, "Firmware Image Format" (chip ids), "Bootloader" (where each chip's ROM looks for
it); MicroPython's boards of these names.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLE_ADDRESS = 0x8000
TABLE_BYTES = 0xC00


@dataclass(frozen=True)
class Chip:
    """A chip that MicroPython and the agent run on.

    Attributes:
        name: as esptool calls it.
        image_id: its number in a firmware image's header.
        start: the flash address of the boot loader, at which an image file begins.
        build: what micropython.org calls the image for it.
    """

    name: str
    image_id: int
    start: int
    build: str

    @property
    def official(self) -> str:
        """Where the image for it is published."""
        return f"https://micropython.org/download/{self.build}/"


ESP32 = Chip("ESP32", 0, 0x1000, "ESP32_GENERIC")
CHIPS = (
    ESP32,
    Chip("ESP32-S3", 9, 0x0, "ESP32_GENERIC_S3"),
    Chip("ESP32-C3", 5, 0x0, "ESP32_GENERIC_C3"),
)

_OTHERS = {2: "ESP32-S2", 12: "ESP32-C2", 13: "ESP32-C6", 16: "ESP32-H2", 18: "ESP32-P4"} | {
    23: "ESP32-C5"
}


def by_image(image_id: int) -> Chip | None:
    """Return the chip that an image is for, None for one that the agent does not run on."""
    return next((chip for chip in CHIPS if chip.image_id == image_id), None)


def name(image_id: int) -> str:
    """Return what a chip is called, also one that is not used here."""
    chip = by_image(image_id)
    return chip.name if chip else _OTHERS.get(image_id, f"chip {image_id}")
