"""firmware/README.md says what the code has."""

from __future__ import annotations

import ast
import re

from hil.board.i2c import DEVICES
from tests.board.site import FIRMWARE

README = (FIRMWARE / "README.md").read_text(encoding="utf-8")
# Fixed by the chip: TXD0, TX_EN, TXD1, RXD0, RXD1, CRS_DV (ESP32 data sheet, EMAC).
RMII_PINS = {19, 21, 22, 25, 26, 27}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    text = README.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    lines = table.group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def presets() -> dict[str, tuple[str, int, int | None, int | None, int, bool]]:
    """Return the presets of port/lan.py, which cannot be imported here."""
    for node in ast.parse((FIRMWARE / "port" / "lan.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_BOARDS":
            found: dict[str, tuple[str, int, int | None, int | None, int, bool]]
            found = ast.literal_eval(node.value)
            return found
    raise AssertionError("port/lan.py has no _BOARDS")


def number(cell: str) -> int | None:
    return None if cell == "–" else int(cell)


def test_the_ethernet_presets_are_the_port_s() -> None:
    told = {}
    for name, _, phy, address, power, reset, clock in rows("### Boards with Ethernet"):
        pin, way = clock.split(", ")
        assert way in {"into the ESP32", "from the ESP32"}
        values = (phy, int(address), number(power), number(reset), int(pin))
        told[name.strip("`")] = (*values, way == "from the ESP32")
    assert told == presets()


def test_the_pins_advised_beside_ethernet_are_free_on_all_boards() -> None:
    advised = re.search(r"SDA (\d+) and SCL (\d+) are\s+free on all of these, and (\d+)", README)
    assert advised is not None
    taken = RMII_PINS | {23, 18}
    for _, _, power, reset, clock, _ in presets().values():
        taken |= {pin for pin in (power, reset, clock) if pin is not None}
    assert not {int(pin) for pin in advised.groups()} & taken


def test_the_addresses_of_the_sensors_are_the_bus_s() -> None:
    told = {int(row[2].split(",")[0], 16) for row in rows("### Sensors")}
    assert told == {device.address for device in DEVICES.values()}


def test_the_console_s_lines_are_the_code_s() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in FIRMWARE.rglob("*.py"))
    for cell, *_ in rows("## What the console says"):
        words = re.split(r" ?(?:…|\{)", cell.strip("`"))[0]
        assert words in sources.replace('", name', " "), words
