"""Keeps the short texts in the board's code from becoming names.

MicroPython's compiler makes a name of each text of up to ten bytes, and a board keeps a name for
good, also that of a module thrown out. A constant of a module it puts in by value, as an object
that goes with the module. So before a module on loan (`agent.loan`) is compiled

    seconds, fraction = struct.unpack(">II", packet)

becomes `struct.unpack(_text0, packet)`, and behind the module's docstring stands
`_text0 = const('>II')`. What is a name anyway stays: an object of its own would only take more. So
does the text of a module that is always loaded. No line moves.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from provisioning import usage
from provisioning.rom import KNOWN
from provisioning.usage import Scripts

_LONGEST_BYTES = 10


def unnamed(source: str, name: str, scripts: Scripts = ()) -> str:
    """Return a module's source with short texts as constants.

    Args:
        source: must be valid for CPython as well.
        name: the module's path below firmware/, such as "agent/uplink.py".
        scripts: what is compiled with the board's code.
    """
    tree = ast.parse(source, name)
    if not _is_on_loan(name, scripts) or ast.get_docstring(tree) is None:
        return source
    names = _names(scripts) | usage.names(tree)
    found = [each for each in _texts(tree) if each.value not in names]
    known = {value: f"_text{index}" for index, value in enumerate({e.value: None for e in found})}
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1]
        end = node.end_col_offset or 0
        lines[node.lineno - 1] = line[: node.col_offset] + known[node.value].encode() + line[end:]
    told = "".join(f"; {short} = const({value!r})" for value, short in known.items())
    row = (tree.body[0].end_lineno or 0) - 1
    end = tree.body[0].end_col_offset or 0
    lines[row] = lines[row][:end] + told.encode() + lines[row][end:]
    return b"".join(lines).decode()


def _texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the short texts of which the compiler would make a name."""
    inert = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        # Those of a constant tuple are objects already.
        if isinstance(node, ast.Tuple) and all(isinstance(e, ast.Constant) for e in node.elts):
            inert |= {id(each) for each in node.elts}
        elif isinstance(node, ast.JoinedStr):
            inert |= {id(each) for each in ast.walk(node)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "const":
            inert |= {id(each) for each in node.args}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and 0 < len(node.value.encode()) <= _LONGEST_BYTES
            and node.lineno == node.end_lineno
            and id(node) not in inert
        ):
            yield node


@functools.cache
def _names(scripts: Scripts) -> frozenset[str]:
    """Return what is, or may be, a name on a board whatever its texts are."""
    code = usage.code(scripts)
    return KNOWN.union(code.modules, *(usage.names(tree) for tree in code.trees.values()))


@functools.cache
def _said(scripts: Scripts) -> frozenset[str]:
    """Return all texts of the board's code, among them the modules that it asks for by text."""
    trees = usage.code(scripts).trees.values()
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(node.value for node in nodes if isinstance(node.value, str))


def _is_on_loan(name: str, scripts: Scripts) -> bool:
    dotted = usage.module(name)
    package = dotted.rpartition(".")[0]
    if not package:  # it is asked for by an import, unless it is a script
        return name in dict(scripts) and dotted in _said(scripts)
    return not {dotted, f"{package}."}.isdisjoint(_said(scripts))
