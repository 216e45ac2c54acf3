"""Extension blocks as people see them: golden vectors, and an answer for whatever comes."""

from __future__ import annotations

import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import port
from firmware.linkreport import block
from firmware.linkreport import report as wire
from fleet import detail

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "block-v1.json").read_text())
NUMBERS = [kind.number for kind in detail.KINDS]


def _extension(number: int, content: bytes) -> bytes:
    raw: bytes = wire.extension(number, content)
    return raw


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_a_golden_block(case: dict[str, Any]) -> None:
    assert detail.decode(_extension(case["kind"], bytes.fromhex(case["content"]))) == case["shown"]


@pytest.mark.parametrize("case", GOLDEN["malformed"], ids=lambda case: case["name"])
def test_what_is_no_block_is_told(case: dict[str, Any]) -> None:
    assert detail.decode(bytes.fromhex(case["extensions"])) == case["shown"]


def test_every_kind_is_known_by_its_number_and_format() -> None:
    numbers = {
        name: value
        for name, value in vars(block).items()
        if name.isupper() and isinstance(value, int)
    }
    assert {kind.name.upper(): kind.number for kind in detail.KINDS} == numbers
    for kind in detail.KINDS:
        assert kind.format == getattr(block, f"{kind.name.upper()}_FORMAT", "")


def test_the_names_of_securities_are_those_of_the_port() -> None:
    numbers = {"open": port.OPEN, "personal": port.PERSONAL, "enterprise": port.ENTERPRISE}
    assert {name: number for number, name in enumerate(detail.SECURITIES)} == numbers


def test_the_core_says_only_what_was_measured() -> None:
    fields: dict[str, Any] = dict.fromkeys(wire.Report._fields, 0)
    nothing = {
        "channel": 0xFF,
        "association_ms": 0xFFFF,
        "addressing_ms": 0xFFFF,
        "gateway_rtt_us": 0xFFFFFFFF,
        "gateway_loss_percent": 0xFF,
        "resolver_ms": 0xFFFF,
        "internet_connect_ms": 0xFFFF,
        "internet_http_ms": 0xFFFF,
        "http_status": 0xFFFF,
        "heap_free_bytes": 0xFFFFFFFF,
        "spool_reports": 0xFFFF,
        "error_count": 0xFFFF,
        "bssid": bytes(6),
        "layer_reasons": bytes(9),
    }
    assert detail.core(wire.Report(**fields | nothing)) == {}
    some = {"rssi_dbm": -61, "gateway_loss_percent": 0, "bssid": bytes.fromhex("a42bb0000001")}
    assert detail.core(wire.Report(**fields | nothing | some)) == {
        "rssi_dbm": -61,
        "gateway_loss_percent": 0,
        "bssid": "a4:2b:b0:00:00:01",
    }


@given(st.binary(max_size=255))
def test_whatever_comes_has_an_answer_that_json_can_say(raw: bytes) -> None:
    json.dumps(detail.decode(raw))


_blocks = st.lists(
    st.tuples(st.sampled_from(NUMBERS) | st.integers(0, 255), st.binary(max_size=40)), max_size=6
)


@given(_blocks)
def test_nothing_is_dropped(blocks: list[tuple[int, bytes]]) -> None:
    shown = detail.decode(b"".join(_extension(*each) for each in blocks))
    unread = len(shown.pop("unknown", [])) + len(shown.pop("malformed", []))
    assert len(shown) + unread == len(blocks)
    assert set(shown) <= {kind.name for kind in detail.KINDS}


@st.composite
def _structures(draw: st.DrawFn) -> tuple[detail.Kind, list[tuple[Any, ...]], bytes]:
    kind = draw(st.sampled_from([kind for kind in detail.KINDS if kind.format]))
    size = struct.calcsize(kind.format)
    count = draw(st.integers(0, 5)) if kind.many else 1
    content = draw(st.binary(min_size=size * count, max_size=size * count))
    return kind, list(struct.iter_unpack(kind.format, content)), content


@given(_structures())
def test_numbers_are_shown_as_they_are_or_as_nothing(
    drawn: tuple[detail.Kind, list[tuple[Any, ...]], bytes],
) -> None:
    kind, structures, content = drawn
    shown = detail.decode(_extension(kind.number, content))[kind.name]
    entries = shown if kind.many else [shown]
    for entry, values in zip(entries, structures, strict=True):
        assert len(entry) == len(kind.fields)
        for (name, show), value in zip(kind.fields, values, strict=True):
            if show is None:
                assert entry[name] in (value, None)
                assert entry[name] == value or value in (
                    255, 65535, 4294967295, -128, -32768, -(1 << 31)
                )  # fmt: skip


@given(st.text(max_size=60))
def test_texts_hold_no_control_characters(text: str) -> None:
    shown = detail.decode(_extension(block.ERROR, text.encode()[:255]))["error"]
    assert not [c for c in shown if unicodedata.category(c)[0] == "C"]
