"""GC heap that the agent needs on 32-bit MicroPython, whose pointers are as small as an ESP32's.

The compiled agent measures and reports over mutual TLS through a real mosquitto; the heap is
made smaller until it no longer does. Once more with a gateway that takes connections and says
nothing: what opens one stays loaded while the board measures. What mbedTLS takes lies outside this
heap, here as on the board.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hil import tool
from tests.board.site import Collector, Site, compiled

_KEY = bytes(range(32))
_LEAST_KIB, _MOST_KIB = 16, 256
_SECONDS = 4
_REPORTS = 3
_BROKER_PORT = 8883  # as the board knows it


def measure() -> dict[str, object]:
    """Bisect the smallest heaps with which reports are made, and sent and acknowledged."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-") as folder:
        code = compiled(Path(folder) / "code")
        (Path(folder) / "site").mkdir()
        with Site(Path(folder) / "site") as site, socket.create_server(("127.0.0.1", 0)) as mute:
            needed = _smallest(lambda heap_kib: _works(site, code, heap_kib))
            number = mute.getsockname()[1]
            needed_mute = _smallest(lambda heap_kib: _works(site, code, heap_kib, number))
        size = sum(path.stat().st_size for path in code.rglob("*.mpy") if path.name != "board.mpy")
    return {
        "agent_heap_bytes_32bit": needed * 1024,
        "agent_heap_bytes_32bit_silent_gateway": needed_mute * 1024,
        "agent_compiled_bytes": size,
    }


def _smallest(works: Callable[[int], bool]) -> int:
    """Return the smallest heap in KiB that does."""
    low, high = _LEAST_KIB, _MOST_KIB
    if not works(high):
        sys.exit(f"error: the agent does not even work with {high} KiB of heap")
    while high - low > 1:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high


def _works(site: Site, code: Path, heap_kib: int, silent_port: int | None = None) -> bool:
    """Run a new board for a while; tell whether all went well.

    With `silent_port` that is where the board finds its gateway.
    """
    board = f"np-{heap_kib:06x}{silent_port or 0:06x}"
    root = site.furnish(board, _KEY, period_s=1)
    if silent_port:
        routes = json.loads((root / "routes.json").read_text())
        routes = [[*way[:3], silent_port if way[1] == _BROKER_PORT else way[3]] for way in routes]
        (root / "routes.json").write_text(json.dumps(routes))
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
    if stopped["errors"] or "uplink:" in output:
        return False
    return (stopped["made"] if silent_port else held) >= _REPORTS


if __name__ == "__main__":
    print(json.dumps(measure()))
