"""A board held against the registry: what differs is told, and mended when asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import fleet.cli
from fleet import inventory
from fleet.errors import NetzpulsError
from provisioning import journal, registry
from provisioning.check import Checked, CheckRequest, check_board
from provisioning.errors import BoardSilentError, PortMissingError, SelfTestError
from provisioning.flash import FlashRequest, flash_board
from provisioning.journal import Pending
from tests.provisioning import bench, hostile
from tests.provisioning.bench import BOARD, FLASH_WRITING, VFS, WLAN_KEY, Board, put


@pytest.fixture
def flashed(request_: FlashRequest) -> FlashRequest:
    """Flash and enrol a board; return how."""
    flash_board(request_)
    return request_


def _check(request: FlashRequest) -> Checked:
    return check_board(
        CheckRequest(request.city, request.port, request.image, 921600, self_test_s=0.3)
    )


def _bad(checked: Checked) -> dict[str, str]:
    return {finding.what: finding.told for finding in checked.findings if not finding.ok}


def test_a_good_board(flashed: FlashRequest, board: Board) -> None:
    put(board, "spool/00000001.seg", b"reports")
    before = board.flash.read(0, 0x400000)
    written: list[int] = []
    board.on_frame = lambda command, _count: (
        written.append(command) if command in FLASH_WRITING else None
    )
    starts = board.starts
    checked = _check(flashed)
    assert checked.ok
    assert _bad(checked) == {}
    told = {finding.what: finding.told for finding in checked.findings}
    assert "school-north, R101, classroom-sensor" in told["registry"]
    assert "stand-in" in told["MicroPython"]
    assert "key 1, certificate until" in told["identity"]
    assert "1 segments" in told["spool"]
    assert checked.self_test is not None
    assert board.starts == starts + 1
    assert written == []
    assert board.flash.read(0, 0x400000) == before


@pytest.mark.parametrize(
    ("name", "content", "what", "told"),
    [
        ("agent/agent.mpy", b"damaged", "files", "agent/agent.mpy"),
        ("agent/old.mpy", b"M\x06", "files", "agent/old.mpy"),
        ("config.json", b"{}", "files", "config.json"),
        ("fault.txt", b"died: MemoryError", "last words", "died: MemoryError"),
        ("identity/report.key", bytes(32), "identity", "report key"),
        ("identity/board.key.der", b"\x30\x00", "identity", "do not fit"),
    ],
)
def test_what_differs_is_named(
    flashed: FlashRequest, board: Board, *, name: str, content: bytes, what: str, told: str
) -> None:
    put(board, name, content)
    assert told in _bad(_check(flashed))[what]


def test_an_application_that_is_damaged(flashed: FlashRequest, board: Board) -> None:
    board.flash.program(0x20000, bytes(64))
    assert "damaged" in _bad(_check(flashed))["MicroPython"]


@pytest.mark.parametrize(
    ("address", "size", "what"), [(0, 0x400000, "MicroPython"), (VFS, 0x200000, "file system")]
)
def test_what_is_blank(
    flashed: FlashRequest, board: Board, address: int, size: int, what: str
) -> None:
    board.flash.erase_region(address, size)
    assert what in _bad(_check(flashed))


def test_a_board_that_is_not_the_city_s(flashed: FlashRequest) -> None:
    (flashed.city / "registry.toml").write_text(registry.render({}))
    checked = _check(flashed)
    assert _bad(checked) == {"registry": "it is not in the registry"}
    assert checked.entry is None


def test_a_board_that_was_revoked(flashed: FlashRequest) -> None:
    entry = inventory.load(flashed.city).boards[BOARD]
    revoked = entry.model_copy(update={"revoked": datetime(2026, 8, 1, tzinfo=UTC)})
    (flashed.city / "registry.toml").write_text(registry.render({BOARD: revoked}))
    assert "2026-08-01" in _bad(_check(flashed))["registry"]


def test_a_board_that_says_that_it_is_not_well(flashed: FlashRequest, board: Board) -> None:
    board.console = bench.self_test(ok=False, radio="the radio does not work")
    assert "the radio does not work" in _bad(_check(flashed))["self-test"]


def test_a_file_system_that_lies(flashed: FlashRequest, board: Board) -> None:
    good = board.flash.read(VFS, 0x200000)
    told = set()
    for seed in range(6):
        board.flash.erase_region(VFS, 0x200000)
        board.flash.program(VFS, hostile.lie(good, seed))
        told |= _bad(_check(flashed)).keys()
    assert "file system" in told


def test_what_a_board_says_shows_no_secret(flashed: FlashRequest, board: Board) -> None:
    secrets = flashed.city / "secrets"
    key = (secrets / "keys" / f"{BOARD}.1.key").read_text().strip()
    hash_key = (secrets / "hash.key").read_text().strip()
    told = f"\x1b]0;{WLAN_KEY} {key} {hash_key}\n"
    put(board, "fault.txt", told.encode())
    for is_ok in (True, False):
        board.console = bench.self_test(ok=is_ok, radio=told, agent=told)
        shown = json.dumps(_check(flashed).document())
        assert "(secret) (secret) (secret)" in shown
        assert WLAN_KEY not in shown
        assert key not in shown
        assert hash_key not in shown
        assert "\\u001b" not in shown


def test_a_city_that_changed_its_mind(flashed: FlashRequest) -> None:
    path = flashed.city / "inventory.toml"
    path.write_text(path.read_text().replace("period_s = 60", "period_s = 30"))
    assert "config.json" in _bad(_check(flashed))["files"]


@pytest.mark.parametrize("kind", [BoardSilentError, PortMissingError])
def test_no_board(
    flashed: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch, kind: type[NetzpulsError]
) -> None:
    monkeypatch.setattr("provisioning.session._CONNECT_ATTEMPTS", 1)
    board.is_deaf = kind is BoardSilentError
    port = flashed.port if board.is_deaf else "/dev/none"
    with pytest.raises(kind):
        _check(replace(flashed, port=port))


def _run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", "check", *arguments])
    said = capfd.readouterr()
    return exited.value.code, said.out, said.err


def test_at_the_terminal(
    flashed: FlashRequest, board: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--city", str(flashed.city), "--port", flashed.port]
    code, out, _ = _run(capfd, *arguments)
    assert code == 0
    assert f"{BOARD} on {flashed.port}" in out
    assert "BAD" not in out
    put(board, "agent/agent.mpy", b"damaged")
    code, out, _ = _run(capfd, *arguments)
    assert code == 1
    assert "BAD files" in out
    assert "--repair" in out
    code, out, _ = _run(capfd, *arguments, "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["good"]) == (1, False, False)
    assert {each["what"] for each in document["findings"] if not each["ok"]} == {"files"}
    assert WLAN_KEY not in out
    code, _, err = _run(capfd, *arguments, "--repair")
    assert code == 2
    assert "--micropython" in err
    code, out, _ = _run(capfd, *arguments, "--repair", "--micropython", str(flashed.image))
    assert code == 0
    assert f"{BOARD} is enrolled: school-north, R101" in out
    assert _check(flashed).ok
    assert inventory.load(flashed.city).boards[BOARD].key_id == 1


@pytest.mark.parametrize(
    ("changed", "named"), [("retired", "board retire"), ("revoked", "--reassign")]
)
def test_what_is_out_of_service_is_not_repaired(
    flashed: FlashRequest, capfd: pytest.CaptureFixture[str], changed: str, named: str
) -> None:
    entry = inventory.load(flashed.city).boards[BOARD]
    gone = entry.model_copy(update={changed: datetime(2026, 8, 1, tzinfo=UTC)})
    (flashed.city / "registry.toml").write_text(registry.render({BOARD: gone}))
    arguments = ["--city", str(flashed.city), "--port", flashed.port, "--repair"]
    code, out, _ = _run(capfd, *arguments, "--micropython", str(flashed.image))
    assert code == 1
    assert "is not repaired" in out
    assert named in out
    assert "--repair" not in out


def test_a_repair_that_needs_a_new_identity_says_so(
    flashed: FlashRequest, board: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    board.flash.erase_region(VFS, 0x200000)
    arguments = ["--city", str(flashed.city), "--port", flashed.port]
    code, out, _ = _run(capfd, *arguments, "--repair", "--micropython", str(flashed.image))
    assert code == 0
    assert "To write what differs" not in out
    assert "it has a new one (key 2)" in out
    assert f"netzpuls board label {BOARD}" in out


def test_a_board_that_was_begun(flashed: FlashRequest) -> None:
    (flashed.city / "registry.toml").write_text(registry.render({}))
    journal.save(flashed.city, Pending(BOARD, 1, bytes(32), b"", b""))
    assert "begun and not finished" in _bad(_check(flashed))["registry"]


def test_without_a_file_system_no_agent_is_waited_for(
    flashed: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.flash.erase_region(VFS, 0x200000)
    waited: list[float] = []

    def read(_line: object, _board: str, deadline_s: float, *_others: object) -> dict[str, Any]:
        waited.append(deadline_s)
        raise SelfTestError("silent")

    monkeypatch.setattr("provisioning.check.selftest.read", read)
    check_board(CheckRequest(flashed.city, flashed.port, flashed.image, 921600))
    assert waited == [5.0]


def test_a_good_board_is_not_repaired(
    flashed: FlashRequest, board: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--city", str(flashed.city), "--port", flashed.port, "--json"]
    code, out, _ = _run(capfd, *arguments, "--repair", "--micropython", str(flashed.image))
    assert (code, json.loads(out)["repaired"]) == (0, None)
