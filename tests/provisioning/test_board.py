"""The real way: esptool's stub protocol, real MicroPython, the real agent's self-test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fleet.cli
from fleet import inventory
from hil.board.board import Settings
from hil.board.process import BoardProcess
from provisioning import port
from provisioning.flash import FlashRequest, flash_board
from provisioning.repl import Repl
from tests.provisioning.bench import WLAN_KEY

MAC = bytes.fromhex("240ac4000042")
BOARD = "np-240ac4000042"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    radio = tmp_path / "radio.json"
    access_point = {
        "ssid": "Schulnetz",
        "bssid": "a4:2b:b0:00:00:01",
        "channel": 6,
        "rssi_dbm": -58,
        "security": "wpa2-psk",
        "key": WLAN_KEY,
        "up": True,
    }
    radio.write_text(json.dumps({"access_points": [access_point]}))
    return Settings(link=tmp_path / "board", radio=radio, mac=MAC, instant=True)


def test_a_board_on_a_pty(
    city: Path, stand_in: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["board", "flash", "--city", str(city), "--port", str(settings.link)]
    arguments += ["--site", "school-north", "--room", "R101", "--role", "classroom-sensor"]
    arguments += ["--micropython", str(stand_in), "--json"]
    with BoardProcess(settings):
        for boot in (1, 2):  # the second time it goes on as it was
            with pytest.raises(SystemExit) as exited:
                fleet.cli.main(arguments)
            said = capfd.readouterr()
            assert exited.value.code == 0, said
            document = json.loads(said.out)
            assert (document["board"], document["key_id"]) == (BOARD, 1)
            assert document["self_test"]["boot"] == boot
            assert document["self_test"]["radio"] == 1
    assert inventory.load(city).boards[BOARD].key_id == 1


# pyserial 3.5 starts its thread in a way that Python no longer likes.
@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")
def test_a_board_with_reset_lines(city: Path, stand_in: Path, settings: Settings) -> None:
    settings = Settings(link=settings.link, radio=settings.radio, mac=MAC, instant=True, rfc2217=0)
    with BoardProcess(settings) as board:
        request = FlashRequest(
            city,
            f"rfc2217://127.0.0.1:{board.rfc2217_port}",
            "school-north",
            "R102",
            "ap-monitor",
            stand_in,
        )
        flashed = flash_board(request)
    assert flashed.board == BOARD
    assert flashed.self_test["config"] == "ok"
    assert flashed.self_test["identity"] == "ok"


def test_ctrl_c_that_meets_the_watchdog_s_start(
    city: Path, stand_in: Path, settings: Settings
) -> None:
    """The watchdog runs, and nobody has kept it yet: it is released all the same."""
    with BoardProcess(settings):
        flash_board(
            FlashRequest(
                city, str(settings.link), "school-north", "R101", "classroom-sensor", stand_in
            )
        )
        with port.open_port(str(settings.link)) as line:
            repl = Repl(line, lambda: None)
            repl.interrupt(20)
            repl.run(
                "import machine, sys\n"
                "started = []\n"
                "def start(timeout):\n"
                "    started.append(timeout)\n"
                "    if len(started) == 1: raise KeyboardInterrupt\n"
                "machine.WDT = start\n"
                "for name in list(sys.modules):\n"
                "    if name.startswith(('agent.', 'port')): del sys.modules[name]\n"
                "from agent.supervisor import run\n"
                "run()\n"
                "print(started)\n"
            )
            said = []
            while (told := repl.line(20)) is not None:
                said.append(told.strip())
            assert said[-1] == b"[60000, 1800000]"
