"""Seconds from a blank board to its first committed report, beside what line and flash allow.

One virtual board, its line paced to 921600 baud, its flash as slow as a W25Q32's typical
figures. The limit is (deflated bytes × 10 ÷ baud) for the line and erase plus program time for
the flash; a stub that receives while it programs cannot be faster than the slower of the two
(`overlapped_s`), one that does not cannot be faster than both together (`sum_s`).
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from hil.board.flash import SECTOR_BYTES, Flash
from hil.city import VirtualBoard, VirtualCity
from provisioning.flash import Progress

_BAUD = 921600
_BITS_PER_BYTE = 10
_VERIFIED = ("connect", "prepare", "application", "file system")
_PERIOD_S = 2
_POLL_S = 0.01


def measure() -> dict[str, Any]:
    """Flash one blank board, let it join and report, and compare."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-bench-") as name:
        folder = Path(name)
        sent: dict[str, int] = {}

        def note(_board: VirtualBoard, step: Progress) -> None:
            sent[step.stage] = step.total_bytes

        with VirtualCity(folder / "city", 1, period_s=_PERIOD_S, baud=_BAUD) as city:
            begin = time.monotonic()
            (flashed,) = city.flash(note)
            while not city.committed():
                time.sleep(_POLL_S)
            first_report_s = round(time.monotonic() - begin, 3)
        loaded = flashed.application
        limits = {
            "application": _limit(
                folder, loaded.chip.start, len(loaded.content), sent["application"]
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
        "baud": _BAUD,
        "deflated_bytes": sum(sent.values()),
        "verified_s": verified_s,
        "self_tested_s": round(flashed.seconds["total"], 3),
        "first_report_committed_s": first_report_s,
        "stages_s": flashed.seconds,
        "limit": limit,
        "verified_times_overlapped_limit": round(verified_s / limit["overlapped_s"], 3),
        "first_report_times_overlapped_limit": round(first_report_s / limit["overlapped_s"], 3),
        "limit_by_stage": limits,
    }


def _limit(folder: Path, address: int, size: int, deflated_bytes: int) -> dict[str, float]:
    flash = Flash(folder / "limit.bin")
    try:
        sectors = -(-size // SECTOR_BYTES) * SECTOR_BYTES
        busy_us = flash.erase_region(address, sectors) + flash.timing.program_us(address, size)
    finally:
        flash.close()
    line_s = deflated_bytes * _BITS_PER_BYTE / _BAUD
    flash_s = busy_us / 1e6
    return {
        "line_s": round(line_s, 3),
        "flash_s": round(flash_s, 3),
        "sum_s": round(line_s + flash_s, 3),
        "overlapped_s": round(max(line_s, flash_s), 3),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
