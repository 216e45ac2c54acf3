"""Collecting on a schedule and after a week, on a real OpenSSH server."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import check, watch
from fleet.check import Status
from fleet.collect import collect
from fleet.errors import StoreError
from fleet.store import Store, count_reports
from fleet.watch import JITTER, Round, rounds
from hil.sshd import SshServer
from tests.fleet.conftest import Login, new_key
from tests.fleet.line import Line
from tests.fleet.town import Town, fill_gateway

DOCS = Path(__file__).parents[2] / "docs/city-hall"


@pytest.fixture
def town(tmp_path: Path, login: Login) -> Town:
    town = Town(tmp_path / "city")
    login.gateway(town, data_dir=str(tmp_path / "gateway"))
    return town


def _fill(town: Town, count: int, gateway_id: str = "gw-1") -> None:
    """Put so many new reports of each board into a gateway, the last one made now."""
    folder = Path(town.gateways[gateway_id]["data_dir"])
    start_s = int(time.time()) - 60 * count
    reports = [(board, raw) for board in town.boards for raw in board.series(start_s, count)]
    fill_gateway(folder, gateway_id, reports)


def _stored(town: Town) -> int:
    with Store(town.folder).reading() as connection:
        return sum(count_reports(connection).values())


def _rounds(town: Town, pauses: list[float], sleep: Callable[[int], None]) -> Iterator[Round]:
    def note(pause_s: float) -> None:
        pauses.append(pause_s)
        sleep(len(pauses))

    return rounds(town.folder, [], every_s=300, timeout_s=20, parallel=4, sleep=note)


def test_rounds_go_on_and_each_brings_what_is_new(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "random", random.Random(7))
    identity = tmp_path / "identity"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with SshServer(tmp_path / "own", new_key(identity), environment=environment) as server:
        Login(server, identity).gateway(town)
        town.write()
        _fill(town, 3)
        pauses: list[float] = []
        found = _rounds(town, pauses, lambda number: _fill(town, number))
        new = [sum(each.new for each in next(found).results) for _ in range(4)]
        assert new == [6, 2, 4, 6]
        # One login for all rounds.
        assert server.log.read_text().count("Accepted publickey") == 1
        found.close()
    assert len(set(pauses)) == 3
    assert all(300 * (1 - JITTER) - 60 < each <= 300 * (1 + JITTER) for each in pauses)


def test_a_round_that_fails_does_not_end_the_next(town: Town, login: Login) -> None:
    town.write()
    _fill(town, 3)
    broken = (town.folder / "inventory.toml").read_text()

    def disturb(number: int) -> None:
        if number == 1:
            (town.folder / "inventory.toml").write_text("version = ")
        if number == 2:
            (town.folder / "inventory.toml").write_text(broken.replace("gw-1", "gw-one"))
        if number == 3:
            (town.folder / "inventory.toml").write_text(broken)

    found = _rounds(town, [], disturb)
    first, second, third, fourth = (next(found) for _ in range(4))
    assert "1 gateway: 6 new in " in first.line()
    assert "nothing collected: " in second.line()
    assert "it is not valid TOML" in second.line()
    assert "1 failed: " in third.line()
    assert "there lives 'gw-1'" in third.line()
    assert fourth.error is None
    assert all("\n" not in each.line() for each in (first, second, third, fourth))
    found.close()


def test_two_at_once_are_safe(town: Town) -> None:
    """Whoever comes second is told, stores nothing, and may come again."""
    city = town.write()
    _fill(town, 6000)
    outcomes: list[str] = []

    def work() -> None:
        try:
            (result,) = collect(city)
            outcomes.append("failed" if result.error else "good")
        except StoreError as error:
            outcomes.append("refused" if "is writing" in error.message else error.message)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["good", "refused", "refused", "refused"]
    assert _stored(town) == 12_000
    (again,) = collect(city)
    assert (again.error, again.rows) == (None, 0)


def test_a_week_is_caught_up_without_alarms(town: Town, login: Login) -> None:
    week = 7 * 24 * 60
    city = town.write()
    _fill(town, week)
    with Line(login.server.port, cut_after=400_000) as line:
        # The line breaks in the midst of it, and nothing comes twice.
        login.gateway(town, ssh_port=line.port)
        (broken,) = collect(town.write())
        assert broken.error is not None
        line.cut_after = None
        (rest,) = collect(town.write())
    assert rest.error is None
    assert broken.rows + rest.rows == broken.new + rest.new == 2 * week
    assert (rest.duplicates, rest.lost, rest.breaks) == (0, 0, 0)
    answer = check.check(city, parts=["reports"], live=False)
    assert [each.text for each in answer.worst_first] == []
    assert answer.status is Status.OK


@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("in_a_round", [True, False])
def test_it_ends_cleanly(
    town: Town, tmp_path: Path, signal_: signal.Signals, code: int, in_a_round: bool
) -> None:
    mark = tmp_path / "mark"
    if in_a_round:
        script = tmp_path / "fake-netzpuls"
        script.write_text(f"#!/bin/sh\ntouch {mark}\nexec sleep 300\n")
        script.chmod(0o755)
        town.gateway("gw-1", command=str(script))
    town.write()
    _fill(town, 3)
    command = [sys.executable, "-m", "fleet.cli", "fleet", "collect", "--watch", "--every", "100"]
    process = subprocess.Popen(
        [*command, "--city", str(town.folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    first = ""
    if in_a_round:
        until = time.monotonic() + 30
        while not mark.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
    else:
        first = process.stderr.readline()
    process.send_signal(signal_)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    if not in_a_round:
        assert re.fullmatch(
            r"[0-9-]{10} [0-9:]{8}Z 1 gateway: 6 new in [0-9.]+ s; next at [0-9:]{8}Z\n", first
        )
    with Store(town.folder).writing():
        pass  # the lock went with it


def test_the_units_for_city_hall_are_ones(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("needs systemd-analyze: sudo apt install systemd")
    for name in ("netzpuls-collect.service", "netzpuls-collect.timer"):
        text = (DOCS / name).read_text().replace("/opt/netzpuls/bin/netzpuls", "/bin/true")
        (tmp_path / name).write_text(text)

    def verify() -> str:
        # It exits with 0 on a key that is unknown: what it says tells.
        done = subprocess.run(
            [analyze, "verify", "--man=no", tmp_path / "netzpuls-collect.timer",
             tmp_path / "netzpuls-collect.service"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return "".join(line for line in done.stderr.splitlines() if "netzpuls" in line)

    assert verify() == ""
    service = tmp_path / "netzpuls-collect.service"
    service.write_text(service.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "NoNewPrivilege" in verify()
