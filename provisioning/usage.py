"""What the names in the board's code mean: which are a module's own, and which others know.

It is decided for all of the board's code at once, and by the spelling alone: what may be someone
else's stays as it is.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import firmware
from provisioning.constant import inlined
from provisioning.rom import KNOWN

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scripts = tuple[tuple[str, str], ...]  # of each its name and its source

# On the board as they are, not compiled.
SOURCES = frozenset({"boot.py", "main.py"})
# What is called from beyond the board, over its REPL.
CALLED = frozenset({"drain", "prove"})
# What the objects of these modules are asked for is not all in rom.KNOWN.
_HARDWARE = frozenset({"bluetooth", "esp32", "espnow", "machine", "neopixel", "network"})
# They take a name as a text, which may be put together.
_BY_TEXT = frozenset({"getattr", "setattr", "hasattr", "delattr"})
# What a collection does with a text, which asks nothing for it.
_COLLECTS = frozenset({"append", "get", "pop"})
_NAMES_ALONE = re.compile(r"[\w\s.,]*")


def module(name: str) -> str:
    """Return what a module is called by those who import it."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def code(scripts: Scripts = ()) -> Code:
    """Return the board's code, and scripts that are compiled with it."""
    root = Path(firmware.__file__).parent
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.py"))}
    sources = {name: inlined(path.read_text(), name) for name, path in paths.items()}
    return Code({name: ast.parse(source) for name, source in [*sources.items(), *scripts]})


class Code:
    """All of the board's code.

    Args:
        trees: its modules by path, such as "agent/uplink.py".
    """

    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self.trees = trees
        self._spelt = {name: names(tree) | _words(tree) for name, tree in trees.items()}

    @functools.cached_property
    def spelt(self) -> frozenset[str]:
        """All names, and all words in texts."""
        return frozenset().union(*self._spelt.values())

    @functools.cached_property
    def modules(self) -> frozenset[str]:
        """What modules are called, and the parts of that."""
        dotted = {module(name) for name in self.trees}
        return frozenset(dotted.union(*(each.split(".") for each in dotted)))

    @functools.cached_property
    def called_by_name(self) -> frozenset[str]:
        """The parameters that anything is called with by name."""
        found = set[str]()
        for node in self._nodes():
            if isinstance(node, ast.Call):
                found |= {each.arg for each in node.keywords if each.arg}
            elif isinstance(node, ast.arguments):
                found |= {each.arg for each in node.kwonlyargs}
        return frozenset(found)

    @functools.cached_property
    def common(self) -> tuple[str, ...]:
        """The names that modules have from each other, and nobody else knows."""
        found = set[str]()
        for name, tree in self.trees.items():
            others = self._elsewhere(name)
            found |= {each for each in self._bound(tree) if each[0] != "_" and each in others}
        return tuple(sorted(found - self._kept))

    def own(self, tree: ast.Module, name: str) -> list[str]:
        """Return the names that a module binds and that mean nothing beyond it."""
        stays = self._kept | self._known(tree)
        others = self._elsewhere(name)
        # What is private may go by the same name elsewhere, if each asks only itself for it.
        reached = self._reached | _reached(tree)
        return [
            each
            for each in self._bound(tree)
            if each not in stays
            and (each not in others or (each[0] == "_" and each not in reached))
        ]

    def _nodes(self) -> Iterator[ast.AST]:
        for tree in self.trees.values():
            yield from ast.walk(tree)

    def _elsewhere(self, name: str) -> frozenset[str]:
        return frozenset().union(*(spelt for path, spelt in self._spelt.items() if path != name))

    @functools.cached_property
    def _reached(self) -> frozenset[str]:
        return frozenset().union(*map(_reached, self.trees.values()))

    @functools.cached_property
    def _packages(self) -> frozenset[str]:
        return frozenset(name.partition("/")[0] for name in self.trees if "/" in name)

    @functools.cached_property
    def _defined(self) -> frozenset[str]:
        return frozenset(node.name for node in self._nodes() if isinstance(node, Definition))

    @functools.cached_property
    def _kept(self) -> frozenset[str]:
        """The names that stay as they are in every module."""
        found = KNOWN | CALLED | self.modules
        for name, tree in self.trees.items():
            found |= self._known(tree)
            if name in SOURCES:
                found |= self._spelt[name]
        return found

    def _bound(self, tree: ast.Module) -> dict[str, None]:
        """Return the names that a module binds and that a board would keep, as they come.

        Constants are not among them: the compiler forgets what they are called.
        """
        found = dict[str, None]()
        for node in _outside_functions(tree):
            if isinstance(node, ast.Assign) and not _is_constant(node):
                stored = (each for target in node.targets for each in ast.walk(target))
                found |= {each.id: None for each in stored if isinstance(each, ast.Name)}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.asname: None for alias in node.names if alias.asname}
        for node in ast.walk(tree):
            if isinstance(node, Definition):
                found[node.name] = None
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found[node.attr] = None
            elif isinstance(node, ast.arguments):
                given = (*node.posonlyargs, *node.args, *node.kwonlyargs)
                found |= {each.arg: None for each in given if each.arg in self.called_by_name}
        return {each: None for each in found if each != "_" and not each.startswith("__")}

    def _known(self, tree: ast.Module) -> frozenset[str]:
        """Return the names in a module that someone else knows: MicroPython, a text, a person."""
        found = set(_words(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Global | ast.Nonlocal):
                found |= set(node.names)
            elif isinstance(node, ast.ExceptHandler):
                found.add(node.name or "")
            elif isinstance(node, ast.ClassDef) and node.bases:
                found.add(node.name)  # a fault is told by the name of its class
                if not all(map(_is_exception, node.bases)):
                    found |= names(node)  # what it inherits is not told
            elif isinstance(node, ast.FunctionDef) and node.name in CALLED:
                found |= {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        return frozenset(found) | self._foreign(tree)

    def _foreign(self, tree: ast.Module) -> set[str]:
        """Return the names that a module has from modules which are not the board's own."""
        ours = {node.name for node in ast.walk(tree) if isinstance(node, Definition)}
        imported = set[str]()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {part for alias in node.names for part in alias.name.split(".")}
            elif isinstance(node, ast.ImportFrom):
                package = (node.module or "").partition(".")[0]
                if node.level or package in self._packages:
                    ours |= {alias.asname or alias.name for alias in node.names}
                else:
                    imported |= {package, *(alias.name for alias in node.names)}
        is_hardware = not imported.isdisjoint(_HARDWARE)
        asked = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and is_hardware and not _is_of_self(node)
        }
        methods = self._defined - KNOWN - asked
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                is_ours = getattr(node.func, "id", "") in ours
                is_ours |= getattr(node.func, "attr", "") in methods
                asked |= set() if is_ours else {each.arg or "" for each in node.keywords}
        return imported | asked


def names(tree: ast.AST) -> frozenset[str]:
    """Return whatever a part of a module calls by name."""
    found = set[str]()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found |= set(value.split("."))
        if isinstance(node, ast.Global | ast.Nonlocal):
            found |= set(node.names)
    return frozenset(found)


def _words(tree: ast.AST) -> frozenset[str]:
    """Return the words in a module's texts that may be names.

    They are those of texts that hold nothing else, or of all texts where a name may be put
    together; docstrings are not kept.
    """
    may_be = any(isinstance(node, ast.Call) and _takes_any_name(node) for node in ast.walk(tree))
    unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    if not may_be:
        unused |= {id(each) for node in ast.walk(tree) for each in _never_names(node)}
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in unused:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str) and (may_be or _NAMES_ALONE.fullmatch(text)):
                found |= set(re.findall(r"\w+", text))
        elif isinstance(node, ast.JoinedStr):
            found |= names(node)  # where they stand in it is not told
    return frozenset(found)


def _never_names(node: ast.AST) -> Iterator[ast.AST]:
    """Return what stands where a text is only looked up, compared, collected or said."""
    if isinstance(node, ast.Dict):
        yield from (each for each in node.keys if each)
    elif isinstance(node, ast.Subscript):
        yield node.slice
    elif isinstance(node, ast.Compare):
        for side in (node.left, *node.comparators):
            yield from side.elts if isinstance(side, ast.Tuple) else (side,)
    elif isinstance(node, ast.Call) and _only_collects_or_says(node.func):
        yield from node.args


def _only_collects_or_says(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in _COLLECTS
    return _is_exception(function) or getattr(function, "id", "") == "print"


def _takes_any_name(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Name)
        and node.func.id in _BY_TEXT
        and not isinstance(node.args[1], ast.Constant)
    )


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, Function):
            yield node
            yield from _outside_functions(node)


def _reached(tree: ast.Module) -> frozenset[str]:
    """Return the names that a module asks another object than `self` for, or another module."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _is_of_self(node):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_constant(node: ast.Assign) -> bool:
    target, value = node.targets[0], node.value
    function = value.func if isinstance(value, ast.Call) else None
    is_const = isinstance(function, ast.Name) and function.id == "const"
    return is_const and isinstance(target, ast.Name) and target.id[0] == "_"


def _is_exception(base: ast.expr) -> bool:
    return isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception"))
