"""What the names of the board's code become before it is compiled."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import firmware
from provisioning.constant import inlined
from provisioning.name import module, shortened

FIRMWARE = Path(firmware.__file__).parent
SOURCES = sorted(path.relative_to(FIRMWARE).as_posix() for path in FIRMWARE.rglob("*.py"))
TREES = {name: ast.parse((FIRMWARE / name).read_text()) for name in SOURCES}


def test_own_names_become_short_and_no_line_moves() -> None:
    source = (
        "from micropython import const\n_MOST = const(3)\nclass Zzyzx:\n"
        "    def __init__(self, wanted, port):\n        self._wanted = wanted\n"
        "        port._wanted = 1\n\n"
        "    def _told(self, wanted, *, port=None):\n"
        "        return lambda: self.run(wanted, _MOST)\n\n"
        "    def run(self, größe, most):\n        return größe[most], 'größe _told'\n"
    )
    assert shortened(source, "agent/x.py") == (
        "from micropython import const\n_c = const(3)\nclass _a:\n"
        # Another object's is not ours, and neither is what goes by the same name then.
        "    def __init__(self, a, b):\n        self._wanted = a\n"
        "        b._wanted = 1\n\n"
        "    def _b(self, wanted, *, port=None):\n"
        "        return lambda: self.run(wanted, _c)\n\n"
        "    def run(self, a, b):\n        return a[b], 'größe _told'\n"
    )


def test_what_others_ask_for_by_name_stays() -> None:
    source = "def zzyzx(zyx):\n    return zyx\ndef drain():\n    return zzyzx(1)\n"
    assert shortened(source, "agent/x.py") == (
        "def _a(a):\n    return a\ndef drain():\n    return _a(1)\n"
    )
    assert "def zzyzx(a)" in shortened(source, "agent/x.py", frozenset({"zzyzx"}))


def test_a_module_goes_by_the_name_of_its_import() -> None:
    assert module("agent/probes/radio.py") == "agent.probes.radio"
    assert module("agent/__init__.py") == "agent"


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_still_has_what_others_take_from_it(name: str) -> None:
    source = inlined((FIRMWARE / name).read_text(), name)
    changed = shortened(source, name)
    assert [line[:4].isspace() for line in changed.splitlines()] == [
        line[:4].isspace() for line in source.splitlines()
    ]
    tree = ast.parse(changed)
    left = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    taken = {
        alias.name
        for other, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and module(name).endswith("." + (node.module or "?"))
        for alias in node.names
        if other != name
    }
    defined = {
        node.name for node in TREES[name].body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert taken & defined <= left
