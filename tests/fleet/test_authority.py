import datetime as dt
import multiprocessing
import stat
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleet import authority, revocation
from fleet.authority import AuthorityError

BOARD = "np-240ac4123456"


@pytest.fixture
def ca(tmp_path: Path) -> authority.Authority:
    return authority.ensure(tmp_path, "musterstadt")


def _ensure_and_report(folder: Path, queue: "multiprocessing.Queue[bytes]") -> None:
    queue.put(authority.ensure(folder, "musterstadt").certificate_pem)


def test_first_use_makes_a_private_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    authority.ensure(tmp_path, "musterstadt")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secrets/ca.key").stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == {".gitignore", "ca.key"}
    assert {path.name for path in tmp_path.iterdir()} == {"ca.pem", "secrets"}


def test_a_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    authority.ensure(tmp_path, "musterstadt")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_processes_that_come_first_at_the_same_time_get_the_same_ca(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[bytes] = context.Queue()
    processes = [
        context.Process(target=_ensure_and_report, args=(tmp_path, queue)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    seen = {queue.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(seen) == 1


def test_openssl_accepts_what_is_issued_for_its_purpose_only(
    tmp_path: Path, ca: authority.Authority
) -> None:
    board = ca.issue_board(BOARD)
    gateway = ca.issue_gateway("gw-north", ["gw.example.org", "10.1.0.2"])
    for identity, purpose, good in (
        (board, "sslclient", True),
        (board, "sslserver", False),
        (gateway, "sslserver", True),
        (gateway, "sslclient", False),
    ):
        path = tmp_path / "leaf.pem"
        path.write_bytes(identity.certificate_pem)
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        result = subprocess.run(
            [*command, "-CAfile", tmp_path / "ca.pem", path], capture_output=True, check=False
        )
        assert (result.returncode == 0) is good, result.stderr


def test_a_gateway_answers_to_its_id_and_to_its_addresses(ca: authority.Authority) -> None:
    certificate = ca.issue_gateway("gw-north", ["gw.example.org", "10.1.0.2"]).certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gw-north", "gw.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.1.0.2")]


def test_a_board_without_a_clock_can_accept_the_gateway(ca: authority.Authority) -> None:
    for certificate in (ca.certificate, ca.issue_gateway("gw-north").certificate):
        assert certificate.not_valid_before_utc <= dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def test_a_collector_is_a_client(ca: authority.Authority) -> None:
    certificate = ca.issue_collector("gw-north").certificate
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.subject.rfc4514_string() == "CN=collector-gw-north"


def test_validity_is_a_parameter(ca: authority.Authority) -> None:
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    expired = ca.issue_board(BOARD, valid_from=begin, valid_for=dt.timedelta(days=1)).certificate
    assert expired.not_valid_after_utc == dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
    endless = ca.issue_board(BOARD, valid_for=dt.timedelta(days=99_999)).certificate
    assert endless.not_valid_after_utc == ca.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    "name", ["collector-gw-north", "np-240AC4123456", "np-240ac412345", "np-240ac4123456/x", ""]
)
def test_a_board_gets_only_a_boards_name(ca: authority.Authority, name: str) -> None:
    with pytest.raises(AuthorityError, match="no board's id"):
        ca.issue_board(name)


@pytest.mark.parametrize("name", ["gw/north", "gw+", "gw#", "Gw", "gw\n", "a" * 65, ""])
def test_names_that_would_widen_the_brokers_rules_are_refused(
    ca: authority.Authority, name: str
) -> None:
    with pytest.raises(AuthorityError):
        ca.issue_gateway(name)
    with pytest.raises(AuthorityError):
        ca.issue_collector(f"{name}/" if name == "" else name)


def test_a_host_that_is_no_name_is_refused(ca: authority.Authority) -> None:
    with pytest.raises(AuthorityError, match="neither a host name"):
        ca.issue_gateway("gw-north", ["*.example.org"])


def test_a_lost_certificate_is_made_again_from_the_key(tmp_path: Path) -> None:
    before = authority.ensure(tmp_path, "musterstadt")
    (tmp_path / "ca.pem").unlink()
    after = authority.ensure(tmp_path, "musterstadt")
    assert after.certificate.public_key() == before.certificate.public_key()
    assert after.certificate.subject == before.certificate.subject


def test_a_lost_key_is_never_replaced(tmp_path: Path, ca: authority.Authority) -> None:
    (tmp_path / "secrets/ca.key").unlink()
    with pytest.raises(AuthorityError, match=r"cannot read .*ca\.key"):
        authority.ensure(tmp_path, "musterstadt")
    assert (tmp_path / "ca.pem").read_bytes() == ca.certificate_pem


def test_files_that_cannot_be_right_are_refused(tmp_path: Path, ca: authority.Authority) -> None:
    key = tmp_path / "secrets/ca.key"
    key.chmod(0o640)
    with pytest.raises(AuthorityError, match="others can read"):
        authority.load(tmp_path)
    key.write_bytes(ca.issue_board(BOARD).key_pem)
    key.chmod(0o600)
    with pytest.raises(AuthorityError, match="do not belong together"):
        authority.load(tmp_path)
    key.write_text("nonsense")
    with pytest.raises(AuthorityError, match="no private key"):
        authority.load(tmp_path)
    (tmp_path / "ca.pem").write_text("nonsense")
    key.write_bytes(ca.issue_board(BOARD).key_pem)
    with pytest.raises(AuthorityError, match="no certificate in PEM"):
        authority.load(tmp_path)


def test_a_city_without_a_ca_is_told_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="has no CA yet") as caught:
        authority.load(tmp_path)
    assert "gateway install" in caught.value.hint


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthorityError, match="cannot make the city's CA in"):
        authority.ensure(tmp_path / "file", "musterstadt")


def _verified(folder: Path, ca: str, leaf: bytes, *options: str) -> bool:
    path = folder / "leaf.pem"
    path.write_bytes(leaf)
    command = ["openssl", "verify", "-x509_strict", *options, "-CAfile", folder / ca, path]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_old_and_renewed_ca_vouch_for_each_others_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = authority._now() - dt.timedelta(days=365 * 10)
    with monkeypatch.context() as then:
        then.setattr(authority, "_now", lambda: made)
        ca = authority.ensure(tmp_path, "musterstadt")
    (tmp_path / "old.pem").write_bytes(ca.certificate_pem)
    key = (tmp_path / "secrets/ca.key").read_bytes()
    old_board, old_gateway = ca.issue_board(BOARD), ca.issue_gateway("gw-north")
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / f"{BOARD}.pem").write_bytes(old_board.certificate_pem)
    revocation.update(tmp_path, revocation.certificates(tmp_path, BOARD))
    renewed = authority.renew(tmp_path)
    assert revocation.update(tmp_path)
    assert (tmp_path / "secrets/ca.key").read_bytes() == key
    assert authority.load(tmp_path).certificate == renewed.certificate
    assert renewed.certificate != ca.certificate
    assert renewed.certificate.subject == ca.certificate.subject
    crl = ("-crl_check", "-CRLfile", str(tmp_path / "revoked.pem"))
    new_board = renewed.issue_board("np-240ac4000007")
    for name in ("old.pem", "ca.pem"):
        for leaf in (old_gateway, renewed.issue_gateway("gw-north"), new_board):
            assert _verified(tmp_path, name, leaf.certificate_pem)
        assert _verified(tmp_path, name, new_board.certificate_pem, *crl)
        assert not _verified(tmp_path, name, old_board.certificate_pem, *crl)
    signed = x509.load_pem_x509_crl((tmp_path / "revoked.pem").read_bytes())
    assert signed.next_update_utc == renewed.certificate.not_valid_after_utc
