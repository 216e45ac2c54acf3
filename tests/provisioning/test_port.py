"""Ports: there, free, a serial port; each refusal has its own error."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
from serial.tools.list_ports_common import ListPortInfo

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


def test_boards_are_looked_for_where_they_can_be(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def usb(device: str, vid: int | None, serial_number: str | None = None) -> ListPortInfo:
        info = ListPortInfo(device)
        info.vid, info.serial_number, info.product = vid, serial_number, "an\x1b adapter"
        return info

    _, name = terminal
    devices = [
        usb("/dev/ttyUSB10", 0x1A86),
        usb("/dev/ttyUSB9", 0x10C4, "A50"),
        usb("/dev/ttyUSB2", 0x0403),
        usb("/dev/ttyACM0", 0x303A, "24:0A:C4"),
        usb("/dev/ttyACM1", 0x2341),  # somebody's Arduino
        usb("/dev/ttyS0", None),
        usb(name, 0x2341, "named"),
    ]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: devices)
    (tmp_path / "link").symlink_to(name)
    found = port.plugged([], others=True)
    assert [each.port.removeprefix("/dev/tty") for each in found] == [
        "ACM0",
        "USB2",
        "USB9",
        "USB10",
    ]
    assert [each.usb for each in found] == ["24:0A:C4", "", "A50", ""]
    assert "\x1b" not in found[0].name

    url = "rfc2217://gateway:4000"
    named = [url, str(tmp_path / "link"), name, "/dev/netzpuls-nowhere"]
    assert [(each.port, each.usb) for each in port.plugged(named, others=False)] == [
        (url, ""),
        (str(tmp_path / "link"), "named"),
    ]
    assert len(port.plugged(named, others=True)) == 6
