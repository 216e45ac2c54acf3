"""The line's reckoning, without waiting for it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from pathlib import Path

import pytest

from hil.board import line
from hil.board.error import PortError
from hil.board.line import Line, Pace, PtyPort


def test_a_byte_takes_ten_bits() -> None:
    pace = Pace(is_paced=True)
    assert pace.take(11520, 115200, now=5.0) == pytest.approx(6.0)
    # What follows at once starts where the last byte ended, however late a timer was.
    assert pace.take(1152, 115200, now=6.01) == pytest.approx(6.1)
    # After a silence it starts anew.
    assert pace.take(1152, 115200, now=9.0) == pytest.approx(9.1)


def test_the_time_of_a_whole_image_is_bytes_times_ten_by_baud() -> None:
    pace, now = Pace(is_paced=True), 1.0
    for _ in range(1000):
        now = pace.take(1024, 921600, now) + 0.0005  # a timer that is always late
    assert now - 1.0 == pytest.approx(1000 * 1024 * 10 / 921600, abs=0.001)


def test_an_instant_line_never_waits() -> None:
    pace = Pace(is_paced=False)
    assert pace.take(1 << 20, 9600, now=3.0) == 3.0


def test_pty_tells_every_speed_and_drops_output_without_a_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        got: asyncio.Queue[bytes] = asyncio.Queue()
        closed = asyncio.Event()
        serial = Line(is_paced=False, receive=got.put_nowait)
        port = PtyPort(serial, tmp_path / "np", closed.set)
        serial.ports.append(port)
        serial.write(b"nobody hears this")
        host = os.open(tmp_path / "np", os.O_RDWR | os.O_NOCTTY)
        for baud in (9600, 921600, 2_000_000, 1_234_567):
            set_baud(host, baud)
            os.write(host, b"x")
            async with asyncio.timeout(5):
                assert await got.get() == b"x"
            assert serial.baud == baud
        serial.write(b"hello")
        assert os.read(host, 100) == b"hello"
        os.close(host)
        async with asyncio.timeout(5):
            await closed.wait()
        serial.close()
        assert not (tmp_path / "np").is_symlink()

    asyncio.run(scenario())


def set_baud(host: int, baud: int) -> None:
    attributes = bytearray(fcntl.ioctl(host, line._TCGETS2, bytes(44)))
    flags = struct.unpack_from("<I", attributes, 8)[0]
    struct.pack_into("<I", attributes, 8, flags & ~0o10017 | 0o10000)  # BOTHER: any speed
    struct.pack_into("<II", attributes, 36, baud, baud)
    fcntl.ioctl(host, 0x402C542B, bytes(attributes))


def test_a_host_that_does_not_read_does_not_stop_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_STUCK_S", 0.02)

    async def scenario() -> None:
        drained = asyncio.Event()
        serial = Line(is_paced=False, receive=lambda _data: None)
        serial.ports.append(PtyPort(serial, tmp_path / "np", lambda: None))
        serial.drained = drained.set
        host = os.open(tmp_path / "np", os.O_RDWR | os.O_NOCTTY)
        drained.clear()
        serial.write(bytes(1 << 20))
        assert serial.backlog_bytes
        async with asyncio.timeout(5):
            await drained.wait()
        assert not serial.backlog_bytes
        serial.close()
        os.close(host)

    asyncio.run(scenario())


def test_a_link_that_exists_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        serial = Line(is_paced=False, receive=lambda _data: None)
        (tmp_path / "np").write_text("mine")
        with pytest.raises(PortError, match="exists already"):
            PtyPort(serial, tmp_path / "np", lambda: None)
        with pytest.raises(PortError, match="No such file"):
            PtyPort(serial, tmp_path / "missing" / "np", lambda: None)

    asyncio.run(scenario())
    assert (tmp_path / "np").read_text() == "mine"


def test_closing_removes_only_its_own_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        serial = Line(is_paced=False, receive=lambda _data: None)
        port = PtyPort(serial, tmp_path / "np", lambda: None)
        (tmp_path / "np").unlink()
        (tmp_path / "np").symlink_to("/dev/null")
        port.close()

    asyncio.run(scenario())
    assert (tmp_path / "np").readlink() == Path("/dev/null")


def test_termios_constants_are_understood() -> None:
    assert line._CONSTANT_BAUD[termios.B115200] == 115200
    assert line._CONSTANT_BAUD[termios.B921600] == 921600
