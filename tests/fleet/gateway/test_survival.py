"""Whatever is killed or full: what was acknowledged is in the store, once."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from fleet.gateway import broker, settings, transfer
from fleet.gateway.settings import Folder
from tests.fleet.gateway.scene import (
    DEADLINE_S,
    NETZPULS,
    Board,
    RunningGateway,
    Scene,
    board_id,
    served,
)

# paho leaves the socket of a handshake that a dying broker cut short to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Reporter(threading.Thread):
    """A board that measures and reports all the time."""

    def __init__(self, board: Board) -> None:
        super().__init__(daemon=True)
        self.board = board
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.005):
            if len(self.board.spool) < 64:
                self.board.make()
            waiting = list(self.board.spool.values())
            self.board.send(b"".join(waiting[:16]))
            self.board.take_acks(0.02)

    def finish(self) -> Board:
        self._end.set()
        self.join(DEADLINE_S)
        self.board.drain()
        return self.board


def stored(gateway: RunningGateway) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for device, seq in gateway.rows("SELECT device, seq FROM report ORDER BY device, seq"):
        found.setdefault(device, []).append(seq)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(*pids: int) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_nothing_acknowledged_is_lost_when_broker_and_collector_are_killed(scene: Scene) -> None:
    keys = [scene.city.enrol(board_id(n)) for n in (1, 2)]
    chance = random.Random(4711)
    with served(scene) as gateway:
        reporters = [Reporter(scene.board(n, key)) for n, key in enumerate(keys, 1)]
        for reporter in reporters:
            reporter.start()
        for victim in ("collector", "broker", "collector", "collector", "broker"):
            time.sleep(chance.uniform(0.1, 0.6))
            acked = {reporter.board.name: reporter.board.acked for reporter in reporters}
            before = gateway.kill(victim)
            here = stored(gateway)
            for name, seq in acked.items():
                assert here.get(name, [])[:seq] == list(range(1, seq + 1))
            gateway.said("child-ended", f"child={victim}", "why=SIGKILL", after=before)
            gateway.said(" collecting ", after=before)
        made = {reporter.finish().name: reporter.board.sealer.seq for reporter in reporters}
        assert {name: list(range(1, n + 1)) for name, n in made.items()} == stored(gateway)
        assert gateway.rows("SELECT * FROM loss") == []
        assert gateway.rows("SELECT * FROM refusal") == []
        assert gateway.state["restarts"] == {"broker": 2, "collector": 3}
        ends = [line for line in gateway.lines if "child-ended child=collector" in line]
        assert [line.split("restart_in_s=")[1] for line in ends] == ["0.0", "0.5", "1.0"]
        scene.close()


def test_reports_wait_at_the_broker_while_the_collector_is_away(scene: Scene) -> None:
    key = scene.city.enrol(board_id(1))
    with served(scene) as gateway:
        board = scene.board(1, key)
        os.kill(gateway.state["pids"]["collector"], signal.SIGSTOP)
        for raw in board.make(50):
            board.send(raw)
        board.connection.publish("netzpuls/v1/x/status", b"")  # all before is at the broker
        board.take_acks(0.2)
        assert board.acked == 0
        gateway.kill("collector")
        while board.spool:
            board.take_acks(DEADLINE_S)  # sent once only: the broker had kept them
        scene.close()


def limit_file_size(pid: int, limit: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))


def test_a_full_disk_stops_acknowledgements_until_there_is_room(scene: Scene) -> None:
    """The limit on the size of files gives the collector's writes a real error (EFBIG)."""
    key = scene.city.enrol(board_id(1))
    with served(scene) as gateway:
        board = scene.board(1, key)
        board.make(5)
        board.drain()
        pid = gateway.state["pids"]["collector"]
        limit_file_size(pid, 4096)
        board.make(2000)
        waiting = list(board.spool.values())
        for at in range(0, len(waiting), 16):
            board.send(b"".join(waiting[at : at + 16]))
        line = gateway.said("error cannot-store")
        assert str(scene.folder) in line
        assert "make room" in line
        time.sleep(1)  # it tries again meanwhile, and says no more
        assert sum("cannot-store" in line for line in gateway.lines) == 1
        board.take_acks(0.1)
        assert board.acked < 2005
        assert stored(gateway)[board.name] == list(range(1, board.acked + 1))
        limit_file_size(pid, resource.RLIM_INFINITY)
        gateway.said("storing-again")
        board.drain()
        assert stored(gateway)[board.name] == list(range(1, 2006))
        assert gateway.state["restarts"] == {"broker": 0, "collector": 0}
        scene.close()


def read(scene: Scene, *options: object) -> tuple[transfer.Header, list[transfer.Row]]:
    command = [NETZPULS, "gateway", "read", "--dir", scene.folder, *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        header, chunks = transfer.read(process.stdout)
        rows = [row for chunk in chunks for row in chunk]
    assert process.returncode == 0
    return header, rows


def test_two_readers_while_boards_report(scene: Scene) -> None:
    key = scene.city.enrol(board_id(1))
    with served(scene) as gateway:
        reporter = Reporter(scene.board(1, key))
        reporter.start()
        results: list[Any] = []
        readers = [threading.Thread(target=lambda: results.append(read(scene))) for _ in range(2)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(DEADLINE_S)
        board = reporter.finish()
        assert len(results) == 2
        for header, rows in results:
            assert [row.row for row in rows] == list(range(1, header.last_row + 1))
        header, rows = results[0]
        again, more = read(scene, "--after", len(rows), "--database", header.database)
        assert len(rows) + len(more) == board.sealer.seq == again.last_row
        assert len(read(scene, "--after", 3, "--limit", 2)[1]) == 2
        # Another database, or rows that this one does not have yet: all from the beginning.
        for options in (("--after", 3, "--database", "other"), ("--after", 10**9)):
            header, rows = read(scene, *options)
            assert (header.first_row, len(rows)) == (0, board.sealer.seq)
        assert gateway.rows("SELECT count(*) FROM report") == [(board.sealer.seq,)]
        scene.close()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_in_order_when_asked(scene: Scene, sent: signal.Signals, code: int) -> None:
    with served(scene) as gateway:
        pids = gateway.state["pids"]
        gateway.process.send_signal(sent)
        assert gateway.process.wait(DEADLINE_S) == code
        assert gone(*pids.values())
        assert not gateway.folder.state.exists()
    assert any(" stopped " in line for line in gateway.lines)
    assert not any("child-ended" in line or "Traceback" in line for line in gateway.lines)


def test_children_do_not_outlive_a_supervisor_that_is_killed(scene: Scene) -> None:
    with served(scene) as gateway:
        pids = gateway.state["pids"]
        gateway.process.kill()
        gateway.process.wait(DEADLINE_S)
        assert gone(pids["broker"], pids["collector"])
        with RunningGateway(scene.folder) as again:
            assert json.loads(again.ready().folder.state.read_text())["pids"] != pids


def test_a_collector_whose_network_thread_breaks_ends() -> None:
    code = (
        "import threading, time\n"
        "from fleet.gateway import collector, log\n"
        "log.configure()\n"
        "threading.excepthook = collector._die_with_thread\n"
        "threading.Thread(target=lambda: 1 / 0, name='network').start()\n"
        "time.sleep(60)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 1
    assert 'error defect thread=network said="division by zero"' in ended.stderr


def test_a_broker_that_runs_already_is_used(scene: Scene) -> None:
    key = scene.city.enrol(board_id(1))
    scene.prepare()
    folder = Folder(scene.folder)
    broker.write(folder, settings.load(folder))
    path = folder.settings
    path.write_text(path.read_text().replace("[broker]\n", "[broker]\nown = false\n"))
    command = broker.command(folder, settings.load(folder))
    with RunningGateway(scene.folder) as gateway:
        gateway.said("broker-unreachable")
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as mosquitto:
            gateway.ready()
            assert set(gateway.state["pids"]) == {"supervisor", "collector"}
            board = scene.board(1, key)
            board.make(3)
            board.drain()
            assert stored(gateway) == {board.name: [1, 2, 3]}
            scene.close()
            mosquitto.terminate()
