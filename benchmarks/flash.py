"""Seconds from a blank board to a verified one, beside what line and flash allow.

One virtual board, its line paced to 921600 baud, its flash as slow as a W25Q32's typical
figures. The limit is (deflated bytes × 10 ÷ baud) for the line and erase plus program time for
the flash; a stub that receives while it programs cannot be faster than the slower of the two
(`overlapped_s`), one that does not cannot be faster than both together (`sum_s`).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hil.board.application import build_image
from hil.board.board import Settings
from hil.board.flash import SECTOR_BYTES, Flash
from hil.board.process import BoardProcess
from provisioning import application
from provisioning.flash import BAUD, FlashRequest, Progress, flash_board

_BITS_PER_BYTE = 10
_VERIFIED = ("connect", "prepare", "application", "file system")
_INVENTORY = """\
version = 1
[city]
id = "bench"
name = "Bench"
[measurement]
resolver = { name = "probe.example.org", address = "203.0.113.80" }
internet = { address = "203.0.113.80", host = "probe.example.org" }
[wlan.open]
ssid = "bench"
security = "open"
[district.bench]
name = "Bench"
[gateway.gw-bench]
host = "192.0.2.10"
broker_host = "10.1.0.2"
[site.desk]
name = "Desk"
district = "bench"
gateway = "gw-bench"
wlan = "open"
rooms = ["1"]
"""


def measure() -> dict[str, Any]:
    """Flash one blank board and compare."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-bench-") as name:
        folder = Path(name)
        (folder / "inventory.toml").write_text(_INVENTORY)
        image = folder / "stand-in.bin"
        image.write_bytes(build_image())
        sent: dict[str, int] = {}

        def note(step: Progress) -> None:
            sent[step.stage] = step.total_bytes

        with BoardProcess(Settings(link=folder / "board")) as board:
            request = FlashRequest(folder, str(board.link), "desk", "1", "classroom-sensor", image)
            flashed = flash_board(request, note)
        loaded = flashed.application
        limits = {
            "application": _limit(
                folder, application.START, len(loaded.content), sent["application"]
            ),
            "file system": _limit(
                folder, loaded.file_system.offset, loaded.file_system.size, sent["file system"]
            ),
        }
    verified_s = round(sum(flashed.seconds[stage] for stage in _VERIFIED), 3)
    limit = {
        key: round(sum(part[key] for part in limits.values()), 3)
        for key in ("line_s", "flash_s", "sum_s", "overlapped_s")
    }
    return {
        "baud": BAUD,
        "deflated_bytes": sum(sent.values()),
        "verified_s": verified_s,
        "self_tested_s": round(flashed.seconds["total"], 3),
        "stages_s": flashed.seconds,
        "limit": limit,
        "times_overlapped_limit": round(verified_s / limit["overlapped_s"], 3),
        "times_sum_limit": round(verified_s / limit["sum_s"], 3),
        "limit_by_stage": limits,
    }


def _limit(folder: Path, address: int, size: int, deflated_bytes: int) -> dict[str, float]:
    flash = Flash(folder / "limit.bin")
    try:
        sectors = -(-size // SECTOR_BYTES) * SECTOR_BYTES
        busy_us = flash.erase_region(address, sectors) + flash.timing.program_us(address, size)
    finally:
        flash.close()
    line_s = deflated_bytes * _BITS_PER_BYTE / BAUD
    flash_s = busy_us / 1e6
    return {
        "line_s": round(line_s, 3),
        "flash_s": round(flash_s, 3),
        "sum_s": round(line_s + flash_s, 3),
        "overlapped_s": round(max(line_s, flash_s), 3),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
