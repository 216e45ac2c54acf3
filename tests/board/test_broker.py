"""The agent's uplink through a real mosquitto with mutual TLS, on real MicroPython."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.linkreport import report
from fleet import authority
from hil import tool
from tests.board.site import FIRMWARE, HERE, Collector, Site, compiled, until

KEY = bytes(range(32))
OTHER_KEY = bytes(32)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as running:
        yield running


def last_document(output: str) -> dict[str, int]:
    line = output.strip().splitlines()[-1]
    found: dict[str, int] = json.loads(line.removeprefix("STOPPED "))
    return found


def console(board: subprocess.Popen[str], timeout_s: float = 40) -> str:
    return board.communicate(timeout=timeout_s)[0]


def test_no_report_is_lost_whatever_dies(place: Site, tmp_path: Path) -> None:
    """Broker, collector and boards are killed while boards report; what was made is held."""
    builds = {"source": FIRMWARE, "compiled": compiled(tmp_path / "build")}
    cases = [
        ("np-240ac4000064", "micropython", "source"),
        ("np-240ac4000032", "micropython32", "compiled"),
    ]
    roots = {board: place.furnish(board, KEY, period_s=1) for board, _, _ in cases}

    def start(action: str) -> dict[str, subprocess.Popen[str]]:
        return {
            board: place.start_board(
                tool.find(interpreter), builds[build], roots[board], 60, action=action
            )
            for board, interpreter, build in cases
        }

    collector = Collector(place, "collector", dict.fromkeys(roots, KEY))
    try:
        boards = start("serve")

        def reached(count: int) -> bool:
            return until(lambda: all(len(collector.seqs(b)) >= count for b in roots), 20)

        assert reached(3)
        place.kill_broker()
        held = {board: len(collector.seqs(board)) for board in roots}
        assert not until(lambda: any(len(collector.seqs(b)) > held[b] for b in roots), 2)
        place.start_broker()
        assert reached(6), collector.held.keys()
        collector.acknowledges = False
        assert reached(8)
        for board in boards.values():
            board.kill()
            console(board)
        collector.acknowledges = True
        drained = {board: last_document(console(ran)) for board, ran in start("drain").items()}
    finally:
        collector.close()
    assert collector.refused == []
    for board in roots:
        made = drained[board]["made"]
        assert drained[board] == {"made": made, "spooled": 0, "lost": 0}
        assert collector.seqs(board) == list(range(1, made + 1))
        raws = [raw for _, raw in sorted(collector.held[board].items())]
        links = [report.NO_TAG, *(report.tag_of(raw) for raw in raws[:-1])]
        assert [report.link_of(raw) for raw in raws] == links
        states = {(values.state, values.layer) for values in map(report.unpack, raws)}
        assert states == {(1, 0)}, "up throughout"


def test_after_ctrl_c_a_board_gives_its_reports_away_in_the_same_heap(
    place: Site, tmp_path: Path
) -> None:
    board = "np-240ac4000064"
    root = place.furnish(board, KEY, period_s=1)
    code = compiled(tmp_path / "build", script=HERE / "lib" / "stopped.py")
    collector = Collector(place, "collector", {board: KEY})
    collector.acknowledges = False
    command = [tool.find("micropython32"), "-X", "heapsize=64k", "-m", "stopped", root]
    environment = {**os.environ, "MICROPYPATH": ":.frozen"}
    running = subprocess.Popen(
        command,
        cwd=code,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert until(lambda: len(collector.seqs(board)) >= 3, 20)
        (root / "stop").touch()
        collector.acknowledges = True
        output = console(running, 60)
    finally:
        running.kill()
        collector.close()
    assert "netzpuls: stopped" in output
    drained = last_document(output)
    assert drained["made"] >= 3, output
    assert drained == {"made": drained["made"], "spooled": 0, "lost": 0}, output


def test_what_is_not_right_gets_and_deletes_nothing(place: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = authority.ensure(tmp_path / "other", "other")
    names = ("server name", "certificate authority", "acknowledgement")
    wrong = {f"np-24000000000{number}": name for number, name in enumerate(names)}
    ack_keys = {board: OTHER_KEY for board, name in wrong.items() if name == "acknowledgement"}
    roots = {board: place.furnish(board, KEY, period_s=1) for board in wrong}
    collector = Collector(place, "collector", dict.fromkeys(wrong, KEY), ack_keys)
    try:
        boards = {}
        for board, name in wrong.items():
            root = roots[board]
            if name == "server name":
                configuration = json.loads((root / "config.json").read_text())
                configuration["uplink"]["server_name"] = "gw-other"
                (root / "config.json").write_text(json.dumps(configuration))
            elif name == "certificate authority":
                (root / "identity/ca.der").write_bytes(other.certificate_der)
            boards[board] = place.start_board(tool.find("micropython"), FIRMWARE, root, 5)
        outputs = {wrong[board]: console(running) for board, running in boards.items()}
        arrived = {wrong[board]: bool(collector.seqs(board)) for board in wrong}
    finally:
        collector.close()
    for name, output in outputs.items():
        stopped = last_document(output)
        assert stopped["made"] >= 3, name
        assert stopped["spooled"] == stopped["made"], name
        assert stopped["files"] <= 5, f"{name}: sockets were left open"
    assert arrived == dict(zip(names, (False, False, True), strict=True))
    # mbedTLS says now this, now that of a certificate that does not fit.
    assert re.search("uplink: .*certificate", outputs["server name"])
    assert re.search("uplink: .*certificate", outputs["certificate authority"])
    assert "the acknowledgement's tag is wrong" in outputs["acknowledgement"]
