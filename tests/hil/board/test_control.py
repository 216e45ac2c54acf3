"""The control socket: friendly to its client, indifferent to bad input."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.board import ControlClient
from hil.board.error import ControlError
from tests.hil.board.desk import Desk
from tests.hil.board.test_radio import POINT, document


def send(desk: Desk, *lines: bytes) -> list[dict[str, object]]:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(desk.link + ".control")
        channel.sendall(b"".join(lines))
        with channel.makefile("rb") as answers:
            return [json.loads(answers.readline()) for _ in lines]


def test_state_says_what_the_board_is(desk: Desk) -> None:
    state = desk.control.state()
    assert state["mac"] == "24:0a:c4:00:00:01"
    assert state["mode"] == "run"
    assert state["station"]["status"] == 1000


def test_only_the_owner_may_speak_to_it(desk: Desk) -> None:
    assert Path(desk.link + ".control").stat().st_mode & 0o777 == 0o600


def test_the_air_is_changed(desk: Desk) -> None:
    desk.control.set_radio(document())
    desk.control.change("school", rssi_dbm=-90, network={"dhcp": False})
    desk.control.line("school", up=False)
    (point,) = desk.control.state()["radio"]["access_points"]
    assert point["rssi_dbm"] == -90
    assert (point["network"]["dhcp"], point["network"]["line_up"]) == (False, False)
    assert point["key"] == POINT["key"]


def test_a_refusal_is_an_error_for_the_client(desk: Desk, tmp_path: Path) -> None:
    desk.control.set_radio(document())
    with pytest.raises(ControlError, match="there are: school"):
        desk.control.line("home", up=False)
    with pytest.raises(ControlError, match="no board answers"):
        ControlClient(tmp_path / "nobody").state()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "not a request"),
        (b"nonsense\n", "not a request"),
        (b"[]\n", "not a request"),
        (b'"state"\n', "not a request"),
        (b"{}\n", "lacks the key 'op'"),
        (b'{"op": "explode"}\n', "there are: state"),
        (b'{"op": ["state"]}\n', "no operation"),
        (b'{"op": "radio"}\n', "lacks the key 'set'"),
        (b'{"op": "radio", "set": 3}\n', "access_points"),
        (b'{"op": "line", "ssid": "school", "up": 3}\n', "must be true or false"),
        (b'{"op": "access-point", "ssid": "school", "change": []}\n', "must be an object"),
        (b'{"op": "power", "on": "off"}\n', "must be true or false"),
        (b'{"op": "kick", "ssid": "school", "reason": 200}\n', "from 1 to 199"),
        (b'{"op": "wear"}\n', "lacks the key 'failing'"),
        (b'{"op": "wear", "failing": 1}\n', "must be true or false"),
        (b'{"op": "wear", "failing": true, "percent": 101}\n', "from 1 to 100"),
        (b'{"op": "sensor", "name": "nose", "change": {}}\n', "there are: air, bus"),
        (b'{"op": "sensor", "name": "air", "change": {"co2_ppm": -1}}\n', "from 0 to 65535"),
        (b"[" * 100_000 + b"\n", "not a request"),
        (b"\xff\xfe\n", "not a request"),
    ],
)
def test_bad_requests_are_answered_and_change_nothing(desk: Desk, line: bytes, error: str) -> None:
    desk.control.set_radio(document())
    bad, good = send(desk, line, b'{"op": "state"}\n')
    assert bad["ok"] is False
    assert error in str(bad["error"])
    assert good["ok"] is True
    assert desk.control.state()["radio"] == document()


def test_a_line_without_end_is_cut_off(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(desk.link + ".control")
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            channel.sendall(b"x" * (4 << 20))
    assert desk.control.state()["mode"] == "run"


@settings(max_examples=50)
@given(line=st.binary(max_size=60))
def test_noise_never_ends_the_board(desk: Desk, line: bytes) -> None:
    (answer,) = send(desk, line.replace(b"\n", b" ") + b"\n")
    assert answer["ok"] is False


def test_power(start: Callable[..., Desk]) -> None:
    desk = start()
    desk.control.power(on=False)
    assert desk.control.state()["mode"] == "off"
    desk.control.power(on=False)
    desk.control.power(on=True)
    assert desk.run("print('up')") == "up\n"
