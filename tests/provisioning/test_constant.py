"""What the board's code becomes before it is compiled, run by CPython for comparison."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import firmware
from firmware.linkreport import block, table
from provisioning.constant import inlined

FIRMWARE = Path(firmware.__file__).parent
SOURCES = sorted(
    path.relative_to(FIRMWARE).as_posix()
    for package in ("agent", "linkreport", "port")
    for path in (FIRMWARE / package).rglob("*.py")
)


def run(source: str) -> dict[str, object]:
    names: dict[str, object] = {"const": lambda value: value}
    exec(source, names)  # noqa: S102 - our own source
    return names


def test_constants_are_put_in_by_value_and_no_line_moves() -> None:
    source = (
        "from linkreport.table import (\n    OK,\n    RADIO,\n    reason_state,\n)\n"
        "from linkreport.block import PATH_FORMAT\nfound = [OK, RADIO.real, PATH_FORMAT]\n"
        "def f(x):\n    return x.OK, OK  # OK\n"
    )
    lines = inlined(source, "agent/x.py").splitlines()
    assert lines == [
        "from linkreport.table import reason_state; _TABLE_OK = const(1); _TABLE_RADIO = const(1)",
        "", "", "", "",
        "_BLOCK_PATH_FORMAT = const('>BIII')",
        "found = [_TABLE_OK, _TABLE_RADIO.real, _BLOCK_PATH_FORMAT]",
        "def f(x):",
        "    return x.OK, _TABLE_OK  # OK",
    ]  # fmt: skip


def test_a_constant_under_another_name_is_put_in_too() -> None:
    source = (
        "from linkreport.block import PORTAL as PORTAL_BLOCK\n"
        "from linkreport.table import PORTAL, reason_state as state\n"
        "found = [PORTAL_BLOCK, PORTAL, state]\n"
    )
    assert inlined(source, "agent/x.py").splitlines() == [
        "_BLOCK_PORTAL = const(10)",
        "from linkreport.table import reason_state as state; _TABLE_PORTAL = const(6)",
        "found = [_BLOCK_PORTAL, _TABLE_PORTAL, state]",
    ]


def test_a_table_s_own_name_goes_too() -> None:
    source = (
        "from linkreport import block, seal\nfound = [block.PATH, block.OWN_FORMAT, seal.Seal]\n"
        "block.PATH\n"
    )
    assert inlined(source, "agent/x.py").splitlines() == [
        "from linkreport import seal; _BLOCK_PATH = const(8); _BLOCK_OWN_FORMAT = const('>6sbBB')",
        "found = [_BLOCK_PATH, _BLOCK_OWN_FORMAT, seal.Seal]",
        "_BLOCK_PATH",
    ]


def test_the_tables_keep_what_they_do_and_no_name() -> None:
    names = run(inlined((FIRMWARE / "linkreport/table.py").read_text(), "linkreport/table.py"))
    judge = names["reason_state"]
    assert callable(judge)
    assert [judge(n) for n in range(256)] == [table.reason_state(n) for n in range(256)]
    for which, module in (("table", table), ("block", block)):
        names = run(
            inlined((FIRMWARE / f"linkreport/{which}.py").read_text(), f"linkreport/{which}.py")
        )
        public = {k: v for k, v in vars(module).items() if k.isupper() and k[0] != "_"}
        assert len(public) >= 30
        assert not public.keys() & names.keys()
        assert {k: names[f"_{which.upper()}_{k}"] for k in public} == public


@pytest.mark.parametrize("name", SOURCES)
def test_no_module_of_the_board_still_asks_a_table_for_a_number(name: str) -> None:
    source = (FIRMWARE / name).read_text()
    changed = inlined(source, name)
    assert changed.count("\n") == source.count("\n")
    for node in ast.walk(ast.parse(changed)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(("table", "block")):
            assert all(not alias.name.isupper() for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "linkreport":
            assert not {alias.name for alias in node.names} & {"block", "table"}
