"""The network lab: up and down without a trace, one fault of each layer, its commands."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import NetzpulsError
from hil.lab.control import SOCKET
from hil.lab.fault import catalogue, find
from tests.hil.lab.running import ROOT, STOP_S, RunningLab, lab_command, processes

pytestmark = pytest.mark.usefixtures("namespaces")

_NOBODY = 65534
# One of each layer, as many at a time as the lab has schools.
_ONE_OF_EACH = (
    ("no-such-network", "gateway-slow", "dns-hijack", "internet-cut-behind-router"),
    ("wrong-key", "gateway-dead", "portal-appears", "service-error"),
    ("dhcp-no-offer", "dhcp-rogue", "dns-dead", "one-target-dead"),
)


def _networks() -> set[str]:
    table = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    names = {line.split(": ")[1] for line in table.stdout.splitlines()}
    return names | {str(path) for path in Path("/run").glob("netns/*")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(number: signal.Signals, tmp_path: Path) -> None:
    before = _networks()
    with RunningLab(tmp_path / "lab") as lab:
        assert processes(lab.folder)
        for name in ("weak-signal", "dns-dead", "gateway-slow", "broker-down"):
            lab.fault(name)
        lab.process.send_signal(number)
        _, said = lab.process.communicate(timeout=STOP_S)
    assert b"Traceback" not in said
    assert processes(tmp_path / "lab") == []
    assert _networks() == before
    assert lab.process.returncode == {2: 130, 15: 130, 9: -9}[number]


def test_an_ordinary_user_needs_no_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("all other tests here run as an ordinary user already")
    packages = f"{ROOT}:{sysconfig.get_path('purelib')}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": packages, "HOME": "/tmp"}  # noqa: S108
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    # A virtual environment's Python may lie in root's home: then the system's own, if it is alike.
    version = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}; import hil.cli"
    pythons = [
        python
        for python in (sys.executable, "/usr/bin/python3")
        if _runs([python, "-c", version], environment)
    ]
    if not pythons:
        pytest.skip(f"no Python {sys.version_info[:2]} that an ordinary user may run")
    folder = Path("/tmp/netzpuls-lab-of-nobody")  # noqa: S108 - what that user can write to
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with RunningLab(folder, user=_NOBODY, environment=environment, python=pythons[0]) as lab:
            assert {board["state"] for board in lab.boards} == {"up"}
            assert lab.folder.stat().st_uid == _NOBODY
        assert processes(folder) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(command: list[str], environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            command, cwd=ROOT, user=_NOBODY, env=environment, check=False, capture_output=True
        )
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.mark.parametrize("names", _ONE_OF_EACH)
def test_a_fault_of_each_layer_gets_its_verdict_and_goes(
    names: tuple[str, ...], lab: RunningLab
) -> None:
    schools = dict.fromkeys(board["site"] for board in lab.boards if board["room"] != "501")
    wanted = dict(zip(schools, names, strict=True))
    for site, name in wanted.items():
        assert len(lab.fault(name, site)["made"][0]["boards"]) == len(find(name).roles)

    def is_struck(board: dict[str, Any]) -> bool:
        if board["role"] not in find(wanted.get(board["site"], "dns-dead")).roles:
            return True  # it cannot see it
        if board["site"] not in wanted:
            return board["state"] == "up"
        return board["verdict"] == find(wanted[board["site"]]).expected.verdict

    lab.wait(is_struck, 4)
    lab.heal()
    lab.wait(lambda board: board["state"] == "up", 4)


def test_one_board_alone_can_be_struck(lab: RunningLab) -> None:
    sensor, *others = lab.boards
    lab.fault("weak-signal", board=str(sensor["room"]))
    struck = sensor["board"]
    lab.wait(lambda board: (board["verdict"] == "weak-signal") == (board["board"] == struck), 4)
    lab.heal()
    lab.wait(lambda board: board["state"] == "up", 4)
    assert others


def test_commands_say_what_there_is_and_refuse_with_a_hint(lab: RunningLab) -> None:
    def call(*arguments: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            [*lab_command(*arguments), "--json", "--dir", str(lab.folder)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    code, document = call("fault", "--list")
    assert code == 0
    assert len(document["faults"]) == len(catalogue())  # type: ignore[arg-type]
    for arguments, words in (
        (("fault", "no-such-fault"), "no fault 'no-such-fault'"),
        (("fault", "dns-dead", "--site", "nowhere"), "no site 'nowhere'"),
        (("fault", "dns-dead", "--board", "101"), "strikes the whole site"),
        (("fault", "weak-signal", "--board", "999"), "no board '999'"),
        (("fault", "portal-missing", "--site", "goethe-schule"), "made at a hotspot"),
        (("heal", "dns-dead"), "no fault 'dns-dead' is active"),
        (("heal", "--site", "nowhere"), "no site 'nowhere'"),
        (("capture", "101", "/nowhere/file.pcap"), "cannot be written"),
    ):
        code, document = call(*arguments)
        assert code == (3 if "capture" in arguments else 2), document
        assert words in document["error"]["message"], document  # type: ignore[index]
        assert document["error"]["hint"], document  # type: ignore[index]
    lab.fault("dns-dead")
    code, document = call("fault", "dns-slow")
    assert "dns-dead is in the way" in document["error"]["message"]  # type: ignore[index]
    code, document = call("fault", "dns-dead")
    assert "dns-dead is at goethe-schule already" in document["error"]["message"]  # type: ignore[index]
    lab.heal()
    lab.wait(lambda board: board["state"] == "up", 4)


@pytest.mark.parametrize("said", [b"[" * 60000, b"7", b"{}", b"\xff", b'{"op": []}'])
def test_whatever_is_said_to_its_socket_has_an_answer(lab: RunningLab, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(lab.folder / SOCKET))
        client.sendall(said + b"\n")
        client.shutdown(socket.SHUT_WR)
        answer = json.loads(client.makefile("rb").readline())
    assert not answer["ok"]
    assert answer["error"]["hint"]
    assert answer["exit_code"] == 2


def test_what_the_machine_refuses_is_told_and_ends_no_lab(lab: RunningLab) -> None:
    inside = int(Path(f"/proc/{lab.process.pid}/task/{lab.process.pid}/children").read_text())
    before = resource.prlimit(inside, resource.RLIMIT_FSIZE)
    resource.prlimit(inside, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(NetzpulsError, match="the lab's machine refuses: File too large") as got:
            lab.fault("service-certificate-expiring")
    finally:
        resource.prlimit(inside, resource.RLIMIT_FSIZE, before)
    assert got.value.exit_code == 3
    assert all(board["faults"] == [] for board in lab.boards)


def test_without_a_lab_the_commands_say_how_to_start_one(tmp_path: Path) -> None:
    done = subprocess.run(
        lab_command("status", "--dir", str(tmp_path)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 3
    assert "no lab is running" in done.stderr
    assert "netzpuls lab up" in done.stderr


def test_faults_are_named_in_one_way_and_say_what_they_do() -> None:
    for fault in catalogue():
        assert fault.name.replace("+", "-").replace("-", "").isalnum()
        assert fault.name == fault.name.lower()
        assert fault.text
        assert fault.roles
        assert str(fault.expected)
