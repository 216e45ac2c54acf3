"""Boards that are not flashed, or do not pass, and what of them is left behind: nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fleet.cli
from fleet import authority, inventory
from hil.board import register
from provisioning import journal, registry
from provisioning.chip import CHIPS
from provisioning.errors import (
    ChipError,
    ReassignError,
    SelfTestError,
)
from provisioning.flash import FlashRequest, flash_board
from tests.provisioning import bench
from tests.provisioning.bench import BOARD, Board
from tests.provisioning.test_application import image_for


def test_a_board_that_does_not_pass_is_marked(
    request_: FlashRequest, board: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    board.console = bench.self_test(ok=False, radio="the radio does not work")
    with pytest.raises(SelfTestError):
        flash_board(request_)
    (pending,) = journal.boards(request_.city)
    assert (pending.board, pending.stage) == (BOARD, "self-test")
    assert "the radio does not work" in pending.problem
    assert inventory.load(request_.city).boards == {}
    with pytest.raises(SystemExit):
        fleet.cli.main(["board", "list", "--city", str(request_.city)])
    said = capfd.readouterr().out
    assert f"{BOARD} is not finished: self-test" in said
    assert "the radio does not work" in said
    with pytest.raises(SystemExit):
        fleet.cli.main(["board", "list", "--json", "--city", str(request_.city)])
    (unfinished,) = json.loads(capfd.readouterr().out)["unfinished"]
    assert unfinished.keys() == {"board", "stage", "problem", "since"}


def test_a_board_that_is_registered_elsewhere(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    before = board.flash.read(0, 0x400000)
    elsewhere = replace(request_, room="R102")
    error = bench.refused(elsewhere, ReassignError)
    assert "R101" in error.message
    assert "--reassign" in error.hint
    assert board.flash.read(0, 0x400000) == before
    assert flash_board(replace(elsewhere, reassign=True)).entry.room == "R102"


def test_a_revoked_board(request_: FlashRequest, board: Board) -> None:
    entry = flash_board(request_).entry
    revoked = entry.model_copy(update={"revoked": datetime(2026, 8, 1, tzinfo=UTC)})
    (request_.city / "registry.toml").write_text(registry.render({BOARD: revoked}))
    error = bench.refused(request_, ReassignError)
    assert "2026-08-01" in error.message
    again = flash_board(replace(request_, reassign=True)).entry
    assert (again.revoked, again.key_id) == (None, 2)


def test_a_retired_board(request_: FlashRequest, board: Board) -> None:
    entry = flash_board(request_).entry
    retired = entry.model_copy(update={"retired": datetime(2026, 8, 1, tzinfo=UTC)})
    (request_.city / "registry.toml").write_text(registry.render({BOARD: retired}))
    assert "was retired on 2026-08-01" in bench.refused(request_, ReassignError).message
    again = flash_board(replace(request_, reassign=True))
    assert again.entry.retired is None
    assert again.document().keys().isdisjoint({"retired", "earlier", "revoked"})


def test_another_chip(request_: FlashRequest, board: Board) -> None:
    board.registers[register.CHIP_MAGIC] = 0x000007C6
    assert "ESP32-S2" in bench.refused(request_, ChipError).message
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_an_image_for_another_chip(
    request_: FlashRequest, board: Board, stand_in: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s3.bin"
    path.write_bytes(image_for(CHIPS[1], stand_in.read_bytes()))
    error = bench.refused(replace(request_, image=path), ChipError)
    assert "is an ESP32, and" in error.message
    assert "ESP32_GENERIC from" in error.hint
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_a_locked_board(request_: FlashRequest, board: Board) -> None:
    board.registers[register.EFUSE + 0x18] = 1 << 4
    assert "secure boot" in bench.refused(request_, ChipError).message
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_too_little_flash(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "JEDEC_ID", bytes((0xEF, 0x40, 0x15)))
    error = bench.refused(request_, ChipError)
    assert "2048 KiB" in error.message
    assert BOARD in error.message


@pytest.mark.parametrize(
    ("console", "reason"),
    [
        (b"", "silent"),
        (b"invalid header: 0xffffffff\r\n" * 5, "invalid header"),
        (bench.self_test(ok=False, identity="board.der: no certificate"), "no certificate"),
        (bench.self_test(board="np-ffffffffffff"), "np-ffffffffffff"),
    ],
)
def test_a_board_that_does_not_pass(
    request_: FlashRequest, board: Board, console: bytes, reason: str
) -> None:
    board.console = console
    error = bench.refused(request_, SelfTestError)
    assert reason in error.message
    assert BOARD in error.message


@pytest.mark.parametrize("fault", ["gone", "foreign", "open"])
def test_a_ca_that_cannot_be_used_shows_before_the_board_is_touched(
    request_: FlashRequest, board: Board, tmp_path: Path, fault: str
) -> None:
    key = request_.city / "secrets" / "ca.key"
    authority.ensure(request_.city, "exampleville")
    if fault == "gone":
        key.unlink()
    elif fault == "open":
        key.chmod(0o644)
    else:
        authority.ensure(tmp_path / "other", "elsewhere")
        key.write_bytes((tmp_path / "other" / "secrets" / "ca.key").read_bytes())
    touched: list[int] = []
    board.on_frame = lambda command, _count: touched.append(command)
    error = bench.refused(request_, authority.AuthorityError)
    assert "ca." in error.message
    assert touched == []
