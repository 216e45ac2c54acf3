"""A board's file system in a process of its own.

LittleFS trusts what it reads: in metadata that lie it ends the process, takes all memory or goes
round in circles. At a desk with ten boards that must cost the one that lies, and no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, Any, cast

from provisioning.disk import BLOCK_BYTES, Disk, Extent, Fetch, damaged
from provisioning.errors import DiskError, DiskFullError

_CPU_S = 20
_MEMORY_BYTES = 1024 * 1024 * 1024
_OFFSET_BYTES = 4


class GuardedDisk:
    """As `disk.Disk`, and whatever is in the flash, each call returns or raises DiskError.

    Raises: DiskError: what is there is no file system that can be used.
    """

    def __init__(self, size: int, fetch: Fetch) -> None:
        self._fetch = fetch
        places = os.pathsep.join(place or os.curdir for place in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": places},
            # Ctrl-C is for the desk; this process ends when its pipe does.
            start_new_session=True,
        )
        weakref.finalize(self, _end, process)
        self._told, self._heard = (
            cast("IO[bytes]", process.stdin),
            cast("IO[bytes]", process.stdout),
        )
        self._ask("open", size=size)

    def names(self) -> list[str]:
        """List the files by path, sorted, with "/" between folders."""
        names: list[str] = self._ask("names")[0]
        return names

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if there is none of that name."""
        is_there, content = self._ask("read", path=path)
        return content if is_there else None

    def write(self, path: str, content: bytes) -> None:
        """Make a file hold this; one that does already is left alone."""
        self._ask("write", content, path=path)

    def remove(self, path: str) -> None:
        """Remove a file that is there."""
        self._ask("remove", path=path)

    def free_bytes(self) -> int:
        """Return how much more fits."""
        return int(self._ask("free")[0])

    def changes(self) -> list[Extent]:
        """Return what to write, as `Disk.changes`."""
        _, content = self._ask("changes")
        step = _OFFSET_BYTES + BLOCK_BYTES
        return [
            Extent(
                int.from_bytes(content[at : at + _OFFSET_BYTES], "big"),
                content[at + _OFFSET_BYTES : at + step],
            )
            for at in range(0, len(content), step)
        ]

    def _ask(self, what: str, content: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        try:
            _send(self._told, {"do": what, **arguments}, content)
            while True:
                answer, content = _receive(self._heard)
                if "fetch" not in answer:
                    break
                _send(self._told, {}, self._fetch(answer["fetch"]))
        except (EOFError, BrokenPipeError):
            raise damaged("its metadata lead LittleFS astray") from None
        if "failed" in answer:
            kind = DiskFullError if answer["full"] else DiskError
            raise kind(answer["failed"], hint=answer["hint"])
        return answer["value"], content


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _send(stream: IO[bytes], head: dict[str, Any], content: bytes = b"") -> None:
    stream.write(json.dumps({**head, "bytes": len(content)}).encode() + b"\n" + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Raises: EOFError: the other end is gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head: dict[str, Any] = json.loads(line)
    content = stream.read(head["bytes"])
    if len(content) != head["bytes"]:
        raise EOFError
    return head, content


def _serve(heard: IO[bytes], told: IO[bytes]) -> None:
    """Be the process of its own, until the desk closes the pipe."""

    def fetch(block: int) -> bytes:
        _send(told, {"fetch": block})
        return _receive(heard)[1]

    disk: Disk | None = None
    while True:
        request, content = _receive(heard)
        try:
            if disk is None:
                disk = Disk(request["size"], fetch)
                value, content = None, b""
            else:
                value, content = _do(disk, request, content)
        except DiskError as error:
            is_full = isinstance(error, DiskFullError)
            _send(told, {"failed": error.message, "hint": error.hint, "full": is_full})
        else:
            _send(told, {"value": value}, content)


def _do(disk: Disk, request: dict[str, Any], content: bytes) -> tuple[Any, bytes]:
    match request["do"]:
        case "names":
            return disk.names(), b""
        case "read":
            found = disk.read(request["path"])
            return found is not None, found or b""
        case "write":
            disk.write(request["path"], content)
            return None, b""
        case "remove":
            disk.remove(request["path"])
            return None, b""
        case "free":
            return disk.free_bytes(), b""
    return None, b"".join(
        each.offset.to_bytes(_OFFSET_BYTES, "big") + each.content for each in disk.changes()
    )


def _own_stdout() -> IO[bytes]:
    """Return the pipe to the desk; whatever else is printed here goes nowhere."""
    told = os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return told


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # It would hold the board's keys.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit()
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve(sys.stdin.buffer, _own_stdout())
