"""Files that are whole or not there: after a power cut, and for whoever reads meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.text import printable

PUBLIC = 0o644
PRIVATE = 0o600

# What is done under a lock takes milliseconds; who holds it longer hangs.
PATIENCE_S = 30.0
_POLL_S = 0.02


def write(path: Path, content: bytes | str, mode: int = PUBLIC) -> None:
    """Replace a file in one step, on disk when this returns.

    The new content is never readable to more people than `mode` says, not even for a moment.

    Raises: OSError: the folder cannot be written; the old file is untouched then.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk, so that a new file's name survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> Path:
    """Make sure that a folder is there and that only its owner can look into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def secret_folder(folder: Path) -> Path:
    """Make a private folder that git does not see, inside one that people keep in git."""
    private_folder(folder)
    hide_from_git(folder)
    return folder


def hide_from_git(folder: Path) -> None:
    """Have git see nothing in a folder."""
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write(ignore, "*\n")


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock; the kernel gives it back when the process ends, however it ends.

    Raises: BlockingIOError: another process holds it, for too long or when `wait` is false;
        its `strerror` says which one.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    until = time.monotonic() + (PATIENCE_S if wait else 0)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise BlockingIOError(
                        errno.EAGAIN, f"{_holder(descriptor)} is changing it", str(folder)
                    ) from None
                time.sleep(_POLL_S)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return who holds the lock on an open folder, as far as this machine knows."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    with contextlib.suppress(OSError, KeyError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # "1: FLOCK ADVISORY WRITE 4711 fe:00:2204304 0 EOF"; "->" marks those that wait.
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == f"{device}:{status.st_ino}":
                process = Path("/proc") / fields[4]
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                return f"process {fields[4]} of {process.owner()} ({printable(command, 120)})"
    return "another process"
