"""A tray of boards: each on its own, none in the others' way."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from esptool import loader as esptool_loader  # type: ignore[import-untyped]

import fleet.cli
from fleet import authority, inventory
from hil.board.board import Settings
from hil.board.process import BoardProcess
from provisioning import desk, journal, session, tray
from provisioning.errors import NoBoardError
from provisioning.flash import FlashRequest
from provisioning.port import Adapter
from provisioning.room import Question, Rooms
from provisioning.roomlist import Row
from provisioning.tray import Attempt, Questions, Tray
from tests.provisioning import bench
from tests.provisioning.bench import WLAN_KEY, Board
from tests.provisioning.test_disk import read_files

ROOMS = [f"R{number}" for number in range(101, 109)]
SENSOR = "classroom-sensor"
DEFLATED = 0x11  # FLASH_DEFL_DATA


def _id(number: int) -> str:
    return f"np-240ac400000{number}"


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[list[Board]]:
    with ExitStack() as stack:
        opened = []
        for number in range(3):
            folder = tmp_path / f"board{number}"
            folder.mkdir()
            opened.append(Board(folder, mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number))))
            stack.callback(opened[-1].close)
        yield opened


@pytest.fixture
def school(city: Path) -> Path:
    """Return a city whose school has many rooms."""
    path = city / "inventory.toml"
    path.write_text(path.read_text().replace('["R101", "R102"]', json.dumps(ROOMS)))
    return city


@pytest.fixture
def request_(school: Path, stand_in: Path) -> FlashRequest:
    return FlashRequest(school, "", "school-north", "", SENSOR, stand_in, self_test_s=0.3)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon on boards that do not answer."""
    monkeypatch.setattr(session, "_CONNECT_ATTEMPTS", 1)
    monkeypatch.setattr(esptool_loader, "DEFAULT_TIMEOUT", 0.2)
    monkeypatch.setattr(esptool_loader, "ERASE_WRITE_TIMEOUT_PER_MB", 0.2)
    monkeypatch.setattr(desk, "SCAN_S", 0.05)
    monkeypatch.setattr(desk, "ABSENT_S", 0.1)


class Screen:
    """Notes what a technician would be told."""

    def __init__(self, answer: Callable[[Question], str | None] = lambda _: None) -> None:
        self.ends: list[Attempt] = []
        self.ask = answer

    def started(self, attempt: Attempt) -> None:
        pass

    def passed(self, attempt: Attempt) -> None:
        pass

    def ended(self, attempt: Attempt) -> None:
        self.ends.append(attempt)

    def waits(self, left: int | None) -> None:
        pass


def _rows(*rooms: str) -> list[Row]:
    return [Row(room, SENSOR, line=at) for at, room in enumerate(rooms, 2)]


def _tray(
    request: FlashRequest,
    rows: list[Row] | None,
    find: Callable[[], Sequence[Board]],
    **options: Any,
) -> Tray:
    screen = options.pop("screen", None) or Screen()
    return Tray(
        request,
        Rooms(request.city, request.site, rows, role=SENSOR, ask=options.pop("ask", screen.ask)),
        lambda: [Adapter(board.port) for board in find()],
        screen,
        **options,
    )


def _main(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", "flash", *map(str, arguments)])
    assert isinstance(exited.value.code, int)
    return exited.value.code


def _arguments(request: FlashRequest, ports: Sequence[str]) -> list[str | Path]:
    rooms = request.city / "rooms.csv"
    if not rooms.exists():
        rooms.write_text("room\n" + "\n".join(ROOMS))
    named = [part for each in ports for part in ("--port", each)]
    return [
        "--city", request.city, "--site", request.site, "--role", request.role,
        "--micropython", str(request.image), "--rooms", rooms, *named,
    ]  # fmt: skip


def test_one_that_fails_stops_no_other(
    request_: FlashRequest, boards: list[Board], capfd: pytest.CaptureFixture[str]
) -> None:
    boards[1].console = bench.self_test(ok=False, board=_id(1), radio="the radio does not work")
    nowhere = "/dev/netzpuls-nowhere"
    arguments = _arguments(request_, [*(board.port for board in boards), nowhere])
    assert _main(*arguments, "--json") == 1
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert document["ok"] is False
    assert document["error"]["code"] == "tray"
    assert f"2 of 4 boards failed: {_id(1)}, {nowhere}" in document["error"]["message"]
    found = {each["port"]: each for each in document["boards"]}
    for number in (0, 2):
        each = found[boards[number].port]
        assert (each["ok"], each["board"], each["key_id"]) == (True, _id(number), 1)
        assert each["seconds"]["total"] > 0
    failed = found[boards[1].port]
    assert failed["error"]["code"] == "self-test-failed"
    assert "the radio does not work" in failed["error"]["message"]
    assert failed["error"]["hint"]
    assert (failed["ok"], failed["stage"], failed["board"]) == (False, "self-test", _id(1))
    assert found[nowhere]["error"]["code"] == "port-missing"
    rooms = [each["room"] for each in document["boards"][:3]]
    assert sorted(rooms) == ROOMS[:3]
    known = inventory.load(request_.city).boards
    assert {i: b.room for i, b in known.items()} == {_id(0): rooms[0], _id(2): rooms[2]}
    assert [each.board for each in journal.boards(request_.city)] == [_id(1)]
    assert f"{_id(0)} on {boards[0].port}: {rooms[0]}" in said.err

    # The same command again: who is enrolled keeps its room, the other one gets the one left.
    boards[1].console = bench.self_test(board=_id(1))
    assert _main(*arguments[:-2]) == 0
    said = capfd.readouterr()
    known = inventory.load(request_.city).boards
    assert [known[_id(n)].room for n in range(3)] == rooms
    assert {board.key_id for board in known.values()} == {1}
    for number in range(3):
        assert re.search(rf"{_id(number)} +{rooms[number]} +enrolled, \d", said.out)


@pytest.mark.usefixtures("hasty")
def test_a_deaf_board_and_a_pulled_cable(request_: FlashRequest, boards: list[Board]) -> None:
    boards[0].is_deaf = True
    boards[1].on_frame = lambda command, count: (
        boards[1].unplug() if (command, count) == (DEFLATED, 30) else None
    )
    ends = _tray(request_, _rows(*ROOMS[:3]), lambda: boards).run()
    assert [each.error and each.error.code for each in ends] == [
        "board-silent",
        "write-failed",
        None,
    ]
    assert [each.board for each in ends] == ["", _id(1), _id(2)]
    assert ends[1].error is not None
    assert "check the cable" in ends[1].error.hint
    assert list(inventory.load(request_.city).boards) == [_id(2)]


@pytest.mark.usefixtures("hasty")
def test_a_board_joins_later_and_one_that_failed_is_tried_again(
    request_: FlashRequest, boards: list[Board]
) -> None:
    """Both rooms are given out in the end, so that the tray ends by itself."""
    there = [boards[0]]
    boards[0].console = bench.self_test(ok=False, board=_id(0))
    screen = Screen()
    waits = threading.Event()

    def find() -> list[Board]:
        failed = [each for each in screen.ends if each.error]
        if failed and not waits.is_set():
            waits.set()
            there.clear()
            boards[0].console = bench.self_test(board=_id(0))
            timer = threading.Timer(0.4, lambda: there.extend(boards[:2]))
            timer.start()
        return there

    ends = _tray(request_, _rows("R101", "R102"), find, screen=screen, wait_s=None).run()
    assert [(each.board, each.error) for each in ends] == [(_id(0), None), (_id(1), None)]
    assert len(screen.ends) == 3
    known = inventory.load(request_.city).boards
    assert sorted(board.room for board in known.values()) == ["R101", "R102"]
    assert {board.key_id for board in known.values()} == {1}


@pytest.mark.usefixtures("hasty")
def test_enough_says_the_technician(request_: FlashRequest, boards: list[Board]) -> None:
    screen = Screen()
    ends = _tray(
        request_,
        _rows(*ROOMS),
        lambda: boards[:1],
        screen=screen,
        wait_s=None,
        is_enough=lambda: bool(screen.ends),
    ).run()
    assert [each.board for each in ends] == [_id(0)]


def test_more_boards_than_rooms(request_: FlashRequest, boards: list[Board]) -> None:
    ends = _tray(request_, _rows("R101", "R102"), lambda: boards).run()
    codes = sorted(each.error.code if each.error else "" for each in ends)
    assert codes == ["", "", "no-room"]
    (spare,) = [board for board, each in zip(boards, ends, strict=True) if each.error]
    assert spare.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_two_boards_that_are_said_to_be_for_one_room(
    request_: FlashRequest, boards: list[Board]
) -> None:
    questions, asked = Questions(), []

    def answer(question: Question) -> str:
        asked.append(question)
        return "R105" if not question.refusal else ""

    main = threading.current_thread()
    screen = Screen(lambda q: answer(q) if threading.current_thread() is main else None)
    ends = _tray(
        request_, None, lambda: boards[:2], screen=screen, questions=questions, ask=questions.ask
    ).run()
    assert [each.error for each in ends] == [None, None]
    assert sorted(each.room for each in ends) == ["R101", "R105"]
    assert [bool(question.refusal) for question in asked] == [False, False, True]
    assert "R105 has" in asked[2].refusal


def test_the_same_board_on_two_ports(
    request_: FlashRequest, boards: list[Board], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    copy = Board(folder, mac=bytes((0x24, 0x0A, 0xC4, 0, 0, 0)))
    try:
        ends = _tray(request_, _rows(*ROOMS), lambda: [boards[0], copy]).run()
    finally:
        copy.close()
    codes = sorted(each.error.code if each.error else "" for each in ends)
    assert codes == ["", "port-busy"]
    assert inventory.load(request_.city).boards.keys() == {_id(0)}


def test_a_defect_with_one_board(
    request_: FlashRequest, boards: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tray.carry_out

    def defective(planned: Any, *arguments: Any) -> Any:
        if planned.request.port == boards[0].port:
            raise ZeroDivisionError(f"{WLAN_KEY}\x1b[2J")
        return real(planned, *arguments)

    monkeypatch.setattr(tray, "carry_out", defective)
    ends = _tray(request_, _rows(*ROOMS), lambda: boards[:2]).run()
    assert [each.error and each.error.code for each in ends] == ["defect", None]
    error = ends[0].error
    assert error
    # What went wrong may name anything: where it did so is told, not its text.
    assert re.fullmatch(
        r"a defect in netzpuls: ZeroDivisionError at test_tray\.py:\d+", error.message
    )


def test_a_defect_of_the_display_fails_no_board(
    request_: FlashRequest, boards: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: Any) -> None:
        raise ZeroDivisionError

    for name in ("started", "passed", "ended"):
        monkeypatch.setattr(Screen, name, defective)
    ends = _tray(request_, _rows(*ROOMS), lambda: boards[:1]).run()
    assert [each.is_good for each in ends] == [True]
    assert inventory.load(request_.city).boards.keys() == {ends[0].board}


def test_a_defect_after_a_failure_ends_the_board_all_the_same(
    request_: FlashRequest, boards: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: Any) -> None:
        raise ZeroDivisionError

    boards[0].console = bench.self_test(board=_id(0), ok=False, radio="no")
    monkeypatch.setattr(Rooms, "give_back", defective)
    ends: list[Attempt] = []
    made = _tray(request_, _rows(*ROOMS), lambda: boards[:1])
    runs = threading.Thread(target=lambda: ends.extend(made.run()), daemon=True)
    runs.start()
    runs.join(30)
    assert [each.error and each.error.code for each in ends] == ["self-test-failed"]


def test_no_board_and_no_way_to_ask(
    request_: FlashRequest,
    boards: list[Board],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    arguments = _arguments(request_, [])
    assert _main(*arguments, "--all", "--json") == NoBoardError.exit_code == 3
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "no-board"

    without_rooms = [*arguments[:8], "--all", "--port", boards[0].port]
    touched: list[int] = []
    boards[0].on_frame = lambda command, _count: touched.append(command)
    for changed, told in (
        (without_rooms, "--rooms FILE.csv"),
        ([*without_rooms, "--room", "R101"], "--rooms FILE.csv"),
        ([*arguments, "--port", boards[0].port, "--micropython", "/nowhere.bin"], "/nowhere.bin"),
        ([*without_rooms[:4], "--all"], "--role"),
        (arguments, "--all"),
        ([*arguments[:8], "--port", "P", "--room", "R101", "--wait", "3"], "--wait"),
    ):
        assert _main(*changed, "--json") == 2
        error = json.loads(capfd.readouterr().out)["error"]
        assert told in error["message"] + error["hint"]
    (request_.city / "rooms.csv").write_text("room\nR999\n")
    assert _main(*arguments, "--port", boards[0].port, "--json") == 2
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "rooms"
    assert touched == []


def test_a_ca_that_cannot_be_used_shows_before_a_board_is_touched(
    request_: FlashRequest, boards: list[Board]
) -> None:
    authority.ensure(request_.city, "exampleville")
    (request_.city / "secrets" / "ca.key").unlink()
    touched: list[int] = []
    boards[0].on_frame = lambda command, _count: touched.append(command)
    with pytest.raises(authority.AuthorityError):
        _tray(request_, _rows(*ROOMS), lambda: boards).run()
    assert touched == []


def test_a_dry_run_touches_nothing(
    request_: FlashRequest, boards: list[Board], capfd: pytest.CaptureFixture[str]
) -> None:
    touched: list[int] = []
    boards[0].on_frame = lambda command, _count: touched.append(command)
    (request_.city / "rooms.csv").write_text(f"room,board\nR101,\nR102,{_id(1)}\n")
    before = set(request_.city.rglob("*"))
    arguments = [*_arguments(request_, [boards[0].port, "/dev/netzpuls-nowhere"]), "--dry-run"]
    assert _main(*arguments, "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert [each["port"] for each in document["ports"]] == [boards[0].port]
    assert [each["for_board"] for each in document["rooms"]] == [None, _id(1)]
    assert document["image"]["stand_in"] is True
    assert _main(*arguments) == 0
    said = capfd.readouterr().out
    assert "R101, classroom-sensor: for the next board" in said
    assert f"R102, classroom-sensor: for {_id(1)}" in said
    assert "Nothing was written" in said
    assert touched == []
    assert set(request_.city.rglob("*")) == before


def test_ctrl_c(request_: FlashRequest, boards: list[Board], tmp_path: Path) -> None:
    """Boards under way are stopped, what was asked for goes on with the same identities."""
    arguments = _arguments(request_, [board.port for board in boards])
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", "board", "flash", "--json", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    boards[2].console = b""  # it waits for its self-test then
    boards[1].on_frame = lambda command, count: (
        process.send_signal(signal.SIGINT) if (command, count) == (DEFLATED, 20) else None
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    document = json.loads(out)
    assert (document["ok"], document["error"]["code"]) == (False, "interrupted")
    assert [each["port"] for each in document["boards"]] == [board.port for board in boards]
    stopped = [each["board"] for each in document["boards"] if not each["ok"]]
    assert _id(1) in stopped
    begun = {each.board: each for each in journal.boards(request_.city)}
    assert {board for board in stopped if board} >= set(begun) >= {_id(1)}

    boards[2].console = bench.self_test(board=_id(2))
    ends = _tray(request_, _rows(*ROOMS), lambda: boards).run()
    assert [each.error for each in ends] == [None] * 3
    for number, pending in ((number, begun.get(_id(number))) for number in range(3)):
        files = read_files(boards[number].flash.read(0x200000, 0x200000))
        assert pending is None or files["identity/board.der"] == pending.certificate_der
    assert {board.key_id for board in inventory.load(request_.city).boards.values()} == {1}


def test_an_interrupt_while_a_question_waits(request_: FlashRequest, boards: list[Board]) -> None:
    questions = Questions()

    def interrupt(_question: Question) -> str:
        raise KeyboardInterrupt

    interrupted = _tray(
        request_,
        None,
        lambda: boards,
        screen=Screen(interrupt),
        questions=questions,
        ask=questions.ask,
    )
    ends = interrupted.run()
    assert interrupted.is_interrupted
    assert [each.error and each.error.code for each in ends] == ["interrupted"] * 3
    assert [board.flash.read(0, 0x10000) for board in boards] == [b"\xff" * 0x10000] * 3


def test_secrets_are_nowhere_to_be_seen(
    request_: FlashRequest,
    boards: list[Board],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NETZPULS_TRACEBACK", "1")
    boards[1].console = WLAN_KEY.encode() + bench.self_test(ok=False, board=_id(1))
    arguments = _arguments(request_, [board.port for board in boards[:2]])
    assert [_main(*arguments, *more) for more in ([], ["--json"], ["--dry-run"])] == [1, 1, 0]
    captured = capfd.readouterr()
    said = captured.out + captured.err
    files = [read_files(board.flash.read(0x200000, 0x200000)) for board in boards[:2]]
    secrets = [WLAN_KEY, (request_.city / "secrets" / "hash.key").read_text().strip()]
    secrets += [each["identity/report.key"].hex() for each in files]
    secrets += [each["identity/board.key.der"].hex() for each in files]
    assert _id(0) in said
    assert [secret for secret in secrets if secret in said] == []


# pyserial 3.5 starts its thread in a way that Python no longer likes.
@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")
def test_whole_boards(
    school: Path, stand_in: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real esptool stubs, real MicroPython; one by its link, one by RFC 2217."""
    radio = tmp_path / "radio.json"
    point = {"ssid": "Schulnetz", "bssid": "a4:2b:b0:00:00:01", "channel": 6, "rssi_dbm": -58}
    point |= {"security": "wpa2-psk", "key": WLAN_KEY, "up": True}
    radio.write_text(json.dumps({"access_points": [point]}))
    request = FlashRequest(school, "", "school-north", "", SENSOR, stand_in)
    (school / "rooms.csv").write_text(f"room,board,role\nR104,{_id(2)},ap-monitor\nR103,,\n")
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                BoardProcess(
                    Settings(
                        link=tmp_path / f"link{number}",
                        rfc2217=port,
                        radio=radio,
                        mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number)),
                        instant=True,
                    )
                )
            )
            for number, port in ((1, None), (2, 0))
        )
        ports = [str(first.link), f"rfc2217://127.0.0.1:{second.rfc2217_port}"]
        assert _main(*_arguments(request, ports), "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is True
    assert [
        (b["board"], b["room"], b["role"], b["self_test"]["config"]) for b in document["boards"]
    ] == [
        (_id(1), "R103", SENSOR, "ok"),
        (_id(2), "R104", "ap-monitor", "ok"),
    ]
