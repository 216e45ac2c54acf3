"""Whether a stopped MicroPython holds one of its own locks.

The unix port raises KeyboardInterrupt inside its signal handler, out of whatever C code is
running. Out of its allocator or collector that leaves a lock held or blocks half-marked, and
the interpreter hangs or crashes soon after. Every such place holds a recursive mutex in the
program's own data; they are found while none is held, and looked at before an interrupt.

Source: glibc's pthread_mutex_t: lock, count, owner (32 bits each), then kind (32-bit
programs) or users and kind; kind 1 is recursive.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

# A recursive mutex that nobody holds, in a 64-bit and in a 32-bit program.
_FREE = re.compile(rb"(?=\x00{16}\x01\x00{23}|\x00{12}\x01\x00{11})")
_ALIGNMENT_BYTES = 4


class Locks:
    """The locks of one process, found while it waits for an answer and holds none."""

    def __init__(self, pid: int) -> None:
        self._memory = Path(f"/proc/{pid}/mem")
        self._addresses: list[int] = []
        with contextlib.suppress(OSError):  # where reading is not allowed nothing is known
            for start, data in self._data_of(pid):
                self._addresses += [
                    start + found.start()
                    for found in _FREE.finditer(data)
                    if found.start() % _ALIGNMENT_BYTES == 0
                ]

    def are_held(self) -> bool:
        """Tell whether any is held. The process must be stopped."""
        try:
            with self._memory.open("rb", buffering=0) as memory:
                for address in self._addresses:
                    memory.seek(address)
                    if any(memory.read(4)):
                        return True
        except OSError:  # it is gone
            return False
        return False

    def _data_of(self, pid: int) -> list[tuple[int, bytes]]:
        """Return the program's own writable data, with the unnamed part that follows it."""
        spans, is_own = [], False
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        with self._memory.open("rb", buffering=0) as memory:
            for line in maps.splitlines():
                span, access, _, _, _, *path = line.split(maxsplit=5)
                is_own = "micropython" in path[0].rpartition("/")[2] if path else is_own
                if is_own and access.startswith("rw"):
                    start, end = (int(number, 16) for number in span.split("-"))
                    memory.seek(start)
                    spans.append((start, memory.read(end - start)))
        return spans
