"""What runs on the board, and what outlives it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import serial

from fleet.errors import BenchError, ToolMissingError
from hil import tool
from hil.board import BoardProcess, Settings, nvs
from hil.board.flash import INSTANT, Flash
from hil.board.image import read_partitions
from hil.board.place import Place
from tests.hil.board.desk import Desk

WAIT_S = 15


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_blank_file_system_is_made_as_the_port_makes_it(desk: Desk) -> None:
    said = desk.run("import os; print(os.listdir('/')); print(open('boot.py').readline())")
    assert "'boot.py'" in said
    assert "# This file is executed on every boot" in said


def test_boot_and_main_run_in_order_in_one_scope(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.put("boot.py", "first = 1")
    desk.put("main.py", "second = first + 1; import sys; path = sys.path")
    with serial.Serial(desk.link, timeout=WAIT_S) as port:
        desk.power_cycle()
        assert port.read_until(b">>> ").endswith(b">>> ")
    with desk.repl(soft_reset=False) as repl:
        said = repl.run("print(first, second, path, __name__, sorted(globals()))")
    assert said == (
        "1 2 ['', '.frozen', '/lib'] __main__ ['__name__', 'first', 'path', 'second', 'sys']\n"
    )


def test_a_failing_main_ends_in_the_repl(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.put("main.py", "print(1)\nnonsense\n")
    with desk.repl(soft_reset=False) as repl:
        repl.transport.exit_raw_repl()
        repl.transport.read_until(1, b">>> ")
        repl.transport.serial.write(b"\x04")
        said = repl.transport.read_until(1, b">>> ")
    assert b'File "main.py", line 2, in <module>\r\nNameError' in said
    assert b"shim" not in said


def test_leaving_main_means_a_soft_reset(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.put(
        "main.py",
        """
        import os, sys
        n = len(os.listdir())
        if n < 5:
            open('f%d' % n, 'w').close()
            sys.exit()
        """,
    )
    with serial.Serial(desk.link, timeout=WAIT_S) as port:
        desk.power_cycle()
        said = port.read_until(b">>> ")
    assert said.count(b"MPY: soft reboot\r\n") == 3
    with desk.repl(soft_reset=False) as repl:
        assert repl.run("print(n)") == "5\n"


def test_the_clock_is_not_set_after_power_on(desk: Desk) -> None:
    desk.power_cycle()
    with desk.repl() as repl:
        seconds = int(repl.run("import time; print(time.time())"))
        assert 946684800 <= seconds < 946684800 + WAIT_S
        assert repl.run("print(time.localtime()[:3], len(time.gmtime()))") == "(2000, 1, 1) 8\n"
        assert repl.run("print(time.mktime(time.gmtime()) - time.time())") == "0\n"
        repl.run("import machine; machine.RTC().datetime((2026, 3, 29, 0, 12, 34, 56, 0))")
        fields = "print(machine.RTC().datetime()[:6], time.time_ns() // 10**9 - time.time())"
        assert repl.run(fields) == "(2026, 3, 29, 6, 12, 34) 0\n"
    after_soft_reset = desk.run("import time; print(time.localtime()[:5])")
    assert after_soft_reset == "(2026, 3, 29, 12, 34)\n"


def test_calendar_of_the_board_is_the_hosts(desk: Desk) -> None:
    moments = [0, 951782399, 951782400, 1709164800, 1774746000, 4107542399]
    said = desk.run(f"""
        import time
        for moment in {moments}:
            print(moment, time.mktime(time.gmtime(moment)), time.gmtime(moment))
        """)
    for line, moment in zip(said.splitlines(), moments, strict=True):
        host = time.gmtime(moment)
        fields = (*host[:6], host.tm_wday, host.tm_yday)
        assert line == f"{moment} {moment} {fields}"


def test_the_watchdog_bites(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.put(
        "main.py",
        """
        import machine, time
        if machine.reset_cause() == machine.PWRON_RESET:
            dog = machine.WDT(timeout=300)
            for _ in range(5):
                dog.feed()
                time.sleep_ms(100)
            while True:
                pass
        """,
    )
    desk.power_cycle()
    until(lambda: desk.control.state()["reset_cause"] == 3)
    with desk.repl(soft_reset=False) as repl:
        said = repl.run("import machine; print(machine.reset_cause() == machine.WDT_RESET)")
    assert said == "True\n"


def test_deep_sleep_ends_in_a_reset_that_says_so(desk: Desk) -> None:
    with desk.repl() as repl:
        repl.run("import machine; machine.RTC().memory(b'kept')")
        repl.transport.exec_raw_no_follow("machine.deepsleep(100)")
    until(lambda: desk.control.state()["reset_cause"] == 4)
    with desk.repl(soft_reset=False) as repl:
        said = repl.run("import machine; print(machine.reset_cause(), machine.RTC().memory())")
    assert said == "4 b'kept'\n"


def test_identity_and_pins(desk: Desk) -> None:
    said = desk.run("""
        import machine, os, network, esp32
        print(machine.unique_id().hex(), os.uname().sysname, machine.freq())
        pin = machine.Pin(2, machine.Pin.OUT, value=1)
        machine.Signal(pin, invert=True).on()
        print(pin.value())
        print(esp32.Partition(esp32.Partition.RUNNING).info())
        print([p.info()[4] for p in esp32.Partition.find(esp32.Partition.TYPE_DATA)])
        """)
    assert said.splitlines() == [
        "240ac4000001 esp32 160000000",
        "0",
        "(0, 0, 65536, 2031616, 'factory', False)",
        "['nvs', 'phy_init', 'vfs']",
    ]


def test_nvs_outlives_a_power_cut_and_stands_in_the_flash(desk: Desk) -> None:
    desk.run("""
        import esp32
        store = esp32.NVS('netzpuls')
        store.set_i32('boots', -7)
        store.set_blob('token', b'\\x00\\xff' * 50)
        store.set_i32('gone', 1)
        store.erase_key('gone')
        store.commit()
        """)
    desk.power_cycle()
    said = desk.run("""
        import esp32
        store = esp32.NVS('netzpuls')
        buffer = bytearray(200)
        print(store.get_i32('boots'), store.get_blob('token', buffer), buffer[:4])
        for key in ('gone', 'token'):
            try:
                store.get_i32(key)
            except OSError as error:
                print(error.errno)
        """)
    assert said == "-7 100 bytearray(b'\\x00\\xff\\x00\\xff')\n-4354\n-4354\n"
    flash = Flash(Path(desk.control.state()["flash"]), INSTANT)
    found = nvs.Nvs(flash, read_partitions(flash)).get("netzpuls", "boots", "number")
    flash.close()
    assert found == -7


def test_files_survive_a_power_cut(desk: Desk) -> None:
    with desk.repl() as repl:
        repl.run("with open('kept', 'w') as f: f.write('closed')")
        repl.transport.exec_raw_no_follow("f = open('torn', 'w')\nwhile True: f.write('x' * 500)")
        time.sleep(0.2)
        desk.power_cycle()
    said = desk.run("print(open('kept').read(), open('torn').read() if 0 else '')")
    assert said == "closed \n"


def test_a_corrupt_file_system_is_said_and_not_overwritten(
    start: Callable[..., Desk], template: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "flash.bin"
    content = bytearray(template)
    content[0x200000:0x202000] = bytes(0x2000)
    path.write_bytes(content)
    desk = start(flash=path)
    with serial.Serial(desk.link, timeout=10) as port:
        assert b"appears to be corrupted" in port.read_until(b"corrupted")
    assert path.read_bytes()[0x200000:0x202000] == bytes(0x2000)


def test_a_blank_board_says_what_the_rom_says(start: Callable[..., Desk]) -> None:
    desk = start(flash=None)
    with serial.Serial(desk.link, timeout=10) as port:
        assert port.read_until(b"invalid header: 0xffffffff").endswith(b"0xffffffff")


@pytest.mark.parametrize("name", ["micropython", "micropython32"])
def test_who_waits_may_be_interrupted(name: str) -> None:
    with subprocess.Popen([interpreter(name), "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        until(lambda: "S" in Path(f"/proc/{waiting.pid}/stat").read_text().split()[2])
        assert not Place(waiting.pid).is_busy()


# A text that was a name before is looked up no more, so each run has its own.
NAMES = """
class Thing: pass
thing, names = Thing(), ["n%d_%d" % (RUN, number) for number in range(100)]
print("ready")
while True:
    for name in names: hasattr(thing, name)
"""


@pytest.mark.parametrize("name", ["micropython", "micropython32"])
def test_who_holds_a_lock_may_not(name: str) -> None:
    """The table of names has one that is no recursive mutex."""
    command = [interpreter(name), "-c", NAMES.replace("RUN", "0")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as searching:
        try:
            assert searching.stdout
            assert searching.stdout.readline() == b"ready\n"
            place, held = Place(searching.pid), set()
            for _ in range(2000):
                searching.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, searching.pid, os.WSTOPPED)
                held.add(place.is_busy())
                searching.send_signal(signal.SIGCONT)
                if held == {False, True}:
                    break
                time.sleep(0.001)
        finally:
            searching.kill()
    assert held == {False, True}


def test_ctrl_c_in_the_table_of_names_leaves_a_board_that_lives(desk: Desk) -> None:
    with desk.repl() as repl:
        for run in range(40):
            repl.transport.exec_raw_no_follow(NAMES.replace("RUN", str(run)))
            assert repl.transport.read_until(1, b"ready\r\n", timeout=WAIT_S).endswith(b"\n")
            repl.transport.serial.write(b"\x03")
            assert b"KeyboardInterrupt" in repl.transport.follow(WAIT_S)[1]


def test_a_board_may_have_a_32_bit_interpreter(start: Callable[..., Desk]) -> None:
    desk = start(micropython=interpreter("micropython32"))
    desk.put("main.py", "import sys; print('word', sys.maxsize); x = 1 / 3\nwhile True: pass")
    desk.power_cycle()
    assert desk.run("import sys; print(sys.maxsize, sys.platform)") == "2147483647 esp32\n"


def interpreter(name: str) -> Path:
    try:
        return tool.find(name)
    except ToolMissingError as missing:
        pytest.skip(f"{missing.message}; {missing.hint}")


def test_the_heap_is_as_large_as_asked(start: Callable[..., Desk]) -> None:
    desk = start(heap_bytes=200_000)
    free = int(desk.run("import gc; gc.collect(); print(gc.mem_free())"))
    assert 50_000 < free < 200_000


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(start: Callable[..., Desk], end: int) -> None:
    desk = start()
    desk.put("main.py", "while True: pass")
    desk.mpremote("reset")
    board = desk.process.process
    until(lambda: children_of(board.pid))
    (interpreter,) = children_of(board.pid)
    os.kill(board.pid, end)
    board.wait(WAIT_S)
    until(lambda: not is_alive(interpreter))
    if end != signal.SIGKILL:
        assert not Path(desk.link).is_symlink()
        assert not Path(desk.link + ".control").exists()


def test_a_board_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from hil.board import BoardProcess, Settings\n"
        f"board = BoardProcess(Settings(link=Path({str(tmp_path / 'np')!r}), instant=True))\n"
        "print(board.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert parent.stdout is not None
    board = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not is_alive(board))
    until(lambda: not (tmp_path / "np").is_symlink())


def test_a_board_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[BoardProcess] = []
    settings = Settings(link=tmp_path / "np", instant=True)
    thread = threading.Thread(target=lambda: started.append(BoardProcess(settings)))
    thread.start()
    thread.join()
    with started[0] as board:
        assert board.control.state()["power"] is True


def test_two_boards_do_not_share_a_flash(start: Callable[..., Desk], desk: Desk) -> None:
    with pytest.raises(BenchError, match="in use by another board"):
        start(flash=Path(desk.control.state()["flash"]))


def test_noise_on_the_line_is_survived(start: Callable[..., Desk]) -> None:
    desk = start()
    with serial.Serial(desk.link, timeout=WAIT_S) as port:
        port.read_until(b">>> ")
        for seed in range(8):
            noise = random.Random(seed).randbytes(4000)
            for at in range(0, len(noise), 400):
                port.write(noise[at : at + 400])
                assert b"ended by itself" not in port.read(port.in_waiting)
            port.write(b"\x03" * 3)
    desk.power_cycle()
    assert desk.run("print(2 + 2)") == "4\n"
    assert "Detected flash size: 4MB" in desk.esptool("flash-id")


def test_an_interrupt_may_meet_a_program_that_just_ended(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.put("main.py", "import sys, time; time.sleep_ms(5); sys.exit()")
    with serial.Serial(desk.link, timeout=WAIT_S) as port:
        desk.power_cycle()
        for _ in range(300):
            port.write(b"\x03")
            port.read(port.in_waiting)
            time.sleep(0.003)
    assert desk.control.state()["power"] is True


def test_a_program_can_turn_ctrl_c_off(desk: Desk) -> None:
    with desk.repl() as repl:
        repl.transport.exec_raw_no_follow("""
import micropython, sys
micropython.kbd_intr(-1)
print('ready')
data = sys.stdin.buffer.read(3)
sys.stdout.buffer.write(b'\\n' + data)
micropython.kbd_intr(3)
""")
        serial_port = repl.transport.serial
        assert repl.transport.read_until(1, b"ready\n").endswith(b"ready\n")
        serial_port.write(b"a\x03b")
        assert repl.transport.follow(5)[0] == b"\na\x03b"
