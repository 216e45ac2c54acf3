"""Puts the numbers of shared tables into the code that uses them, so that a board keeps no names.

On a board each name of a module takes memory for good, and `linkreport.table` has more than a
hundred. MicroPython's compiler puts a constant in by value, but only one of the same module, and
it forgets the name only if that begins with an underscore. So before a module is compiled

    from linkreport.table import OK, RADIO

becomes `_TABLE_OK = const(1); _TABLE_RADIO = const(1)`, on the same line, and each use is renamed
alike; so is `table.OK` after `from linkreport import table`. In the table itself what is left is
what can be called. No line moves: a fault's place on the board is that in the source.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from types import ModuleType

from firmware.linkreport import block, table

_TABLES: Mapping[str, ModuleType] = {"table": table, "block": block}


def inlined(source: str, name: str) -> str:
    """Return a module's source with the tables' constants put in by value.

    Args:
        source: must be valid for CPython as well.
        name: the module's path below firmware/, such as "linkreport/table.py".
    """
    tree = ast.parse(source)
    folder, _, leaf = name.removesuffix(".py").rpartition("/")
    renamed: dict[str | tuple[str, str], str] = {}
    lines = source.splitlines()
    if folder == "linkreport" and leaf in _TABLES:
        renamed = {known: _private(leaf, known) for known in _constants(leaf)}
        for node in tree.body:
            if isinstance(node, ast.Assign) and _target(node) in renamed:
                first, last = node.value.lineno - 1, (node.value.end_lineno or 0) - 1
                # From the end, and by bytes, as ast counts.
                for row, column, text in (
                    (last, node.value.end_col_offset or 0, ")"),
                    (first, node.value.col_offset, "const("),
                ):
                    raw = lines[row].encode()
                    lines[row] = (raw[:column] + text.encode() + raw[column:]).decode()
    for node in tree.body:
        given: dict[str | tuple[str, str], tuple[str, str]]
        if isinstance(node, ast.ImportFrom) and (which := _table(node, folder)):
            given = {alias.asname or alias.name: (which, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "linkreport":
            whole = {each.name for each in node.names if not each.asname} & _TABLES.keys()
            given = {used: used for used in _uses(tree) if used[0] in whole}
        else:
            continue
        constants = {
            spelt: (_private(*which), _constants(which[0])[which[1]])
            for spelt, which in given.items()
            if which[1] in _constants(which[0])
        }
        gone = constants.keys() | {spelt[0] for spelt in constants if isinstance(spelt, tuple)}
        kept = [
            f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            for alias in node.names
            if (alias.asname or alias.name) not in gone
        ]
        renamed |= {spelt: private for spelt, (private, _) in constants.items()}
        parts = [f"{private} = const({value!r})" for private, value in constants.values()]
        if kept:
            parts.insert(0, f"from {'.' * node.level}{node.module} import {', '.join(kept)}")
        last = node.end_lineno or node.lineno
        lines[node.lineno - 1 : last] = ["; ".join(parts)] + [""] * (last - node.lineno)
    return _rename("\n".join(lines) + "\n", renamed)


def _uses(tree: ast.Module) -> dict[tuple[str, str], None]:
    """Return `block.PATH` and the like, each once, in the order of the source."""
    return {
        (node.value.id, node.attr): None
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def _private(which: str, known: str) -> str:
    return f"_{which.upper()}_{known}"


def _constants(which: str) -> dict[str, object]:
    return {
        known: value
        for known, value in vars(_TABLES[which]).items()
        if known.isupper() and not known.startswith("_") and isinstance(value, (int, str, tuple))
    }


def _target(node: ast.Assign) -> str:
    target = node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _table(node: ast.ImportFrom, folder: str) -> str:
    """Return which table a module imports from, "" for none."""
    path = node.module or ""
    if node.level == 1:
        path = f"{folder.replace('/', '.')}.{path}"
    package, _, leaf = path.rpartition(".")
    return leaf if package == "linkreport" and leaf in _TABLES else ""


def _rename(source: str, renamed: Mapping[str | tuple[str, str], str]) -> str:
    """Rename names, and pairs of a name and its attribute, to one name each."""
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for number in reversed(range(len(tokens))):
        token, end = tokens[number], tokens[number]
        if token.type != tokenize.NAME or (number and tokens[number - 1].string == "."):
            continue
        spelt: str | tuple[str, str] = token.string
        if spelt not in renamed and tokens[number + 1].string == ".":
            end = tokens[number + 2]
            spelt = (token.string, end.string)
        if spelt in renamed:
            row, start = token.start
            line = lines[row - 1]
            lines[row - 1] = line[:start] + renamed[spelt] + line[end.end[1] :]
    return "".join(lines)
