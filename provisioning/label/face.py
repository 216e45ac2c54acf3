"""The label's typefaces: measured here, embedded into both PDF and HTML, so that both are alike."""

from __future__ import annotations

import enum
import functools
import unicodedata
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

FOLDER = Path(__file__).with_name("face")
# Stands for a character that the faces lack.
LACKING = "?"


class Face(enum.Enum):
    """A typeface, by its name in face/ and in the documents."""

    PLAIN = "DejaVuSansCondensed"
    BOLD = "DejaVuSansCondensed-Bold"
    MONO = "DejaVuSansMono"
    MONO_BOLD = "DejaVuSansMono-Bold"

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.value}.ttf"

    def width(self, text: str, size: float) -> float:
        """Return how wide a line is, in the unit that `size` is in."""
        return float(_registered(self).stringWidth(text, size))

    def has(self, character: str) -> bool:
        """Tell whether it has a glyph for the character."""
        return ord(character) in _registered(self).face.charToGlyph


@functools.cache
def _registered(face: Face) -> TTFont:
    font = TTFont(face.value, str(face.path))
    pdfmetrics.registerFont(font)
    return font


def register() -> None:
    """Make all faces known to the PDF library."""
    for face in Face:
        _registered(face)


def clean(text: str) -> tuple[str, str]:
    """Return text as one line that the faces can show, and the characters that they lack.

    Composed, so that a "u" with its dots beside it is an "ü"; without control and invisible
    characters, which might turn the direction of what follows.
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    visible = [c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs")]
    lacking = "".join(dict.fromkeys(c for c in visible if not Face.BOLD.has(c)))
    return "".join(LACKING if c in lacking else c for c in visible), lacking
