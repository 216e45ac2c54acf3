"""os of an ESP32."""

import sys
from collections import namedtuple
from os import *

_uname = namedtuple("uname", ("sysname", "nodename", "release", "version", "machine"))


def uname():
    release = ".".join(str(part) for part in sys.implementation.version[:3])
    return _uname(
        "esp32",
        "esp32",
        release,
        "v%s, a Netzpuls virtual board" % release,
        "Generic ESP32 module with ESP32",
    )


def sync():
    pass
