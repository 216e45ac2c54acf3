"""What stands where on a sheet of labels, in mm; PDF and HTML only draw it.

    +-----------------------------+
    | # # ##   Goethe-Schule      |   the site, up to two lines
    | ## # #   Raum 101           |   the room
    | # ####   np-240ac4123456    |   the last six digits are the board's own, so they are bold
    | ## # #   Netzpuls · Stadt   |   whose it is, and what to do about it
    +-----------------------------+

A name that is too long is wrapped, then made smaller, then cut with an ellipsis.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import segno

from provisioning.enrolment import EnrolmentId
from provisioning.label.face import Face
from provisioning.label.fit import LEADING, NO_BREAK, Space, fit
from provisioning.label.stock import Stock

Language = Literal["de", "en"]

_MM_PER_INCH = 25.4
# A module is so many whole dots of a printer of 300, 600 or 1200 dots an inch: its edges are sharp.
_DOT_MM = _MM_PER_INCH / 300
# Sheets slip in the printer by about 1 mm.
_MARGIN_MM = 1.5
# All codes have one size, whatever the key's number: 25 modules, level M or better.
_VERSION = 2
_MODULES = 25
_QUIET_MODULES = 4  # ISO/IEC 18004
_CODE_SHARE = 0.42  # of the label's width, at most
_ASCENT = 0.92  # from a line's top to its baseline: an "Ä" of the faces
# The digits of a MAC that the maker of the chip counts up.
_OWN_DIGITS = 6

_ROOM = {"de": "Raum", "en": "Room"}
_SENTENCES = {
    "de": ("Misst das WLAN.", "Bitte eingesteckt lassen."),
    "en": ("Measures the WiFi.", "Please leave plugged in."),
}


class Label(NamedTuple):
    """What one label says; names as `face.clean` returns them."""

    city: str
    site: str
    room: str
    enrolment_id: EnrolmentId


class Text(NamedTuple):
    """One line: where its baseline begins, its size, face and words."""

    x_mm: float
    y_mm: float
    size_mm: float
    face: Face
    text: str


class Code(NamedTuple):
    """A QR code without its quiet zone, as horizontal bars: x, y and width in modules."""

    x_mm: float
    y_mm: float
    module_mm: float
    bars: Sequence[tuple[int, int, int]]


class Box(NamedTuple):
    """A label's outline."""

    x_mm: float
    y_mm: float
    width_mm: float
    height_mm: float


@dataclass(frozen=True)
class Page:
    """One sheet."""

    boxes: list[Box]
    texts: list[Text]
    codes: list[Code]


class _Row(NamedTuple):
    """Words that share a size: the largest, and the space for all lines, as parts of the height."""

    text: str
    face: Face
    largest: float
    space: float
    lines: int


def pages(
    labels: Sequence[Label], stock: Stock, language: Language, *, skip: int = 0
) -> list[Page]:
    """Lay the labels out, the first one after `skip` places."""
    sheets = -(-(skip + len(labels)) // stock.per_sheet)
    made = [Page([], [], []) for _ in range(sheets)]
    for position, label in enumerate(labels, skip):
        place = stock.place(position)
        box = Box(place.x_mm, place.y_mm, stock.width_mm, stock.height_mm)
        page = made[place.sheet]
        code, side_mm = _code(label.enrolment_id, box)
        page.boxes.append(box)
        page.codes.append(code)
        page.texts.extend(_texts(label, box, side_mm, language))
    return made


def room_name(room: str, language: Language) -> str:
    """Return how the label calls a room: a bare number gets a word."""
    bare = re.fullmatch(r"[0-9]+([./-][0-9]+)*[a-zA-Z]?", room)
    return f"{_ROOM[language]} {room}" if bare else room


def _code(enrolment_id: EnrolmentId, box: Box) -> tuple[Code, float]:
    """Return the code at the label's left, and the side of the square that it takes."""
    side_mm = min(box.height_mm - 2 * _MARGIN_MM, box.width_mm * _CODE_SHARE)
    across = _MODULES + 2 * _QUIET_MODULES
    module_mm = side_mm / across // _DOT_MM * _DOT_MM
    side_mm = module_mm * across
    made = segno.make_qr(str(enrolment_id), error="m", version=_VERSION)
    bars = [
        (x, y, length) for y, modules in enumerate(made.matrix) for x, length in _dark_runs(modules)
    ]
    quiet_mm = _QUIET_MODULES * module_mm
    return Code(
        box.x_mm + _MARGIN_MM + quiet_mm,
        box.y_mm + (box.height_mm - side_mm) / 2 + quiet_mm,
        module_mm,
        bars,
    ), side_mm


def _dark_runs(modules: Sequence[int]) -> Iterator[tuple[int, int]]:
    x = 0
    for dark, run in itertools.groupby(modules):
        length = len(list(run))
        if dark:
            yield x, length
        x += length


def _texts(label: Label, box: Box, side_mm: float, language: Language) -> Iterator[Text]:
    left_mm = box.x_mm + _MARGIN_MM + side_mm
    width_mm = box.x_mm + box.width_mm - _MARGIN_MM - left_mm
    height_mm = box.height_mm - 2 * _MARGIN_MM
    wording = " ".join(sentence.replace(" ", NO_BREAK) for sentence in _SENTENCES[language])
    rows = [
        _Row(label.site, Face.BOLD, 0.18, 0.31, 3),
        _Row(room_name(label.room, language), Face.BOLD, 0.21, 0.24, 2),
        _Row(label.enrolment_id.board_id, Face.MONO_BOLD, 0.126, 0.145, 1),
        _Row(f"Netzpuls · {label.city}", Face.PLAIN, 0.088, 0.1015, 1),
        _Row(wording, Face.PLAIN, 0.088, 0.203, 2),
    ]
    fitted = [
        fit(
            row.text,
            row.face,
            Space(width_mm, row.space * height_mm, row.lines),
            row.largest * height_mm,
        )
        for row in rows
    ]
    used_mm = sum(len(each.lines) * each.size_mm * LEADING for each in fitted)
    gap_mm = max(0.0, height_mm - used_mm) / (len(rows) - 1)
    y_mm = box.y_mm + _MARGIN_MM
    for row, (size_mm, lines) in zip(rows, fitted, strict=True):
        for line in lines:
            yield from _runs(left_mm, y_mm + size_mm * _ASCENT, size_mm, row.face, line)
            y_mm += size_mm * LEADING
        y_mm += gap_mm


def _runs(x_mm: float, y_mm: float, size_mm: float, face: Face, line: str) -> Iterator[Text]:
    if face is not Face.MONO_BOLD:
        yield Text(x_mm, y_mm, size_mm, face, line)
        return
    maker, own = line[:-_OWN_DIGITS], line[-_OWN_DIGITS:]
    yield Text(x_mm, y_mm, size_mm, Face.MONO, maker)
    yield Text(x_mm + Face.MONO.width(maker, size_mm), y_mm, size_mm, face, own)
