"""What reports take on a board's flash, how they wear it, and what it costs to write them.

The file system is LittleFS as the OTA layout has it (960 KiB, the agent's files in it). `plain`
reports carry no extension block; `restless` ones are full of them, and every field moves. Wear
is that of a board whose reports are acknowledged one by one, which is where it writes most.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from firmware.linkreport import report
from firmware.linkreport.seal import Seal
from hil import tool
from tests.board import conftest  # noqa: F401 - board code is found by its own names from here on
from tests.board.flash import WEEK, Flash, LittleFiles, Numbers, Week, furnished
from tests.board.site import HERE, compiled

from agent.spool import Spool  # type: ignore[import-not-found]  # isort: skip

_KEY = bytes(range(32))
_DAY = 1440
_YEAR = 365 * _DAY


def measure() -> dict[str, object]:
    """Fill two flashes for a day each, one as it is acknowledged and one as it is not."""
    image = furnished()
    found: dict[str, object] = {
        "file_system_free_kib": LittleFiles(Flash(image)).free_bytes() // 1024
    }
    for kind in ("plain", "restless"):
        held = _live(image, kind == "restless", WEEK, is_acknowledged=False)
        worn = _live(image, kind == "restless", _DAY, is_acknowledged=True)
        found[kind] = {
            "report_bytes": held["report_bytes"],
            "lost_in_the_week": held["lost"],
            "flash_bytes_per_report": round(held["flash_bytes"] / WEEK, 1),
            "week_kib": held["flash_bytes"] // 1024,
            "days_that_fit": round(held["free_bytes"] / held["flash_bytes"] * 7, 1),
            "append_us_micropython32": _cost(kind == "restless"),
            "programmed_bytes_per_report": worn["programmed_bytes"] // _DAY,
            "erases_per_report": round(worn["erases"] / _DAY, 2),
            "erases_per_block_and_year_mean": round(worn["erases"] / worn["blocks"] * _YEAR / _DAY),
            "erases_per_block_and_year_most": worn["most"] * 365,
        }
    return found


def _live(image: bytes, is_restless: bool, count: int, *, is_acknowledged: bool) -> dict[str, int]:
    flash = Flash(image)
    files = LittleFiles(flash)
    free_bytes = files.free_bytes() - 32768
    seal = Seal(_KEY)
    spool = Spool(files, seal, 1, Numbers())
    week = Week(is_restless=is_restless)
    size = 0
    for _ in range(count):
        spool.make_room()
        values = week.values(spool.next_seq, spool.oldest_seq, spool.waiting)
        raw = report.pack(values, seal, spool.tag)
        size += len(raw)
        spool.append(raw)
        if is_acknowledged:
            spool.acknowledge(spool.last_seq)
    return {
        "lost": spool.lost,
        "report_bytes": size // count,
        "flash_bytes": free_bytes + 32768 - files.free_bytes(),
        "free_bytes": free_bytes,
        "programmed_bytes": flash.programmed_bytes,
        "erases": sum(flash.erases),
        "blocks": sum(count > 0 for count in flash.erases),
        "most": max(flash.erases),
    }


def _cost(is_restless: bool) -> int:
    """Return the microseconds that a report takes on 32-bit MicroPython, without the flash."""
    week = Week(is_restless=is_restless)
    seal = Seal(_KEY)
    raws = (report.pack(week.values(seq, seq, 0), seal, report.NO_TAG) for seq in range(1, 301))
    bodies = "".join(raw[: -report.SEAL_BYTES].hex() + "\n" for raw in raws)
    with tempfile.TemporaryDirectory(prefix="netzpuls-") as folder:
        compiled(Path(folder), script=HERE / "lib" / "append.py")
        command = [tool.find("micropython32"), "-m", "append", folder]
        environment = {**os.environ, "MICROPYPATH": ":.frozen"}
        done = subprocess.run(
            command,
            input=bodies,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=folder,
        )
    return int(json.loads(done.stdout)["us"])


if __name__ == "__main__":
    print(json.dumps(measure()))
