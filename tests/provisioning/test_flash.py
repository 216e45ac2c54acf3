"""From a blank board to an enrolled one, and what is written the second time."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from fleet import authority, inventory
from provisioning import image
from provisioning.chip import ESP32
from provisioning.flash import Flashed, FlashRequest, Progress, flash_board
from tests.provisioning import bench, hostile
from tests.provisioning.bench import BOARD, FLASH_WRITING, WLAN_KEY, Board


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
    files = bench.files(board)
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


def test_the_same_board_again_keeps_its_identity_and_its_reports(
    request_: FlashRequest, board: Board
) -> None:
    flash_board(request_)
    board.flash.erase_sector(0x9000)
    board.flash.program(0x9000, b"boots")
    bench.put(board, "spool/00000001.seg", b"reports")
    first = bench.files(board)
    steps: list[Progress] = []
    flashed = flash_board(replace(request_, role="ap-monitor"), steps.append)
    second = bench.files(board)
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
    bench.put(board, "agent/old.mpy", b"M\x06")
    bench.put(board, "agent/agent.mpy", b"damaged")
    flash_board(request_)
    files = bench.files(board)
    assert "agent/old.mpy" not in files
    assert files["agent/agent.mpy"] == image.agent_files()["agent/agent.mpy"]


def test_a_new_identity_where_the_registry_lost_it(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    first = bench.files(board)
    (request_.city / "boards" / f"{BOARD}.pem").unlink()
    assert flash_board(request_).entry.key_id == 2
    second = bench.files(board)
    assert json.loads(second["config.json"])["key_id"] == 2
    for name in ("board.der", "board.key.der", "report.key"):
        assert first[f"identity/{name}"] != second[f"identity/{name}"]
    assert first["identity/ca.der"] == second["identity/ca.der"]


@pytest.mark.parametrize("name", ["report.key", "board.der", "board.key.der"])
def test_an_identity_that_is_not_the_registry_s_is_made_anew(
    request_: FlashRequest, board: Board, name: str
) -> None:
    flash_board(request_)
    bench.put(board, f"identity/{name}", b"\x30" + bytes(40))
    assert flash_board(request_).entry.key_id == 2
    assert bench.files(board)[f"identity/{name}"] != b"\x30" + bytes(40)


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
            "key": None,
        },
    )
    flash_board(request_)
    monkeypatch.undo()
    before = bench.files(board)
    bench.put(board, "spool/00000001.seg", b"reports")
    flashed = flash_board(request_)
    after = bench.files(board)
    # The keys stay, and with them the reports.
    assert flashed.entry.key_id == 1
    assert flashed.entry.certificate_expires > datetime.now(UTC) + timedelta(days=365)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {"identity/board.der", "spool/00000001.seg"}


def test_a_file_system_that_is_lost_is_made_anew(request_: FlashRequest, board: Board) -> None:
    flash_board(request_)
    board.flash.erase_region(bench.VFS, 0x2000)
    assert flash_board(request_).entry.key_id == 2
    assert "config.json" in bench.files(board)


def test_a_file_system_that_lies_is_made_anew(request_: FlashRequest, board: Board) -> None:
    """The desk lives on, and the board keeps its identity as far as that can be read."""
    flash_board(request_)
    good = board.flash.read(bench.VFS, bench.VFS_BYTES)
    for seed in (5, 71, 120):
        board.flash.erase_region(bench.VFS, bench.VFS_BYTES)
        board.flash.program(bench.VFS, hostile.lie(good, seed))
        flash_board(request_)
        files = bench.files(board)
        assert files | image.agent_files() == files


def test_an_image_that_names_the_place_for_files(
    request_: FlashRequest, board: Board, older_stand_in: Path
) -> None:
    older = replace(request_, image=older_stand_in)
    assert flash_board(older).entry.key_id == 1
    assert flash_board(older).entry.key_id == 1
    assert "config.json" in bench.files(board)


def test_hardware_is_kept_in_the_registry(request_: FlashRequest, board: Board) -> None:
    path = request_.city / "inventory.toml"
    path.write_text(path.read_text() + "[hardware.lamp]\nlight = 4\n")
    flashed = flash_board(replace(request_, hardware="lamp"))
    assert flashed.document()["hardware"] == "lamp"
    flash_board(request_)
    assert inventory.load(request_.city).boards[BOARD].hardware == "lamp"
    assert json.loads(bench.files(board)["config.json"])["light"] == 4
    flash_board(replace(request_, hardware="none"))
    assert inventory.load(request_.city).boards[BOARD].hardware is None
    assert "light" not in json.loads(bench.files(board)["config.json"])


def test_a_board_gets_the_roots_that_the_inventory_names(
    request_: FlashRequest, board: Board
) -> None:
    ca = authority.ensure(request_.city, "exampleville")
    path = request_.city / "inventory.toml"
    text = path.read_text()
    path.write_text(text.replace("period_s = 60", 'period_s = 60\nroots = "ca.pem"'))
    flash_board(request_)
    assert bench.files(board)["identity/roots.der"] == ca.certificate_der


def test_settings_that_the_image_does_not_cover_are_erased(
    request_: FlashRequest, board: Board, stand_in: Path, tmp_path: Path
) -> None:
    content = bytearray(stand_in.read_bytes())
    table = content[0x7000:0x7060].replace(
        (0x9000).to_bytes(4, "little"), (0x1F0000).to_bytes(4, "little")
    )
    content[0x7000:0x7060] = table
    content[0x7070:0x7080] = hashlib.md5(table, usedforsecurity=False).digest()
    path = tmp_path / "other.bin"
    path.write_bytes(content)
    board.flash.program(0x1F0000, b"\0" * 0x6000)
    flash_board(replace(request_, image=path))
    assert board.flash.read(0x1F0000, 0x6000) == b"\xff" * 0x6000


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
