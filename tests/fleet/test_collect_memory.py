"""What a collection takes of memory does not depend on how much a gateway has."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from firmware.linkreport import frame
from fleet.gateway.settings import Folder
from fleet.seal import Seal
from tests.fleet.conftest import Login
from tests.fleet.town import DAY_S, PERIOD_S, TestBoard, Town, fill_gateway

DAY_REPORTS = 1440
# Its own peak, which is not that of the process that started it.
COLLECT = """
import sys
from pathlib import Path
from fleet.cli import main
try:
    main(["fleet", "collect", "--city", sys.argv[1], "--json"])
finally:
    (line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
    Path(sys.argv[2]).write_text(line.split()[1])
"""


def _day(board: TestBoard) -> list[bytes]:
    """Return a day's reports of a board, as `board.series` would."""
    body = board.report(DAY_S)[: -frame.SEAL_BYTES]
    keyed, link, raws = Seal(board.key), frame.NO_TAG, []
    for seq in range(1, DAY_REPORTS + 1):
        time_s = DAY_S + seq * PERIOD_S
        raw = body[:4] + struct.pack(">I", seq) + body[8:16]
        raw += struct.pack(">II", seq * 100 * PERIOD_S, time_s) + body[24:] + link
        link = keyed.tag_of(raw + link)
        raws.append(raw + link)
    return raws


def _peak_kib(town: Town, boards: int, tmp_path: Path) -> int:
    folder = tmp_path / "gateway"
    fill_gateway(folder, "gw-1", [])
    days = []
    for number in range(boards):
        board = TestBoard(f"np-240ac41{number:05x}", "goethe-schule", "101")
        (town.folder / f"secrets/keys/{board.id}.1.key").write_text(board.key.hex() + "\n")
        days.append((board.id, _day(board)))
    with closing(sqlite3.connect(Folder(folder).database)) as connection:
        for seq in range(1, DAY_REPORTS + 1):
            received_s = DAY_S + seq * PERIOD_S
            connection.executemany(
                "INSERT INTO report (device, key_id, seq, received_s, raw) VALUES (?, 1, ?, ?, ?)",
                [(name, seq, received_s, raws[seq - 1]) for name, raws in days],
            )
        connection.commit()
    peak = tmp_path / "peak"
    command = [sys.executable, "-c", COLLECT, str(town.folder), str(peak)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    (found,) = json.loads(done.stdout)["gateways"]
    assert found["new"] == boards * DAY_REPORTS
    return int(peak.read_text())


def test_memory_does_not_grow_with_the_reports(tmp_path: Path, login: Login) -> None:
    peaks = {}
    for boards in (35, 350):  # 50,400 and 504,000 reports
        place = tmp_path / str(boards)
        place.mkdir()
        town = Town(place / "city")
        login.gateway(town, data_dir=str(place / "gateway"))
        town.write()
        peaks[boards] = _peak_kib(town, boards, place)
    # A day's file is sorted; all of the reports at once would take 440 MiB more.
    assert peaks[350] < peaks[35] + (300 << 10), peaks
    assert not (tmp_path / "350/city/store/spill").exists()
