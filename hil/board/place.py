"""Whether a stopped MicroPython is where an exception may be raised.

The unix port raises KeyboardInterrupt inside its signal handler, out of whatever C code is
running. Out of its allocator, its collector or its table of names that leaves a mutex held or
blocks half-marked, and the interpreter hangs or crashes soon after; out of a library it leaves
that in between. Each such place holds a mutex in the program's own data, which names its owner
as long as it is held. While it is just being taken or given back the processor is in the library.

Source: glibc's pthread_mutex_t: lock (1 or 2 while it is held), count, owner (32 bits each), in
64-bit and in 32-bit programs. proc_pid_syscall(5).
"""

from __future__ import annotations

import contextlib
import re
import struct
from pathlib import Path

_ALIGNMENT_BYTES = 4
_LOCK = rb"[\x01\x02]\x00\x00\x00"
_COUNT = rb"[\x00-\x0f]\x00\x00\x00"  # of a recursive one; 0 of another
_IN_NO_CALL = "-1"


class Place:
    """Where one process is, which has loaded all of its program."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        owner = re.escape(struct.pack("<i", pid))
        self._held = re.compile(b"(?=" + _LOCK + _COUNT + owner + b")", re.DOTALL)
        self._code: list[range] = []
        self._data: list[range] = []
        with contextlib.suppress(OSError):  # where reading is not allowed nothing is known
            self._look()

    def is_busy(self) -> bool:
        """Tell whether an exception would do harm. The process must be stopped."""
        try:
            return self._is_in_library() or self._holds_lock()
        except OSError:  # it is gone
            return False

    def _is_in_library(self) -> bool:
        said = (self._folder / "syscall").read_text(encoding="ascii").split()
        if said[0] != _IN_NO_CALL or not self._code:
            return False
        return not any(int(said[-1], 16) in span for span in self._code)

    def _holds_lock(self) -> bool:
        with (self._folder / "mem").open("rb", buffering=0) as memory:
            for span in self._data:
                memory.seek(span.start)
                for found in self._held.finditer(memory.read(len(span))):
                    if found.start() % _ALIGNMENT_BYTES == 0:
                        return True
        return False

    def _look(self) -> None:
        """Find the program's own code and writable data, with the unnamed part behind that."""
        is_own = False
        for line in (self._folder / "maps").read_text(encoding="utf-8").splitlines():
            ends, access, _, _, _, *path = line.split(maxsplit=5)
            is_own = "micropython" in path[0].rpartition("/")[2] if path else is_own
            span = range(*(int(number, 16) for number in ends.split("-")))
            if is_own and "x" in access:
                self._code.append(span)
            elif is_own and access.startswith("rw"):
                self._data.append(span)
