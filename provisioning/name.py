"""Shortens the names that a module keeps to itself, for on a board each name is there for good.

MicroPython keeps every name that a loaded module holds, once, until it is reset: those of private
globals, attributes and methods, and those of all parameters. With the names' table they took a
third of a board's heap, and modules on loan left theirs behind. So before a module is compiled

    def _told(self, error, message): return self._secrets

becomes `def _a(self, a, b): return self._b`: private names (`_like_this`) that the module binds
itself, globals and attributes that no other module mentions, and parameters that nothing on the
board is called with by name. Every module begins anew with `_a`, and every function with `a`, so
that all share the same few. No line moves: a fault's place on the board is that in the source.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import string
from collections.abc import Iterator
from pathlib import Path

import firmware

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# What is called from beyond the board, over mpremote.
CALLED = frozenset({"drain"})
_Place = tuple[int, int]  # row from 0, column in bytes, as ast counts


def shortened(source: str, name: str, called: frozenset[str] = CALLED) -> str:
    """Return a module's source with its own names made short.

    Args:
        source: must be valid for CPython as well.
        name: the module's path below firmware/, such as "agent/uplink.py".
        called: names that code beyond the board's own asks for.
    """
    tree = ast.parse(source, name)
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    taken = _all_names(tree)
    fresh = (each for each in _letters("_") if each not in taken)
    private = {old: next(fresh) for old in _own(tree, name, called)}
    edits = {place: (old, private[old]) for place, old in _spelt(tree, lines) if old in private}
    for function in _functions(tree):
        edits |= _parameters(function, edits)
    for (row, column), (old, new) in sorted(edits.items(), reverse=True):
        line = lines[row]
        lines[row] = line[:column] + new.encode() + line[column + len(old.encode()) :]
    return b"".join(lines).decode()


def module(name: str) -> str:
    """Return what a module is called by those who import it, which a trace may call it as well."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _parameters(
    function: _Function, edits: dict[_Place, tuple[str, str]]
) -> dict[_Place, tuple[str, str]]:
    """Return the edits for one function's parameters, without those of an outer one."""
    given = [*function.args.posonlyargs, *function.args.args]
    names = [each.arg for each in given if each.arg != "self" and each.arg not in _called_by_name()]
    names = [each for each in names if not each.startswith("_")]
    body = function.body if isinstance(function.body, list) else [function.body]
    nodes = [node for part in body for node in ast.walk(part)]
    taken = set().union(*map(_all_names, body)) | {each.arg for each in given}
    fresh = (each for each in _letters("") if each not in taken)
    short = dict(zip(names, fresh, strict=False))
    places: list[ast.Name | ast.arg] = list(given)
    places += [node for node in nodes if isinstance(node, ast.Name)]
    found = {}
    for node in places:
        old = node.arg if isinstance(node, ast.arg) else node.id
        place = (node.lineno - 1, node.col_offset)
        if old in short and place not in edits:
            found[place] = (old, short[old])
    return found


def _functions(tree: ast.Module) -> Iterator[_Function]:
    """Return the functions whose parameters may be renamed, outer ones first.

    One with a function in it is left alone: its names may be meant by both.
    """
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            inner = (each for each in ast.walk(node) if each is not node)
            outside = (ast.Global, ast.Nonlocal, ast.ExceptHandler)
            named = [each for each in inner if isinstance(each, (*kinds, *outside))]
            if not any(isinstance(each, kinds) for each in named):
                yield node


def _spelt(tree: ast.Module, lines: list[bytes]) -> Iterator[tuple[_Place, str]]:
    """Return every place where a name is spelt that may be private, and the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield (node.lineno - 1, node.col_offset), node.id
        elif isinstance(node, ast.arg):
            yield (node.lineno - 1, node.col_offset), node.arg
        elif isinstance(node, ast.Attribute):
            row, end = (node.end_lineno or 0) - 1, node.end_col_offset or 0
            yield (row, end - len(node.attr.encode())), node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            row = node.lineno - 1
            # Behind `def`, `async def` or `class` alone.
            yield (row, lines[row].index(node.name.encode(), node.col_offset + 4)), node.name
        elif isinstance(node, ast.alias) and node.asname:
            row, end = (node.end_lineno or 0) - 1, node.end_col_offset or 0
            yield (row, end - len(node.asname.encode())), node.asname


def _own(tree: ast.Module, name: str, called: frozenset[str]) -> list[str]:
    """Return the names that a module binds and that mean nothing to any other module."""
    globals_, attributes, foreign = dict[str, None](), dict[str, None](), set[str]()
    constants = dict[str, None]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, _DEFINITIONS):
                    attributes[each.name] = None
        elif isinstance(node, ast.Attribute):
            is_mine = isinstance(node.value, ast.Name) and node.value.id == "self"
            if is_mine and isinstance(node.ctx, ast.Store):
                attributes[node.attr] = None
            elif not is_mine and (not node.attr.startswith("_") or isinstance(node.ctx, ast.Store)):
                foreign.add(node.attr)  # it may be anyone's
    globals_ |= dict.fromkeys(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id[:1] == "_"
    )
    globals_.pop("_", None)
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        if isinstance(node, ast.Assign) and _is_constant(node.value):
            constants |= dict.fromkeys(names)
        if isinstance(node, _DEFINITIONS):
            names.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            names += [each.asname for each in node.names if each.asname]
        globals_ |= dict.fromkeys(names)
    others = foreign.union(*(words for path, words in _words().items() if path != name))
    # The compiler forgets the names of constants, so they come last.
    ordered = sorted(globals_ | attributes, key=lambda each: each in constants)
    return [
        each
        for each in ordered
        if not each.startswith("__")
        and each not in called
        and (each not in foreign if each.startswith("_") else each not in others)
    ]


def _is_constant(value: ast.expr) -> bool:
    function = value.func if isinstance(value, ast.Call) else None
    return isinstance(function, ast.Name) and function.id == "const"


def _all_names(tree: ast.AST) -> set[str]:
    """Return whatever a part of a module calls by name."""
    names = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                names.add(value)
    return names


@functools.cache
def _trees() -> dict[str, ast.Module]:
    root = Path(firmware.__file__).parent
    paths = sorted(root.rglob("*.py"))
    return {p.relative_to(root).as_posix(): ast.parse(p.read_text(), p.name) for p in paths}


@functools.cache
def _called_by_name() -> frozenset[str]:
    """Return the parameters that anything on the board is called with by name."""
    names = set()
    for tree in _trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                names |= {each.arg for each in node.keywords if each.arg}
            elif isinstance(node, ast.arguments):
                names |= {each.arg for each in node.kwonlyargs}
    return frozenset(names)


@functools.cache
def _words() -> dict[str, set[str]]:
    """Return the names and the words in texts of each module of the board, but its docstrings."""
    found = {}
    for path, tree in _trees().items():
        words = _all_names(tree)
        for node in ast.walk(tree):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and "\n" not in value:
                words |= set(re.findall(r"\w+", value))
        found[path] = words
    return found


def _letters(before: str) -> Iterator[str]:
    for size in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=size):
            yield before + "".join(letters)
