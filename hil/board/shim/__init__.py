"""What the board's MicroPython finds in place of an ESP32's own modules.

These files run on MicroPython, inside the virtual board. They replace `network`, `machine`,
`neopixel`, `esp32`, `ntptime`, `socket`, `time`, `os`, `sys` and `micropython` in sys.modules
before boot.py starts; the firmware imports them as it does on a chip.
"""
