"""The line while a board is flashed: its speed, what it garbles, who has the port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from esptool import loader as esptool_loader  # type: ignore[import-untyped]

from provisioning import adapter, port, session
from provisioning.errors import (
    BoardSilentError,
    ChipError,
    PortBusyError,
    VerifyError,
)
from provisioning.flash import FlashRequest, flash_board
from tests.provisioning import bench
from tests.provisioning.bench import BOARD, FLASH_MD5, Board


def test_no_board_answers(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_CONNECT_ATTEMPTS", 1)
    board.is_deaf = True
    error = bench.refused(request_, BoardSilentError)
    assert board.port in error.message
    assert error.exit_code == 3


def test_a_line_that_is_too_slow(request_: FlashRequest, board: Board) -> None:
    def change_baud(command: int, _count: int) -> None:
        board.is_deaf = board.is_deaf or command == 0x0F

    board.on_frame = change_baud
    error = bench.refused(request_, BoardSilentError)
    assert "921600" in error.message
    assert "--baud 115200" in error.hint
    board.is_deaf = False
    board.on_frame = change_baud
    assert flash_board(replace(request_, baud=115200)).board == BOARD


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every port an adapter whose speed is remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(adapter, "name", lambda port: f"10c4:ea60 {port}")


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(("carries", "used"), [(3_000_000, 2_000_000), (1_000_000, 921_600)])
def test_the_best_speed_that_the_line_carries(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch, carries: int, used: int
) -> None:
    board.carries_baud = carries
    flash_board(replace(request_, baud=None))
    assert adapter.speed(f"10c4:ea60 {board.port}") == used
    asked: list[int] = []
    real = session.Session.__init__

    def note(self: session.Session, line: Any, bauds: Sequence[int]) -> None:
        asked.extend(bauds)
        real(self, line, bauds)

    monkeypatch.setattr(session.Session, "__init__", note)
    flash_board(replace(request_, baud=None))
    assert asked[0] == used


@pytest.mark.usefixtures("state")
def test_a_line_that_proves_bad_while_it_is_written(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch, stand_in: Path
) -> None:
    monkeypatch.setattr(esptool_loader, "DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr(esptool_loader, "ERASE_WRITE_TIMEOUT_PER_MB", 0.1)

    def worsen(command: int, count: int) -> None:
        if (command, count) == (0x11, 20):
            board.carries_baud = 500_000

    board.on_frame = worsen
    assert flash_board(replace(request_, baud=None)).board == BOARD
    assert board.flash.read(0x10000, 0x10000) == stand_in.read_bytes()[0xF000:0x1F000]
    assert bench.files(board)["config.json"]
    assert adapter.speed(f"10c4:ea60 {board.port}") == 460_800


def test_another_board_on_the_same_cable_is_not_taken_for_the_first(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esptool_loader, "DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr(esptool_loader, "ERASE_WRITE_TIMEOUT_PER_MB", 0.1)

    def change(command: int, count: int) -> None:
        if (command, count) == (0x11, 20):
            board.carries_baud = 500_000
            board._mac = bytes.fromhex("240ac4ffffff")

    board.on_frame = change
    error = bench.refused(replace(request_, baud=None), ChipError)
    assert "24:0a:c4:ff:ff:ff" in error.message


def test_a_port_in_use(request_: FlashRequest, board: Board) -> None:
    with port.open_port(board.port), pytest.raises(PortBusyError):
        flash_board(request_)


# Before it is written each region is asked for: two of the application, two of the file system.
@pytest.mark.parametrize(("digest", "address"), [(3, 0x1000), (4, 0x10000), (7, bench.VFS)])
def test_flash_that_forgets(
    request_: FlashRequest, board: Board, digest: int, address: int
) -> None:
    def forget(command: int, count: int) -> None:
        if (command, count) == (FLASH_MD5, digest):
            board.flash.program(address + 0x123, b"\0" * 64)

    board.on_frame = forget
    error = bench.refused(request_, VerifyError)
    assert f"{address:#x}" in error.message
    assert board.starts == 0


def test_words_of_other_users_of_esptool_still_come_through(
    request_: FlashRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    flash_board(request_)
    hear: Callable[..., None] = session.EspLog.instance.print  # type: ignore[union-attr]
    hear("somebody else's words")
    assert "somebody else's words" in capfd.readouterr().out
