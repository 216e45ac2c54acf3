"""Where things lie on a gateway's host."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

ROOT: Final = PurePosixPath("/opt/netzpuls")
WHEELS: Final = ROOT / "wheel"
RELEASES: Final = ROOT / "release"
CURRENT: Final = ROOT / "current"
PREVIOUS: Final = ROOT / "previous"
PROGRAM: Final = CURRENT / "bin" / "netzpuls"
# Where a command that comes over SSH finds it.
COMMAND: Final = PurePosixPath("/usr/local/bin/netzpuls")
UNITS: Final = PurePosixPath("/etc/systemd/system")
JOURNAL: Final = PurePosixPath("/etc/systemd/journald.conf.d/netzpuls.conf")

SERVICES: Final = ("netzpuls-broker.service", "netzpuls-collector.service")
# What Debian brings. Its own mosquitto service must not run: the broker has its own rules.
PACKAGES: Final = ("mosquitto", "python3-venv")
FOREIGN_SERVICE: Final = "mosquitto.service"

# Debian's releases that are served, and the Python of each.
PYTHON_OF: Final = {"12": "3.11", "13": "3.13"}
# Debian's names of architectures, and those in the names of wheels.
MACHINE_OF: Final = {"amd64": "x86_64", "arm64": "aarch64"}
