"""A city with a gateway, and city hall's login there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fleet.cli
from fleet import inventory
from fleet.authority import Identity
from fleet.collect import Collected, collect
from tests.fleet.conftest import Login
from tests.fleet.gateway.scene import GATEWAY, Board, Scene, board_id

STOLEN, KEPT = board_id(1), board_id(2)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


class Enrolled:
    """A scene whose gateway city hall can log in on, with two boards."""

    def __init__(self, scene: Scene, login: Login) -> None:
        self.scene = scene
        city = scene.city.folder
        entry = (
            f'host = "{login.server.host}"\nssh_port = {login.server.port}\n'
            f'user = "{login.server.user}"\nhost_key = "{login.server.host_key}"\n'
            f'identity_file = "{login.identity}"\ndata_dir = "{scene.folder}"\n'
        )
        path = city / "inventory.toml"
        path.write_text(path.read_text().replace('host = "gw-mitte.example"\n', entry))
        self.keys = {name: scene.city.enrol(name) for name in (STOLEN, KEPT)}
        self.identities: dict[str, Identity] = {}
        (city / "boards").mkdir()
        for name in self.keys:
            self.identities[name] = scene.city.ca.issue_board(name)
            (city / "boards" / f"{name}.pem").write_bytes(self.identities[name].certificate_pem)

    @property
    def city(self) -> Path:
        return self.scene.city.folder

    def board(self, name: str) -> Board:
        return Board(self.scene.connection(self.identities[name]), name, self.keys[name])

    def collect(self) -> Collected:
        (result,) = collect(inventory.load(self.city), [GATEWAY])
        return result

    def run(self, *arguments: str) -> int:
        with pytest.raises(SystemExit) as exited:
            fleet.cli.main(["board", *arguments, "--city", str(self.city)])
        assert isinstance(exited.value.code, int)
        return exited.value.code


@pytest.fixture
def enrolled(scene: Scene, login: Login, monkeypatch: pytest.MonkeyPatch) -> Enrolled:
    # What runs as a process of its own is this checkout, too.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    return Enrolled(scene, login)
