"""Seconds for a tray of boards, side by side, against one board: the same content, the same desk.

Each is a virtual board in a process of its own, its line paced to 921600 baud, its flash as slow as
a W25Q32's typical figures. All of them share this machine's cores with the desk, which real boards
do not: `processor_s` says how much of them the boards took (from their start to their end), and how
much the desk.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from hil.board import BoardProcess, Settings
from hil.board.application import build_image
from provisioning.display import TrayDisplay
from provisioning.flash import FlashRequest
from provisioning.port import Adapter
from provisioning.room import Rooms
from provisioning.roomlist import Row
from provisioning.tray import Tray
from tests.provisioning.bench import WLAN_KEY
from tests.provisioning.conftest import INVENTORY

BOARDS = 8
RUNS = 1

_BAUD = 921600

_ROOMS = [f"R{number}" for number in range(101, 101 + BOARDS)]
_RADIO = {
    "ssid": "Schulnetz", "bssid": "a4:2b:b0:00:00:01", "channel": 6, "rssi_dbm": -58,
    "security": "wpa2-psk", "key": WLAN_KEY, "up": True,
}  # fmt: skip
_VERIFIED = ("connect", "room", "prepare", "application", "file system")


def measure(runs: int = RUNS) -> dict[str, Any]:
    """Flash one blank board, then a tray of them, in turn."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-bench-") as name:
        folder = Path(name)
        image = folder / "stand-in.bin"
        image.write_bytes(build_image())
        (folder / "radio.json").write_text(json.dumps({"access_points": [_RADIO]}))
        taken: dict[int, list[dict[str, Any]]] = {1: [], BOARDS: []}
        for run in range(runs):
            for count, each in taken.items():
                each.append(_tray(folder / f"{run}-{count}", image, count))
    one, tray = (
        {key: _median([each[key] for each in taken[count]]) for key in taken[count][0]}
        for count in (1, BOARDS)
    )
    return {
        "baud": _BAUD,
        "boards": BOARDS,
        "runs": runs,
        "cores": os.cpu_count(),
        "one": one,
        "tray": tray,
        "tray_times_one": round(tray["seconds"] / one["seconds"], 3),
        "verified_tray_times_one": round(tray["verified_s"] / one["verified_s"], 3),
    }


def _tray(folder: Path, image: Path, count: int) -> dict[str, Any]:
    """Return what a tray of so many boards took."""
    city = folder / "city"
    (city / "secrets").mkdir(parents=True, mode=0o700)
    rooms = json.dumps(_ROOMS)
    (city / "inventory.toml").write_text(INVENTORY.replace('["R101", "R102"]', rooms))
    (city / "secrets" / "wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
    request = FlashRequest(city, "", "school-north", "", "classroom-sensor", image, baud=_BAUD)
    rows = [Row(room, "classroom-sensor", line=at + 2) for at, room in enumerate(_ROOMS)]
    links = [folder / f"board{number}" for number in range(count)]
    boards_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with ExitStack() as stack:
        for number, link in enumerate(links):
            settings = Settings(
                link=link,
                radio=folder.parent / "radio.json",
                mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number)),
            )
            stack.enter_context(BoardProcess(settings))
        with TrayDisplay(Console(stderr=True), has_keyboard=False) as display:
            tray = Tray(
                request,
                Rooms(city, request.site, rows),
                lambda: [Adapter(str(link)) for link in links],
                display,
            )
            desk_before = resource.getrusage(resource.RUSAGE_SELF)
            begin = time.monotonic()
            ends = tray.run()
            seconds = time.monotonic() - begin
            desk_after = resource.getrusage(resource.RUSAGE_SELF)
    flashed = [each.result for each in ends if each.result]
    if len(flashed) != count:
        raise SystemExit(f"failed: {[each.error for each in ends if each.error]}")
    stages = {
        stage: statistics.median(each.seconds[stage] for each in flashed)
        for stage in flashed[0].seconds
    }
    return {
        "seconds": round(seconds, 3),
        "verified_s": max(sum(each.seconds[s] for s in _VERIFIED) for each in flashed),
        "stages_s": stages,
        "processor_s": {
            "desk": _processor_s(desk_before, desk_after),
            "boards": _processor_s(boards_before, resource.getrusage(resource.RUSAGE_CHILDREN)),
        },
    }


def _processor_s(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _median(values: Sequence[Any]) -> Any:
    """Return the median of numbers, or of each number in tables alike."""
    if isinstance(values[0], dict):
        return {key: _median([each[key] for each in values]) for key in values[0]}
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)))
