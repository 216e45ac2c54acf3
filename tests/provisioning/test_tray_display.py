"""What a technician sees of a tray on a terminal, and is asked there."""

from __future__ import annotations

import io
import os
import pty
import select
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from fleet.errors import NetzpulsError
from provisioning import cli_tray
from provisioning.desk import stopped
from provisioning.display import TrayDisplay
from provisioning.flash import Found, Progress
from provisioning.port import Adapter
from provisioning.room import Question
from provisioning.roomlist import Row
from provisioning.tray import Attempt
from tests.provisioning.test_tray import SENSOR, _id


def _shown(attempts: Sequence[Attempt], width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    display = TrayDisplay(console, has_keyboard=False)
    for attempt in attempts:
        display.started(attempt)
    display.waits(1)
    console.print(display)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_eight_boards_fit_a_terminal(width: int) -> None:
    attempts = []
    for number in range(8):
        attempt = Attempt(Adapter(f"/dev/serial/by-id/usb-Silicon_Labs_CP2102-port{number}"))
        attempt.board = _id(number)
        attempt.row = Row(f"Fachraum Chemie {number}", SENSOR)
        attempt.follow(Progress("", attempt.board, "application", 0, 1_107_581))
        attempt.follow(Progress("", attempt.board, "application", 1_007_581, 1_107_581))
        attempt._send_begin -= 12
        attempts.append(attempt)
    attempts[6].stage, attempts[6].total_bytes = "self-test", 0
    attempts[7].error = NetzpulsError("it failed", hint="mend it")
    lines = _shown(attempts, width)
    assert len(lines) == 10
    assert max(len(line.rstrip()) for line in lines) <= width
    for number, line in enumerate(lines[1:9]):
        assert _id(number) in line
        assert f"port{number}" in line
        assert f"Chemie {number}" in line
        told = {6: "self-test", 7: "failed: MicroPython"}.get(number, "1,007/1,107 84 1 s")
        assert told in " ".join(line.split())
    assert "1 room left" in lines[9]


class _Slow(io.StringIO):
    """A terminal that takes its time: whoever else may print, does."""

    def write(self, text: str) -> int:
        time.sleep(0.002)
        return super().write(text)


def test_boards_that_end_at_once_are_told_one_after_the_other() -> None:
    console = Console(file=_Slow(), force_terminal=True, width=80, color_system=None)
    display = TrayDisplay(console, has_keyboard=False)
    attempts = [Attempt(Adapter(f"/dev/ttyUSB{number}")) for number in range(8)]
    for number, attempt in enumerate(attempts):
        attempt.error = NetzpulsError(f"why {number}", hint=f"mend {number}")
    threads = [threading.Thread(target=display.ended, args=(each,)) for each in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(console.file, io.StringIO)
    told = [line.split()[-1] for line in console.file.getvalue().splitlines()]
    assert sorted(told[1::3]) == [str(number) for number in range(8)]
    assert told[1::3] == told[2::3]


def test_a_board_that_was_stopped_did_not_fail() -> None:
    console = Console(file=io.StringIO(), width=80)
    attempt = Attempt(Adapter("/dev/ttyUSB0"))
    attempt.error = stopped(attempt)
    TrayDisplay(console, has_keyboard=False).ended(attempt)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "the board on /dev/ttyUSB0: stopped\n"


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Console]]:
    """Give the process a terminal: what is written to the first is typed, what is read, shown."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "r+b", buffering=0) as terminal:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(terminal, write_through=True))
        with Path(os.ttyname(slave)).open("w", encoding="utf-8") as screen:
            yield master, Console(file=screen, force_terminal=True, width=80, color_system=None)
    os.close(master)


def _echoes() -> bool:
    return bool(termios.tcgetattr(sys.stdin)[3] & termios.ECHO)


def test_a_question_on_a_terminal(keyboard: tuple[int, Console]) -> None:
    master, console = keyboard
    failed = Attempt(Adapter("/dev/ttyUSB7"))
    failed.error = NetzpulsError("no board answers on /dev/ttyUSB7", hint="check the cable")
    found = Found("/dev/ttyUSB3", _id(3), "ESP32-D0WD-V3", "24:0a:c4:00:00:03")
    answers: list[str | None] = []
    with TrayDisplay(console, has_keyboard=True) as display:
        assert not _echoes()
        for refusal in ("", "there is no room 'X'"):
            asking = threading.Thread(
                target=lambda said: answers.append(display.ask(Question(found, "R101", said))),
                args=(refusal,),
            )
            asking.start()
            shown = _read_until(master, "room [R101]: ")
            assert refusal in shown
            assert f"{_id(3)} on /dev/ttyUSB3, ESP32-D0WD-V3" in shown
            assert _echoes()
            display.ended(failed)
            os.write(master, b" R102 \n" if refusal else b"\n")
            # What happened meanwhile is told when the question is answered, not in its midst.
            shown = _read_until(master, "check the cable")
            assert "the board on /dev/ttyUSB7: failed" in shown
            asking.join(10)
        assert not _echoes()
        assert not cli_tray._enter_pressed()
        os.write(master, b"\n")
        assert cli_tray._enter_pressed()
        assert not cli_tray._enter_pressed()
    assert answers == ["", "R102"]
    assert _echoes()


def _read_until(master: int, text: str) -> str:
    shown = ""
    while text not in shown:
        assert select.select([master], [], [], 10)[0], shown
        shown += os.read(master, 65536).decode()
    return shown
