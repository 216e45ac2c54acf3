"""config.json: from the inventory, with the WLAN's key, and never the key alone in an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet import inventory
from fleet.errors import ConfigurationError, UsageError
from provisioning import configuration
from provisioning.errors import WlanKeyError
from tests.provisioning.conftest import INVENTORY, WLAN_KEY

BOARD = "np-240ac4123456"


def test_what_a_board_is_told(city: Path) -> None:
    content = configuration.configuration(
        inventory.load(city),
        board=BOARD,
        key_id=3,
        site="school-north",
        role="classroom-sensor",
        wlan_key=WLAN_KEY,
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
        "thresholds": {
            "rssi_dbm": -75,
            "gateway_loss_percent": 20,
            "gateway_rtt_ms": 100,
            "resolver_ms": 500,
            "internet_ms": 1000,
        },
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
        board=BOARD,
        key_id=1,
        site="market",
        role="ap-monitor",
        wlan_key="",
    )
    assert content["deadline_ms"] == {"cycle": 20000}


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
        board=BOARD,
        key_id=1,
        site="school-north",
        role="ap-monitor",
        wlan_key=WLAN_KEY,
    )
    with pytest.raises(ConfigurationError, match=reason) as caught:
        configuration.check(configuration.encode(content))
    assert "inventory.toml" in caught.value.hint
    assert WLAN_KEY not in str(caught.value.document())


def test_the_key_of_a_wlan(city: Path) -> None:
    loaded = inventory.load(city)
    assert configuration.wlan_key(loaded, "school-north") == WLAN_KEY
    assert configuration.wlan_key(loaded, "market") == ""


def test_enterprise_wlans_are_refused(city: Path) -> None:
    with pytest.raises(UsageError, match="wpa2-enterprise"):
        configuration.wlan_key(inventory.load(city), "hall")


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
        configuration.wlan_key(inventory.load(city), "school-north")
    error = caught.value
    assert "wlan.toml" in error.message
    assert error.hint
    assert "geheim" not in json.dumps(error.document())
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("key", ["12345678", "x" * 63, 'with "quotes" and \\'])
def test_keys_that_a_wlan_can_have(city: Path, key: str) -> None:
    (city / "secrets" / "wlan.toml").write_text(f"[key]\nschool = {json.dumps(key)}\n")
    assert configuration.wlan_key(inventory.load(city), "school-north") == key
