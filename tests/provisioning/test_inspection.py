"""All boards on the desk held against the registry: each on its own, none in the others' way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet import inventory
from provisioning import registry, session
from provisioning.errors import NoBoardError
from provisioning.flash import FlashRequest, flash_board
from tests.provisioning import bench
from tests.provisioning.bench import FLASH_WRITING, VFS, WLAN_KEY, Board, put


def _id(number: int) -> str:
    return f"np-240ac400000{number}"


@pytest.fixture
def boards(
    city: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Board]]:
    """Flash and enrol three boards."""
    monkeypatch.setattr(session, "_CONNECT_ATTEMPTS", 1)
    monkeypatch.setattr("provisioning.inspection.SELF_TEST_S", 0.5)
    path = city / "inventory.toml"
    path.write_text(path.read_text().replace('["R101", "R102"]', '["R0", "R1", "R2"]'))
    with ExitStack() as stack:
        opened = []
        for number in range(3):
            folder = tmp_path / f"board{number}"
            folder.mkdir()
            made = Board(folder, mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number)))
            stack.callback(made.close)
            opened.append(made)
            asked = FlashRequest(
                city, made.port, "school-north", f"R{number}", "ap-monitor", stand_in
            )
            flash_board(replace(asked, baud=921600, self_test_s=0.5))
        yield opened


def _arguments(city: Path, boards: list[Board], *more: str) -> list[str]:
    named = [part for each in boards for part in ("--port", each.port)]
    return ["board", "check", "--city", str(city), *named, *more]


def _run(
    capfd: pytest.CaptureFixture[str], city: Path, boards: list[Board], *more: str
) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(_arguments(city, boards, *more))
    said = capfd.readouterr()
    return exited.value.code, said.out, said.err


def test_good_boards(
    city: Path, boards: list[Board], capfd: pytest.CaptureFixture[str], stand_in: Path
) -> None:
    written: list[int] = []
    for each in boards:
        each.on_frame = lambda command, _: (
            written.append(command) if command in FLASH_WRITING else None
        )
    code, out, err = _run(capfd, city, boards, "--micropython", str(stand_in))
    assert code == 0
    assert sorted(line.split() for line in out.splitlines()) == [
        [_id(number), f"R{number}", "good"] for number in range(3)
    ]
    assert f"{_id(1)} (R1): compare application and files: " in err
    assert written == []


def test_what_differs_fails_and_is_not_the_citys(
    city: Path, boards: list[Board], capfd: pytest.CaptureFixture[str]
) -> None:
    put(boards[0], "agent/agent.mpy", b"damaged")
    boards[1].is_deaf = True
    known = inventory.load(city).boards
    (city / "registry.toml").write_text(
        registry.render({i: b for i, b in known.items() if i != _id(2)})
    )
    nowhere = "/dev/netzpuls-nowhere"
    code, out, _ = _run(capfd, city, boards, "--port", nowhere, "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["ok"], document["error"]["code"]) == (False, "tray")
    assert "4 of 4 boards are not as they should be" in document["error"]["message"]
    found = {each["port"]: each for each in document["boards"]}
    differs = found[boards[0].port]
    assert (differs["ok"], differs["board"], differs["room"]) == (False, _id(0), "R0")
    assert [each["what"] for each in differs["findings"] if not each["ok"]] == ["files"]
    assert found[boards[1].port]["error"]["code"] == "board-silent"
    assert found[boards[2].port]["registry"] is None
    assert found[nowhere]["error"]["code"] == "port-missing"
    assert WLAN_KEY not in out

    code, out, err = _run(capfd, city, boards)
    assert code == 1
    assert f"{_id(0)}  R0  differs: files" in out
    assert "files: differ: agent/agent.mpy" in out
    assert f"--port {boards[0].port} --repair --micropython FILE" in out
    assert "failed (connect)" in out
    assert "differs: registry" in out
    assert "netzpuls board flash --help" in out
    assert "3 of 3 boards are not as they should be" in err


def test_repair(
    city: Path, boards: list[Board], capfd: pytest.CaptureFixture[str], stand_in: Path
) -> None:
    put(boards[0], "agent/agent.mpy", b"damaged")
    boards[1].flash.erase_region(VFS, 0x200000)
    boards[2].console = bench.self_test(ok=False, board=_id(2), radio="the radio does not work")
    code, _, err = _run(capfd, city, boards, "--repair")
    assert code == 2
    assert "--micropython" in err
    code, out, err = _run(capfd, city, boards, "--repair", "--micropython", str(stand_in))
    assert code == 1
    for number, ending in enumerate(("repaired", "repaired", "failed (self-test)")):
        assert f"{_id(number)}  R{number}  {ending}" in out
    assert "the radio does not work" in out
    assert "it has a new one (key 2)" in out
    assert out.count("has a new one") == 1
    assert f"{_id(0)} (R0): write agent, configuration, identity" in err
    keys = {i: b.key_id for i, b in inventory.load(city).boards.items()}
    assert keys == {_id(0): 1, _id(1): 2, _id(2): 1}
    assert _run(capfd, city, boards[:2])[0] == 0


def test_no_board(
    city: Path,
    boards: list[Board],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    code, out, _ = _run(capfd, city, [], "--all", "--json")
    assert code == NoBoardError.exit_code == 3
    assert json.loads(out)["error"]["code"] == "no-board"
    assert _run(capfd, city, [])[0] == 2
    # A list that is wrong shows before a board is touched.
    (city / "inventory.toml").write_text("version = 9")
    starts = [each.starts for each in boards]
    assert _run(capfd, city, boards, "--all")[0] == 2
    assert [each.starts for each in boards] == starts


def test_ctrl_c(city: Path, boards: list[Board]) -> None:
    boards[0].console = b""  # it waits for its self-test then
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", *_arguments(city, boards, "--json")],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"NETZPULS_TRACEBACK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith(f"{_id(0)} (R0): compare"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    document = json.loads(out)
    assert document["error"]["code"] == "interrupted"
    found = {each["port"]: each for each in document["boards"]}
    assert found[boards[0].port]["error"]["code"] == "interrupted"
