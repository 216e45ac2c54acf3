"""Seconds from a blank board to its first committed report, beside what line and flash allow.

One virtual board, its line paced to 921600 baud, its flash as slow as a W25Q32's typical
figures; the limit is that of `benchmarks.limit`.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import limit
from hil.city import VirtualBoard, VirtualCity
from provisioning.flash import Progress

_BAUD = 921600
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
            settings = city.boards[0].process.settings
            begin = time.monotonic()
            (flashed,) = city.flash(note)
            while not city.committed():
                time.sleep(_POLL_S)
            first_report_s = round(time.monotonic() - begin, 3)
        image, flash = flashed.application.path, settings.flash
        bound = limit.of(limit.regions(image, limit.files(flash, image)), _BAUD, folder)
    verified_s = round(sum(flashed.seconds[stage] for stage in _VERIFIED), 3)
    return {
        "baud": _BAUD,
        "deflated_bytes": sum(sent.values()),
        "verified_s": verified_s,
        "self_tested_s": round(flashed.seconds["total"], 3),
        "first_report_committed_s": first_report_s,
        "stages_s": flashed.seconds,
        "limit": bound,
        "verified_times_overlapped_limit": round(verified_s / bound["overlapped_s"], 3),
        "first_report_times_overlapped_limit": round(first_report_s / bound["overlapped_s"], 3),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
