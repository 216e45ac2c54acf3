"""Text that fits its space on a label: wrapped, then made smaller, then cut with an ellipsis."""

from __future__ import annotations

import re
from typing import NamedTuple

from provisioning.label.face import Face

LEADING = 1.15  # from a line to the next, by its size
SMALLEST_MM = 1.6  # 4.5 pt: what an office printer prints and a person reads
_STEP_MM = 0.05
NO_BREAK = "\u00a0"  # a space at which no line ends
_ELLIPSIS = "…"
# What stays together on a line: a word up to and with its hyphens, or the spaces after it.
_PIECE = re.compile(r" +|[^ \-–/]+[\-–/]*|[\-–/]+")


class Space(NamedTuple):
    """Where text has to fit, and in how many lines at most."""

    width_mm: float
    height_mm: float
    lines: int


class Fitted(NamedTuple):
    """Lines and the size in which they fit."""

    size_mm: float
    lines: list[str]


def fit(text: str, face: Face, space: Space, largest_mm: float) -> Fitted:
    """Return text in the largest size in which it fits; more lines go before a smaller size.

    In the smallest size words are broken anywhere, and what is still too long is cut.
    """
    size_mm = min(largest_mm, space.height_mm / LEADING)
    while size_mm > SMALLEST_MM:
        lines = _wrapped(_PIECE.findall(text), face, size_mm, space.width_mm)
        wide = any(face.width(line, size_mm) > space.width_mm for line in lines)
        if not wide and len(lines) <= _room(space, size_mm):
            return Fitted(size_mm, lines)
        size_mm -= _STEP_MM
    return _squeezed(text, face, space)


def _squeezed(text: str, face: Face, space: Space) -> Fitted:
    size_mm = min(SMALLEST_MM, space.height_mm / LEADING)
    pieces: list[str] = []
    for piece in _PIECE.findall(text):
        fits = face.width(piece, size_mm) <= space.width_mm
        pieces += [piece] if fits else piece  # by its characters
    lines = _wrapped(pieces, face, size_mm, space.width_mm)
    most = _room(space, size_mm)
    if len(lines) > most:
        last = lines[most - 1]
        while last and face.width(last + _ELLIPSIS, size_mm) > space.width_mm:
            last = last[:-1]
        lines = [*lines[: most - 1], last.rstrip() + _ELLIPSIS]
    return Fitted(size_mm, lines)


def _room(space: Space, size_mm: float) -> int:
    """Return how many lines of a size the space has, at least one."""
    return max(1, min(space.lines, int(space.height_mm / (size_mm * LEADING) + 1e-6)))


def _wrapped(pieces: list[str], face: Face, size_mm: float, width_mm: float) -> list[str]:
    """Fill lines with pieces, as many as go; a piece that is too wide has a line of its own."""
    lines = [""]
    for piece in pieces:
        longer = lines[-1] + piece
        if lines[-1] and face.width(longer.rstrip(), size_mm) > width_mm:
            lines.append(piece.lstrip())
        else:
            lines[-1] = longer
    return [line.rstrip() for line in lines if line.strip()]
