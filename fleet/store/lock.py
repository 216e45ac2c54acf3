"""Locks between processes: who writes the store, who has its file open, whose turn is next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fleet.errors import StoreError

_POLL_S = 0.02


@contextlib.contextmanager
def locked(path: Path, kind: int, patience_s: float) -> Iterator[int | None]:
    """Hold a lock on a file and yield its descriptor, or None if others have held it too long.

    Raises: StoreError: the file cannot be made.
    """
    descriptor = _opened(path)
    try:
        yield descriptor if _lock(descriptor, kind, time.monotonic() + patience_s) else None
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a lock file; for reading is enough for who may only read the store."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise StoreError(
            f"cannot open {path}: {error.strerror}", hint="look at free space and rights there"
        ) from None


def _lock(descriptor: int, kind: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        else:
            return True
