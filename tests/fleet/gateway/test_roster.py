"""Who may report: brought to a running gateway by a collection, over a real sshd, to mosquitto."""

from __future__ import annotations

import io
import json
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from fleet import authority, inventory, revocation
from fleet.authority import AuthorityError
from fleet.collect import collect
from fleet.errors import NetzpulsError
from fleet.gateway import keyring, roster
from fleet.gateway.roster import RosterError
from fleet.gateway.settings import Folder
from fleet.store import Store, count_reports
from tests.fleet.gateway.conftest import KEPT, STOLEN, Enrolled
from tests.fleet.gateway.scene import (
    GATEWAY,
    Board,
    Connection,
    knock,
    served,
)

REFUSED = (ssl.SSLError, ConnectionError)
ACCEPTED = bytes((0x20, 2, 0, 0))


def test_a_revoked_board_is_locked_out_by_the_next_collection(enrolled: Enrolled) -> None:
    scene = enrolled.scene
    with served(scene) as gateway:
        stolen, kept = enrolled.board(STOLEN), enrolled.board(KEPT)
        for board in (stolen, kept):
            board.make()
            board.drain()
        first = enrolled.collect()
        assert (first.error, first.new, first.roster) == (None, 2, [])
        assert set(first.certificates) == {"gateway", "collector", "ca"}

        assert enrolled.run("revoke", STOLEN, "--reason", "stolen from room 101") == 0
        assert knock(scene, enrolled.identities[STOLEN]) == ACCEPTED  # nobody told the gateway yet
        stolen.make()
        stolen.drain()
        second = enrolled.collect()
        assert (second.error, second.roster) == (None, ["boards", "revoked"])
        assert (second.new, second.refused) == (0, {"board-revoked": 1})

        # Its connection ends, and it gets no other one.
        stolen.connection.wait("lost")
        gateway.said("certificates-changed", "restarts=broker")
        gateway.said("broker-running", count=2)
        kept.connection.wait("connected")
        with pytest.raises(REFUSED):
            knock(scene, enrolled.identities[STOLEN])
        gateway.said("refused", "reason=certificate-invalid")
        assert knock(scene, enrolled.identities[KEPT]) == ACCEPTED
        kept.make()
        kept.drain()
        third = enrolled.collect()
        assert (third.error, third.new, third.roster) == (None, 1, [])
        assert gateway.state["restarts"]["broker"] == 1

        # It was a mistake: nothing of what the gateway has is lost.
        assert enrolled.run("revoke", STOLEN, "--undo") == 0
        (fourth,) = collect(inventory.load(enrolled.city), [GATEWAY], again=True)
        assert (fourth.new, fourth.roster) == (1, ["boards", "revoked"])
        gateway.said("broker-running", count=3)
        stolen.connection.wait("connected")
        stolen.make()
        stolen.drain()
    with Store(enrolled.city).reading() as connection:
        assert count_reports(connection) == {STOLEN: 2, KEPT: 2}


def test_a_renewed_ca_reaches_the_gateway_and_shuts_out_nobody(enrolled: Enrolled) -> None:
    scene = enrolled.scene
    with served(scene) as gateway:
        old = scene.root / "old.pem"
        old.write_bytes((enrolled.city / "ca.pem").read_bytes())
        assert enrolled.run("ca", "--renew") == 0
        assert enrolled.collect().roster == ["ca"]
        gateway.said("certificates-changed", "restarts=broker")
        gateway.said("certificates-changed", "restarts=collector")
        gateway.said("broker-running", count=2)
        gateway.said(" collecting ", count=2)
        identity = enrolled.identities[KEPT]
        connection = Connection(scene.port, old, identity, scene.scratch)
        try:
            board = Board(connection, KEPT, enrolled.keys[KEPT])
            board.make()
            board.drain()
        finally:
            connection.close()
        assert enrolled.collect().new == 1


def test_a_gateway_that_does_not_run_is_told_as_well(enrolled: Enrolled) -> None:
    enrolled.scene.prepare()
    assert enrolled.run("retire", STOLEN) == 0
    result = enrolled.collect()
    assert result.roster == ["boards"]
    assert STOLEN not in keyring.load(enrolled.scene.folder / "boards.toml")
    assert KEPT in keyring.load(enrolled.scene.folder / "boards.toml")
    assert (enrolled.scene.folder / "boards.toml").stat().st_mode & 0o777 == 0o600


def test_a_roster_that_cannot_be_given_does_not_stop_the_collection(enrolled: Enrolled) -> None:
    with served(enrolled.scene):
        board = enrolled.board(KEPT)
        board.make()
        board.drain()
    key = enrolled.city / f"secrets/keys/{STOLEN}.1.key"
    key.unlink()
    result = enrolled.collect()
    assert isinstance(result.error, RosterError)
    assert "does not know who may report: the report key of" in result.error.message
    assert (result.new, result.roster) == (1, None)


def _serve(folder: Path, **files: str) -> tuple[dict[str, object], dict[str, object]]:
    out = io.BytesIO()
    roster.serve(Folder(folder), io.BytesIO(json.dumps(files).encode()), out)
    first, second = out.getvalue().splitlines()
    return json.loads(first), json.loads(second)


def test_only_what_differs_travels(enrolled: Enrolled) -> None:
    enrolled.scene.prepare()
    city = inventory.load(enrolled.city)
    files = roster.of(city, GATEWAY)
    said, answer = _serve(enrolled.scene.folder)
    assert answer == {"changed": [], "boards": None}
    have = roster.greeting(json.dumps(said).encode()).have
    assert roster.missing(files, have) == b"{}"
    assert list(json.loads(roster.missing(files | {"boards": b"x"}, have))) == ["boards"]


@pytest.mark.parametrize(
    ("files", "error", "named"),
    [
        ({"boards": "version = 1\n[board.np-1]\n"}, NetzpulsError, "boards.toml"),
        ({"boards": "nonsense"}, NetzpulsError, "no TOML"),
        ({"ca": "nonsense"}, AuthorityError, "no certificate"),
        ({"revoked": "nonsense"}, AuthorityError, "no revocation list"),
        ({"surprise": "x"}, RosterError, "no roster"),
    ],
)
def test_what_is_no_roster_changes_nothing(
    enrolled: Enrolled, files: dict[str, str], error: type[NetzpulsError], named: str
) -> None:
    enrolled.scene.prepare()
    folder = enrolled.scene.folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(error, match=named) as caught:
        _serve(folder, **files)
    assert caught.value.hint
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_list_of_another_ca_or_an_older_one_is_refused(enrolled: Enrolled) -> None:
    folder, city = enrolled.scene.folder, enrolled.city
    enrolled.scene.prepare()
    foreign = authority.ensure(enrolled.scene.root / "other", "anderswo")
    (enrolled.scene.root / "other/boards").mkdir()
    revocation.update(
        foreign_folder := enrolled.scene.root / "other", [foreign.issue_board(STOLEN).certificate]
    )
    with pytest.raises(AuthorityError, match="not the city's"):
        _serve(folder, revoked=(foreign_folder / "revoked.pem").read_text())
    assert enrolled.run("revoke", STOLEN) == 0
    older = (city / "revoked.pem").read_text()
    assert enrolled.run("revoke", KEPT) == 0
    newer = (city / "revoked.pem").read_text()
    assert _serve(folder, revoked=newer)[1]["changed"] == ["revoked"]
    with pytest.raises(RosterError, match="newer list"):
        _serve(folder, revoked=older)
    assert (folder / "tls/revoked.pem").read_text() == newer


def test_the_list_grows_only_when_it_must(enrolled: Enrolled) -> None:
    city = enrolled.city
    assert revocation.read(city) is None
    assert revocation.update(city, [enrolled.identities[STOLEN].certificate])
    first = revocation.read(city)
    assert not revocation.update(city, [enrolled.identities[STOLEN].certificate])
    assert revocation.read(city) == first
    assert revocation.update(city, [enrolled.identities[KEPT].certificate])
    assert first is not None
    second = revocation.read(city)
    assert second is not None
    dates = [x509.load_pem_x509_crl(each).last_update_utc for each in (first, second)]
    assert dates[0] < dates[1]
    assert set(revocation.serials(second)) == {
        identity.certificate.serial_number for identity in enrolled.identities.values()
    }


def test_all_certificates_that_a_board_ever_had_are_revoked(enrolled: Enrolled) -> None:
    path = enrolled.city / "boards" / f"{STOLEN}.pem"
    earlier = enrolled.scene.city.ca.issue_board(STOLEN)
    path.write_bytes(path.read_bytes() + earlier.certificate_pem)
    assert enrolled.run("revoke", STOLEN) == 0
    assert earlier.certificate.serial_number in revocation.serials(revocation.read(enrolled.city))


def test_a_board_whose_certificate_is_lost_is_revoked_as_far_as_that_goes(
    enrolled: Enrolled, capsys: pytest.CaptureFixture[str]
) -> None:
    (enrolled.city / "boards" / f"{STOLEN}.pem").unlink()
    assert enrolled.run("revoke", STOLEN) == 0
    assert f"boards/{STOLEN}.pem is missing" in capsys.readouterr().out
    assert inventory.load(enrolled.city).boards[STOLEN].revoked
    assert revocation.read(enrolled.city) is None


def test_without_the_cas_key_reports_are_refused_all_the_same(
    enrolled: Enrolled, capsys: pytest.CaptureFixture[str]
) -> None:
    key = enrolled.city / "secrets/ca.key"
    content = key.read_bytes()
    key.unlink()
    assert enrolled.run("revoke", STOLEN, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "authority"
    revoked = inventory.load(enrolled.city).boards[STOLEN].revoked
    assert revoked
    key.write_bytes(content)
    key.chmod(0o600)
    assert enrolled.run("revoke", STOLEN, "--reason", "stolen") == 0
    board = inventory.load(enrolled.city).boards[STOLEN]
    assert (board.revoked, board.revoked_because) == (revoked, "stolen")
    assert revocation.read(enrolled.city) is not None
