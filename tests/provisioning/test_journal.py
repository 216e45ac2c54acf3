"""What is under way at the desk: kept over a cut, secret, and never a reason to crash."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import authority
from provisioning import journal
from provisioning.errors import JournalError
from provisioning.journal import Pending

BOARD = "np-240ac4123456"


def _pending(city: Path) -> Pending:
    identity = authority.ensure(city, "exampleville").issue_board(BOARD)
    return Pending(BOARD, 1, bytes(range(32)), identity.certificate_der, identity.key_der)


def test_what_is_saved_is_loaded(city: Path) -> None:
    pending = _pending(city).at("application").failed("the cable")
    journal.save(city, pending)
    assert journal.load(city, BOARD) == pending
    assert pending.is_whole()
    path = city / "secrets" / "journal" / f"{BOARD}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    journal.discard(city, BOARD)
    assert journal.load(city, BOARD) is None
    assert journal.boards(city) == []


def test_no_secret_shows(city: Path) -> None:
    pending = _pending(city)
    shown = repr(pending) + json.dumps(pending.document())
    assert pending.report_key.hex() not in shown
    assert repr(pending.report_key)[2:-1] not in shown
    assert repr(pending.key_der)[2:40] not in shown


@pytest.mark.parametrize("key", [b"", b"\x30\x03", bytes(138)])
def test_an_identity_that_is_damaged_is_not_whole(city: Path, key: bytes) -> None:
    good = _pending(city)
    assert not Pending(BOARD, 1, good.report_key, good.certificate_der, key).is_whole()
    assert not Pending(BOARD, 1, b"short", good.certificate_der, good.key_der).is_whole()
    assert not Pending(BOARD, 1, good.report_key, b"\x30\x00", good.key_der).is_whole()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_an_identity_of_a_kind_that_nobody_knows_is_not_whole(city: Path) -> None:
    """A board's file system is hostile; each byte of its key and certificate is tried."""
    good = _pending(city)
    p256, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")
    assert p256 in good.key_der
    curve = replace(good, key_der=good.key_der.replace(p256, unknown))
    assert not curve.is_whole()
    certified = replace(good, certificate_der=good.certificate_der.replace(p256, unknown))
    assert not certified.is_whole()
    for name in ("key_der", "certificate_der"):
        content = getattr(good, name)
        for at in range(len(content)):
            for byte in (content[at] ^ 1, content[at] ^ 0x80, 0, 0xFF):
                altered = content[:at] + bytes([byte]) + content[at + 1 :]
                assert replace(good, **{name: altered}).is_whole() in (True, False)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"version": 2}', b'{"version": 1}'],
)
def test_a_damaged_entry_says_what_to_do(city: Path, content: bytes) -> None:
    path = city / "secrets" / "journal" / f"{BOARD}.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        journal.load(city, BOARD)
    assert str(path) in caught.value.message
    assert "delete it" in caught.value.hint
    assert journal.boards(city) == []


def test_an_entry_that_has_become_something_else(city: Path) -> None:
    path = city / "secrets" / "journal" / f"{BOARD}.json"
    journal.save(city, _pending(city))
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"key_id": 1e999}))
    with pytest.raises(JournalError, match="damaged"):
        journal.load(city, BOARD)
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        path.unlink() if path.is_file() or path.is_symlink() or path.is_fifo() else path.rmdir()
        make()
        with pytest.raises(JournalError) as caught:
            journal.load(city, BOARD)
        assert caught.value.hint
        assert journal.boards(city) == []


def test_a_folder_that_cannot_be_written(city: Path) -> None:
    (city / "secrets" / "journal").write_text("")
    with pytest.raises(JournalError, match=BOARD):
        journal.save(city, _pending(city))
