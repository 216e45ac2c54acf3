"""The port with DTR and RTS: esptool resets the board as it does over USB."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from hil.board.rfc2217 import TelnetDecoder
from tests.hil.board.desk import Desk

# pyserial 3.5 starts its reader thread in an old way.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:set(Daemon|Name)\(\) is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def desk(start: Callable[..., Desk]) -> Desk:
    return start(rfc2217=0)


@pytest.fixture
def port(desk: Desk) -> Iterator[serial.SerialBase]:
    with serial.serial_for_url(address(desk), timeout=5) as opened:
        yield opened


def address(desk: Desk) -> str:
    return f"rfc2217://127.0.0.1:{desk.process.rfc2217_port}"


def test_opening_and_closing_does_not_reset(desk: Desk) -> None:
    with desk.repl() as repl:
        repl.run("import machine; kept = 1")
    for _ in range(2):
        with serial.serial_for_url(address(desk), timeout=5):
            pass
    with desk.repl(soft_reset=False) as repl:
        assert repl.run("print(kept)") == "1\n"


def test_lines_choose_between_program_and_loader(desk: Desk, port: serial.SerialBase) -> None:
    port.dtr = False
    port.rts = True
    assert desk.control.state()["mode"] == "reset"
    port.dtr = True
    port.rts = False
    assert b"waiting for download" in port.read_until(b"waiting for download\r\n")
    assert desk.control.state()["mode"] == "loader"
    port.dtr = False
    port.rts = True
    port.rts = False
    assert b"POWERON_RESET" in port.read_until(b"POWERON_RESET")
    assert desk.control.state()["mode"] == "run"


def test_lines_do_nothing_without_power(desk: Desk, port: serial.SerialBase) -> None:
    desk.control.power(on=False)
    port.dtr = False
    port.rts = True
    port.rts = False
    assert desk.control.state()["mode"] == "off"
    desk.control.power(on=True)


@pytest.mark.timeout(90)  # pyserial waits 50 ms for each setting, and esptool makes many
def test_esptool_resets_into_the_loader_and_back(desk: Desk) -> None:
    said = desk.esptool("--no-stub", "read-mac", port=address(desk))
    assert "24:0a:c4:00:00:01" in said
    assert "NOT reset" not in said
    assert desk.control.state()["mode"] == "run"


@given(st.binary())
def test_any_stream_is_split_without_loss_of_data(data: bytes) -> None:
    stream = data.replace(b"\xff", b"\xff\xff")
    items = TelnetDecoder().feed(stream)
    assert {kind for kind, _ in items} <= {"data"}
    assert b"".join(item for _, item in items) == data


@given(st.lists(st.binary(max_size=8)))
def test_the_cut_of_a_stream_does_not_matter(pieces: list[bytes]) -> None:
    def joined(chunks: list[bytes]) -> list[tuple[str, bytes]]:
        decoder, items = TelnetDecoder(), list[tuple[str, bytes]]()
        for chunk in chunks:
            for kind, item in decoder.feed(chunk):
                if items and kind == "data" == items[-1][0]:
                    items[-1] = ("data", items[-1][1] + item)
                else:
                    items.append((kind, item))
        return items

    assert joined(pieces) == joined([b"".join(pieces)])


def test_a_suboption_may_hold_an_escaped_byte() -> None:
    stream = b"a\xff\xfa\x2c\x01\xff\xff\x00\xff\xf0b\xff\xfd\x2c"
    assert TelnetDecoder().feed(stream) == [
        ("data", b"a"),
        ("suboption", b"\x2c\x01\xff\x00"),
        ("data", b"b"),
        ("negotiate", b"\xfd\x2c"),
    ]


def test_a_suboption_without_end_is_given_up() -> None:
    decoder = TelnetDecoder()
    assert decoder.feed(b"\xff\xfa" + b"x" * 1000) == []
    assert decoder.feed(b"after") == [("data", b"after")]
