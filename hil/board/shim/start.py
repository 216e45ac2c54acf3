"""Started by the board process: MicroPython start.py FOLDER CHANNEL FLASH WEAR."""

import sys

sys.path[:] = [sys.argv[1], ".frozen"]  # FOLDER/shim is the package; its modules hide nothing here

import shim.main

shim.main.begin(globals())
