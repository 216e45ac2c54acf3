"""A city that has labels, and the eyes that read them: pictures of sheets, and a decoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pypdfium2
import zxingcpp
from PIL import Image, ImageDraw

from fleet.inventory import Board, Tested
from provisioning import registry

DPI = 300
MM = DPI / 25.4
SHEET = (round(210 * MM), round(297 * MM))

LONG = (
    "Städtisches Annette-von-Droste-Hülshoff-Gymnasium für Mädchen und Jungen Exampleville-Nordost"
)
WORD = "Donaudampfschifffahrtsgesellschaftskapitänskajüte" * 2
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&amp; &lt; ]]> --> </svg></title>",
    ") Tj ET Q (x \\) \\\\ %PDF endstream endobj",
    "a\tb  c",
    LONG,
    WORD,
]


class Seen(NamedTuple):
    """One code that was read, and its middle on the sheet in mm."""

    text: str
    level: str
    version: str
    x_mm: float
    y_mm: float


def board(
    site: str,
    room: str,
    key_id: int = 1,
    *,
    revoked: datetime | None = None,
    retired: datetime | None = None,
    tested: Tested | None = None,
) -> Board:
    return Board(
        site=site,
        room=room,
        role="ap-monitor",
        key_id=key_id,
        chip="ESP32",
        mac="24:0a:c4:12:34:56",
        agent="0.1.0",
        enrolled=datetime(2026, 7, 1, tzinfo=UTC),
        certificate_expires=datetime(2036, 6, 28, tzinfo=UTC),
        revoked=revoked,
        retired=retired,
        tested=tested,
    )


def enrol(city: Path, boards: dict[str, Board]) -> None:
    (city / "registry.toml").write_text(registry.render(boards))


def rename(city: Path, site_name: str, rooms: Sequence[str]) -> None:
    """Call the site school-north, and its rooms, something else."""
    inventory = city / "inventory.toml"
    text = inventory.read_text()
    for old, new in (
        ('"School North"', _toml(site_name)),
        ('["R101", "R102"]', "[" + ", ".join(map(_toml, rooms)) + "]"),
    ):
        assert old in text
        text = text.replace(old, new)
    inventory.write_text(text)


def picture(pdf: bytes, page: int = 0, dpi: int = DPI) -> Image.Image:
    """Return a page of a PDF as a printer of so many dots an inch would print it, in grey."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        return document[page].render(scale=dpi / 72, grayscale=True).to_pil()
    finally:
        document.close()


def words(pdf: bytes, page: int = 0) -> str:
    """Return the text of a page as a reader copies it."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        return document[page].get_textpage().get_text_range().replace("\r\n", "\n")
    finally:
        document.close()


def read(image: Image.Image, dpi: int = DPI) -> list[Seen]:
    """Return the codes in a picture of a sheet, row by row."""
    seen = []
    for found in zxingcpp.read_barcodes(image, formats=zxingcpp.BarcodeFormat.QRCode):
        at = found.position
        corners = (at.top_left, at.top_right, at.bottom_right, at.bottom_left)
        x = sum(corner.x for corner in corners) / 4 * 25.4 / dpi
        y = sum(corner.y for corner in corners) / 4 * 25.4 / dpi
        version = found.extra["Version"]
        seen.append(Seen(found.text, found.ec_level, version, x, y))
    return sorted(seen, key=lambda each: (round(each.y_mm), each.x_mm))


class Drawing(HTMLParser):
    """What an HTML sheet holds: tags, lines of text, and its codes drawn as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.pages: list[Image.Image] = []
        self.title = ""
        self._open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open = tag
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        if tag == "svg":
            assert values["viewbox"] == "0 0 21000 29700"
            self.pages.append(Image.new("L", SHEET, 255))
        elif tag == "text":
            self.texts.append("")
        elif tag == "path":
            self._draw(str(values["transform"]), str(values["d"]))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "text":
            self.texts[-1] += data
        elif self._open == "title":
            self.title += data

    def _draw(self, transform: str, path: str) -> None:
        place = re.fullmatch(r"translate\((\S+) (\S+)\) scale\((\S+)\)", transform)
        assert place
        left, top, module = (float(number) / 100 * MM for number in place.groups())
        bars = re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path)
        assert "".join(f"M{x} {y}h{w}v1h-{w}z" for x, y, w in bars) == path
        draw = ImageDraw.Draw(self.pages[-1])
        for x, y, width in ([int(number) for number in bar] for bar in bars):
            corners = (x, y, x + width, y + 1)
            x0, y0, x1, y1 = (
                round(start + corner * module)
                for start, corner in zip((left, top, left, top), corners, strict=True)
            )
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=0)


def _toml(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08X}" for character in text) + '"'
