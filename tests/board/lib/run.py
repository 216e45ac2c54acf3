"""Run shared tests on MicroPython: micropython run.py FIRMWARE TESTS MODULE …"""

import sys

sys.path[:] = [sys.argv[1], sys.argv[2], sys.path[0], ".frozen"]

import unittest

sys.exit(unittest.run(sys.argv[3:]))
