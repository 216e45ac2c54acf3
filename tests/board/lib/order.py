"""Lets the soak's board be as its next order says. On loan, for a moment before each cycle."""

import sys

from agent.loan import borrow, give_back
from micropython import const
from port import FAILED

_LOSE = const(2)  # see soak.py
_FLASH_FAILS = const(64)
_FLASH_FULL = const(128)


def take(port, spool):
    """Read an order and do from now on what it says; return the patience in ms, None at the end."""
    order = sys.stdin.readline().split()
    if not order:
        return None
    flags, status, step_s, left_ms = [int(number) for number in order]
    port.flags = flags
    if flags & _LOSE:
        port.state = FAILED
    port.status = status
    port.offset_s += step_s
    _wear(spool, flags)
    return left_ms


def _wear(spool, flags):
    """Let the spool's flash fail as ordered, and no longer."""
    failing = flags & (_FLASH_FAILS | _FLASH_FULL)
    if failing and isinstance(spool.files, str):
        spool.files = borrow("worn").Files(spool.files)
    if failing:
        spool.files.fails = bool(flags & _FLASH_FAILS)
    elif not isinstance(spool.files, str):
        spool.files = spool.files.folder
        give_back("worn")
