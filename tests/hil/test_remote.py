"""A board on a gateway's port, worked on from here: a real sshd, a virtual board behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import serial

import fleet.cli
from fleet import authority, inventory
from hil.board.application import build_image
from hil.board.board import Settings
from hil.board.process import BoardProcess
from hil.sshd import SshServer
from provisioning import journal, port, remote
from provisioning.errors import RemoteError
from provisioning.session import Session
from tests.fleet.conftest import new_key
from tests.fleet.line import Line
from tests.provisioning.conftest import INVENTORY, WLAN_KEY

ROOT = Path(__file__).parents[2]
BOARD = "np-240ac4000001"

# pyserial 3.5 starts its thread in a way that Python no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")


class Bench:
    """A city whose gateway is this machine, and a board on one of its ports."""

    def __init__(self, folder: Path, server: SshServer, identity: Path) -> None:
        self.city = folder / "city"
        (self.city / "secrets").mkdir(parents=True, mode=0o700)
        (self.city / "secrets" / "wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
        self._server, self._identity = server, identity
        self.through(server.port)
        authority.ensure(self.city, "exampleville")
        self.image = folder / "image.bin"
        self.image.write_bytes(build_image())
        radio = folder / "radio.json"
        point = {"ssid": "Schulnetz", "bssid": "a4:2b:b0:00:00:01", "channel": 6, "rssi_dbm": -58}
        point |= {"security": "wpa2-psk", "key": WLAN_KEY, "up": True}
        radio.write_text(json.dumps({"access_points": [point]}))
        self.board = BoardProcess(
            Settings(link=folder / "board", rfc2217=0, radio=radio, instant=True)
        )
        self.port = f"rfc2217://127.0.0.1:{self.board.rfc2217_port}"

    def through(self, ssh_port: int) -> None:
        """Let the way to the gateway lead through another port."""
        server = self._server
        entry = (
            f'host = "{server.host}"\nssh_port = {ssh_port}\nuser = "{server.user}"\n'
            f'host_key = "{server.host_key}"\nidentity_file = "{self._identity}"\n'
            f'command = "{sys.executable} -m fleet.cli"\n'
        )
        text = INVENTORY.replace('host = "192.0.2.10"\n', entry)
        assert entry in text
        (self.city / "inventory.toml").write_text(text)

    def arguments(self, verb: str, *more: str) -> list[str]:
        place = ["--site", "school-north", "--room", "R101", "--role", "classroom-sensor"]
        known = ["board", verb, "--city", str(self.city), "--on", "gw-north", "--port", self.port]
        return [
            *known,
            *(place if verb == "flash" else []),
            *([] if verb == "renew" else ["--micropython", str(self.image)]),
            *more,
        ]


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SshServer, Path]]:
    folder = tmp_path_factory.mktemp("ssh")
    public = new_key(folder / "identity")
    with SshServer(folder / "server", public, environment={"PYTHONPATH": str(ROOT)}) as server:
        yield server, folder / "identity"


@pytest.fixture
def desk(tmp_path: Path, login: tuple[SshServer, Path]) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = Bench(tmp_path, *login)
        stack.callback(made.board.stop)
        yield made


def _relays(*verbs: bytes) -> list[int]:
    """Return the processes that carry a port, or say which there are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if not {*words}.isdisjoint(verbs or (b"relay", b"watch")) and (
            b"fleet.cli" in words and b"timeout" not in words[0]
        ):
            found.append(int(path.parent.name))
    return found


def _none_is_left(patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    while _relays() and time.monotonic() < until:
        time.sleep(0.1)
    return not _relays()


def _run(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(arguments)
    said = capfd.readouterr()
    return exited.value.code, said.out, said.err


def test_flash_check_and_renew(desk: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(capfd, desk.arguments("flash", "--json"))
    assert code == 0, out + err
    document = json.loads(out)
    name = f"rfc2217://gw-north/{desk.port}"
    assert (document["board"], document["port"], document["key_id"]) == (BOARD, name, 1)
    assert "write MicroPython: " in err
    assert _none_is_left(1)
    code, out, _ = _run(capfd, desk.arguments("check"))
    assert code == 0, out
    assert "BAD" not in out
    code, out, _ = _run(capfd, desk.arguments("renew"))
    assert code == 0
    assert f"{BOARD} has a new certificate" in out
    # A tray is no other than here: all that is named, side by side.
    code, out, _ = _run(capfd, desk.arguments("check", "--port", "/dev/netzpuls-none", "--json"))
    document = json.loads(out)
    assert code == 1
    assert [each["ok"] for each in document["boards"]] == [True, False]
    missing = "there is no port rfc2217://gw-north/dev/netzpuls-none"
    assert document["boards"][1]["error"]["message"] == missing
    assert _none_is_left(1)


def test_a_line_that_is_cut_in_the_middle(
    desk: Bench, login: tuple[SshServer, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """What was begun goes on; nothing is left behind at the gateway."""
    with Line(login[0].port, cut_after=25_000) as line:
        desk.through(line.port)
        code, out, err = _run(capfd, desk.arguments("flash", "--json"))
        error = json.loads(out)["error"]
        assert code in (1, 3), out + err
        assert error["hint"]
        assert "Traceback" not in err
        assert _none_is_left(5)
        assert inventory.load(desk.city).boards == {}
        begun = journal.load(desk.city, BOARD)
        line.cut_after = None
        code, out, _ = _run(capfd, desk.arguments("flash", "--json"))
    assert code == 0
    entry = inventory.load(desk.city).boards[BOARD]
    assert entry.key_id == 1
    assert begun is None or entry.certificate_expires == begun.certificate().not_valid_after_utc


def test_a_line_that_falls_silent_holds_no_port(
    desk: Bench, login: tuple[SshServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 10.0)
    with Line(login[0].port) as line:
        desk.through(line.port)
        opened = port.open_port(remote.reach(desk.city, "gw-north").name(desk.port))
        assert _relays()
        line.freeze_after = 0
        opened.timeout = 1
        with pytest.raises(OSError, match="reader thread died"):
            _read_on(opened, 60)
        opened.close()
    assert _none_is_left(20)


def test_a_line_with_a_long_way(desk: Bench, login: tuple[SshServer, Path]) -> None:
    """A round trip of a third of a second is more than esptool waits for by itself."""
    with Line(login[0].port, delay_s=0.15) as line:
        desk.through(line.port)
        opened = port.open_port(remote.reach(desk.city, "gw-north").name(desk.port))
        try:
            with Session(opened, [460800]) as session:
                assert session.mac == "24:0a:c4:00:00:01"
                assert session.read(0, 4096) == b"\xff" * 4096
        finally:
            opened.close()
    assert _none_is_left(5)


def test_ctrl_c_leaves_nothing_behind(desk: Bench) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", *desk.arguments("flash", "--json")],
        cwd=ROOT,
        env=os.environ | {"NETZPULS_TRACEBACK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("make key"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    assert _none_is_left(5)


def test_what_the_gateway_refuses(desk: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    known = ["board", "check", "--city", str(desk.city), "--json", "--on"]
    code, out, _ = _run(capfd, [*known, "gw-north", "--port", "/dev/netzpuls-none"])
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (RemoteError.exit_code, "remote-port") == (3, "remote-port")
    assert "gateway gw-north" in error["message"]
    assert "there is no port /dev/netzpuls-none" in error["message"]
    assert "on that host: " in error["hint"]
    code, out, _ = _run(capfd, [*known, "gw-south", "--port", "/dev/x"])
    assert code == 2
    path = desk.city / "inventory.toml"
    path.write_text(path.read_text().replace("-m fleet.cli", "-m fleet.nothing"))
    code, out, _ = _run(capfd, [*known, "gw-north", "--port", "/dev/x"])
    assert (code, json.loads(out)["error"]["code"]) == (3, "remote-port")


def test_ports_there(desk: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["board", "ports", "--city", str(desk.city), "--on", "gw-north", "--json"]
    code, out, _ = _run(capfd, arguments)
    assert code == 0
    assert isinstance(json.loads(out)["ports"], list)


def test_what_is_plugged_in_there_later_is_noticed(
    desk: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_AGAIN_S", 0.2)
    late = tmp_path / "late"
    ports = remote.reach(desk.city, "gw-north").ports([str(late)], others=False)

    def becomes(there: list[str]) -> bool:
        until = time.monotonic() + 20
        while [each.port for each in ports.now()] != there and time.monotonic() < until:
            time.sleep(0.1)
        return [each.port for each in ports.now()] == there

    try:
        assert ports.now() == []
        late.touch()
        assert becomes([f"rfc2217://gw-north{late}"])
        late.unlink()
        assert becomes([])
        (watching,) = _relays(b"watch")
        os.kill(watching, signal.SIGKILL)  # the line is made again
        late.touch()
        assert becomes([f"rfc2217://gw-north{late}"])
    finally:
        ports.close()
    assert _none_is_left(5)


def test_a_tray_there_waits_for_what_is_plugged_in_later(
    desk: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A board that comes when another is worked on joins, as here."""
    late = tmp_path / "late"
    city = ["--city", str(desk.city), "--on", "gw-north"]
    ports = ["--port", desk.port, "--port", str(late)]
    timer = threading.Timer(2, late.touch)
    timer.start()
    code, out, _ = _run(capfd, ["board", "check", *city, *ports, "--json"])
    timer.join()
    assert code == 1
    _, second = json.loads(out)["boards"]
    assert f"{late} is no serial port" in second["error"]["message"]


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[" * 100_000,
        json.dumps({"ports": [{"port": "/etc/passwd", "usb": None, "name": None}]}),
        json.dumps({"ports": [{"port": "/dev/\x1b[2J", "usb": None, "name": None}]}),
        json.dumps({"ports": [{"port": 7, "usb": None, "name": None}]}),
        json.dumps({"ports": "/dev/ttyUSB0"}),
        json.dumps({"boards": []}),
    ],
)
def test_a_gateway_that_lies_about_its_ports(desk: Bench, tmp_path: Path, said: str) -> None:
    _answer(desk, tmp_path, said)
    with pytest.raises(RemoteError, match="does not say which ports it has"):
        remote.reach(desk.city, "gw-north").ports(others=True).now()


def test_what_a_gateway_says_of_its_ports_is_made_safe(desk: Bench, tmp_path: Path) -> None:
    there = {"port": "/dev/ttyUSB0", "usb": "A5\x1b[2J", "name": "CP2102"}
    _answer(desk, tmp_path, json.dumps({"ok": True, "ports": [there]}))
    (found,) = remote.reach(desk.city, "gw-north").ports(others=True).now()
    assert found.port == "rfc2217://gw-north/dev/ttyUSB0"
    assert (found.usb, found.name) == ("A5\\x1b[2J", "CP2102")


def _answer(desk: Bench, folder: Path, said: str) -> None:
    """Let something else than Netzpuls answer at the gateway."""
    (folder / "said").write_text(said)
    script = folder / "script.py"
    script.write_text(f"print(open({str(folder / 'said')!r}).read())")
    path = desk.city / "inventory.toml"
    path.write_text(path.read_text().replace("-m fleet.cli", str(script)))


def test_nobody_else_gets_in(desk: Bench) -> None:
    """A connection that is not our own is closed, whoever comes first."""
    own: list[tuple[str, int]] = []
    gateway = remote.reach(desk.city, "gw-north")
    relay = remote._Relay(gateway, desk.port, lambda: own[0] if own else None)
    relay.start()
    try:
        with (
            socket.create_connection(relay.address, 5) as stranger,
            socket.create_connection(relay.address, 5) as ours,
        ):
            own.append(ours.getsockname())
            stranger.settimeout(5)
            assert stranger.recv(1) == b""
            ours.settimeout(5)
            assert ours.recv(1) == b"\xff"
    finally:
        relay.close()
    assert _none_is_left(5)


def _read_on(opened: serial.Serial, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        opened.read(4096)
