"""A gateway that cannot start says why, what to do, and with which exit code."""

from __future__ import annotations

import datetime as dt
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import authority, cli, file, tool
from fleet.gateway import broker, prepare, settings
from fleet.gateway.errors import GatewayError
from fleet.gateway.settings import Folder
from tests.fleet.gateway.scene import GATEWAY, RunningGateway, Scene, served


@pytest.fixture
def prepared(scene: Scene) -> Scene:
    scene.prepare()
    return scene


Fail = Callable[[int, str], str]


@pytest.fixture
def fails(prepared: Scene, capsys: pytest.CaptureFixture[str]) -> Fail:
    """Run the gateway, expect an exit code and words; return the hint."""

    def run(code: int, words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["gateway", "run", "--dir", str(prepared.folder)])
        said = capsys.readouterr()
        assert ended.value.code == code, said.err
        error, _, hint = said.err.partition("error: ")[2].partition("hint: ")
        assert words in error
        assert hint
        assert "Traceback" not in said.err
        assert not (prepared.folder / "state.json").exists()
        return hint

    return run


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_no_folder(fails: Fail, prepared: Scene) -> None:
    (prepared.folder / "gateway.toml").unlink()
    assert "gateway prepare" in fails(2, "is no gateway's folder")


def test_an_unknown_setting(fails: Fail, prepared: Scene) -> None:
    replaced(prepared.folder / "gateway.toml", "[broker]", "[broker]\nprot = 1")
    fails(2, "unknown key broker.prot")


def test_no_keys(fails: Fail, prepared: Scene) -> None:
    (prepared.folder / "boards.toml").unlink()
    assert "gateway prepare" in fails(2, "boards.toml")


def test_no_certificate(fails: Fail, prepared: Scene) -> None:
    (prepared.folder / "tls/gateway.pem").unlink()
    assert "gateway prepare" in fails(2, "gateway.pem")
    (prepared.folder / "tls/collector.key").unlink()
    assert "gateway prepare" in fails(2, "cannot be used")


@pytest.mark.parametrize("name", ["gateway", "collector"])
def test_an_expired_certificate(fails: Fail, prepared: Scene, name: str) -> None:
    ca = prepared.city.ca
    issue = {"gateway": ca.issue_gateway, "collector": ca.issue_collector}[name]
    key = prepare._present_key(prepared.folder / f"tls/{name}.key")
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    expired = issue(GATEWAY, valid_from=begin, valid_for=dt.timedelta(days=1), key=key)
    (prepared.folder / f"tls/{name}.pem").write_bytes(expired.certificate_pem)
    assert "gateway prepare" in fails(2, f"{name}.pem expired on 2020-01-02")


def test_a_certificate_of_another_ca(fails: Fail, prepared: Scene) -> None:
    other = authority.ensure(prepared.root / "other", "anderswo")
    key = prepare._present_key(prepared.folder / "tls/gateway.key")
    (prepared.folder / "tls/gateway.pem").write_bytes(
        other.issue_gateway(GATEWAY, key=key).certificate_pem
    )
    assert "gateway prepare" in fails(2, "is not from the CA")


def test_a_broker_with_another_gateways_name(fails: Fail, prepared: Scene) -> None:
    key = prepare._present_key(prepared.folder / "tls/gateway.key")
    (prepared.folder / "tls/gateway.pem").write_bytes(
        prepared.city.ca.issue_gateway("gw-nord", key=key).certificate_pem
    )
    assert GATEWAY in fails(2, "Hostname mismatch")


def test_a_port_in_use(fails: Fail, prepared: Scene) -> None:
    with socket.create_server(("127.0.0.1", prepared.port)):
        assert f":{prepared.port}" in fails(3, "Address already in use")


def test_an_address_that_is_not_here(fails: Fail, prepared: Scene) -> None:
    replaced(prepared.folder / "gateway.toml", 'listen = "127.0.0.1"', 'listen = "192.0.2.1"')
    assert "broker.listen" in fails(3, "cannot listen on 192.0.2.1")


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NETZPULS_TOOLS", str(tmp_path))
    monkeypatch.setattr(tool, "_SYSTEM_FOLDERS", ())
    tool.find.cache_clear()
    yield
    tool.find.cache_clear()


def test_no_mosquitto(fails: Fail, prepared: Scene, no_tools: None) -> None:
    assert "apt install mosquitto" in fails(3, "mosquitto is not on this machine")
    replaced(prepared.folder / "gateway.toml", "[broker]", '[broker]\nprogram = "/no/mosquitto"')
    assert "broker.program" in fails(3, "/no/mosquitto")


def test_a_mosquitto_that_does_not_start(fails: Fail, prepared: Scene) -> None:
    replaced(prepared.folder / "gateway.toml", "[broker]", '[broker]\nprogram = "/bin/false"')
    fails(3, "mosquitto ended at once (exit code 1)")


def test_a_damaged_database(fails: Fail, prepared: Scene) -> None:
    path = prepared.folder / "reports.db"
    path.write_bytes(b"no database" * 1000)
    assert "move the file away" in fails(2, "reports.db cannot be used")
    assert path.read_bytes() == b"no database" * 1000


def test_a_gateway_that_runs_already(scene: Scene) -> None:
    with served(scene) as gateway:
        with RunningGateway(scene.folder) as second:
            assert second.process.wait(20) == 3
        pid = gateway.process.pid
        assert any(f"already (process {pid})" in line for line in second.lines)
        assert gateway.process.poll() is None


def test_reading_says_what_is_missing(
    prepared: Scene, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["gateway", "read", "--dir", str(prepared.folder)])
    assert ended.value.code == 2
    said = capsysbinary.readouterr()
    assert said.out == b""
    assert b"reports.db" in said.err


def test_a_gateway_whose_disk_is_full_starts_with_what_it_has(
    prepared: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(prepared.folder)
    chosen = settings.load(folder)
    broker.write(folder, chosen)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file, "write", full)
    broker.write(folder, chosen)
    other = chosen.model_copy(update={"id": "gw-nord"})
    with pytest.raises(GatewayError, match="No space left"):
        broker.write(folder, other)
