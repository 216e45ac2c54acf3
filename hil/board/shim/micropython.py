"""MicroPython's own module, but Ctrl-C is the board process's matter."""

from micropython import *

from . import interrupt


def kbd_intr(char):
    # A program that turns Ctrl-C off speaks a protocol of its own: its bytes stay as they are.
    interrupt.allow(char, raw=char < 0)
