"""The radio model: what it accepts, and how it says what is wrong."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.board import radio as radio_module
from hil.board.error import RadioError
from hil.board.radio import Radio

POINT: dict[str, Any] = {
    "ssid": "school",
    "bssid": "A4:2B:B0:00:00:01",
    "channel": 6,
    "rssi_dbm": -58,
    "security": "wpa2-psk",
    "key": "correct horse",
    "network": {
        "address": "10.1.0.23",
        "netmask": "255.255.255.0",
        "gateway": "10.1.0.1",
        "resolver": "10.1.0.1",
        "routes": [
            {"protocol": "icmp", "address": "10.1.0.1", "to": "127.0.0.1:9"},
            {
                "protocol": "tcp",
                "address": "203.0.113.80",
                "port": 80,
                "to": "127.0.0.1:9",
                "line": True,
            },
        ],
    },
}


def document(**changes: Any) -> dict[str, Any]:
    return {"access_points": [copy.deepcopy(POINT) | changes]}


def test_the_example_in_the_docstring_is_valid() -> None:
    text = str(radio_module.__doc__)
    Radio(json.loads(text[text.index("{") : text.rindex("}") + 1]))


def test_a_model_is_read_and_given_back() -> None:
    radio = Radio(document())
    (point,) = radio.in_air()
    assert point.bssid == "a4:2b:b0:00:00:01"
    assert radio.document() == document()
    assert point.network is not None
    assert point.network.knows("10.1.0.1")
    assert not point.network.knows("10.1.0.2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssid": "x" * 33}, r"access_points\[0\].ssid must be text of 1 to 32 bytes"),
        ({"bssid": "a4:2b"}, "bssid must look like"),
        ({"channel": True}, "channel must be a whole number from 1 to 14"),
        ({"rssi_dbm": 5}, "rssi_dbm must be"),
        ({"security": "wep"}, "must be one of open, wpa2-psk, wpa3-sae, wpa2-enterprise"),
        ({"key": "short"}, "needs a key"),
        ({"up": 1}, "up must be true or false"),
        ({"power": 1}, "has no key 'power'; it has: ssid, bssid"),
        ({"network": 3}, "network must be an object"),
        ({"network": {"address": "10.1.0.1"}}, "network lacks the key 'netmask'"),
        (
            {"network": POINT["network"] | {"routes": [{"protocol": "sctp"}]}},
            r"network.routes\[0\].protocol must be one of",
        ),
        (
            {
                "network": POINT["network"]
                | {"routes": [{"protocol": "tcp", "address": "1.2.3.4", "to": "127.0.0.1:9"}]}
            },
            "port is for udp and tcp",
        ),
        (
            {
                "network": POINT["network"]
                | {"routes": [{"protocol": "icmp", "address": "1.2.3.4", "to": "8.8.8.8:53"}]}
            },
            "must be a port on loopback",
        ),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(changes: dict[str, Any], message: str) -> None:
    radio = Radio(document())
    with pytest.raises(RadioError, match=message):
        radio.set(document(**changes))
    assert radio.document() == document()


def test_a_bssid_is_there_once() -> None:
    with pytest.raises(RadioError, match="twice"):
        Radio({"access_points": [POINT, POINT]})


def test_changes_reach_all_access_points_of_a_name_and_keep_the_rest() -> None:
    other = POINT | {"bssid": "a4:2b:b0:00:00:02"}
    radio = Radio({"access_points": [POINT, other]})
    assert radio.change("school", {"network": {"line_up": False}}) == 2
    for point in radio.access_points:
        assert point.network is not None
        assert not point.network.line_up
        assert len(point.network.routes) == 2
    assert radio.change("school", {"up": False}, "a4:2b:b0:00:00:02") == 1
    assert [point.bssid for point in radio.in_air()] == ["a4:2b:b0:00:00:01"]
    with pytest.raises(RadioError, match="there are: school"):
        radio.change("home", {"up": False})


@pytest.mark.parametrize("text", ["{", "[]", '{"access_points": 3}', '{"other": []}', "\xff"])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "radio.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RadioError, match=r"radio\.json"):
        Radio.load(path)
    path.write_text("[" * 5000, encoding="utf-8")
    with pytest.raises(RadioError, match="is not JSON"):
        Radio.load(path)
    with pytest.raises(RadioError, match="cannot be read"):
        Radio.load(tmp_path / "missing.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from([*POINT, "up", "hidden"]), JSON)
def test_hostile_values_only_ever_raise_radio_errors(key: str, value: Any) -> None:
    with contextlib.suppress(RadioError):
        Radio(document(**{key: value}))
