"""MicroPython's own module, but Ctrl-C is the board process's matter."""

from micropython import *

from . import channel


def kbd_intr(char):
    # A program that turns Ctrl-C off speaks a protocol of its own: its bytes stay as they are.
    channel.call("interrupt", char=char, raw=char < 0)
