"""config.json: from the inventory, with the WLAN's key, and never the key alone in an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet import inventory
from fleet.errors import ConfigurationError, UsageError
from fleet.inventory import Role
from provisioning import configuration, hashkey
from provisioning.errors import WlanKeyError
from tests.provisioning.bench import WLAN_KEY
from tests.provisioning.conftest import INVENTORY

BOARD = "np-240ac4123456"


def test_what_a_board_is_told(city: Path) -> None:
    content = configuration.configuration(
        inventory.load(city),
        configuration.Recipient(
            board=BOARD,
            key_id=3,
            site="school-north",
            role="classroom-sensor",
            wlan_keys={"school": WLAN_KEY},
            hash_key=bytes(range(16)),
        ),
    )
    assert content == {
        "version": 1,
        "board": BOARD,
        "key_id": 3,
        "role": "classroom-sensor",
        "period_s": 60,
        "wlan": {"ssid": "Schulnetz", "key": WLAN_KEY, "security": "wpa2-psk", "bssids": []},
        "uplink": {"host": "10.1.0.2", "port": 8883, "server_name": "gw-north"},
        "resolver": {"name": "probe.example.org", "address": "203.0.113.80"},
        "internet": {
            "address": "203.0.113.80",
            "port": 80,
            "host": "probe.example.org",
            "path": "/generate_204",
        },
        "ntp": "pool.ntp.org",
        "thresholds": {
            "rssi_dbm": -75,
            "crowded_networks": 8,
            "lease_ms": 3000,
            "gateway_loss_percent": 10,
            "gateway_rtt_ms": 100,
            "resolver_ms": 500,
            "internet_ms": 1000,
            "throughput_kbit_s": 2000,
            "service_ms": 3000,
            "certificate_days": 14,
            "co2_ppm": [1000, 2000],
        },
        "hash_key": "000102030405060708090a0b0c0d0e0f",
    }
    encoded = configuration.encode(content)
    configuration.check(encoded)
    assert json.loads(encoded) == content
    assert encoded == configuration.encode(dict(reversed(content.items())))


def test_deadlines_are_passed_on(city: Path) -> None:
    text = INVENTORY.replace("period_s = 60", "period_s = 60\ndeadline_ms = { cycle = 20000 }")
    (city / "inventory.toml").write_text(text)
    content = configuration.configuration(
        inventory.load(city),
        configuration.Recipient(
            board=BOARD,
            key_id=1,
            site="market",
            role="ap-monitor",
            wlan_keys={"open": ""},
            hash_key=bytes(16),
        ),
    )
    assert content["deadline_ms"] == {"cycle": 20000}


RICH = (
    INVENTORY.replace(
        "[wlan.school]",
        """\
ntp = "ntp.example.org"
roots = "roots.pem"
[[measurement.target]]
host = "one.example.org"
address = "203.0.113.82"
[[measurement.target]]
host = "two.example.org"
address = "203.0.113.83"
port = 8443
[[measurement.service]]
name = "Lernplattform"
host = "lernen.example.org"
[[measurement.service]]
name = "Vertretungsplan"
host = "plan.example.org"
tls = false
path = "/heute"
[measurement.throughput]
host = "probe.example.org"
address = "203.0.113.80"
path = "/256k"
[hardware.corridor]
lan = "olimex-esp32-poe"
sensors = ["scd4x", "sht4x"]
i2c = { sda = 13, scl = 16 }
light = 4
led = 0
[wlan.school]
bssids = ["02:00:00:00:00:01"]""",
    )
    .replace(
        'address = "203.0.113.80" }', 'address = "203.0.113.80", reference = "203.0.113.53" }', 1
    )
    .replace(
        'security = "open"',
        """\
security = "open"
portal = { host = "login.example.org", address = "203.0.113.81", path = "/login" }""",
    )
    .replace(
        'rooms = ["R101", "R102"]',
        """\
rooms = ["R101", "R102"]
watch = ["open"]
bssids = { open = ["02:00:00:00:00:02"] }
dhcp_servers = ["10.1.0.1"]""",
    )
)


def _rich(city: Path, role: Role, site: str = "school-north", **more: str) -> dict[str, Any]:
    (city / "inventory.toml").write_text(RICH)
    content = configuration.configuration(
        inventory.load(city),
        configuration.Recipient(
            board=BOARD,
            key_id=1,
            site=site,
            role=role,
            wlan_keys=configuration.wlan_keys(inventory.load(city), site, role),
            hash_key=bytes(range(16)),
            **more,
        ),
    )
    configuration.check(configuration.encode(content))
    return content


def test_an_ap_monitor_is_told_all_there_is(city: Path) -> None:
    content = _rich(city, "ap-monitor", hardware="corridor")
    assert content["wlan"]["bssids"] == ["02:00:00:00:00:01"]
    assert "portal" not in content["wlan"]
    assert content["watch"] == [
        {
            "ssid": "Stadtnetz",
            "key": "",
            "security": "open",
            "bssids": ["02:00:00:00:00:02"],
            "portal": {
                "host": "login.example.org",
                "address": "203.0.113.81",
                "port": 443,
                "path": "/login",
                "tls": True,
            },
        }
    ]
    assert content["ntp"] == "ntp.example.org"
    assert content["resolver"]["reference"] == "203.0.113.53"
    assert content["dhcp_servers"] == ["10.1.0.1"]
    assert content["targets"] == [
        {"host": "one.example.org", "address": "203.0.113.82", "port": 443},
        {"host": "two.example.org", "address": "203.0.113.83", "port": 8443},
    ]
    service = {"host": "lernen.example.org", "port": 443, "path": "/", "tls": True, "status": 200}
    assert content["services"][0] == {"name": "Lernplattform", **service}
    assert content["services"][1]["port"] == 80
    assert content["throughput"] == {
        "host": "probe.example.org",
        "address": "203.0.113.80",
        "port": 80,
        "path": "/256k",
        "bytes": 262144,
        "every": 60,
    }
    hardware = ("lan", "sensors", "i2c", "light", "led")
    assert {key: content[key] for key in hardware} == {
        "lan": "olimex-esp32-poe",
        "sensors": ["scd4x", "sht4x"],
        "i2c": {"sda": 13, "scl": 16},
        "light": 4,
        "led": 0,
    }


def test_a_classroom_sensor_watches_its_own_wlan_only(city: Path) -> None:
    content = _rich(city, "classroom-sensor")
    assert not {"watch", "lan", "sensors", "i2c", "light", "led"} & set(content)
    assert "portal" in _rich(city, "classroom-sensor", site="market")["wlan"]


def test_services_of_a_site_go_before_those_of_the_city(city: Path) -> None:
    text = RICH.replace(
        'rooms = ["Fountain"]',
        'rooms = ["Fountain"]\nservice = [{ name = "A", host = "a.example" }]',
    )
    (city / "inventory.toml").write_text(text)
    known = inventory.load(city)
    assert [service.name for service in known.services("market")] == ["A"]
    assert len(known.services("school-north")) == 2
    (city / "inventory.toml").write_text(text.replace('[{ name = "A", host = "a.example" }]', "[]"))
    assert inventory.load(city).services("market") == []


def test_an_enterprise_wlan_is_not_watched_either(city: Path) -> None:
    (city / "inventory.toml").write_text(RICH.replace('watch = ["open"]', 'watch = ["office"]'))
    known = inventory.load(city)
    with pytest.raises(UsageError, match=r"'office' of site 'school-north': wpa2-enterprise"):
        configuration.wlan_keys(known, "school-north", "ap-monitor")
    configuration.wlan_keys(known, "school-north", "classroom-sensor")


def test_unknown_hardware_is_answered_with_the_known(city: Path) -> None:
    (city / "inventory.toml").write_text(RICH)
    with pytest.raises(UsageError, match="no hardware 'c0rridor'") as caught:
        _rich(city, "ap-monitor", hardware="c0rridor")
    assert "corridor" in caught.value.hint


def test_the_hash_key_is_made_once_and_is_a_secret(city: Path) -> None:
    made = hashkey.ensure(city)
    path = city / "secrets" / "hash.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(made) == hashkey.KEY_BYTES
    assert hashkey.ensure(city) == made
    path.write_text("0123 4567 89ab cdef 0123 4567 89ab cd")
    with pytest.raises(ConfigurationError, match="is no hash key") as caught:
        hashkey.ensure(city)
    assert "0123" not in str(caught.value.document())
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot make or read"):
        hashkey.ensure(city)


@pytest.mark.parametrize(
    ("line", "changed", "reason"),
    [
        ('broker_host = "10.1.0.2"', 'broker_host = "broker.example.org"', "uplink.host"),
        ("period_s = 60", "period_s = 5\ndeadline_ms = { cycle = 5000 }", "deadline_ms.cycle"),
        ('name = "probe.example.org"', 'name = "prö be"', "resolver.name"),
    ],
)
def test_what_the_board_would_refuse_is_refused_here(
    city: Path, line: str, changed: str, reason: str
) -> None:
    assert line in INVENTORY
    (city / "inventory.toml").write_text(INVENTORY.replace(line, changed, 1))
    content = configuration.configuration(
        inventory.load(city),
        configuration.Recipient(
            board=BOARD,
            key_id=1,
            site="school-north",
            role="ap-monitor",
            wlan_keys={"school": WLAN_KEY},
            hash_key=bytes(range(16)),
        ),
    )
    with pytest.raises(ConfigurationError, match=reason) as caught:
        configuration.check(configuration.encode(content))
    assert "inventory.toml" in caught.value.hint
    assert WLAN_KEY not in str(caught.value.document())


def test_the_key_of_a_wlan(city: Path) -> None:
    loaded = inventory.load(city)
    assert configuration.wlan_keys(loaded, "school-north", "ap-monitor") == {"school": WLAN_KEY}
    assert configuration.wlan_keys(loaded, "market", "ap-monitor") == {"open": ""}


def test_enterprise_wlans_are_refused(city: Path) -> None:
    with pytest.raises(UsageError, match="wpa2-enterprise"):
        configuration.wlan_keys(inventory.load(city), "hall", "ap-monitor")


@pytest.mark.parametrize(
    "text",
    [
        None,
        f'[key]\nschool = "{"geheim12" * 8}"\n',
        "",
        "[key]\n",
        "key = 1\n",
        '[key]\nother = "12345678"\n',
        '[key]\nschool = "geheim7"\n',
        f'[key]\nschool = "{"geheim" * 11}"\n',
        '[key]\nschool = "geheim-ümlaut"\n',
        '[key]\nschool = ["geheim12"]\n',
        '[key]\nschool = "geheim12\n',
        "[key]\nschool = geheim12\n",
        "[key\nschool = geheim12\n",
        b'[key]\nschool = "geheim\xff12"\n',
    ],
)
def test_a_wrong_key_file_names_the_line_to_add_and_no_key(
    city: Path, text: str | bytes | None
) -> None:
    path = city / "secrets" / "wlan.toml"
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WlanKeyError) as caught:
        configuration.wlan_keys(inventory.load(city), "school-north", "ap-monitor")
    error = caught.value
    assert "wlan.toml" in error.message
    assert error.hint
    assert "geheim" not in json.dumps(error.document())
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("key", ["12345678", "x" * 63, 'with "quotes" and \\'])
def test_keys_that_a_wlan_can_have(city: Path, key: str) -> None:
    (city / "secrets" / "wlan.toml").write_text(f"[key]\nschool = {json.dumps(key)}\n")
    keys = configuration.wlan_keys(inventory.load(city), "school-north", "classroom-sensor")
    assert keys == {"school": key}
