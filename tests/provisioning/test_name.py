"""What the names of the board's code become before it is compiled."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import firmware
import hil
from hil import tool
from provisioning import usage
from provisioning.constant import inlined
from provisioning.name import common, shortened
from provisioning.rom import FREE, KNOWN
from provisioning.usage import module

FIRMWARE = Path(firmware.__file__).parent
SOURCES = sorted(path.relative_to(FIRMWARE).as_posix() for path in FIRMWARE.rglob("*.py"))
FIELDS = ("id", "attr", "arg", "name", "asname")
# Sets each name of a file as an attribute, and so interns it, then tells what is in the heap.
ASK_ROM = """\
import micropython
import sys
class Asked: pass
asked = Asked()
for line in open(sys.argv[1]):
    setattr(asked, line.strip(), 0)
micropython.qstr_info(1)
"""


@functools.cache
def source(name: str) -> str:
    return inlined((FIRMWARE / name).read_text(), name)


@functools.cache
def compiled(name: str) -> str:
    return shortened(source(name), name)


def renamed(before: str, after: str) -> dict[str, set[str]]:
    """Return what each name of a source has become, be it one or many things."""
    found = defaultdict(set)
    for old, new in zip(ast.walk(ast.parse(before)), ast.walk(ast.parse(after)), strict=True):
        assert type(old) is type(new)
        for field in FIELDS:
            spelt = getattr(old, field, None)
            if isinstance(spelt, str):
                found[spelt].add(getattr(new, field))
    return found


def become(before: str, *names: str) -> bool:
    """Tell whether all of these names of a source become one of the ROM's each; or none does."""
    found = renamed(before, shortened(before, "agent/x.py"))
    are_new = {found[name] != {name} for name in names}
    assert len(are_new) == 1, found
    if are_new == {True}:
        assert all(len(found[name]) == 1 and found[name] <= {*FREE} for name in names), found
    return are_new.pop()


def test_own_names_become_names_of_the_rom_and_no_line_moves() -> None:
    before = (
        "from micropython import const\n_MOST = const(3)\n_ALL = 4\nclass Zzyzx:\n"
        "    def __init__(self, wanted):\n        self._wanted = wanted\n\n"
        "    def _told(self, wanted,\n              größe):\n"
        "        return self._wanted, größe[_MOST], _ALL, 'größe: _told'\n"
    )
    after = shortened(before, "agent/x.py")
    names = r"\w+"
    found = re.fullmatch(
        rf"from micropython import const\n_MOST = const\(3\)\n({names}) = 4\nclass ({names}):\n"
        rf"    def __init__\(self, ({names})\):\n        self.({names}) = \3\n\n"
        rf"    def ({names})\(self, ({names}),\n              ({names})\):\n"
        rf"        return self.\4, \7\[_MOST\], \1, 'größe: _told'\n",
        after,
    )
    assert found, after
    assert len({*found.groups()}) == 6  # both first parameters are called alike
    assert found[3] == found[6]
    assert {*found.groups()} <= {*FREE}


def test_a_name_in_a_text_stays() -> None:
    before = "class Zzyzx:\n    def __init__(self):\n        self.zyx = self.xyz = 1\n"
    assert become(before, "zyx", "xyz")
    assert not become(before + "zzz = hasattr(zzz, 'zyx') or 'xyz'\n", "zyx", "xyz")
    assert not become(before + "zzz = 'zyx xyz'.split()\n", "zyx", "xyz")
    # What is only looked up, compared, collected or said asks for nothing.
    for inert in ("{'zyx': 1}", "zzz['zyx']", "zzz == 'zyx'", "zzz in ('zyx', 'xyz')"):
        assert become(before + inert.join(("zzz = ", "\n")), "zyx", "xyz"), inert
    for inert in ("zzz.append('zyx')", "zzz.get('zyx')", "print('zyx')", "raise OSError('zyx')"):
        assert become(before + inert + "\n", "zyx", "xyz"), inert
        assert not become(before + inert + "\ngetattr(zzz, zzz)\n", "zyx"), inert
    assert not become(before + "zzz = {1: 'zyx'}\n", "zyx")
    # A sentence is no name, unless one is put together here.
    said = "print('zyx: %s, xyz: %s' % (1, 2))\n"
    assert become(before + said, "zyx", "xyz")
    assert not become(before + said + "getattr(zzz, zzz)\n", "zyx", "xyz")


def test_what_is_not_the_boards_own_stays() -> None:
    assert not become("def find(zyx):\n    return zyx.strip()\n", "find", "strip")
    assert not become("class ZyxError(ValueError):\n    xyz = 1\n", "ZyxError", "ValueError")
    assert not become("class Zyx(Zzyzx):\n    def _zyx(self):\n        pass\n", "Zyx", "_zyx")
    assert not become("try:\n    pass\nexcept OSError as zyx:\n    zzz.zyx = zyx\n", "zyx")
    assert not become("def zyx():\n    global xyz\n    xyz = 1\nxyz = 2\n", "xyz")
    # What hardware is asked for, its own name for the same thing may be.
    bound = "class Zzyzx:\n    def zyx(self):\n        return self._wlan.zyx()\n"
    assert become(bound, "zyx")
    assert not become("import network\n" + bound, "zyx")


def test_a_keyword_is_renamed_with_what_it_is_for() -> None:
    before = "def zzyzx(*, host, %s=0):\n    return %s\nzzyzx(host=1, until_ms=3)\n"
    before = before.replace("%s", "until_ms")
    assert become(before, "until_ms")
    assert not become(before + "dict(host=1)\n", "host")
    inner = "def zyxed(zyx, xyz):\n    return lambda: [xyz for xyz in zyx], lambda zyx=zyx: zyx\n"
    assert become(inner, "zyx", "xyz")


def test_parameters_of_functions_within_are_told_apart() -> None:
    before = (
        "zyx = 1\n"
        "def zzyzx(xyz):\n    yzx = lambda zyx: zyx + xyz\n    return yzx(zyx)\n"
        "def zzyxz(xyz):\n    def yzx(*, most):\n        return xyz\n    return yzx\n"
    )
    for code in (before, shortened(before, "agent/x.py")):
        scope: dict[str, object] = {}
        exec(compile(code, "x", "exec"), scope)  # noqa: S102 - the test's own
        found = [each for each in scope.values() if callable(each) and not isinstance(each, type)]
        first, second = found[-2:]
        assert first(2) == 3
        assert second(5)(most=0) == 5


def test_a_parameter_is_not_called_like_another_one() -> None:
    code = usage.code()
    for name in SOURCES:
        for node in ast.walk(ast.parse(compiled(name))):
            if isinstance(node, usage.Function):
                given = [each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)]
                assert len(given) == len(set(given)), (name, given)
    every = [each for each in code.common if each in code.called_by_name]
    before = f"def zzyzx({', '.join(map('zyx{}'.format, range(120)))}, *, {', '.join(every)}): pass"
    given = re.findall(r"\w+", shortened(before, "agent/x.py"))
    assert len(given) == len(set(given)) == 120 + len(every) + 3


def test_what_people_call_stays() -> None:
    (supervisor,) = [ast.parse(compiled(n)) for n in SOURCES if "supervisor" in n]
    functions = {n.name: n for n in ast.walk(supervisor) if isinstance(n, ast.FunctionDef)}
    assert [each.arg for each in functions["drain"].args.args] == ["timeout_s", "port", "root"]
    assert "run" in functions  # main.py is flashed as it is


def test_a_script_gets_what_it_asks_for() -> None:
    script = "import agent.loan\nfrom agent.loan import borrow\nagent.loan._IS_SMALL = borrow\n"
    name = "agent/loan.py"
    scripts = (("script.py", script),)
    loan = renamed(source(name), shortened(source(name), name, scripts))
    asked = renamed(script, shortened(script, "script.py", scripts))
    assert asked["_IS_SMALL"] == loan["_IS_SMALL"]
    assert asked["borrow"] == loan["borrow"] != {"borrow"}


def test_a_module_goes_by_the_name_of_its_import() -> None:
    assert module("agent/probes/radio.py") == "agent.probes.radio"
    assert module("agent/__init__.py") == "agent"


def test_what_modules_have_from_each_other_is_renamed_alike_in_all() -> None:
    assert len(common()) > 100
    modules = {name: renamed(source(name), compiled(name)) for name in SOURCES}
    code = usage.code()
    for old, new in common().items():
        for name, found in modules.items():
            assert found.get(old, {new}) == {new}, (name, old)
    for name in set(SOURCES) - usage.SOURCES:
        own = code.own(code.trees[name], name)
        fresh = [new for each in own for new in modules[name][each]]
        assert len(fresh) == len(set(fresh)) == len(own)
        assert not set(fresh) & set(common().values())
    # No new name means anything yet, and none is what MicroPython's own objects are asked for.
    given = {
        new for found in modules.values() for old, each in found.items() for new in each - {old}
    }
    assert not given & code.spelt
    assert given <= {*FREE}, "more names than the ROM has: they cost the board's heap"


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_still_has_what_others_take_from_it(name: str) -> None:
    changed = compiled(name)
    assert [line[:4].isspace() for line in changed.splitlines()] == [
        line[:4].isspace() for line in source(name).splitlines()
    ]
    tree = ast.parse(changed)
    left = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.name for node in ast.walk(tree) if isinstance(node, usage.Definition)
    }
    taken = {
        alias.name
        for other in SOURCES
        for node in ast.walk(ast.parse(compiled(other)))
        if isinstance(node, ast.ImportFrom) and module(name).endswith("." + (node.module or "?"))
        for alias in node.names
        if other != name
    }
    assert taken <= left


@pytest.mark.parametrize("interpreter", ["micropython", "micropython32"])
def test_the_rom_has_these_names(interpreter: str, tmp_path: Path) -> None:
    """They cost no heap; and no name of ours that is in a ROM is renamed, be it someone's there."""
    ours = {each for name in SOURCES for each in renamed(source(name), source(name))}
    asked = {each for each in {*FREE, *ours} if each.isidentifier() and each != "_"}
    (tmp_path / "names").write_text("".join(f"{each}\n" for each in sorted(asked)))
    (tmp_path / "ask.py").write_text(ASK_ROM)
    command = [tool.find(interpreter), tmp_path / "ask.py", tmp_path / "names"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    in_heap = set(re.findall(r"^Q\((.*)\)$", done.stdout, re.MULTILINE))
    assert common().keys() & asked <= in_heap
    assert {*FREE} & in_heap == set()
    assert {each for each in asked - in_heap - KNOWN if not each.startswith("__")} == set()


@pytest.mark.parametrize("name", ["esp32", "machine", "network"])
def test_what_hardware_is_asked_for_stays(name: str) -> None:
    """The virtual board answers to what a real one is asked for, by the same names."""
    path = Path(hil.__file__).parent / "board" / "shim" / f"{name}.py"
    nodes = ast.walk(ast.parse(path.read_text()))
    theirs = {node.name for node in nodes if isinstance(node, usage.Definition)}
    asked = 0
    for each in ("port/esp32.py", "port/lan.py"):
        before, after = (ast.walk(ast.parse(text)) for text in (source(each), compiled(each)))
        for old, new in zip(before, after, strict=True):
            if isinstance(old, ast.Attribute) and isinstance(new, ast.Attribute):
                is_of_self = isinstance(old.value, ast.Name) and old.value.id == "self"
                if old.attr in theirs and not is_of_self:
                    assert new.attr == old.attr
                    asked += 1
    assert asked
