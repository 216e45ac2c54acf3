"""Ports: there, free, a serial port; each refusal has its own error."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning import port
from provisioning.errors import PortBusyError, PortDeniedError, PortMissingError


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    master, slave = pty.openpty()
    yield master, os.ttyname(slave)
    for descriptor in (master, slave):
        os.close(descriptor)


def test_a_port_is_taken_for_one_program(terminal: tuple[int, str]) -> None:
    _, name = terminal
    port.check(name)
    with port.open_port(name) as opened:
        assert opened.baudrate == port.CONSOLE_BAUD
        with pytest.raises(PortBusyError, match=name) as caught:
            port.open_port(name)
    assert caught.value.exit_code == 3
    port.open_port(name).close()


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    name = str(tmp_path / "ttyUSB7")
    for attempt in (port.check, port.open_port):
        with pytest.raises(PortMissingError, match="ttyUSB7") as caught:
            attempt(name)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_link_whose_board_is_gone(tmp_path: Path) -> None:
    link = tmp_path / "board"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PortMissingError):
        port.check(str(link))


def test_a_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(PortDeniedError, match="no serial port"):
        port.check(str(path))


def test_a_device_that_is_no_serial_port() -> None:
    with pytest.raises(PortDeniedError, match="/dev/null is no serial port") as caught:
        port.open_port("/dev/null")
    assert caught.value.hint


def test_a_port_that_the_user_may_not_open(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PortDeniedError) as caught:
        port.check(terminal[1])
    assert "dialout" in caught.value.hint


def test_an_url_that_nobody_answers() -> None:
    with pytest.raises(PortMissingError, match="nowhere") as caught:
        port.open_port("nowhere://1")
    assert caught.value.hint


def test_a_pty_has_no_reset_line(terminal: tuple[int, str]) -> None:
    with port.open_port(terminal[1]) as opened:
        assert not port.has_reset_line(opened)
    assert not port.has_reset_line(opened)
