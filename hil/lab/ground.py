"""What a lab stands on: its programs, room on the disk, a path short enough for sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fleet import tool as fleet_tool
from hil import tool
from hil.lab.error import LabError

# All names that a lab gives in its folder.
OWN = (
    "city",
    "log",
    "gw-*",
    "board-[0-9]*[0-9]",
    "board-*.control",
    "board-*.flash",
    "board-*.log",
    "board-*.radio.json",
    "lab.control",
    "stand-in.bin",
)
_PATH_LIMIT_BYTES = 107  # of a unix socket
_LONGEST_SOCKET = "board-4009.control"
_BASE_BYTES = 4 << 20
_BOARD_BYTES = 6 << 20  # a flash of 4 MB, its log, its reports at the gateway
_ELSEWHERE = "name another folder: --dir DIR"
_HINTS = {
    errno.ENOSPC: f"make room, or {_ELSEWHERE}",
    errno.EDQUOT: f"make room, or {_ELSEWHERE}",
    errno.EMFILE: "allow more open files: ulimit -n 8192; or build a smaller lab",
    errno.ENOMEM: "build a smaller lab: --sites, --boards",
    errno.EAGAIN: "allow more processes: ulimit -u; or build a smaller lab",
}


def check(folder: Path) -> None:
    """Find what the lab cannot do without, before anything is made or removed.

    Raises: ToolMissingError: a program is not here. LabError: the path is too long.
    """
    for name in ("dnsmasq", "micropython"):
        tool.find(name)
    fleet_tool.find(fleet_tool.MOSQUITTO)
    if len(os.fsencode(folder / _LONGEST_SOCKET)) > _PATH_LIMIT_BYTES:
        raise LabError(
            f"the lab's sockets cannot be in {folder}: a socket's path has at most "
            f"{_PATH_LIMIT_BYTES} bytes",
            hint="name a folder with a shorter path: --dir DIR",
        )


@contextlib.contextmanager
def told(folder: Path) -> Iterator[None]:
    """Tell what the system refuses meanwhile as what it means for the lab in a folder.

    Raises: LabError: in place of an OSError that a part did not expect.
    """
    try:
        yield
    except OSError as error:
        raise LabError(
            f"the lab in {folder} cannot be built: {_reason(error)}",
            hint=_HINTS.get(error.errno or 0, _ELSEWHERE),
        ) from error


def check_room(folder: Path, boards: int) -> None:
    """See that the disk has room for so many boards.

    Raises: LabError: it has not.
    """
    needed, free = _BASE_BYTES + boards * _BOARD_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise LabError(
            f"a lab of {boards} boards needs {needed >> 20} MiB, and {folder} has {free >> 20} MiB",
            hint=_HINTS[errno.ENOSPC],
        )


def _reason(error: OSError) -> str:
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {error.filename}" if error.filename else said
