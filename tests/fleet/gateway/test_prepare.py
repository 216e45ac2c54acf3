import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet import authority, cli
from fleet.errors import ConfigurationError, UsageError
from fleet.gateway import keyring, prepare, settings
from fleet.gateway.settings import Folder
from fleet.inventory import load
from tests.fleet.gateway.scene import GATEWAY, City, board_id


@pytest.fixture
def city(tmp_path: Path) -> City:
    return City(tmp_path / "city")


def written(plan: prepare.Plan) -> list[str]:
    return sorted(change.path.name for change in plan.changes)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_has_what_a_gateway_needs_and_no_more(city: City, tmp_path: Path) -> None:
    key = city.enrol(board_id(1))
    folder = tmp_path / "gw"
    city.prepare(folder)
    names = {str(path.relative_to(folder)) for path in contents(folder)}
    assert names == {
        ".gitignore",
        "gateway.toml",
        "boards.toml",
        *(f"tls/{name}" for name in ("ca.pem", "gateway.pem", "gateway.key")),
        *(f"tls/{name}" for name in ("collector.pem", "collector.key")),
    }
    for name in ("boards.toml", "tls/gateway.key", "tls/collector.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert (folder / ".gitignore").read_text() == "*\n"
    chosen = settings.load(Folder(folder))
    assert (chosen.id, chosen.broker.listen, chosen.broker.port) == (GATEWAY, "127.0.0.1", 8883)
    ca_key = (city.folder / "secrets/ca.key").read_bytes()
    assert all(ca_key not in content for content in contents(folder).values())
    assert key.hex() in (folder / "boards.toml").read_text()


def test_a_second_run_changes_nothing(city: City, tmp_path: Path) -> None:
    city.enrol(board_id(1))
    city.prepare(tmp_path / "gw")
    before = contents(tmp_path / "gw")
    assert written(city.prepare(tmp_path / "gw")) == []
    assert contents(tmp_path / "gw") == before


def test_boards_come_and_go_and_all_their_keys_with_them(city: City, tmp_path: Path) -> None:
    city.enrol(board_id(1))
    city.enrol(board_id(2))
    city.prepare(tmp_path / "gw")
    city.enrol(board_id(2), 2)
    city.revoke(board_id(1))
    assert written(city.prepare(tmp_path / "gw")) == ["boards.toml"]
    keys = keyring.load(tmp_path / "gw/boards.toml")
    assert board_id(1) not in keys
    assert keys.seal(board_id(2), 1)
    assert keys.latest_key_id(board_id(2)) == 2


def test_what_people_changed_in_the_settings_stays(city: City, tmp_path: Path) -> None:
    city.prepare(tmp_path / "gw")
    path = tmp_path / "gw/gateway.toml"
    path.write_text(path.read_text().replace("port = 8883", "port = 18883"))
    city.prepare(tmp_path / "gw")
    assert settings.load(Folder(tmp_path / "gw")).broker.port == 18883


def test_a_certificate_is_renewed_in_time_for_the_same_key(city: City, tmp_path: Path) -> None:
    city.prepare(tmp_path / "gw")
    key, path = tmp_path / "gw/tls/gateway.key", tmp_path / "gw/tls/gateway.pem"
    before = key.read_bytes()
    hosts = ["10.1.0.2", "gw-mitte.example"]
    soon = city.ca.issue_gateway(
        GATEWAY, hosts, valid_for=timedelta(days=100), key=prepare._present_key(key)
    )
    path.write_bytes(soon.certificate_pem)
    assert written(city.prepare(tmp_path / "gw")) == ["gateway.pem"]
    assert key.read_bytes() == before
    renewed = authority.read_certificate(path)
    assert renewed.not_valid_after_utc > datetime.now(UTC) + timedelta(days=600)


def test_a_certificate_of_another_ca_or_name_is_replaced(city: City, tmp_path: Path) -> None:
    city.prepare(tmp_path / "gw")
    other = authority.ensure(tmp_path / "other", "anderswo")
    (tmp_path / "gw/tls/collector.pem").write_bytes(other.issue_collector(GATEWAY).certificate_pem)
    (tmp_path / "gw/tls/gateway.pem").write_bytes(city.ca.issue_gateway("gw-nord").certificate_pem)
    assert written(city.prepare(tmp_path / "gw")) == ["collector.pem", "gateway.pem"]
    (tmp_path / "gw/tls/gateway.key").write_text("damaged")
    assert written(city.prepare(tmp_path / "gw")) == ["gateway.key", "gateway.pem"]


def test_what_is_wrong_in_the_city_leaves_the_folder_as_it_was(city: City, tmp_path: Path) -> None:
    city.enrol(board_id(1))
    city.prepare(tmp_path / "gw")
    before = contents(tmp_path / "gw")
    key = city.folder / f"secrets/keys/{board_id(1)}.1.key"
    key.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="is no report key"):
        city.prepare(tmp_path / "gw")
    key.unlink()
    with pytest.raises(ConfigurationError, match=f"the report key of {board_id(1)} is missing"):
        city.prepare(tmp_path / "gw")
    with pytest.raises(ConfigurationError, match="is missing"):
        city.prepare(tmp_path / "new")
    assert contents(tmp_path / "gw") == before
    assert not (tmp_path / "new").exists()


def test_a_folder_is_one_gateways(city: City, tmp_path: Path) -> None:
    city.prepare(tmp_path / "gw")
    with pytest.raises(UsageError, match="is the folder of 'gw-mitte', not of 'gw-nord'"):
        prepare.plan(
            load(city.folder), city.ca, "gw-nord", Folder(tmp_path / "gw"), listen="127.0.0.1"
        )


def test_the_command_says_what_it_did(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city.enrol(board_id(1))
    where = ["--dir", str(tmp_path / "gw"), "--city", str(city.folder), "--json"]
    for more, there in (["--dry-run"], False), ([], True):
        with pytest.raises(SystemExit) as ended:
            cli.main(["gateway", "prepare", GATEWAY, *where, *more])
        document = json.loads(capsys.readouterr().out)
        assert ended.value.code == 0
        assert document["ok"]
        assert document["boards"] == 1
        assert len(document["written"]) == 7
        assert (tmp_path / "gw").exists() is there
    with pytest.raises(SystemExit) as ended:
        cli.main(["gateway", "prepare", "gw-sued", *where])
    assert ended.value.code == 2
    assert "no gateway 'gw-sued'" in json.loads(capsys.readouterr().out)["error"]["message"]
