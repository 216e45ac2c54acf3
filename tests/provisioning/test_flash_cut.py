"""Flashing that was cut at any moment: it goes on, and no second identity is made."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from esptool import loader as esptool_loader  # type: ignore[import-untyped]

from fleet import authority, inventory
from fleet.errors import NetzpulsError
from provisioning import application, image, journal, registry, session
from provisioning.errors import (
    SelfTestError,
    WriteError,
)
from provisioning.flash import FlashRequest, Progress, flash_board
from tests.provisioning import bench
from tests.provisioning.bench import BOARD, Board


@pytest.mark.parametrize("seed", range(6))
def test_power_that_goes_at_any_moment(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Cut a run, and the one after it; the third goes on, and no second identity was made."""
    monkeypatch.setattr(esptool_loader, "DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr(esptool_loader, "ERASE_WRITE_TIMEOUT_PER_MB", 0.1)
    monkeypatch.setattr(session, "_CONNECT_ATTEMPTS", 1)
    chance = random.Random(seed)
    is_update = seed % 2
    if is_update:
        flash_board(request_)
        bench.put(board, "spool/00000001.seg", b"reports")
        request_ = replace(request_, role="ap-monitor")
    made: list[bytes] = []
    for _ in range(2):
        left = chance.randrange(8, 80 if is_update else 140)

        def cut(_command: int, _count: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                board.is_deaf = True

        board.on_frame = cut
        if chance.random() < 0.2:
            board.console = b""
        with contextlib.suppress(NetzpulsError):
            flash_board(replace(request_, self_test_s=0.1))
            break
        board.is_deaf = False
        board.console = bench.self_test()
        pending = journal.load(request_.city, BOARD)
        made += [pending.certificate_der] if pending else []
        assert inventory.load(request_.city).boards.keys() == ({BOARD} if is_update else set())
    board.on_frame = lambda _command, _count: None
    flashed = flash_board(request_)
    files = bench.files(board)
    assert flashed.entry.key_id == 1
    assert set(made) <= {files["identity/board.der"]}
    assert files | image.agent_files() == files
    assert json.loads(files["config.json"])["role"] == request_.role
    assert journal.boards(request_.city) == []


def _cut_after_its_file_system_was_lost(request: FlashRequest, board: Board) -> None:
    """Leave an entry in the journal of a board that goes on with the identity that it has."""
    flash_board(request)
    board.console = b""
    with pytest.raises(SelfTestError):
        flash_board(replace(request, role="ap-monitor"))
    board.console = bench.self_test()
    board.flash.erase_region(bench.VFS, 0x2000)
    (pending,) = journal.boards(request.city)
    assert pending.keeps


@pytest.mark.parametrize("how", ["revoked", "another key"])
def test_an_identity_that_ended_meanwhile_does_not_come_back(
    request_: FlashRequest, board: Board, how: str
) -> None:
    _cut_after_its_file_system_was_lost(request_, board)
    city = request_.city
    entry = inventory.load(city).boards[BOARD]
    if how == "revoked":
        revoked = entry.model_copy(update={"revoked": datetime(2026, 8, 1, tzinfo=UTC)})
        (city / "registry.toml").write_text(registry.render({BOARD: revoked}))
    elif how == "another key":
        (city / "secrets" / "keys" / f"{BOARD}.1.key").write_text("ab" * 32)
    flashed = flash_board(replace(request_, reassign=how == "revoked"))
    assert flashed.entry.key_id == 2
    assert journal.boards(city) == []


def test_an_identity_goes_on_although_its_file_system_is_lost(
    request_: FlashRequest, board: Board
) -> None:
    _cut_after_its_file_system_was_lost(request_, board)
    assert flash_board(request_).entry.key_id == 1


def test_a_run_that_was_cut_while_it_enrolled_burns_no_key(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # The report key is written by then, and the registry not yet.
    monkeypatch.setattr(registry, "_with_earlier", killed)
    with pytest.raises(KeyboardInterrupt):
        flash_board(request_)
    monkeypatch.undo()
    certificate = bench.files(board)["identity/board.der"]
    assert (request_.city / "secrets" / "keys" / f"{BOARD}.1.key").exists()
    assert flash_board(request_).entry.key_id == 1
    assert bench.files(board)["identity/board.der"] == certificate
    assert journal.boards(request_.city) == []


def test_a_journal_with_another_board_s_certificate(request_: FlashRequest, board: Board) -> None:
    other = authority.ensure(request_.city, "exampleville").issue_board("np-000000000001")
    foreign = journal.Pending(BOARD, 1, bytes(32), other.certificate_der, other.key_der)
    journal.save(request_.city, foreign)
    flash_board(request_)
    assert bench.files(board)["identity/board.der"] != other.certificate_der


@pytest.mark.parametrize(("region", "address"), [(1, 0x10000), (2, bench.VFS)])
def test_a_board_that_falls_silent(
    request_: FlashRequest,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    region: int,
    address: int,
) -> None:
    monkeypatch.setattr(esptool_loader, "DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr(esptool_loader, "ERASE_WRITE_TIMEOUT_PER_MB", 0.1)
    regions = application.load(request_.image).regions
    last = sum(-(-len(each.deflated) // 0x4000) for each in regions)

    def silence(command: int, count: int) -> None:
        if command == 0x11 and count == (last if region == 1 else last + 1):
            board.is_deaf = True

    board.on_frame = silence
    error = bench.refused(request_, WriteError)
    assert f"{address:#x}" in error.message
    assert "does not work until then" in error.hint
    board.is_deaf = False
    board.on_frame = lambda _command, _count: None
    monkeypatch.undo()
    assert flash_board(request_).entry.key_id == 1


def test_a_cable_pulled_out(request_: FlashRequest, board: Board) -> None:
    before = bench.tree(request_.city)
    board.on_frame = lambda command, count: (
        board.unplug() if (command, count) == (0x11, 30) else None
    )
    with pytest.raises(WriteError, match="0x1000"):
        flash_board(request_)
    assert bench.tree(request_.city) == before


@pytest.mark.parametrize("stage", ["connect", "prepare", "application", "self-test", "enrol"])
def test_an_interrupt_at_any_stage(request_: FlashRequest, board: Board, stage: str) -> None:
    before = bench.tree(request_.city)

    def interrupt(step: Progress) -> None:
        if step.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flash_board(request_, interrupt)
    assert bench.tree(request_.city) == before
    assert flash_board(request_).entry.key_id == 1


def test_an_interrupt_while_the_board_is_waited_for(request_: FlashRequest, board: Board) -> None:
    board.console = b""
    waits = 0

    def interrupt(step: Progress) -> None:
        nonlocal waits
        waits += step.stage == "self-test"
        if waits == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flash_board(replace(request_, self_test_s=30), interrupt)


def test_ctrl_c(request_: FlashRequest, board: Board) -> None:
    before = bench.tree(request_.city)
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", *bench.arguments(request_)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    board.on_frame = lambda command, count: (
        process.send_signal(signal.SIGINT) if (command, count) == (0x11, 20) else None
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "not enrolled" in err
    assert "Traceback" not in err
    assert bench.tree(request_.city) == before
