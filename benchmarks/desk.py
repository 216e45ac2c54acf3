"""Seconds at the technician's desk: ours, the tools that a user would take instead, and the limit.

One virtual board at a time, its line paced to 921600 baud, its flash as slow as a W25Q32's typical
figures; each way writes the same content onto a blank board until it is verified:

- `ours`: `netzpuls board flash`, from opening the port to the last digest;
- `esptool_and_mpremote`: esptool's command line for the image, then mpremote's `cp -r`;
- `one_image`: esptool's command line for image and file system merged into one file;
- `limit`: what must go over the line (deflated bytes × 10 ÷ baud) and into the flash (erase and
  program). A stub that receives while it programs cannot be faster than the slower of the two
  (`overlapped_s`), one that does not not faster than both together (`sum_s`).

`configuration`: the same board once more, its configuration changed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import limit
from hil.board.application import build_image
from hil.board.board import Settings
from hil.board.process import BoardProcess
from provisioning import disk
from provisioning.chip import ESP32
from provisioning.flash import FlashRequest, flash_board
from tests.provisioning.bench import WLAN_KEY
from tests.provisioning.conftest import INVENTORY

_BAUD = 921600
_RUNS = 3
_VERIFIED = ("connect", "prepare", "application", "file system")
_VFS = 0x200000
_RADIO = {
    "ssid": "Schulnetz", "bssid": "a4:2b:b0:00:00:01", "channel": 6, "rssi_dbm": -58,
    "security": "wpa2-psk", "key": WLAN_KEY, "up": True,
}  # fmt: skip


@dataclass(frozen=True)
class Desk:
    """A city, an image, and what a board is made of."""

    folder: Path
    city: Path
    image: Path
    radio: Path

    def board(self, number: int) -> Settings:
        """Return a blank board; its flash is kept until the end."""
        name = self.folder / f"board{number}"
        return Settings(
            link=name,
            radio=self.radio,
            flash=name.with_suffix(".flash"),
            mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number)),
        )


def measure(runs: int = _RUNS) -> dict[str, Any]:
    """Flash blank boards in every way, in turn."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-bench-") as name:
        desk = _desk(Path(name))
        seconds: dict[str, list[float]] = {}
        document: dict[str, Any] = {}
        for run in range(runs):
            settings = desk.board(3 * run)
            with BoardProcess(settings):
                blank, stages = _ours(desk, settings, "classroom-sensor")
                changed, _ = _ours(desk, settings, "ap-monitor")
            seconds.setdefault("ours", []).append(blank)
            seconds.setdefault("configuration", []).append(changed)
            files, content = _content(desk, settings)
            with BoardProcess(desk.board(3 * run + 1)) as board:
                seconds.setdefault("esptool_and_mpremote", []).append(
                    _by_files(desk, str(board.link), files)
                )
            with BoardProcess(desk.board(3 * run + 2)) as board:
                seconds.setdefault("one_image", []).append(
                    _by_image(desk, str(board.link), content)
                )
            document = {
                "stages_s": stages,
                "limit": limit.of(limit.regions(desk.image, files), _BAUD, desk.folder),
            }
    median = {way: round(statistics.median(each), 3) for way, each in seconds.items()}
    ours, bound = median["ours"], document["limit"]
    return {
        "baud": _BAUD,
        "runs": runs,
        "median_s": median,
        "ours_times_limit_sum": round(ours / bound["sum_s"], 3),
        "ours_times_limit_overlapped": round(ours / bound["overlapped_s"], 3),
        "esptool_and_mpremote_times_ours": round(median["esptool_and_mpremote"] / ours, 2),
        "one_image_times_ours": round(median["one_image"] / ours, 2),
        **document,
    }


def _desk(folder: Path) -> Desk:
    city = folder / "city"
    (city / "secrets").mkdir(parents=True, mode=0o700)
    (city / "inventory.toml").write_text(INVENTORY)
    (city / "secrets" / "wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
    image, radio = folder / "stand-in.bin", folder / "radio.json"
    image.write_bytes(build_image())
    radio.write_text(json.dumps({"access_points": [_RADIO]}))
    return Desk(folder, city, image, radio)


def _ours(desk: Desk, settings: Settings, role: Any) -> tuple[float, dict[str, float]]:
    """Return seconds until verified, and by stage."""
    request = FlashRequest(
        desk.city, str(settings.link), "school-north", "R101", role, desk.image, baud=_BAUD
    )
    stages = flash_board(request).seconds
    return sum(stages[stage] for stage in _VERIFIED), stages


def _content(desk: Desk, settings: Settings) -> tuple[dict[str, bytes], bytes]:
    """Return what our board was given: its files, and image and file system in one."""
    files = limit.files(settings.flash, desk.image)
    whole = bytearray(b"\xff" * (2 * _VFS))
    image = desk.image.read_bytes()
    whole[ESP32.start : ESP32.start + len(image)] = image
    for extent in disk.fresh(files, _VFS):
        at = _VFS + extent.offset
        whole[at : at + len(extent.content)] = extent.content
    return files, bytes(whole[ESP32.start :])


def _by_files(desk: Desk, port: str, files: dict[str, bytes]) -> float:
    folder = desk.folder / "files"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    begin = time.monotonic()
    _run("esptool", "--port", port, "--baud", str(_BAUD), "write-flash", "0x1000", str(desk.image))
    _run("mpremote", "connect", port, "fs", "cp", "-r", f"{folder}/.", ":")
    return time.monotonic() - begin


def _by_image(desk: Desk, port: str, content: bytes) -> float:
    merged = desk.folder / "merged.bin"
    merged.write_bytes(content)
    begin = time.monotonic()
    _run("esptool", "--port", port, "--baud", str(_BAUD), "write-flash", "0x1000", str(merged))
    return time.monotonic() - begin


def _run(module: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: {module} failed: {(done.stdout + done.stderr)[-400:]}")


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
