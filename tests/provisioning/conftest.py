"""A small city, and what a technician brings to the desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.board.application import PARTITIONS, build_image
from hil.board.image import DATA, FAT, Partition
from provisioning.flash import FlashRequest
from tests.provisioning import bench
from tests.provisioning.bench import WLAN_KEY, Board

INVENTORY = """\
version = 1
[city]
id = "exampleville"
name = "Exampleville"
[measurement]
period_s = 60
resolver = { name = "probe.example.org", address = "203.0.113.80" }
internet = { address = "203.0.113.80", host = "probe.example.org" }
[wlan.school]
ssid = "Schulnetz"
[wlan.open]
ssid = "Stadtnetz"
security = "open"
[wlan.office]
ssid = "Rathaus"
security = "wpa2-enterprise"
[district.north]
name = "North"
[gateway.gw-north]
host = "192.0.2.10"
broker_host = "10.1.0.2"
[site.school-north]
name = "School North"
district = "north"
gateway = "gw-north"
wlan = "school"
rooms = ["R101", "R102"]
[site.market]
name = "Market"
kind = "hotspot"
district = "north"
gateway = "gw-north"
wlan = "open"
rooms = ["Fountain"]
[site.hall]
name = "City hall"
kind = "office"
district = "north"
gateway = "gw-north"
wlan = "office"
rooms = ["1"]
"""


VFS = Partition(DATA, FAT, 0x200000, 0x200000, "vfs")


@pytest.fixture
def city(tmp_path: Path) -> Path:
    folder = tmp_path / "city"
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    (folder / "inventory.toml").write_text(INVENTORY)
    (folder / "secrets" / ".gitignore").write_text("*\n")
    (folder / "secrets" / "wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
    return folder


@pytest.fixture(scope="session")
def older_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one as images were before 1.26: their partition table names the place for files."""
    path = tmp_path_factory.mktemp("image") / "older.bin"
    path.write_bytes(build_image(partitions=(*PARTITIONS, VFS)))
    return path


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "stand-in.bin"
    path.write_bytes(build_image())
    return path


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
