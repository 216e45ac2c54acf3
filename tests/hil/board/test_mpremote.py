"""The real mpremote's command line, and the REPL that people type into."""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial

from tests.hil.board.desk import TOOLS, Desk


def test_exec_eval_and_run(desk: Desk, tmp_path: Path) -> None:
    assert desk.mpremote("exec", "print('a\\nb')") == "a\r\nb\r\n"
    assert desk.mpremote("eval", "6 * 7").strip() == "42"
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(__name__, sys.platform)\n")
    assert desk.mpremote("run", script) == "__main__ esp32\r\n"


def test_what_is_typed_while_the_board_starts_is_not_lost(start: Callable[..., Desk]) -> None:
    desk = start(instant=False)
    desk.power_cycle()
    assert desk.run("print(6 * 7)") == "42\n"  # first start: the file system is made as well


def test_an_exception_has_the_programs_own_traceback(desk: Desk) -> None:
    said = desk.mpremote("exec", "def f():\n 1/0\nf()", ok=False).replace("\r\n", "\n")
    assert said == (
        "Traceback (most recent call last):\n"
        '  File "<stdin>", line 3, in <module>\n'
        '  File "<stdin>", line 2, in f\n'
        "ZeroDivisionError: divide by zero\n"
    )


def test_file_system(desk: Desk, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "one.py").write_text("print('one')\n")
    content = random.Random(3).randbytes(3000)
    (tree / "sub" / "data.bin").write_bytes(content)
    desk.mpremote("fs", "cp", "-r", tree, ":")
    listed = desk.mpremote("fs", "ls", ":tree")
    assert "one.py" in listed
    assert "sub/" in listed
    desk.mpremote("fs", "cp", ":tree/sub/data.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == content
    assert "2097152" in desk.mpremote("df")
    desk.mpremote("fs", "rm", "-r", ":tree")
    assert "tree" not in desk.mpremote("fs", "ls")


def test_mount_runs_from_the_host(desk: Desk, tmp_path: Path) -> None:
    # Line feeds in binary answers must arrive as they are.
    (tmp_path / "helper.py").write_text("\n" * 10 + "VALUE = 10\n")
    said = desk.mpremote("mount", tmp_path, "exec", "import helper; print(helper.VALUE)")
    assert "10\r\n" in said


def test_soft_reset_and_reset(desk: Desk) -> None:
    cause = "import machine; print(machine.reset_cause())"
    desk.mpremote("soft-reset")
    assert desk.mpremote("resume", "exec", cause).strip() == "5"
    desk.mpremote("reset")
    assert desk.mpremote("resume", "exec", cause).strip() == "2"
    desk.power_cycle()
    assert desk.mpremote("resume", "exec", cause).strip() == "1"


def test_repl_on_a_terminal(desk: Desk) -> None:
    ours, theirs = os.openpty()
    command = [str(TOOLS / "mpremote"), "connect", desk.link, "repl"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as tool:
        os.close(theirs)
        read_until(ours, b"Use Ctrl-] or Ctrl-x to exit this shell")
        os.write(ours, b"\rprint(6 * 7)\r")
        read_until(ours, b"\r\n42\r\n>>> ")
        os.write(ours, b"\x18")
        assert tool.wait(10) == 0
    os.close(ours)


def read_until(terminal: int, end: bytes) -> None:
    said = b""
    while end not in said:
        assert select.select([terminal], [], [], 10)[0], said
        said += os.read(terminal, 4096)


def test_rtc(desk: Desk) -> None:
    desk.mpremote("rtc", "--set")
    year = int(desk.mpremote("rtc").split(",")[0].strip("("))
    assert year == time.localtime().tm_year


class Terminal:
    """What a person does with a terminal program."""

    def __init__(self, link: str) -> None:
        self.port = serial.Serial(link, 115200, timeout=10)

    def type(self, text: bytes) -> None:
        self.port.write(text)

    def until(self, end: bytes) -> str:
        said = self.port.read_until(end)
        assert said.endswith(end), said
        return said.decode()


@pytest.fixture
def terminal(desk: Desk) -> Iterator[Terminal]:
    opened = Terminal(desk.link)
    opened.type(b"\r\x02\x03")  # leave the raw REPL, if a tool left it on
    opened.until(b">>> ")
    while opened.port.in_waiting:
        opened.port.read(opened.port.in_waiting)
        time.sleep(0.02)
    with contextlib.closing(opened.port):
        yield opened


def test_friendly_repl(terminal: Terminal) -> None:
    terminal.type(b"1 +\x08+ 1\r")
    assert terminal.until(b">>> ") == "1 +\x1b[3D\x1b[K1 + 1\r\n2\r\n>>> "
    terminal.type(b"for i in range(2):\r")
    terminal.until(b"...     ")
    terminal.type(b"print(i)\r\r")
    assert "0\r\n1\r\n" in terminal.until(b">>> ")
    terminal.type(b"x = [1,\r")
    terminal.until(b"... ")
    terminal.type(b"2]\rx\r")
    assert "[1, 2]" in terminal.until(b"[1, 2]\r\n>>> ")
    terminal.type(b"\x1b[A\x1b[D\x1b[D!\x03")
    terminal.until(b">>> ")
    terminal.type(b"\x02")
    assert "ESP32" in terminal.until(b">>> ")


def test_paste_mode(terminal: Terminal) -> None:
    terminal.type(b"\x05")
    terminal.until(b"=== ")
    terminal.type(b"if True:\r    print('pasted')\r\x04")
    assert "pasted\r\n" in terminal.until(b">>> ")


def test_ctrl_c_interrupts_and_ctrl_d_starts_anew(terminal: Terminal) -> None:
    terminal.type(b"kept = 1\rwhile True: pass\r\r")
    terminal.until(b"... \r\n")
    terminal.type(b"\x03")
    assert "KeyboardInterrupt" in terminal.until(b">>> ")
    terminal.type(b"kept\r")
    assert "1" in terminal.until(b">>> ")
    terminal.type(b"\x04")
    assert "MPY: soft reboot\r\n" in terminal.until(b"MPY: soft reboot\r\n")
    terminal.until(b">>> ")
    terminal.type(b"kept\r")
    assert "NameError" in terminal.until(b">>> ")


def test_ctrl_c_always_arrives(desk: Desk) -> None:
    """The interpreter raises in its signal handler, also in the middle of allocating."""
    desk.put("main.py", "while True: [str(i) for i in range(50)]")
    try:
        for turn in range(10):
            desk.power_cycle()
            time.sleep(0.03 + turn / 500)
            assert desk.run("import gc; gc.collect(); print(bytearray(1000)[0])") == "0\n"
    finally:
        desk.run("import os; os.remove('main.py')")


def test_nothing_that_was_typed_ahead_is_lost(desk: Desk) -> None:
    terminal = Terminal(desk.link)
    terminal.type(b"\r\x02\x03")
    terminal.until(b">>> ")
    terminal.type(b"\x04print('after the reset', 1)\r")
    terminal.until(b"after the reset 1\r\n")
    terminal.port.close()
