"""The inventory says what is wrong with it, and where."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import get_args

import pytest

import firmware
from fleet import inventory
from fleet.errors import ConfigurationError, UsageError

GOOD = """
version = 1

[city]
id = "musterstadt"
name = "Musterstadt"

[measurement]
resolver = {name = "probe.example", address = "203.0.113.80"}
internet = {host = "probe.example", address = "203.0.113.80"}

[wlan.school]
ssid = "Schule"

[district.mitte]
name = "Mitte"

[gateway.gw-mitte]
host = "gw-mitte.example"
broker_host = "10.1.0.2"

[site.goethe-schule]
name = "Goethe-Schule"
district = "mitte"
gateway = "gw-mitte"
wlan = "school"
rooms = ["101", "102"]
"""

BENCH = """
[bench]
wlan = "school"
broker_host = "10.9.0.2"
"""

BOARD = """
version = 1

[board.np-240ac4123456]
site = "goethe-schule"
room = "101"
role = "classroom-sensor"
key_id = 1
chip = "ESP32"
mac = "24:0a:c4:12:34:56"
agent = "0.1.0"
enrolled = 2026-11-22T07:00:00Z
certificate_expires = 2036-11-22T07:00:00Z
"""


TARGET = '[[measurement.target]]\nhost = "one.example"\naddress = "203.0.113.82"\n'
A = 'name = "A", host = "a.example"'
SERVICE = '[[measurement.service]]\nname = "A"\nhost = "a.example"\n'
PLAIN = SERVICE + "tls = false\n"
SMALL = """[measurement.throughput]
host = "a.example"
address = "203.0.113.82"
path = "/small"
bytes = 16383
"""


def _city(folder: Path, text: str, registry: str | None = None) -> Path:
    (folder / "inventory.toml").write_text(text, encoding="utf-8")
    if registry is not None:
        (folder / "registry.toml").write_text(registry, encoding="utf-8")
    return folder


def test_a_good_inventory_with_its_boards(tmp_path: Path) -> None:
    city = inventory.load(_city(tmp_path, GOOD, BOARD))
    assert city.city.timezone == "Europe/Berlin"
    assert city.measurement.thresholds.rssi_dbm == -75
    assert city.room("goethe-schule", "102") == "102"
    assert list(city.boards_of_gateway("gw-mitte")) == ["np-240ac4123456"]


def test_revoked_boards_report_to_no_gateway(tmp_path: Path) -> None:
    city = inventory.load(_city(tmp_path, GOOD, BOARD + "revoked = 2026-12-01T00:00:00Z\n"))
    assert city.boards
    assert city.boards_of_gateway("gw-mitte") == {}


def test_values_that_are_nested_too_deep_are_no_defect(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nested too deep"):
        inventory.load(_city(tmp_path, f"a = {'[' * 5000}"))


@pytest.mark.parametrize("target", ["nowhere.toml", "registry.toml", "."])
def test_a_registry_that_leads_nowhere_is_not_an_empty_one(tmp_path: Path, target: str) -> None:
    (tmp_path / "registry.toml").symlink_to(target)
    with pytest.raises(ConfigurationError, match=r"cannot read .*registry\.toml"):
        inventory.load(_city(tmp_path, GOOD))


def test_a_pipe_for_a_registry_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "registry.toml")
    with pytest.raises(ConfigurationError, match="it is no file"):
        inventory.load(_city(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('ssid = "Schule"', 'ssid = "Schule"\nsid = "x"', "unknown key wlan.school.sid"),
        ('id = "musterstadt"\n', "", "city.id is missing"),
        ("[district.mitte]", "[district.Mitte]", "district.Mitte"),
        ("[district.mitte]", "[district.gate/way]", "not valid TOML"),
        ('district = "mitte"', 'district = "nord"', "there is no [district.nord]"),
        ('gateway = "gw-mitte"', 'gateway = "gw-x"', "there is no [gateway.gw-x]"),
        ('wlan = "school"', 'wlan = "guest"', "there is no [wlan.guest]"),
        ('["101", "102"]', '["101", "101"]', "'101' stands there twice"),
        (
            "[district.mitte]",
            BENCH.replace("school", "x") + "[district.mitte]",
            "bench.wlan: there is no [wlan.x]",
        ),
        (
            "[district.mitte]",
            BENCH + '[gateway.bench]\nhost = "x"\nbroker_host = "10.9.0.3"\n[district.mitte]',
            "gateway.bench: this id is that of the desk's own",
        ),
        ('["101", "102"]', "[]", "site.goethe-schule.rooms"),
        ("[wlan.school]", "[district.mitte]\n[wlan.school]", "stands there twice"),
        ('ssid = "Schule"', "ssid = ", "not valid TOML"),
        ('ssid = "Schule"', f'ssid = "{"ü" * 17}"', "an SSID has 1 to 32 bytes"),
        ('"203.0.113.80"}', '"203.0.113.800"}', "no IPv4 address"),
        ("[wlan.school]", "[measurement.deadline_ms]\nradoi = 9\n[wlan.school]", "ms.radoi: "),
        ('"10.1.0.2"', '"10.1.0.2"\ncommand = "netz\'puls"', "command: No closing quotation"),
        ('"10.1.0.2"', '"10.1.0.2"\ncommand = " "', "command: no command"),
        ('host = "gw-mitte.example"', 'host = ""', "gateway.gw-mitte.host"),
        ('name = "Musterstadt"', 'name = "M"\ntimezone = "Europe/Nowhere"', "no time zone"),
        ("version = 1", "version = 2", "version"),
        ("[wlan.school]", f"{TARGET}[wlan.school]", "measurement.roots is missing"),
        ("[wlan.school]", f"{SERVICE}[wlan.school]", "it verifies measurement.service over TLS"),
        ("[wlan.school]", f"{PLAIN}{PLAIN}[wlan.school]", "measurement.service: 'A' stands there"),
        ("[wlan.school]", f"{PLAIN * 5}[wlan.school]", "measurement.service: "),
        ("[wlan.school]", f"{TARGET * 3}[wlan.school]", "measurement.target: "),
        ('rooms = ["101"', f'service = [{{{A}}}]\nrooms = ["101"', "site.goethe-schule.service"),
        (
            'wlan = "school"',
            'wlan = "school"\nwatch = ["guest"]',
            "watch: there is no [wlan.guest]",
        ),
        ('wlan = "school"', 'wlan = "school"\nwatch = ["school"]', "is measured already"),
        ('wlan = "school"', 'wlan = "school"\nbssids = {x = []}', "bssids: there is no [wlan.x]"),
        ('wlan = "school"', 'wlan = "school"\ndhcp_servers = ["x"]', "'x' is no IPv4 address"),
        ("[wlan.school]", "[wlan.school]\nbssids = ['02-00']", "wlan.school.bssids.0"),
        ("[wlan.school]", "[hardware.none]\n[wlan.school]", "hardware.none: this id means"),
        ("[wlan.school]", "[hardware.x]\nsensors = ['scd4x']\n[wlan.school]", "x.i2c is missing"),
        ("[wlan.school]", "[hardware.x]\nlan = 'olimex'\n[wlan.school]", "hardware.x.lan"),
        (
            "[wlan.school]",
            "[hardware.x]\nlan = 'wt32-eth01'\nled = 21\n[wlan.school]",
            "hardware.x: pin 21 is the Ethernet's",
        ),
        ("[wlan.school]", "[hardware.x]\nlight = 2\nled = 2\n[wlan.school]", "pin 2 is used twice"),
        (
            "[wlan.school]",
            "[hardware.x]\nlight = [25, 26, 27]\nled = 26\n[wlan.school]",
            "pin 26 is used twice",
        ),
        ("[wlan.school]", "[hardware.x]\nlight = [25, 26]\n[wlan.school]", "hardware.x.light"),
        ("[wlan.school]", "[hardware.x]\nled = 34\n[wlan.school]", "hardware.x.led"),
        ("[wlan.school]", "[hardware.x]\nled = 6\n[wlan.school]", "pin of the console (1, 3)"),
        ("[wlan.school]", "[hardware.x]\nled = 28\n[wlan.school]", "must be a pin there is"),
        ("[wlan.school]", "[measurement.thresholds]\nco2_ppm = [9, 9]\n[wlan.school]", "co2_ppm"),
        ("[wlan.school]", f"{SMALL}[wlan.school]", "measurement.throughput.bytes"),
        (
            "[wlan.school]",
            "[measurement.thresholds]\nco2_ppm = [900, 800]\n[wlan.school]",
            "must be above the first",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        inventory.load(_city(tmp_path, GOOD.replace(old, new)))
    assert said in caught.value.message
    assert "inventory.toml" in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('room = "101"', 'room = "999"', "which site 'goethe-schule' does not list"),
        ('site = "goethe-schule"', 'site = "x"', "unknown site 'x'"),
        ("np-240ac4123456", "np-a/b", "not valid TOML"),
        ("np-240ac4123456", "np-240AC4123456", "registry.toml"),
        ("key_id = 1", "key_id = 0", "key_id"),
        ("key_id = 1", 'key_id = 1\nhardware = "x"', "has an unknown hardware 'x'"),
    ],
)
def test_a_fault_in_the_registry(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        inventory.load(_city(tmp_path, GOOD, BOARD.replace(old, new)))
    assert said in caught.value.message


def test_the_ethernet_presets_are_those_of_the_board() -> None:
    source = Path(firmware.__file__).parent / "port" / "lan.py"  # imports what only a board has
    (boards,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_BOARDS"
    ]
    assert set(get_args(inventory.Lan)) == set(boards)


def test_no_inventory_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no inventory\.toml"):
        inventory.load(tmp_path)
    (tmp_path / "inventory.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        inventory.load(tmp_path)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    city = inventory.load(_city(tmp_path, GOOD))
    with pytest.raises(UsageError) as caught:
        city.site("schiller")
    assert "goethe-schule" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        city.room("goethe-schule", "7")
    assert "101, 102" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        city.gateway("gw")
    assert "gw-mitte" in caught.value.hint
