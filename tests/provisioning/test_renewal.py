"""Another certificate for a board that is enrolled, or another identity."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import fleet.cli
from fleet import authority, file, inventory, revocation
from fleet.authority import AuthorityError
from fleet.errors import NetzpulsError
from provisioning import identity, journal, registry, renewal
from provisioning.check import CheckRequest, check_board
from provisioning.errors import EnrolmentError, RenewalError, SelfTestError, StoppedError
from provisioning.flash import FlashRequest, Progress, flash_board
from provisioning.renewal import RenewalRequest, renew
from tests.provisioning import bench
from tests.provisioning.bench import BOARD, FLASH_WRITING, Board
from tests.provisioning.conftest import WLAN_KEY


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with bench.board(tmp_path) as opened:
        yield opened


@pytest.fixture
def flashed(city: Path, stand_in: Path, board: Board) -> FlashRequest:
    """Flash and enrol a board whose certificate ends soon; return how."""
    request = FlashRequest(
        city, board.port, "school-north", "R101", "classroom-sensor", stand_in,
        baud=921600, self_test_s=0.3,
    )  # fmt: skip
    flash_board(request)
    bench.put(board, "spool/00000001.seg", b"reports")
    return request


def _request(flashed: FlashRequest, **changes: Any) -> RenewalRequest:
    return replace(RenewalRequest(flashed.city, baud=921600, self_test_s=0.3), **changes)


def _files(board: Board) -> dict[str, bytes]:
    return bench.files(board)


def _is_good(flashed: FlashRequest) -> bool:
    asked = CheckRequest(flashed.city, flashed.port, flashed.image, 921600, self_test_s=0.3)
    return check_board(asked).ok


def _enrolled(city: Path) -> x509.Certificate:
    found = registry.certificate(city, BOARD)
    assert found
    return found


def test_a_certificate(flashed: FlashRequest, board: Board) -> None:
    city = flashed.city
    before, entry, old = _files(board), inventory.load(city).boards[BOARD], _enrolled(city)
    application = board.flash.read(0, bench.VFS)
    renewed = renew(_request(flashed), board.port)
    after = _files(board)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"identity/board.der"}
    assert "spool/00000001.seg" in after
    assert board.flash.read(0, bench.VFS) == application
    assert 0 < renewed.written_bytes <= 5 * 4096
    new = _enrolled(city)
    assert new.serial_number != old.serial_number
    assert new.public_key() == old.public_key()
    assert after["identity/board.der"] == new.public_bytes(serialization.Encoding.DER)
    new.verify_directly_issued_by(authority.load(city).certificate)
    now = inventory.load(city).boards[BOARD]
    assert now.certificate_expires == new.not_valid_after_utc
    assert now == entry.model_copy(update={"certificate_expires": new.not_valid_after_utc})
    # The same key is as good as before, and gateways need not begin anew for it.
    assert revocation.read(city) is None
    assert journal.boards(city) == []
    assert [each.serial_number for each in revocation.certificates(city, BOARD)] == [
        new.serial_number,
        old.serial_number,
    ]
    assert _is_good(flashed)
    flash_board(flashed)
    assert _enrolled(city) == new


def test_a_renewed_ca_comes_along(flashed: FlashRequest, board: Board) -> None:
    ca = authority.renew(flashed.city)
    renew(_request(flashed), board.port)
    assert _files(board)["identity/ca.der"] == ca.certificate_der
    assert _is_good(flashed)


def test_a_new_key(flashed: FlashRequest, board: Board) -> None:
    city = flashed.city
    before, old = _files(board), _enrolled(city)
    renewed = renew(_request(flashed, new_key=True), board.port)
    after = _files(board)
    assert (renewed.entry.key_id, renewed.revoked) == (2, 1)
    assert "spool/00000001.seg" not in after
    for name in ("report.key", "board.key.der", "board.der"):
        assert before[f"identity/{name}"] != after[f"identity/{name}"]
    assert json.loads(after["config.json"])["key_id"] == 2
    assert renewed.written_bytes < 100_000
    assert revocation.serials(revocation.read(city)).keys() == {old.serial_number}
    assert inventory.load(city).boards[BOARD].key_id == 2
    assert _is_good(flashed)
    # Once more: what is revoked stays so, and what was renewed by the same key does not become it.
    same = renew(_request(flashed), board.port)
    assert (same.entry.key_id, same.revoked) == (2, 0)
    renew(_request(flashed, new_key=True), board.port)
    assert len(revocation.serials(revocation.read(city))) == 3
    # A board that was revoked by mistake is not trusted by the keys that it had before.
    for verb in ([], ["--undo"]):
        with pytest.raises(SystemExit) as exited:
            fleet.cli.main(["board", "revoke", "--city", str(city), BOARD, *verb])
        assert exited.value.code == 0
    assert len(revocation.serials(revocation.read(city))) == 3


@pytest.mark.parametrize("new_key", [False, True])
@pytest.mark.parametrize("stage", ["prepare", "file system", "self-test", "enrol"])
@pytest.mark.parametrize("then", ["renew", "flash"])
def test_a_cut(flashed: FlashRequest, board: Board, new_key: bool, stage: str, then: str) -> None:
    """What was begun goes on, by either verb; no second identity is made."""

    def cut(step: Progress) -> None:
        if step.stage == stage and (stage != "file system" or step.done_bytes):
            raise StoppedError("cut", hint="again")

    with pytest.raises(StoppedError):
        renew(_request(flashed, new_key=new_key), board.port, cut)
    assert inventory.load(flashed.city).boards[BOARD].key_id == 1
    begun = journal.load(flashed.city, BOARD)
    assert (begun is None) == (stage == "prepare")
    if then == "renew":
        renew(_request(flashed, new_key=new_key), board.port)
    else:
        flash_board(flashed)
    files, key_id = _files(board), inventory.load(flashed.city).boards[BOARD].key_id
    if then == "flash" and stage == "file system":
        assert key_id == 1  # what the board holds still is what it was
    else:
        assert key_id == (2 if new_key and (begun or then == "renew") else 1)
        assert ("spool/00000001.seg" in files) == (key_id == 1)
    if begun and key_id == 2:
        assert files["identity/board.key.der"] == begun.key_der
    assert journal.boards(flashed.city) == []
    assert _is_good(flashed)


@pytest.mark.parametrize("new_key", [False, True])
@pytest.mark.parametrize("verb", ["revoke", "retire", "move"])
def test_what_another_technician_does_meanwhile_stays(
    flashed: FlashRequest, board: Board, new_key: bool, verb: str
) -> None:
    city = flashed.city
    place = ["--site", "school-north", "--room", "R102"] if verb == "move" else []

    def meanwhile(step: Progress) -> None:
        if step.stage == "enrol":
            with pytest.raises(SystemExit) as exited:
                fleet.cli.main(["board", verb, "--city", str(city), BOARD, *place])
            assert exited.value.code == 0

    with pytest.raises(EnrolmentError, match="meanwhile"):
        renew(_request(flashed, new_key=new_key), board.port, meanwhile)
    entry = inventory.load(city).boards[BOARD]
    assert (entry.key_id, bool(entry.revoked), bool(entry.retired), entry.room) == (
        1, verb == "revoke", verb == "retire", "R102" if verb == "move" else "R101",
    )  # fmt: skip
    # Nothing that would hold is left out of what was revoked.
    known = {each.serial_number for each in revocation.certificates(city, BOARD)}
    assert revocation.serials(revocation.read(city)).keys() == (
        known if verb == "revoke" else set()
    )


class _KilledError(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("then", ["renew", "flash"])
@pytest.mark.parametrize(
    "before", ["revoked.pem", f"{BOARD}.2.key", f"{BOARD}.pem", "registry.toml", "the journal"]
)
def test_a_kill_while_it_is_enrolled(
    flashed: FlashRequest,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    then: str,
) -> None:
    """No second identity is made, and the old certificates are revoked in the end."""
    city, old, real = flashed.city, _enrolled(flashed.city), file.write

    def killed(path: Path, *rest: Any) -> None:
        if path.name == before:
            raise _KilledError
        real(path, *rest)

    def discard(*_: Any) -> None:
        raise _KilledError

    monkeypatch.setattr(file, "write", killed)
    if before == "the journal":
        monkeypatch.setattr(journal, "discard", discard)
    with pytest.raises(_KilledError):
        renew(_request(flashed, new_key=True), board.port)
    monkeypatch.undo()
    begun = journal.load(city, BOARD)
    assert begun
    if then == "renew":
        renew(_request(flashed, new_key=before != "the journal"), board.port)
    else:
        flash_board(flashed)
    files = _files(board)
    assert inventory.load(city).boards[BOARD].key_id == 2
    assert files["identity/board.key.der"] == begun.key_der
    assert files["identity/report.key"] == begun.report_key
    assert revocation.serials(revocation.read(city)).keys() == {old.serial_number}
    assert journal.boards(city) == []
    assert _is_good(flashed)


def test_a_new_key_that_flashing_began_ends_the_old_ones_too(
    flashed: FlashRequest, board: Board
) -> None:
    old = _enrolled(flashed.city)
    begun = identity.made(flashed.city, BOARD, authority.load(flashed.city))
    journal.save(flashed.city, begun)
    assert renew(_request(flashed, new_key=True), board.port).revoked == 1
    assert _files(board)["identity/board.key.der"] == begun.key_der
    assert revocation.serials(revocation.read(flashed.city)).keys() == {old.serial_number}


def test_a_list_that_cannot_be_written_leaves_the_registry_as_it_was(
    flashed: FlashRequest, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, real = inventory.load(flashed.city).boards[BOARD], file.write

    def full(path: Path, *rest: Any) -> None:
        if path.name == "revoked.pem":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, *rest)

    monkeypatch.setattr(file, "write", full)
    with pytest.raises(AuthorityError, match="No space left"):
        renew(_request(flashed, new_key=True), board.port)
    assert inventory.load(flashed.city).boards[BOARD] == entry
    monkeypatch.undo()
    assert renew(_request(flashed, new_key=True), board.port).revoked == 1


def test_a_board_that_is_not_well_keeps_what_the_registry_says(
    flashed: FlashRequest, board: Board
) -> None:
    old, entry = _enrolled(flashed.city), inventory.load(flashed.city).boards[BOARD]
    board.console = bench.self_test(ok=False, radio="the radio does not work")
    with pytest.raises(SelfTestError):
        renew(_request(flashed), board.port)
    assert _enrolled(flashed.city) == old
    assert inventory.load(flashed.city).boards[BOARD] == entry
    (pending,) = journal.boards(flashed.city)
    assert "the radio does not work" in pending.problem


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("unknown", "not in the registry"),
        ("revoked", "was revoked"),
        ("retired", "was retired"),
        ("blank", "holds no MicroPython"),
        ("damaged", "file system cannot be used"),
        ("another key", "does not hold the keys"),
        ("another report key", "does not hold the keys"),
        ("no certificate", "does not hold the keys"),
    ],
)
def test_what_is_refused(flashed: FlashRequest, board: Board, how: str, told: str) -> None:
    path = flashed.city / "registry.toml"
    entry = inventory.load(flashed.city).boards[BOARD]
    if how == "unknown":
        path.write_text(registry.render({}))
    elif how in ("revoked", "retired"):
        gone = entry.model_copy(update={how: datetime(2026, 8, 1, tzinfo=UTC)})
        path.write_text(registry.render({BOARD: gone}))
    elif how == "blank":
        board.flash.erase_region(0, 0x400000)
    elif how == "damaged":
        board.flash.erase_region(bench.VFS, bench.VFS_BYTES)
    elif how == "another key":
        made = authority.load(flashed.city).issue_board(BOARD)
        bench.put(board, "identity/board.key.der", made.key_der)
        bench.put(board, "identity/board.der", made.certificate_der)
    elif how == "another report key":
        bench.put(board, "identity/report.key", bytes(32))
    else:
        (flashed.city / "boards" / f"{BOARD}.pem").unlink()
    written: list[int] = []
    board.on_frame = lambda command, _: (
        written.append(command) if command in FLASH_WRITING else None
    )
    with pytest.raises(RenewalError, match=told) as caught:
        renew(_request(flashed), board.port)
    assert caught.value.hint
    assert written == []
    assert journal.boards(flashed.city) == []


def test_keys_that_were_lost_are_replaced_when_asked_for(
    flashed: FlashRequest, board: Board
) -> None:
    bench.put(board, "identity/report.key", bytes(32))
    assert renew(_request(flashed, new_key=True), board.port).entry.key_id == 2
    assert _is_good(flashed)


def test_without_the_ca_s_key_no_board_is_touched(flashed: FlashRequest, board: Board) -> None:
    (flashed.city / "secrets" / "ca.key").unlink()
    starts = board.starts
    with pytest.raises(NetzpulsError):
        renew(_request(flashed), board.port)
    assert board.starts == starts


def _run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", "renew", *arguments])
    said = capfd.readouterr()
    return exited.value.code, said.out, said.err


def test_at_the_terminal(
    flashed: FlashRequest,
    board: Board,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "SELF_TEST_S", 0.5)
    city = ["--city", str(flashed.city)]
    one = [*city, "--port", board.port]
    starts, before = board.starts, _enrolled(flashed.city)
    code, out, _ = _run(capfd, *one, "--port", "/dev/netzpuls-nowhere", "--dry-run", "--json")
    document = json.loads(out)
    assert code == 0
    assert [each["port"] for each in document["ports"]] == [board.port, "/dev/netzpuls-nowhere"]
    assert [bool(each["problem"]) for each in document["ports"]] == [False, True]
    assert "Nothing was written" in _run(capfd, *one, "--dry-run")[1]
    assert (board.starts, _enrolled(flashed.city)) == (starts, before)
    assert _run(capfd, *city)[0] == 2

    code, out, err = _run(capfd, *one)
    assert code == 0
    assert f"{BOARD} has a new certificate, until " in out
    assert "write agent" in err
    code, out, _ = _run(capfd, *one, "--port", "/dev/netzpuls-nowhere", "--new-key", "--json")
    document = json.loads(out)
    assert code == 1
    first, second = document["boards"]
    assert (first["ok"], first["key_id"], first["room"]) == (True, 2, "R101")
    assert second["error"]["code"] == "port-missing"
    said = out + err
    secrets = [WLAN_KEY, _files(board)["identity/report.key"].hex()]
    assert [secret for secret in secrets if secret in said] == []
    code, out, _ = _run(capfd, *one, "--all", "--new-key")
    assert code == 0
    assert f"{BOARD}  R101  until " in out
    assert f"netzpuls board label {BOARD}" in out
