"""Children that do not outlive their parent, however it ends.

python -m fleet.gateway.leash PARENT PROGRAM ARGUMENT…   becomes PROGRAM, on the leash
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent ends.

    The kernel watches the parent's thread that started this process, so children are started
    from the main thread only. A program that changes its user is off the leash.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before the leash was on
        sys.exit(1)


def command(program: str, *arguments: str) -> list[str]:
    """Return the command line that starts a program on this process's leash."""
    return [*module(__name__), str(os.getpid()), program, *arguments]


def module(name: str) -> list[str]:
    """Return the command line of one of our modules; -P: a file here shadows no module."""
    return [sys.executable, "-P", "-m", name]


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - that is its job
