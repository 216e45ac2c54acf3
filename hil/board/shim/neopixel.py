"""neopixel as it is frozen into an ESP32's image, on machine.bitstream."""

from .wiring import bitstream

_ORDER = (1, 0, 2, 3)


class NeoPixel:
    """A strip of LEDs."""

    ORDER = _ORDER

    def __init__(self, pin, n, bpp=3, timing=1):
        self.pin, self.n, self.bpp = pin, n, bpp
        self.buf = bytearray(n * bpp)
        self.timing = (400, 850, 800, 450) if timing == 1 else (800, 1700, 1600, 900)

    def __len__(self):
        return self.n

    def __setitem__(self, i, v):
        for part in range(self.bpp):
            self.buf[i * self.bpp + self.ORDER[part]] = v[part]

    def __getitem__(self, i):
        return tuple(self.buf[i * self.bpp + self.ORDER[part]] for part in range(self.bpp))

    def fill(self, v):
        for i in range(self.n):
            self[i] = v

    def write(self):
        bitstream(self.pin, 0, self.timing, self.buf)
