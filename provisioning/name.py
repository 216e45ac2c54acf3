"""Gives the board's code names that cost no memory, for on a board each name is there for good.

MicroPython keeps every name that a loaded module holds, once, until it is reset: those of globals,
attributes, methods and parameters. With the names' table they took a third of a board's heap, and
modules on loan left theirs behind. Only the names that the interpreter itself has lie in flash. So
before a module is compiled

    def told(self, error, message): return self._secrets

becomes `def isspace(self, isclose, erfc): return self.ldexp`, and whoever calls `told` calls
`isspace`: names of functions, classes, attributes and globals that only the board's own code knows
(`provisioning/usage.py`), and parameters, become names from `provisioning/rom.py` that the board's
code does not use otherwise. What modules have from each other is renamed alike in all of them;
what is a module's own, or a function's, shares its new names with the others' own. No line moves:
a fault's place on the board is that in the source.
"""

from __future__ import annotations

import ast
import functools
import itertools
import string
from collections.abc import Iterator, Mapping

from provisioning import usage
from provisioning.rom import FREE
from provisioning.usage import CALLED, Code, Scripts

_Place = tuple[int, int]  # row from 0, column in bytes, as ast counts
_Edits = dict[_Place, tuple[str, str]]  # what stands there, and what shall


def shortened(source: str, name: str, scripts: Scripts = ()) -> str:
    """Return a module's source with names that cost a board nothing, or little.

    Args:
        source: must be valid for CPython as well.
        name: the module's path below firmware/, such as "agent/uplink.py".
        scripts: what is compiled with the board's code, and may ask it for anything.
    """
    code = usage.code(scripts)
    tree = ast.parse(source, name)
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    short = dict(common(scripts))
    taken = usage.names(tree)
    rest = itertools.islice(_fresh(code), len(short), None)
    fresh = (each for each in rest if each not in taken)
    short |= {old: next(fresh) for old in code.own(tree, name)}
    edits = {place: (old, short[old]) for place, old in _spelt(tree, lines) if old in short}
    for node in ast.walk(tree):  # outer functions first
        if isinstance(node, usage.Function):
            edits |= _parameters(node, edits, code)
    for (row, column), (old, new) in sorted(edits.items(), reverse=True):
        line = lines[row]
        lines[row] = line[:column] + new.encode() + line[column + len(old.encode()) :]
    return b"".join(lines).decode()


@functools.cache
def common(scripts: Scripts = ()) -> Mapping[str, str]:
    """Return the new names of what the board's modules have from each other, alike in all."""
    code = usage.code(scripts)
    return dict(zip(code.common, _fresh(code), strict=False))


def _fresh(code: Code) -> Iterator[str]:
    """Return names that the board's code does not use, those in the ROM first."""
    return (each for each in itertools.chain(FREE, _letters()) if each not in code.spelt)


def _parameters(function: usage.Function, edits: _Edits, code: Code) -> _Edits:
    """Return the edits for one function's parameters, in all of its body.

    What an outer function or the module renames stays so. A parameter that a function within goes
    by as well means that one there, or the same: it is renamed alike.
    """
    if getattr(function, "name", "") in CALLED:
        return {}
    body = function.body if isinstance(function.body, list) else [function.body]
    nodes = [node for part in body for node in ast.walk(part)]
    if any(isinstance(node, ast.ClassDef) for node in nodes):
        return {}
    given = [*function.args.posonlyargs, *function.args.args]
    names = {each.arg for each in given} - {"self"} - code.called_by_name
    # Those are not spelt where a name is looked for.
    names -= {name for node in nodes for name in _told_apart(node)}
    others = (each for each in (*function.args.kwonlyargs, function.args.vararg) if each)
    places: list[ast.Name | ast.arg] = [*given, *others]
    places += [node for node in nodes if isinstance(node, ast.Name | ast.arg)]
    spelt = {(node.lineno - 1, node.col_offset): _name(node) for node in places}
    taken = {edits[place][1] if place in edits else name for place, name in spelt.items()}
    fresh = (each for each in _fresh(code) if each not in taken)
    short = {each.arg: next(fresh) for each in given if each.arg in names}
    return {
        place: (old, short[old])
        for place, old in spelt.items()
        if old in short and place not in edits
    }


def _told_apart(node: ast.AST) -> set[str]:
    """Return names that a statement binds or means without an ast.Name."""
    if isinstance(node, ast.Global | ast.Nonlocal):
        return set(node.names)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(each.asname or each.name).partition(".")[0] for each in node.names}
    if isinstance(node, ast.ExceptHandler | usage.Definition):
        return {node.name or ""}
    return set()


def _name(node: ast.Name | ast.arg) -> str:
    return node.arg if isinstance(node, ast.arg) else node.id


def _spelt(tree: ast.Module, lines: list[bytes]) -> Iterator[tuple[_Place, str]]:
    """Return every place where a name is spelt that may be renamed, and the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.arg):
            yield (node.lineno - 1, node.col_offset), _name(node)
        elif isinstance(node, ast.keyword) and node.arg:
            yield (node.lineno - 1, node.col_offset), node.arg
        elif isinstance(node, ast.Attribute):
            row, end = (node.end_lineno or 0) - 1, node.end_col_offset or 0
            yield (row, end - len(node.attr.encode())), node.attr
        elif isinstance(node, usage.Definition):
            row = node.lineno - 1
            # Behind `def`, `async def` or `class` alone.
            yield (row, lines[row].index(node.name.encode(), node.col_offset + 4)), node.name
        elif isinstance(node, ast.alias):
            yield (node.lineno - 1, node.col_offset), node.name
            if node.asname:
                row, end = (node.end_lineno or 0) - 1, node.end_col_offset or 0
                yield (row, end - len(node.asname.encode())), node.asname


def _letters() -> Iterator[str]:
    for size in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=size):
            yield "".join(letters)
