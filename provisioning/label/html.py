"""The sheet as one HTML file that needs nothing beside it: SVG on A4, its faces embedded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from provisioning.label.face import Face
from provisioning.label.layout import Box, Code, Language, Page, Text
from provisioning.label.stock import SHEET_HEIGHT_MM, SHEET_WIDTH_MM

_HINT = {
    "de": "Drucken auf A4 mit 100 %, ohne Ränder, ohne Kopf- und Fußzeilen.",
    "en": "Print on A4 at 100 %, without margins, headers or footers.",
}
_STYLE = """\
@page { size: 210mm 297mm; margin: 0 }
body { margin: 0; font-family: sans-serif }
svg { display: block; width: 210mm; height: 297mm; break-after: page }
svg:last-of-type { break-after: auto }
text { white-space: pre; text-rendering: geometricPrecision }
rect { fill: none; stroke: #bbb; stroke-width: 10 }
@media screen {
  body { background: #ddd }
  svg { background: #fff; margin: 5mm auto }
  p { text-align: center; margin: 5mm }
}
@media print { p, rect { display: none } }
"""
_HEAD = """\
<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; style-src 'unsafe-inline'; font-src data:">
<title>{title}</title>
<style>
{style}</style>
<p>{hint}</p>
"""


def render(pages: Sequence[Page], title: str, language: Language) -> str:
    """Return the document. On the screen it shows the labels' outlines; they are not printed."""
    head = _HEAD.format(
        language=language, title=escape(title), style=_STYLE + _faces(), hint=_HINT[language]
    )
    return head + "".join(_sheet(page) for page in pages) + "</html>\n"


def _sheet(page: Page) -> str:
    return "\n".join(
        [
            f'<svg viewBox="0 0 {_units(SHEET_WIDTH_MM)} {_units(SHEET_HEIGHT_MM)}">',
            *map(_outline, page.boxes),
            *map(_line, page.texts),
            *map(_path, page.codes),
            "</svg>\n",
        ]
    )


def _outline(box: Box) -> str:
    return (
        f'<rect x="{_units(box.x_mm)}" y="{_units(box.y_mm)}" '
        f'width="{_units(box.width_mm)}" height="{_units(box.height_mm)}"/>'
    )


def _line(text: Text) -> str:
    style = f"font:{_units(text.size_mm)}px {_family(text.face)}"
    place = f'x="{_units(text.x_mm)}" y="{_units(text.y_mm)}"'
    # Browsers round the width of letters, or take faces of their own: the line stays as long.
    width = f'textLength="{_units(text.face.width(text.text, text.size_mm))}"'
    adjust = 'lengthAdjust="spacingAndGlyphs"'
    return f'<text {place} {width} {adjust} style="{style}">{escape(text.text)}</text>'


def _path(code: Code) -> str:
    bars = "".join(f"M{x} {y}h{length}v1h-{length}z" for x, y, length in code.bars)
    place = f"translate({_units(code.x_mm)} {_units(code.y_mm)}) scale({_units(code.module_mm)})"
    return f'<path transform="{place}" d="{bars}"/>'


def _units(length_mm: float) -> str:
    """Return a length for the drawing, whose unit is 1/100 mm.

    In mm a line of text would be 2 px to a browser, and one that is told to show no text below
    10 px would enlarge it.
    """
    return f"{length_mm * 100:.2f}".rstrip("0").rstrip(".")


def _family(face: Face) -> str:
    """Return CSS names: the embedded face, and what a browser takes that refuses it."""
    like = "monospace" if face in (Face.MONO, Face.MONO_BOLD) else "sans-serif"
    return f"{face.value},{like}"


def _faces() -> str:
    return "".join(
        f"@font-face {{ font-family: {face.value}; "
        f"src: url(data:font/ttf;base64,{base64.b64encode(face.path.read_bytes()).decode()}) }}\n"
        for face in Face
    )
