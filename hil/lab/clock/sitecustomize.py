"""Moves the clock of the Python program that finds this file on its path.

For the gateway whose clock is wrong: NETZPULS_LAB_CLOCK_AHEAD_S says by how much.
"""

import os
import time

_AHEAD_S = int(os.environ.get("NETZPULS_LAB_CLOCK_AHEAD_S", "0"))
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _AHEAD_S
time.time_ns = lambda: _time_ns() + _AHEAD_S * 1_000_000_000
