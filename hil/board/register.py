"""The registers of an ESP32 that esptool looks at: chip magic, eFuses, UART and SPI.

Sources: ESP32 Technical Reference Manual, chapters eFuse, UART and SPI; esptool's
`targets/esp32.py`, which says what it expects where.
"""

from __future__ import annotations

from hil.board.flash import JEDEC_ID

CHIP_MAGIC = 0x40001000
EFUSE = 0x3FF5A000
RTC_CALIBRATION = 0x3FF5F06C
SYSCON_DATE = 0x3FF6607C
UART_DIVIDER = 0x3FF40014
SPI = 0x3FF42000
SPI_USER2 = SPI + 0x24
SPI_WORD0 = SPI + 0x80
SPI_END = SPI + 0x100

_CRYSTAL_HZ = 40_000_000
_SPI_USER_COMMAND = 1 << 18
_READ_JEDEC_ID = 0x9F
_FIXED = {
    CHIP_MAGIC: 0x00F01D83,
    EFUSE + 0x0C: 1 << 15 | 1 << 13 | 1 << 9,  # revision bit 0, 240 MHz, package D0WD
    EFUSE + 0x10: 0x80,  # 8 MHz clock's trim, from which esptool reckons the crystal
    EFUSE + 0x14: 1 << 20,  # revision bit 1
    SYSCON_DATE: 1 << 31,  # revision bit 2: together v3.0
    RTC_CALIBRATION: 800 << 7,
}


class Registers:
    """Readable and writable words by address; what is not modelled reads as 0."""

    def __init__(self, mac: bytes) -> None:
        self._fixed = _FIXED | {
            EFUSE + 0x04: int.from_bytes(mac[2:], "big"),
            EFUSE + 0x08: _crc8(mac) << 16 | int.from_bytes(mac[:2], "big"),
        }
        self._spi: dict[int, int] = {}

    def read(self, address: int, baud: int) -> int:
        """Return the word at `address`, as it is while the UART runs at `baud`."""
        if address == UART_DIVIDER:
            return _CRYSTAL_HZ // max(baud, 1)
        return self._spi.get(address, self._fixed.get(address, 0))

    def write(self, address: int, value: int, mask: int) -> None:
        """Change the bits under `mask`; a command written to the SPI controller is run."""
        if not SPI <= address < SPI_END:
            return
        self._spi[address] = self._spi.get(address, 0) & ~mask | value & mask
        if address == SPI and self._spi[SPI] & _SPI_USER_COMMAND:
            self._spi[SPI] &= ~_SPI_USER_COMMAND
            command = self._spi.get(SPI_USER2, 0) & 0xFF
            answer = JEDEC_ID if command == _READ_JEDEC_ID else b""
            self._spi[SPI_WORD0] = int.from_bytes(answer, "little")


def _crc8(mac: bytes) -> int:
    """Return the CRC-8 that the factory stores beside the MAC (polynomial 0x8C, start 0)."""
    crc = 0
    for byte in mac:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc
