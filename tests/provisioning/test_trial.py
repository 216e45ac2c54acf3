"""A board at the bench, with real MicroPython, broker and collector; and what may go wrong."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import fleet.cli
from fleet import inventory, reportkey
from fleet.gateway import intake, keyring, roster
from hil.board.board import Settings
from hil.board.process import BoardProcess
from hil.site import Internet
from hil.workbench import SSID, TABLES, WLAN_ID, Workbench
from provisioning import bench, journal, port, trial
from provisioning.errors import BenchDownError, SelfTestError
from provisioning.flash import FlashRequest, Progress, flash_board
from provisioning.repl import Repl
from tests.provisioning.bench import WLAN_KEY
from tests.provisioning.conftest import INVENTORY

BENCH_KEY = "Geheim-Werkbank-0815"
MAC = "240ac4000077"
BOARD = f"np-{MAC}"
HARDWARE = """
[hardware.air]
sensors = ["sht4x"]
i2c = { sda = 21, scl = 22 }
[hardware.co2]
sensors = ["scd4x", "sht4x"]
i2c = { sda = 21, scl = 22 }
"""
# Waits of MicroPython's DHCP client are a share of this.
HASTY_MS = {"radio": 3000, "association": 3000, "addressing": 1500, "cycle": 7500}
MOST_S = {"sensors": 6.0, "join": 20.0, "time": 12.0, "gateway": 15.0, "report": 5.0}


class Desk:
    """A city with a bench, and one board on it."""

    def __init__(self, folder: Path, image: Path, internet: Internet) -> None:
        self.city = folder / "city"
        self.image = image
        (self.city / "secrets").mkdir(parents=True, mode=0o700)
        tables = tomli_w.dumps(TABLES)
        (self.city / "inventory.toml").write_text(INVENTORY + HARDWARE + tables)
        keys = tomli_w.dumps({"key": {"school": WLAN_KEY, WLAN_ID: BENCH_KEY}})
        (self.city / "secrets" / "wlan.toml").write_text(keys)
        self.log = folder / "gateway.log"
        self.bench = Workbench(self.city, self.log, internet, BENCH_KEY)
        self.folder = folder
        self.boards: list[BoardProcess] = []

    @property
    def board(self) -> BoardProcess:
        return self.boards[0]

    def plug_in(self, mac: str) -> BoardProcess:
        number = len(self.boards)
        radio = self.folder / f"radio{number}.json"
        self.air = {"access_points": [self.bench.access_point(number)]}
        radio.write_text(json.dumps(self.air))
        link = self.folder / f"board{number}"
        settings = Settings(
            link=link, radio=radio, mac=bytes.fromhex(mac), instant=True, sensors=("sht4x",)
        )
        self.boards.append(BoardProcess(settings))
        return self.boards[-1]

    def request(self, **changes: Any) -> FlashRequest:
        request = FlashRequest(
            self.city, str(self.board.link), "school-north", "R101", "classroom-sensor",
            self.image, hardware="air", self_test_s=20,
        )  # fmt: skip
        return replace(request, **changes)

    def reports(self) -> list[tuple[int, int, bytes]]:
        """Return key id, number and content of what the bench's collector has of the board."""
        where = f"file:{self.bench.folder.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as connection:
            asked = "SELECT key_id, seq, raw FROM report WHERE device = ?"
            return connection.execute(asked, (BOARD,)).fetchall()


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    with Internet() as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, stand_in: Path, internet: Internet
) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"), stand_in, internet)
    with made.bench:
        try:
            made.plug_in(MAC)
            made.bench.gateway.wait_ready()
            yield made
        finally:
            for board in made.boards:
                board.stop()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_PROBES_MS", HASTY_MS)
    monkeypatch.setattr(trial, "_MOST_S", dict(MOST_S))
    monkeypatch.setattr(trial, "_SLACK_S", 2.0)


@pytest.fixture
def anew(desk: Desk) -> Iterator[Desk]:
    """Let a test break the air, the registry and the journal."""
    registry = desk.city / "registry.toml"
    before = registry.read_bytes() if registry.exists() else None
    try:
        yield desk
    finally:
        desk.board.control.set_radio(desk.air)
        journal.discard(desk.city, BOARD)
        if before is None:
            registry.unlink(missing_ok=True)
        else:
            registry.write_bytes(before)


def _fails(desk: Desk, **changes: Any) -> SelfTestError:
    """Flash a board that does not pass: it is marked, and not enrolled."""
    known = inventory.load(desk.city).boards
    with pytest.raises(SelfTestError) as caught:
        flash_board(desk.request(**changes))
    error = caught.value
    assert inventory.load(desk.city).boards == known
    (pending,) = journal.boards(desk.city)
    assert (pending.board, pending.stage) == (BOARD, error.details["step"])
    assert pending.problem == error.message
    assert error.exit_code == 1
    assert BOARD in error.message
    assert error.hint
    for secret in _secrets(desk):
        assert secret not in json.dumps(error.document())
    return error


def _secrets(desk: Desk) -> list[str]:
    found = [WLAN_KEY, BENCH_KEY]
    keys = [each.report_key for each in journal.boards(desk.city)]
    stored = reportkey.read(desk.city / "secrets", BOARD, 1)
    for key in [*keys, *([stored] if stored else [])]:
        found += [key.hex(), bench.wire.key(key).hex(), repr(key)[2:-1]]
    return found


def test_a_board_passes_and_its_report_counts_nowhere_else(desk: Desk) -> None:
    steps: list[str] = []

    def step(progress: Progress) -> None:
        if progress.stage not in steps:
            steps.append(progress.stage)

    flashed = flash_board(desk.request(), step)
    assert steps[4:] == ["self-test", "sensors", "join", "time", "gateway", "report", "enrol"]
    assert flashed.seconds.keys() >= {"sensors", *trial.STEPS}
    assert (flashed.not_tested, flashed.self_test["rssi_dbm"]) == ((), -48)
    city = inventory.load(desk.city)
    assert city.boards[BOARD].tested == "bench"
    assert journal.boards(desk.city) == []

    ((key_id, _, raw),) = desk.reports()
    key = reportkey.read(city.secrets, BOARD, 1)
    assert key
    at_school = keyring.Keyring({BOARD: {1: key}})
    refused = intake.verify(BOARD, raw, at_school)
    assert isinstance(refused, intake.Refusal)
    assert (key_id, refused.reason) == (1, intake.SEAL_WRONG)
    assert key.hex() not in desk.bench.folder.boards.read_text()
    assert key.hex().encode() in roster.of(city, "gw-north")["boards"]
    # The school's own reports begin with number 1, and get no time from the bench.
    clock_set, made = _remembered(desk)
    assert clock_set == 0
    assert made <= 3
    assert "reports-lost" not in desk.log.read_text()


def _remembered(desk: Desk) -> tuple[int, int]:
    """Return whether the board says that its clock was set, and how many reports it ever made."""
    with port.open_port(str(desk.board.link)) as line:
        repl = Repl(line, lambda: None)
        repl.interrupt(20)
        repl.run(
            "import esp32\nprint(esp32.NVS('netzpuls').get_i32('clock_set'))\n"
            "from agent.supervisor import drain\ndrain(1)\n"
        )
        said = []
        while (told := repl.line(30)) is not None:
            said.append(told.decode().strip())
        repl.start_anew()
    (drained,) = (json.loads(each) for each in said if each.startswith('{"'))
    return int(said[0]), drained["made"]


def test_no_such_network(anew: Desk) -> None:
    anew.board.control.change(SSID, up=False)
    error = _fails(anew)
    assert f"(join): its radio does not see the WLAN '{SSID}'" in error.message
    assert "access point" in error.hint


def test_a_wrong_key(anew: Desk) -> None:
    anew.board.control.change(SSID, key="another-key")
    error = _fails(anew)
    assert "(join)" in error.message
    assert "wlan.toml" in error.hint


def test_a_sensor_that_is_missing(anew: Desk) -> None:
    error = _fails(anew, hardware="co2")
    assert "(sensors): sensor scd4x: no answer" in error.message
    assert "wiring" in error.hint


def test_no_time(anew: Desk) -> None:
    anew.board.control.line(SSID, up=False)
    error = _fails(anew)
    assert "(time): the time server 'pool.ntp.org'" in error.message


def test_a_gateway_that_does_not_know_the_board(
    anew: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.Bench, "admit", lambda _: None)
    monkeypatch.setitem(trial._MOST_S, "report", 3.0)
    anew.bench.folder.boards.write_text(keyring.render({}))
    time.sleep(1.5)  # until the collector has looked
    error = _fails(anew)
    assert "(report): its report was not acknowledged within 3 s" in error.message
    assert "is the collector running?" in error.hint
    assert "board-unknown" in anew.log.read_text()


def test_a_collector_that_hangs(anew: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trial._MOST_S, "report", 3.0)
    anew.bench.gateway.send("collector", signal.SIGSTOP)
    try:
        error = _fails(anew)
    finally:
        anew.bench.gateway.send("collector", signal.SIGCONT)
    assert "was not acknowledged" in error.message


def test_a_collector_that_is_killed_comes_back(anew: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trial._MOST_S, "report", 30.0)
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.stage == "report" and not killed:
            killed.append(anew.bench.gateway.send("collector", signal.SIGKILL))

    assert flash_board(anew.request(), kill).entry.tested == "bench"
    assert killed


def test_a_gateway_that_goes_away_and_one_that_is_away(anew: Desk) -> None:
    gateway, city = anew.bench.gateway, inventory.load(anew.city)

    def stop(progress: Progress) -> None:
        if progress.stage == "join":
            gateway.stop()

    touched: list[Progress] = []
    try:
        with pytest.raises(
            SelfTestError, match=r"\(gateway\): nobody (takes connections|answers) at 10\."
        ):
            flash_board(anew.request(), stop)
        with pytest.raises(BenchDownError, match="does not run") as caught:
            flash_board(anew.request(), touched.append)
    finally:
        gateway.stop()
        gateway.start()
        gateway.wait_ready()
    assert touched == []
    assert caught.value.exit_code == 3
    assert "netzpuls gateway bench" in caught.value.hint
    assert inventory.load(anew.city).boards == city.boards


def test_a_cut_at_each_step_and_then_it_goes_on(anew: Desk) -> None:
    """One step further each time, the same identity always, and never enrolled before the end."""
    registry = anew.city / "registry.toml"
    registry.unlink(missing_ok=True)
    made = set()
    for stage in ("self-test", "sensors", *trial.STEPS, "enrol"):

        def cut(progress: Progress, stage: str = stage) -> None:
            if progress.stage == stage:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            flash_board(anew.request(), cut)
        assert inventory.load(anew.city).boards == {}
        (pending,) = journal.boards(anew.city)
        assert pending.stage == stage
        made.add(pending.certificate_der)
    flashed = flash_board(anew.request())
    assert flashed.entry.tested == "bench"
    assert len(made) == 1
    assert journal.boards(anew.city) == []


@pytest.mark.parametrize("seed", range(3))
def test_power_that_goes_at_any_moment_of_the_trial(anew: Desk, seed: int) -> None:
    delay_s = random.Random(seed).uniform(0.0, 2.0)

    def power_cut() -> None:
        anew.board.control.power(on=False)
        anew.board.control.power(on=True)

    off = threading.Timer(delay_s, power_cut)

    def cut(progress: Progress) -> None:
        if progress.stage == "sensors" and not off.is_alive() and not off.finished.is_set():
            off.start()

    known = inventory.load(anew.city).boards
    with contextlib.suppress(SelfTestError):
        flash_board(anew.request(), cut)
        known = inventory.load(anew.city).boards  # it was faster
    off.join()
    assert inventory.load(anew.city).boards == known
    assert flash_board(anew.request()).entry.tested == "bench"
    assert journal.boards(anew.city) == []


def _run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main([str(each) for each in arguments])
    return int(exited.value.code or 0)


def _command(desk: Desk, *more: str) -> list[str | Path]:
    return [
        "board", "flash", "--city", desk.city, "--port", desk.board.link, "--site", "school-north",
        "--room", "R101", "--role", "classroom-sensor", "--micropython", desk.image, *more,
    ]  # fmt: skip


def test_what_a_technician_is_told(anew: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(*_command(anew)) == 0
    said = capfd.readouterr()
    assert f"bench: WLAN {SSID}, gateway 10.201.0.2:8883" in said.err
    for line in ("join the bench's WLAN: ", "get the time: ", "have a report acknowledged: "):
        assert line in said.err
    assert "tested at the bench" in said.out
    assert _run(*_command(anew, "--no-bench", "--json")) == 0
    alone = capfd.readouterr()
    assert json.loads(alone.out)["not_tested"] == list(trial.STEPS)
    assert json.loads(alone.out)["tested"] == "bench"  # as it was before
    anew.board.control.change(SSID, up=False)
    assert _run(*_command(anew, "--json")) == 1
    failed = capfd.readouterr()
    assert json.loads(failed.out)["error"]["code"] == "self-test-failed"
    assert _run("board", "list", "--city", anew.city) == 0
    listed = capfd.readouterr()
    assert f"{BOARD} is not finished: join" in listed.out
    output = anew.folder / "label.pdf"
    assert _run("board", "label", BOARD, "--city", anew.city, "--output", output) == 1
    label = capfd.readouterr()
    assert "has not passed its self-test" in label.err
    assert not output.exists()
    everything = "".join((*said, *alone, *failed, *listed, *label, anew.log.read_text()))
    assert [secret for secret in _secrets(anew) if secret in everything] == []


def test_a_tray_at_the_bench(anew: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    other = anew.plug_in("240ac4000078")
    rooms = anew.folder / "rooms.csv"
    rooms.write_text(f"room,board\nR101,{BOARD}\nR102,\n")
    arguments = ["--site", "school-north", "--rooms", rooms, "--role", "classroom-sensor"]
    ports = ["--port", anew.board.link, "--port", other.link]
    image = ["--micropython", anew.image, "--json"]
    assert _run("board", "flash", "--city", anew.city, *ports, *arguments, *image) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["bench"] == {"wlan": WLAN_ID, "gateway": "10.201.0.2:8883"}
    assert [each["tested"] for each in document["boards"]] == ["bench", "bench"]
