"""The board's self-test: read from a noisy console, judged, shown without secrets."""

from __future__ import annotations

import json
import os
import pty
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import serial

from provisioning import port, selftest
from provisioning.errors import SelfTestError
from tests.provisioning.bench import WLAN_KEY

BOARD = "np-240ac4123456"
GOOD = {
    "ok": True,
    "board": BOARD,
    "agent": "0.1.0",
    "config": "ok",
    "identity": "ok",
    "radio": 3,
    "flash_free_bytes": 1900544,
    "heap_free_bytes": 120000,
    "boot": 1,
    "reset_cause": 1,
}


class Console:
    """A pty with a board's voice at the other end."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self._open = [self.master, slave]
        self.port: serial.Serial = port.open_port(os.ttyname(slave))

    def say(self, *parts: bytes) -> None:
        for part in parts:
            os.write(self.master, part)

    def unplug(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []

    def close(self) -> None:
        self.port.close()
        self.unplug()


@pytest.fixture
def console() -> Iterator[Console]:
    opened = Console()
    yield opened
    opened.close()


def _line(**changes: Any) -> bytes:
    return selftest.MARK + json.dumps(GOOD | changes).encode() + b"\r\n"


def _read(console: Console, deadline_s: float = 0.5) -> dict[str, Any]:
    return selftest.read(console.port, BOARD, deadline_s, [WLAN_KEY])


def test_a_good_board_between_noise(console: Console) -> None:
    console.say(b"ets Jun  8 2016 00:22:57\r\n\xff\x00\xfe garbage\r\n", _line(), b"NETZPULS REP")
    assert _read(console) == GOOD


def test_a_line_in_pieces(console: Console) -> None:
    line = _line()
    thread = threading.Timer(0.1, console.say, [line[25:]])
    console.say(line[:25])
    thread.start()
    try:
        assert _read(console, 5) == GOOD
    finally:
        thread.join()


def test_a_garbled_line_does_not_hide_the_next(console: Console) -> None:
    console.say(selftest.MARK + b"{\xff\xff\r\n", selftest.MARK + b"[1]\r\n")
    console.say(selftest.MARK + b"[" * 3000 + b"\r\n", _line())
    assert _read(console) == GOOD


def test_a_silent_board(console: Console) -> None:
    with pytest.raises(SelfTestError, match="silent") as caught:
        _read(console, 0.1)
    assert caught.value.exit_code == 1
    assert BOARD in caught.value.message
    assert caught.value.hint


def test_what_the_console_said_is_shown_without_secrets_and_escapes(console: Console) -> None:
    console.say(
        b"\x1b[2J\x1b]0;owned\x07Traceback (most recent call last):\r\n",
        f"OSError: cannot join with {WLAN_KEY}\r\n".encode(),
    )
    with pytest.raises(SelfTestError) as caught:
        _read(console, 0.1)
    message = caught.value.message
    assert "Traceback" in message
    assert "cannot join with (secret)" in message
    assert WLAN_KEY not in message
    assert message.isprintable()


def test_a_board_that_talks_on_and_on(console: Console) -> None:
    console.say(b"x" * 2000 + b"\r\n", b"last words\r\n")
    with pytest.raises(SelfTestError, match="last words") as caught:
        _read(console, 0.1)
    assert len(caught.value.message) < 2000


def test_a_board_that_says_the_same_again_and_again(console: Console) -> None:
    console.say(b"The filesystem appears to be corrupted.\r\nPerform\r\n" * 3)
    with pytest.raises(SelfTestError) as caught:
        _read(console, 0.1)
    assert caught.value.message.endswith("said: The filesystem appears to be corrupted. / Perform")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": "wlan.ssid is missing"}, "config: wlan.ssid is missing"),
        ({"identity": "no board.der"}, "identity: no board.der"),
        ({"radio": "off \x1b[1m"}, "radio: off \\x1b"),
        ({}, "without a reason"),
    ],
)
def test_a_board_that_is_not_well(console: Console, changes: dict[str, Any], reason: str) -> None:
    console.say(_line(ok=False, **changes))
    with pytest.raises(SelfTestError) as caught:
        _read(console)
    assert reason in caught.value.message
    assert caught.value.details["self_test"]["ok"] is False


def test_another_board_speaks(console: Console) -> None:
    console.say(_line(board="np-ffffffffffff"))
    with pytest.raises(SelfTestError, match="np-ffffffffffff"):
        _read(console)


def test_a_board_that_goes_away(console: Console) -> None:
    thread = threading.Timer(0.1, console.unplug)
    thread.start()
    with pytest.raises(SelfTestError, match="went away"):
        _read(console, 5)
    thread.join()


def test_what_is_shown_holds_no_nested_or_unprintable_things(console: Console) -> None:
    console.say(_line(agent="0.1.0\x1b[2J", extra={"deep": 1}))
    document = _read(console)
    assert document["agent"] == "0.1.0\\x1b[2J"
    assert "extra" not in document
