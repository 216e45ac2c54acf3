"""`netzpuls gateway status` and `netzpuls fleet check` that asks for it over SSH, for real."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet import inventory
from fleet.check import Answer, Status, check
from fleet.gateway import status
from fleet.gateway.settings import Folder
from fleet.gateway.status import StatusError
from fleet.text import printable
from tests.fleet.conftest import Login
from tests.fleet.gateway.conftest import KEPT, STOLEN, Enrolled
from tests.fleet.gateway.scene import DEADLINE_S, GATEWAY, RunningGateway, served
from tests.fleet.line import Line

GOOD: dict[str, Any] = {
    "status": 1,
    "gateway": GATEWAY,
    "version": "0.1.0",
    "time_ms": 0,
    "broker": True,
    "collector": True,
    "restarts": 0,
    "certificates": {"gateway": "2036-11-22T07:00:00Z", "collector": "2036-11-22T07:00:00Z"},
    "disk_free_bytes": 60,
    "disk_total_bytes": 100,
    "waiting": 0,
    "waiting_since_s": None,
    "unacknowledged": 0,
    "unacknowledged_since_s": None,
    "received_s": None,
    "boards": 2,
    "silent": {},
    "silent_count": 0,
}


@pytest.fixture
def running(enrolled: Enrolled) -> Iterator[RunningGateway]:
    with served(enrolled.scene) as gateway:
        yield gateway


def _check(enrolled: Enrolled, **options: Any) -> Answer:
    options = {"parts": ["gateways"], "sites": ["goethe-schule"], "timeout_s": 20} | options
    return check(inventory.load(enrolled.city), **options)


def _told(answer: Answer) -> list[tuple[str, str]]:
    return [(each.status.name, each.metric) for each in answer.worst_first]


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_a_gateway_that_is_well(enrolled: Enrolled, running: RunningGateway) -> None:
    board = enrolled.board(KEPT)
    board.make(3)
    board.drain()
    said = status.read(running.folder)
    assert (said.gateway, said.broker, said.collector, said.boards) == (GATEWAY, True, True, 2)
    assert (said.waiting, said.unacknowledged, said.silent_count) == (3, 0, 1)
    assert said.silent == {STOLEN: 0}
    assert said.waiting_since_s == said.received_s
    assert set(said.certificates) == {"gateway", "collector", "ca"}
    assert 0 < said.disk_free_bytes < said.disk_total_bytes
    assert status.parse(said.model_dump_json().encode(), GATEWAY) == said
    answer = _check(enrolled)
    assert _told(answer) == []
    values = {each.name: each.value for each in answer.figures}
    assert (values["queue"], values["gateways_stopped"]) == (3, 0)
    assert values["clock_offset"] == 0
    assert len(answer.notes) == 1
    # What was collected waits no more.
    assert enrolled.collect().new == 3
    assert {each.name: each.value for each in _check(enrolled).figures}["queue"] == 0
    found = _check(enrolled, parts=["reports"])
    assert [each.message for each in found.worst_first] == ["silent for a day or more"]


def test_reports_behind_a_hole_are_not_acknowledged(
    enrolled: Enrolled, running: RunningGateway
) -> None:
    board = enrolled.board(KEPT)
    first, _, third = board.make(3)
    board.send(first)
    board.send(third)
    _until(lambda: len(running.rows()) == 2)
    said = status.read(running.folder)
    assert said.unacknowledged == 1
    assert said.unacknowledged_since_s == said.received_s


def test_what_has_died_or_hangs_is_critical(enrolled: Enrolled, running: RunningGateway) -> None:
    pids = running.state["pids"]
    os.kill(pids["collector"], signal.SIGSTOP)
    try:
        answer = _check(enrolled)
    finally:
        os.kill(pids["collector"], signal.SIGCONT)
    assert _told(answer) == [("CRITICAL", "gateways_stopped")]
    assert "gateway gw-mitte: the collector does not run" in answer.worst_first[0].text
    assert _told(_check(enrolled)) == []
    # What the supervisor left behind when it was killed deceives nobody.
    os.kill(pids["supervisor"], signal.SIGKILL)
    running.process.wait()
    assert running.folder.state.exists()
    _until(lambda: "broker does not answer and" in _check(enrolled).worst_first[0].message)
    assert _told(_check(enrolled)) == [("CRITICAL", "gateways_stopped")]


def test_in_words_and_as_one_line(
    enrolled: Enrolled, running: RunningGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exited:
            fleet.cli.main(["gateway", "status", *arguments])
        assert isinstance(exited.value.code, int)
        return exited.value.code, capsys.readouterr().out

    code, out = said("--dir", str(running.folder.path))
    assert code == 0
    assert "broker          answers\ncollector       runs\n" in out
    code, out = said("--dir", str(running.folder.path), "--json")
    assert (code, out.count("\n")) == (0, 1)
    code, out = said("--dir", str(enrolled.scene.root), "--json")
    assert code == 2
    assert "is no gateway's folder" in json.loads(out)["error"]["message"]


def test_a_host_where_there_is_no_gateway(enrolled: Enrolled) -> None:
    answer = _check(enrolled)
    assert _told(answer) == [("UNKNOWN", "")]
    assert "is no gateway's folder" in answer.worst_first[0].message


def _answers(enrolled: Enrolled, script: str) -> None:
    """Have the gateway answer with whatever a script prints."""
    path = enrolled.scene.root / "fake-netzpuls"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    inventory_file = enrolled.city / "inventory.toml"
    text = inventory_file.read_text()
    inventory_file.write_text(text.replace("data_dir = ", f'command = "{path}"\ndata_dir = ', 1))


def _answers_with(enrolled: Enrolled, **values: object) -> None:
    document = GOOD | {"time_ms": int(time.time() * 1000)} | values
    reply = enrolled.scene.root / "reply.json"
    reply.write_text(json.dumps(document))
    _answers(enrolled, f"cat {reply}")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, []),
        ({"disk_free_bytes": 9}, [("WARNING", "disk_free")]),
        ({"disk_free_bytes": 4}, [("CRITICAL", "disk_free")]),
        ({"disk_free_bytes": 0, "disk_total_bytes": 0}, [("CRITICAL", "disk_free")]),
        ({"broker": False}, [("CRITICAL", "gateways_stopped")]),
        ({"version": "0.0.1"}, [("WARNING", "gateways_outdated")]),
        ({"time_ms": 0}, [("CRITICAL", "clock_offset")]),
        ({"waiting": 7, "waiting_since_s": 1}, [("CRITICAL", "queue_age")]),
        ({"unacknowledged": 7, "unacknowledged_since_s": 1}, [("CRITICAL", "unacknowledged_age")]),
    ],
)
def test_what_is_not_well_is_told(
    enrolled: Enrolled, values: dict[str, object], told: list[tuple[str, str]]
) -> None:
    _answers_with(enrolled, **values)
    assert _told(_check(enrolled)) == told


def test_a_clock_that_is_off_is_measured(enrolled: Enrolled) -> None:
    _answers_with(enrolled, time_ms=int(time.time() * 1000) + 12_000)
    answer = _check(enrolled)
    assert _told(answer) == [("WARNING", "clock_offset")]
    offset = next(each.value for each in answer.figures if each.name == "clock_offset")
    assert 8 < offset < 12


@pytest.mark.parametrize(
    "values",
    [
        {"status": 2},
        {"gateway": "gw-\u001b[2J"},
        {"version": "1 | disk=0"},
        {"disk_free_bytes": -1},
        {"waiting": 1 << 70},
        {"time_ms": 1e300},
        {"time_ms": "1"},
        {"broker": 1},
        {"certificates": {"gateway": "tomorrow"}},
        {"certificates": {"other": "2036-11-22T07:00:00Z"}},
        {"silent": {"np-../../etc": 0}},
        {"silent": {f"np-{n:012x}": 0 for n in range(status.MAX_SILENT + 1)}},
        {"more": 1},
    ],
)
def test_a_hostile_answer_is_refused(values: dict[str, object]) -> None:
    assert status.parse(json.dumps(GOOD).encode(), GATEWAY).boards == 2
    with pytest.raises(StatusError) as caught:
        status.parse(json.dumps(GOOD | values).encode(), GATEWAY)
    assert caught.value.message == printable(caught.value.message, 10_000)


@pytest.mark.parametrize(
    "script",
    [
        "exec yes '{'",
        "exec cat /dev/zero",
        "printf '\\033[2J'",
        "printf '%0100000d' 0 | tr 0 '['",
        "echo '{\"error\": 7}'",
        "echo Welcome; exit 0",
        "exit 0",
    ],
)
def test_rubbish_is_unknown_and_bounded(enrolled: Enrolled, script: str) -> None:
    _answers(enrolled, script)
    began = time.monotonic()
    answer = _check(enrolled)
    assert time.monotonic() - began < 10
    assert _told(answer) == [("UNKNOWN", "")]
    assert "does not say how it is" in answer.worst_first[0].message
    assert "\x1b" not in answer.worst_first[0].text


def test_a_status_of_another_gateway_is_refused(enrolled: Enrolled) -> None:
    _answers_with(enrolled, gateway="gw-nord")
    answer = _check(enrolled)
    assert _told(answer) == [("CRITICAL", "gateways_unreachable")]
    assert "there lives 'gw-nord'" in answer.worst_first[0].message


@pytest.mark.parametrize("script", ["exec sleep 300", "printf '{'; exec sleep 300"])
def test_a_gateway_that_hangs_is_critical_in_time(enrolled: Enrolled, script: str) -> None:
    _answers(enrolled, script)
    began = time.monotonic()
    answer = _check(enrolled, timeout_s=4)
    assert time.monotonic() - began < 4
    assert _told(answer) == [("CRITICAL", "gateways_unreachable")]
    assert re.search(r"did not finish within (2\.[0-9]|3) s", answer.worst_first[0].message)


def test_a_gateway_that_freezes_anywhere_holds_back_no_other(
    enrolled: Enrolled, login: Login
) -> None:
    _answers_with(enrolled)
    path = enrolled.city / "inventory.toml"
    before, _, rest = path.read_text().partition("[gateway.gw-nord]")
    entry = before.partition("[gateway.gw-mitte]")[2]
    with contextlib.ExitStack() as stack:
        frozen = []
        for freeze_after in (0, 100, 1300, 1600, 1900, 2100):
            line = stack.enter_context(Line(login.server.port, freeze_after=freeze_after))
            name = f"gw-at-{freeze_after}"
            port = f"ssh_port = {line.port}"
            frozen.append(
                f"[gateway.{name}]" + entry.replace(f"ssh_port = {login.server.port}", port)
            )
        path.write_text(before + "".join(frozen) + "[gateway.gw-nord]" + rest)
        began = time.monotonic()
        answer = _check(enrolled, sites=(), timeout_s=6)
        assert time.monotonic() - began < 6.5
    assert [each.subject for each in answer.worst_first if "gw-at" not in each.subject] == [
        "gateway gw-nord"
    ]
    assert len(answer.worst_first) == 7
    assert len(answer.notes) == 1


def test_without_time_nobody_is_asked(enrolled: Enrolled) -> None:
    answer = _check(enrolled, timeout_s=0.4)
    assert answer.status is Status.UNKNOWN
    assert {each.message.partition(" was ")[2] for each in answer.worst_first} == {
        "not asked: the time was used up; give it more time with -t, or ask for fewer with --site"
    }


def test_the_plugin_as_a_monitoring_system_runs_it(
    enrolled: Enrolled, running: RunningGateway
) -> None:
    board = enrolled.board(KEPT)
    other = enrolled.board(STOLEN)
    for each in (board, other):
        each.make(3, time_s=int(time.time()) - 200)
        each.drain()
    assert enrolled.collect().new == 6
    command = [sys.executable, "-m", "fleet.cli", "fleet", "check", "--city", str(enrolled.city)]

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("--site", "goethe-schule")
    assert (code, err, out.count("\n")) == (0, "", 1), out
    assert out.startswith("NETZPULS OK - all is well | gateways_unreachable=0;;0;0 ")
    code, out, _ = run("--site", "goethe-schule", "-vv")
    assert code == 0
    assert "\ngateway gw-mitte: Netzpuls " in out
    assert "\ndisk_free=" in out
    running.process.terminate()
    running.process.wait()
    code, out, err = run("--site", "goethe-schule")
    assert (code, err) == (2, "")
    told = "the broker does not answer and the collector does not run; "
    assert out.startswith(f"NETZPULS CRITICAL - gateway gw-mitte: {told}")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(fleet.errors.ConfigurationError):
        status.read(Folder(tmp_path))


def test_an_answer_that_is_too_deep_is_no_crash() -> None:
    with pytest.raises(StatusError):
        status.parse(b"[" * 100_000, GATEWAY)
