"""GC heap that the agent needs on 32-bit MicroPython, whose pointers are as small as an ESP32's.

The compiled agent measures and reports over mutual TLS through a real mosquitto; the heap is
made smaller until it no longer does. What mbedTLS takes lies outside this heap, here as on
the board.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from hil import tool
from tests.board.site import Collector, Site, compiled

_KEY = bytes(range(32))
_LEAST_KIB, _MOST_KIB = 16, 256
_SECONDS = 4
_REPORTS = 3


def measure() -> dict[str, object]:
    """Bisect the smallest heap with which reports are made, sent and acknowledged."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-") as folder:
        code = compiled(Path(folder) / "code")
        (Path(folder) / "site").mkdir()
        with Site(Path(folder) / "site") as site:
            low, high = _LEAST_KIB, _MOST_KIB
            if not _works(site, code, high):
                sys.exit(f"error: the agent does not even work with {high} KiB of heap")
            while high - low > 1:
                middle = (low + high) // 2
                if _works(site, code, middle):
                    high = middle
                else:
                    low = middle
        size = sum(path.stat().st_size for path in code.rglob("*.mpy") if path.name != "board.mpy")
    return {"agent_heap_bytes_32bit": high * 1024, "agent_compiled_bytes": size}


def _works(site: Site, code: Path, heap_kib: int) -> bool:
    """Run a new board for a while; tell whether all went well."""
    board = f"np-{heap_kib:012x}"
    root = site.furnish(board, _KEY, period_s=1)
    collector = Collector(site, "collector", {board: _KEY})
    try:
        running = site.start_board(
            tool.find("micropython32"), code, root, _SECONDS, heap_kib=heap_kib
        )
        output = running.communicate(timeout=_SECONDS + 30)[0]
        held = len(collector.seqs(board))
    finally:
        collector.close()
    last = (output.strip().splitlines() or [""])[-1]
    if not last.startswith("STOPPED "):
        return False
    stopped = json.loads(last.removeprefix("STOPPED "))
    return held >= _REPORTS and stopped["errors"] == 0 and "uplink:" not in output


if __name__ == "__main__":
    print(json.dumps(measure()))
