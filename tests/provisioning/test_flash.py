"""From a blank board to an enrolled one; and what is left behind when that fails anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from esptool import loader as esptool_loader  # type: ignore[import-untyped]

import fleet.cli
from fleet import authority, inventory
from fleet.errors import NetzpulsError
from hil.board import register
from provisioning import adapter, application, disk, image, journal, port, registry, session
from provisioning.chip import CHIPS, ESP32
from provisioning.errors import (
    BoardSilentError,
    ChipError,
    PortBusyError,
    ReassignError,
    SelfTestError,
    VerifyError,
    WriteError,
)
from provisioning.flash import Flashed, FlashRequest, Progress, flash_board
from tests.provisioning import bench, hostile
from tests.provisioning.bench import BOARD, FLASH_MD5, FLASH_WRITING, Board
from tests.provisioning.conftest import WLAN_KEY
from tests.provisioning.test_application import image_for
from tests.provisioning.test_disk import read_files

VFS, VFS_BYTES = 0x200000, 0x200000


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with bench.board(tmp_path) as opened:
        yield opened


@pytest.fixture
def request_(city: Path, stand_in: Path, board: Board) -> FlashRequest:
    return FlashRequest(
        city,
        board.port,
        "school-north",
        "R101",
        "classroom-sensor",
        stand_in,
        baud=921600,
        self_test_s=0.3,
    )


def _tree(city: Path) -> dict[str, bytes]:
    """Return a city's files but the journal; CA and hash key may have been made meanwhile."""
    return {
        str(path.relative_to(city)): path.read_bytes()
        for path in city.rglob("*")
        if path.is_file()
        and path.name not in ("ca.pem", "ca.key", "hash.key")
        and path.parent.name != journal.FOLDER
    }


def _arguments(request: FlashRequest) -> list[str]:
    return [
        "board", "flash", "--city", str(request.city), "--port", request.port,
        "--site", request.site, "--room", request.room, "--role", request.role,
        "--micropython", str(request.image),
    ]  # fmt: skip


def _files(board: Board) -> dict[str, bytes]:
    return read_files(board.flash.read(VFS, VFS_BYTES))


def _refused(request: FlashRequest, kind: type[NetzpulsError]) -> NetzpulsError:
    """Flash a board that must fail: nothing of it may be left behind, and the port is free."""
    before = _tree(request.city)
    with pytest.raises(kind) as caught:
        flash_board(request)
    assert _tree(request.city) == before
    assert caught.value.hint
    assert WLAN_KEY not in json.dumps(caught.value.document())
    port.open_port(request.port).close()
    return caught.value


def test_a_blank_board(request_: FlashRequest, board: Board, stand_in: Path) -> None:
    # Settings of an earlier life.
    board.flash.program(0x9000, b"\0" * 0x6000)
    steps: list[Progress] = []
    flashed = flash_board(request_, steps.append)

    content = stand_in.read_bytes()
    written = bytearray(board.flash.read(ESP32.start, len(content)))
    written[0x8000:0xF000] = content[0x8000:0xF000]  # settings and calibration
    assert written == content
    assert board.flash.read(0x9000, 0x6000) == b"\xff" * 0x6000
    files = _files(board)
    assert {name for name in files if not name.startswith(("agent", "linkreport", "port"))} == {
        "boot.py",
        "main.py",
        "config.json",
        "identity/ca.der",
        "identity/board.der",
        "identity/board.key.der",
        "identity/report.key",
    }
    assert files | image.agent_files() == files

    configuration = json.loads(files["config.json"])
    assert (configuration["board"], configuration["key_id"]) == (BOARD, 1)
    assert configuration["wlan"]["key"] == WLAN_KEY
    hash_key = (request_.city / "secrets" / "hash.key").read_text()
    assert configuration["hash_key"] == hash_key.strip()
    certificate = x509.load_der_x509_certificate(files["identity/board.der"])
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == BOARD
    key = serialization.load_der_private_key(files["identity/board.key.der"], None)
    assert key.public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(files["identity/ca.der"]))

    city = request_.city
    entry = inventory.load(city).boards[BOARD]
    assert entry == flashed.entry
    assert (entry.site, entry.room, entry.role) == ("school-north", "R101", "classroom-sensor")
    assert (entry.mac, entry.agent, entry.key_id) == ("24:0a:c4:12:34:56", "0.1.0", 1)
    assert entry.chip.startswith("ESP32-D0WD-V3")
    pem = (city / "boards" / f"{BOARD}.pem").read_bytes()
    assert x509.load_pem_x509_certificate(pem) == certificate
    stored = (city / "secrets" / "keys" / f"{BOARD}.1.key").read_text()
    assert bytes.fromhex(stored) == files["identity/report.key"]

    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == ["connect", "prepare", "application", "file system", "self-test", "enrol"]
    sent = [step.done_bytes for step in steps if step.stage == "application"]
    assert sent == sorted(sent)
    assert sent[-1] == [s.total_bytes for s in steps if s.stage == "application"][-1]
    assert set(flashed.seconds) == {*stages, "total"}


def put(board: Board, name: str, content: bytes) -> None:
    """Write a file as the board does."""
    opened = disk.Disk(
        VFS_BYTES, lambda block: board.flash.read(VFS + block * 4096, disk.BLOCK_BYTES)
    )
    opened.write(name, content)
    for extent in opened.changes():
        board.flash.erase_region(VFS + extent.offset, len(extent.content))
        board.flash.program(VFS + extent.offset, extent.content)


def test_the_same_board_again_keeps_its_identity_and_its_reports(
    request_: FlashRequest, board: Board
) -> None:
    flash_board(request_)
    board.flash.erase_sector(0x9000)
    board.flash.program(0x9000, b"boots")
    put(board, "spool/00000001.seg", b"reports")
    first = _files(board)
    steps: list[Progress] = []
    flashed = flash_board(replace(request_, role="ap-monitor"), steps.append)
    second = _files(board)
    assert (flashed.entry.key_id, flashed.entry.role) == (1, "ap-monitor")
    assert json.loads(second["config.json"])["role"] == "ap-monitor"
    assert {n for n in first if first[n] != second.get(n)} == {"config.json"}
    assert second["spool/00000001.seg"] == b"reports"
    assert board.flash.read(0x9000, 5) == b"boots"
    sent = {step.stage: step.total_bytes for step in steps}
    assert sent["application"] == 0
    assert 0 < sent["file system"] < 8000


def test_nothing_is_written_twice(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    written: list[int] = []
    board.on_frame = lambda command, _count: (
        written.append(command) if command in FLASH_WRITING else None
    )
    flash_board(request_)
    assert written == []


def test_what_the_agent_no_longer_has_goes(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    put(board, "agent/old.mpy", b"M\x06")
    put(board, "agent/agent.mpy", b"damaged")
    flash_board(request_)
    files = _files(board)
    assert "agent/old.mpy" not in files
    assert files["agent/agent.mpy"] == image.agent_files()["agent/agent.mpy"]


def test_a_new_identity_when_asked_for(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    first = _files(board)
    assert flash_board(replace(request_, renew=True)).entry.key_id == 2
    second = _files(board)
    assert json.loads(second["config.json"])["key_id"] == 2
    for name in ("board.der", "board.key.der", "report.key"):
        assert first[f"identity/{name}"] != second[f"identity/{name}"]
    assert first["identity/ca.der"] == second["identity/ca.der"]


@pytest.mark.parametrize("name", ["report.key", "board.der", "board.key.der"])
def test_an_identity_that_is_not_the_registry_s_is_made_anew(
    request_: FlashRequest, board: Board, name: str
) -> None:
    flash_board(request_)
    put(board, f"identity/{name}", b"\x30" + bytes(40))
    assert flash_board(request_).entry.key_id == 2
    assert _files(board)[f"identity/{name}"] != b"\x30" + bytes(40)


def test_a_certificate_that_ends_soon_is_made_anew(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "BOARD_VALID", timedelta(days=300))
    monkeypatch.setattr(
        authority.Authority.issue_board,
        "__kwdefaults__",
        {
            "valid_for": timedelta(days=300),
            "valid_from": None,
        },
    )
    flash_board(request_)
    monkeypatch.undo()
    assert flash_board(request_).entry.key_id == 2


def test_a_file_system_that_is_lost_is_made_anew(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    board.flash.erase_region(VFS, 0x2000)
    assert flash_board(request_).entry.key_id == 2
    assert "config.json" in _files(board)


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
        put(board, "spool/00000001.seg", b"reports")
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
    files = _files(board)
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
    board.flash.erase_region(VFS, 0x2000)
    (pending,) = journal.boards(request.city)
    assert pending.keeps


@pytest.mark.parametrize("how", ["revoked", "renew", "another key"])
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
    renewed = replace(request_, reassign=how == "revoked", renew=how == "renew")
    flashed = flash_board(renewed)
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
    certificate = _files(board)["identity/board.der"]
    assert (request_.city / "secrets" / "keys" / f"{BOARD}.1.key").exists()
    assert flash_board(request_).entry.key_id == 1
    assert _files(board)["identity/board.der"] == certificate
    assert journal.boards(request_.city) == []


def test_a_journal_with_another_board_s_certificate(request_: FlashRequest, board: Board) -> None:
    other = authority.ensure(request_.city, "exampleville").issue_board("np-000000000001")
    foreign = journal.Pending(BOARD, 1, bytes(32), other.certificate_der, other.key_der)
    journal.save(request_.city, foreign)
    flash_board(request_)
    assert _files(board)["identity/board.der"] != other.certificate_der


def test_a_file_system_that_lies_is_made_anew(request_: FlashRequest, board: Board) -> None:
    """The desk lives on, and the board keeps its identity as far as that can be read."""
    flash_board(request_)
    good = board.flash.read(VFS, VFS_BYTES)
    for seed in (5, 71, 120):
        board.flash.erase_region(VFS, VFS_BYTES)
        board.flash.program(VFS, hostile.lie(good, seed))
        flash_board(request_)
        files = _files(board)
        assert files | image.agent_files() == files


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


def test_hardware_is_kept_in_the_registry(request_: FlashRequest, board: Board) -> None:
    path = request_.city / "inventory.toml"
    path.write_text(path.read_text() + "[hardware.lamp]\nlight = 4\n")
    flashed = flash_board(replace(request_, hardware="lamp"))
    assert flashed.document()["hardware"] == "lamp"
    flash_board(request_)
    assert inventory.load(request_.city).boards[BOARD].hardware == "lamp"
    assert json.loads(_files(board)["config.json"])["light"] == 4
    flash_board(replace(request_, hardware="none"))
    assert inventory.load(request_.city).boards[BOARD].hardware is None
    assert "light" not in json.loads(_files(board)["config.json"])


def test_a_board_gets_the_roots_that_the_inventory_names(
    request_: FlashRequest, board: Board
) -> None:
    ca = authority.ensure(request_.city, "exampleville")
    path = request_.city / "inventory.toml"
    text = path.read_text()
    path.write_text(text.replace("period_s = 60", 'period_s = 60\nroots = "ca.pem"'))
    flash_board(request_)
    assert _files(board)["identity/roots.der"] == ca.certificate_der


def test_a_board_that_is_registered_elsewhere(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    before = board.flash.read(0, 0x400000)
    elsewhere = replace(request_, room="R102")
    error = _refused(elsewhere, ReassignError)
    assert "R101" in error.message
    assert "--reassign" in error.hint
    assert board.flash.read(0, 0x400000) == before
    assert flash_board(replace(elsewhere, reassign=True)).entry.room == "R102"


def test_a_revoked_board(request_: FlashRequest, board: Board) -> None:
    entry = flash_board(request_).entry
    revoked = entry.model_copy(update={"revoked": datetime(2026, 8, 1, tzinfo=UTC)})
    (request_.city / "registry.toml").write_text(registry.render({BOARD: revoked}))
    error = _refused(request_, ReassignError)
    assert "2026-08-01" in error.message
    again = flash_board(replace(request_, reassign=True)).entry
    assert (again.revoked, again.key_id) == (None, 2)


def test_a_retired_board(request_: FlashRequest, board: Board) -> None:
    entry = flash_board(request_).entry
    retired = entry.model_copy(update={"retired": datetime(2026, 8, 1, tzinfo=UTC)})
    (request_.city / "registry.toml").write_text(registry.render({BOARD: retired}))
    assert "was retired on 2026-08-01" in _refused(request_, ReassignError).message
    again = flash_board(replace(request_, reassign=True))
    assert again.entry.retired is None
    assert again.document().keys().isdisjoint({"retired", "earlier", "revoked"})


def test_another_chip(request_: FlashRequest, board: Board) -> None:
    board.registers[register.CHIP_MAGIC] = 0x000007C6
    assert "ESP32-S2" in _refused(request_, ChipError).message
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_an_image_for_another_chip(
    request_: FlashRequest, board: Board, stand_in: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s3.bin"
    path.write_bytes(image_for(CHIPS[1], stand_in.read_bytes()))
    error = _refused(replace(request_, image=path), ChipError)
    assert "is an ESP32, and" in error.message
    assert "ESP32_GENERIC from" in error.hint
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_a_locked_board(request_: FlashRequest, board: Board) -> None:
    board.registers[register.EFUSE + 0x18] = 1 << 4
    assert "secure boot" in _refused(request_, ChipError).message
    assert board.flash.read(0, 0x400000) == b"\xff" * 0x400000


def test_too_little_flash(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register, "JEDEC_ID", bytes((0xEF, 0x40, 0x15)))
    error = _refused(request_, ChipError)
    assert "2048 KiB" in error.message
    assert BOARD in error.message


def test_no_board_answers(
    request_: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_CONNECT_ATTEMPTS", 1)
    board.is_deaf = True
    error = _refused(request_, BoardSilentError)
    assert board.port in error.message
    assert error.exit_code == 3


def test_a_line_that_is_too_slow(request_: FlashRequest, board: Board) -> None:
    def change_baud(command: int, _count: int) -> None:
        board.is_deaf = board.is_deaf or command == 0x0F

    board.on_frame = change_baud
    error = _refused(request_, BoardSilentError)
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
    assert _files(board)["config.json"]
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
    error = _refused(replace(request_, baud=None), ChipError)
    assert "24:0a:c4:ff:ff:ff" in error.message


def test_settings_that_the_image_does_not_cover_are_erased(
    request_: FlashRequest, board: Board, stand_in: Path, tmp_path: Path
) -> None:
    content = bytearray(stand_in.read_bytes())
    table = content[0x7000:0x7080].replace(
        (0x9000).to_bytes(4, "little"), (0x1F0000).to_bytes(4, "little")
    )
    content[0x7000:0x7080] = table
    content[0x7090:0x70A0] = hashlib.md5(table, usedforsecurity=False).digest()
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    board.flash.program(0x1F0000, b"\0" * 0x6000)
    flash_board(replace(request_, image=path))
    assert board.flash.read(0x1F0000, 0x6000) == b"\xff" * 0x6000


def test_a_port_in_use(request_: FlashRequest, board: Board) -> None:
    with port.open_port(board.port), pytest.raises(PortBusyError):
        flash_board(request_)


@pytest.mark.parametrize(("region", "address"), [(1, 0x10000), (2, VFS)])
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
    error = _refused(request_, WriteError)
    assert f"{address:#x}" in error.message
    assert "does not work until then" in error.hint
    board.is_deaf = False
    board.on_frame = lambda _command, _count: None
    monkeypatch.undo()
    assert flash_board(request_).entry.key_id == 1


def test_a_cable_pulled_out(request_: FlashRequest, board: Board) -> None:
    before = _tree(request_.city)
    board.on_frame = lambda command, count: (
        board.unplug() if (command, count) == (0x11, 30) else None
    )
    with pytest.raises(WriteError, match="0x1000"):
        flash_board(request_)
    assert _tree(request_.city) == before


# Before it is written each region is asked for: two of the application, two of the file system.
@pytest.mark.parametrize(("digest", "address"), [(3, 0x1000), (4, 0x10000), (7, VFS)])
def test_flash_that_forgets(
    request_: FlashRequest, board: Board, digest: int, address: int
) -> None:
    def forget(command: int, count: int) -> None:
        if (command, count) == (FLASH_MD5, digest):
            board.flash.program(address + 0x123, b"\0" * 64)

    board.on_frame = forget
    error = _refused(request_, VerifyError)
    assert f"{address:#x}" in error.message
    assert board.starts == 0


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
    error = _refused(request_, SelfTestError)
    assert reason in error.message
    assert BOARD in error.message


@pytest.mark.parametrize("stage", ["connect", "prepare", "application", "self-test", "enrol"])
def test_an_interrupt_at_any_stage(request_: FlashRequest, board: Board, stage: str) -> None:
    before = _tree(request_.city)

    def interrupt(step: Progress) -> None:
        if step.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flash_board(request_, interrupt)
    assert _tree(request_.city) == before
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
    before = _tree(request_.city)
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet.cli", *_arguments(request_)],
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
    assert _tree(request_.city) == before


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
    error = _refused(request_, authority.AuthorityError)
    assert "ca." in error.message
    assert touched == []


def test_boards_side_by_side(
    city: Path, stand_in: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boards = []
    seen: dict[str, set[str]] = {}
    lock = threading.Lock()

    def step(progress: Progress) -> None:
        with lock:
            seen.setdefault(progress.port, set()).add(progress.board)

    def flash(board: Board) -> Flashed:
        request = FlashRequest(
            city, board.port, "school-north", "R101", "ap-monitor", stand_in, self_test_s=5
        )
        return flash_board(request, step)

    try:
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            boards.append(Board(folder, mac=bytes((0x24, 0x0A, 0xC4, 0, 0, number))))
        with ThreadPoolExecutor() as pool:
            flashed = list(pool.map(flash, boards))
    finally:
        for board in boards:
            board.close()
    names = [f"np-240ac400000{number}" for number in range(3)]
    assert [one.board for one in flashed] == names
    assert sorted(inventory.load(city).boards) == names
    assert seen == {board.port: {"", name} for board, name in zip(boards, names, strict=True)}
    # esptool's words would tear the display.
    assert capfd.readouterr() == ("", "")


def _secrets(board: Board) -> list[str]:
    files = _files(board)
    key = serialization.load_der_private_key(files["identity/board.key.der"], None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return [
        WLAN_KEY,
        json.loads(files["config.json"])["hash_key"],
        files["identity/report.key"].hex(),
        repr(files["identity/report.key"])[2:-1],
        files["identity/board.key.der"].hex(),
        *pem.splitlines()[1:-1],
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_secrets_are_nowhere_to_be_seen(
    request_: FlashRequest,
    board: Board,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fails: bool,
) -> None:
    started: list[Any] = []
    real = subprocess.Popen.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        started.append((args, kwargs.get("args"), kwargs.get("env")))
        real(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", spy)
    monkeypatch.setenv("NETZPULS_TRACEBACK", "1")
    image._agent_files.cache_clear()
    if fails:
        board.console = bench.self_test(ok=False, config="wlan.key is wrong")
    city, arguments, said = request_.city, _arguments(request_), ""
    with caplog.at_level(logging.DEBUG):
        for extra in ([], ["--json"]):
            with pytest.raises(SystemExit) as exited:
                fleet.cli.main(arguments + extra)
            assert exited.value.code == int(fails)
            captured = capfd.readouterr()
            said += captured.out + captured.err
    public = [p for p in city.rglob("*") if p.is_file() and "secrets" not in p.parts]
    said += caplog.text + repr(started) + "".join(p.read_text() for p in public)
    assert started
    assert BOARD in said
    assert [secret for secret in _secrets(board) if secret in said] == []


def test_what_a_technician_is_told(
    request_: FlashRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(request_)
    with pytest.raises(SystemExit):
        fleet.cli.main([*arguments, "--json"])
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is True
    assert document["board"] == BOARD
    assert document["key_id"] == 1
    assert document["image"]["stand_in"] is True
    assert document["self_test"]["config"] == "ok"

    for extra, told in ([], "already there"), (["--renew"], "kB/s"):
        with pytest.raises(SystemExit):
            fleet.cli.main([*arguments, *extra])
        said = capfd.readouterr()
        assert f"{BOARD} is enrolled: school-north, R101" in said.out
        assert "stand-in, for virtual boards only" in said.err
        assert document["image"]["sha256"] in said.err
        assert "write MicroPython: " in said.err
        assert told in said.err


def test_words_of_other_users_of_esptool_still_come_through(
    request_: FlashRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    flash_board(request_)
    hear: Callable[..., None] = session.EspLog.instance.print  # type: ignore[union-attr]
    hear("somebody else's words")
    assert "somebody else's words" in capfd.readouterr().out
