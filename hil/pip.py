"""Give pip to a virtual environment that was made without it: `python3 -m hil.pip .venv`.

Debian and Ubuntu leave pip out of their Python and keep it in packages of their own. `make setup`
calls this where `python3-venv` is not installed, so that nobody needs root for that either.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from hil.archive import Apt, FetchError, known_sources, output, read_archive, unpack

_PACKAGE = "python3-pip-whl"


def main() -> int:
    """Fetch the distribution's pip, put it into the environment, return the exit code."""
    environment = Path(sys.argv[1])
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = _fetch(Path(scratch))
            pip = [str(environment / "bin/python"), f"{wheel}/pip", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "--quiet", "--no-index", str(wheel)], check=True)
    except (FetchError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: this Python has no pip, and none can be fetched: {error}\n")
        sys.stderr.write("hint: sudo apt install python3-venv\n")
        return 2
    return 0


def _fetch(scratch: Path) -> Path:
    mirror = os.environ.get("DEBIAN_MIRROR", "")
    archive = read_archive(platform.freedesktop_os_release(), known_sources(), mirror)
    native = output("dpkg", "--print-architecture").strip()
    apt = Apt(scratch / "apt", archive, (native,))
    apt.update()
    version = apt.closure(native, [_PACKAGE])[_PACKAGE]
    apt.download(native, {_PACKAGE: version}, scratch / "debs")
    unpack(scratch / "debs", scratch / "tree")
    return next((scratch / "tree").glob("usr/share/python-wheels/pip-*.whl"))


if __name__ == "__main__":
    sys.exit(main())
