"""docs/wire.md is what others build on: it must name every reason and every block, and no more."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from firmware.linkreport import report as wire
from firmware.linkreport import table, term
from fleet import detail
from fleet.store import schema

TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()

# Everything that can name a network device. A client's address has no place to stand in.
OWN_OR_HASHED = {
    ("own", "bssid"),  # own access points
    ("foreign", "hash"),  # keyed, rotating
    ("lease", "server"),  # a DHCP server, which is no client
}


def _section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _rows(section: str) -> list[list[str]]:
    rows = re.findall(r"^\| (\d+ \|.*) \|$", _section(section), flags=re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def test_every_reason_stands_there_with_its_state() -> None:
    rows = _rows("States, layers, reasons")
    assert {int(number): name.strip("`") for number, name, *_ in rows} == term.REASONS
    for number, _, layer, state, seen in rows:
        assert state == term.STATES[table.reason_state(int(number))]
        assert seen
        tens = (int(number) // 10) % 10  # 170 is the internet's, too
        assert layer == (term.LAYERS[tens] if tens else "any")


def test_every_block_stands_there_with_its_fields() -> None:
    rows = {int(number): rest for number, *rest in _rows("Extension blocks")}
    assert set(rows) == {kind.number for kind in detail.KINDS}
    for kind in detail.KINDS:
        name, structure, fields = rows[kind.number]
        assert name == f"`{kind.name}`"
        many = "*list* " if kind.many else ""
        assert structure == (f"{many}`{kind.format}`" if kind.format else "text")
        assert re.findall(r"`([a-z_0-9]+)`", fields) == [field for field, _ in kind.fields]


def test_every_field_of_the_core_stands_there_in_its_order() -> None:
    rows = re.findall(r"^\| (?:\d+|n.*) \| `(\w+)` \|", _section("Report"), flags=re.MULTILINE)
    assert rows == [*wire.Report._fields[:-1], "link", "tag"]


def test_every_trouble_stands_there() -> None:
    found = dict(re.findall(r"(\d+)\s+`([a-z-]+)`", _section("Extension blocks")))
    assert {int(number): name for number, name in found.items()} == dict(enumerate(term.TROUBLES))


def test_no_block_and_no_column_can_hold_a_clients_address() -> None:
    # Only bytes can hold a MAC address, or a number of six bytes and more.
    places = set()
    for kind in detail.KINDS:
        if not kind.format:
            continue
        codes = re.findall(r"(\d*)([a-zA-Z])", kind.format)
        for (name, _), (count, code) in zip(kind.fields, codes, strict=True):
            assert code == "s" or struct.calcsize(">" + code) <= 4
            if code == "s" and name != "foreign_by_channel":
                places.add((kind.name, name))
                assert int(count) <= 6
    assert places == OWN_OR_HASHED
    # 14 nibbles are counts of networks.
    (air,) = [kind for kind in detail.KINDS if kind.name == "air"]
    assert detail.decode(wire.extension(air.number, bytes(11)))["air"]["foreign_by_channel"] == (
        [0] * 14
    )

    columns = {name: kind for name, kind in schema.COLUMNS.items() if kind in ("BLOB", "VARCHAR")}
    assert set(columns) == {
        "device", "gateway", "bssid", "heard_well", "heard_weakly", "raw",
    }  # fmt: skip
    words = re.compile(r"client|station|user|person|host|ip_|ssid|mac")
    names = [name for kind in detail.KINDS for name, _ in kind.fields] + list(schema.COLUMNS)
    assert {name for name in names if words.search(name)} == {"bssid"}
