"""Lets each module of the board's code go by one short name.

MicroPython keeps three names of a module that was ever loaded, for good: the dotted one, its last
part, and the path of its file. And it keeps them in tables, each twice as large as the one before.
So before a module is compiled

    from .loan import borrow; radio = borrow("agent.probes.radio")

becomes `from loan import borrow; radio = borrow("radio")`. The files stay where they are: the
package `agent`, with which everything begins, puts their folders into `sys.path`. A module stays
dotted that is called over the REPL, and one whose last part is not its own. No line moves: a
fault's place on the board is that in the source.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import firmware
from provisioning.usage import CALLED, module

# `port` stays: it is small, and one of its modules is called as one of the ESP32's.
_ROOTS = ("agent", "linkreport")
_BEGIN = "agent"
_FROM = re.compile(r"from\s+[.\w]+")


def known_as(name: str) -> str:
    """Return what a module is called on a board by those who import it, and by a trace.

    Args:
        name: its path below firmware/, such as "agent/uplink.py".
    """
    dotted = module(name)
    return _flat().get(dotted, dotted)


def flattened(source: str, name: str) -> str:
    """Return a module's source with imports, and texts that are modules, as a board has them.

    Args:
        source: must be valid for CPython as well.
        name: as for `known_as`; or that of a script beside the board's code.

    Raises: ValueError: an import that this cannot put in other words.
    """
    tree = ast.parse(source, name)
    raw = source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    edits: dict[tuple[int, int], str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Constant):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            text = raw[start:end].decode()
            if isinstance(node, ast.Constant):
                new = _text(node.value, text)
            elif isinstance(node, ast.Import):
                new = _import(node, text)
            else:
                new = _import_from(node, text, name)
            if new != text:
                edits[start, end] = new + "\n" * (text.count("\n") - new.count("\n"))
    imports = [place for place, new in edits.items() if " import " in f" {new}"]
    if imports and name not in _modules().values():  # a script
        edits[min(imports)] = f"import {_BEGIN}; {edits[min(imports)]}"
    for (start, end), new in sorted(edits.items(), reverse=True):
        raw = raw[:start] + new.encode() + raw[end:]
    if name == f"{_BEGIN}/__init__.py":
        raw += _path().encode()
    return raw.decode()


@functools.cache
def _modules() -> Mapping[str, str]:
    """Return the path of each of the board's modules by its dotted name."""
    root = Path(firmware.__file__).parent
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.py"))]
    return {module(path): path for path in paths if "/" in path}


@functools.cache
def _flat() -> Mapping[str, str]:
    """Return the short names of the modules that have one."""
    leaves = Counter(dotted.rpartition(".")[2] for dotted in _modules())
    root = Path(firmware.__file__).parent
    return {
        dotted: leaf
        for dotted, path in _modules().items()
        if (leaf := dotted.rpartition(".")[2]) != dotted
        and leaves[leaf] == 1
        and path.partition("/")[0] in _ROOTS
        and not _is_called((root / path).read_text())
    }


def _is_called(source: str) -> bool:
    nodes = ast.parse(source).body
    return any(isinstance(node, ast.FunctionDef) and node.name in CALLED for node in nodes)


def _path() -> str:
    """Return the line that lets short names be found, those first that most modules have."""
    folders = Counter(_modules()[dotted].rpartition("/")[0] for dotted in _flat())
    # A package is found in the folder around its own.
    told = " ".join(folder for folder, _ in folders.most_common())
    return f"import sys; sys.path[:0] = '{told}'.split()\n"


def _text(value: object, text: str) -> str:
    if not isinstance(value, str):
        return text
    if value in _flat():
        return repr(_flat()[value])
    package = value.removesuffix(".")
    # A name is put together of this and of a module's.
    if value != package and package in _modules():
        inner = [each for each in _modules() if each.rpartition(".")[0] == package]
        if all(each in _flat() for each in inner):
            return "''"
        raise ValueError(f"{value!r}: some of these modules have no short name")
    return text


def _import(node: ast.Import, text: str) -> str:
    flat = _flat()
    if not any(each.name in flat for each in node.names):
        return text
    if any(each.name in flat and not each.asname for each in node.names):
        raise ValueError(f"{text}: on a board it has another name, so let it be imported `as`")
    parts = (flat.get(each.name, each.name) + _said(each) for each in node.names)
    return f"import {', '.join(parts)}"


def _import_from(node: ast.ImportFrom, text: str, name: str) -> str:
    dotted = node.module or ""
    if node.level:
        around = module(name).split(".")
        if not name.endswith("/__init__.py"):
            around.pop()
        around = around[: len(around) + 1 - node.level]
        dotted = ".".join([*around, dotted] if dotted else around)
    if dotted not in _modules() or dotted.partition(".")[0] not in _ROOTS:
        return text
    whole = [each for each in node.names if f"{dotted}.{each.name}" in _modules()]
    known = _flat().get(dotted, dotted)
    if not whole:
        return _FROM.sub(f"from {known}", text, count=1)
    parts = []
    for each in node.names:
        inner = f"{dotted}.{each.name}"
        if inner in _flat():
            parts.append(f"import {_flat()[inner]}{_said(each)}")
        else:
            parts.append(f"from {known} import {each.name}{_said(each)}")
    return "; ".join(parts)


def _said(alias: ast.alias) -> str:
    return f" as {alias.asname}" if alias.asname else ""
