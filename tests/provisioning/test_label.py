"""Labels: their codes are read from pictures of the sheets, and nothing leaves its label."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from fleet import inventory
from provisioning.label import face, sheet, stock
from provisioning.label.face import Face
from provisioning.label.fit import LEADING, SMALLEST_MM, Space, fit
from provisioning.label.layout import Language, pages, room_name
from provisioning.label.sheet import Format, Sheets
from tests.provisioning.labelsheet import (
    DPI,
    HOSTILE,
    LONG,
    MM,
    SHEET,
    Drawing,
    board,
    enrol,
    picture,
    read,
    rename,
    words,
)

STOCKS = sorted(stock.known())
LANGUAGES = get_args(Language)
MARGIN_MM = 1.5


@pytest.fixture
def hostile(city: Path) -> Path:
    """A city with names of all kinds, one board in each room."""
    rename(city, LONG, HOSTILE)
    enrol(
        city,
        {f"np-240ac40000{n:02x}": board("school-north", r, 9**n) for n, r in enumerate(HOSTILE[:5])}
        | {
            f"np-fefefefefe{n:02x}": board("school-north", r, 65535)
            for n, r in enumerate(HOSTILE[5:])
        },
    )
    return city


def _sheets(
    city: Path,
    stock_id: str = stock.DEFAULT,
    language: Language = "de",
    *,
    copies: int = 1,
    skip: int = 0,
) -> Sheets:
    known = inventory.load(city)
    chosen = Format(stock.known()[stock_id], language, copies, skip)
    return sheet.lay_out(known, *sheet.in_service(known, None), chosen)


@pytest.mark.parametrize("stock_id", STOCKS)
def test_each_code_is_read_from_its_place_on_the_pdf(hostile: Path, stock_id: str) -> None:
    cut = stock.known()[stock_id]
    skip = cut.per_sheet - 3
    sheets = _sheets(hostile, stock_id, skip=skip)
    assert sheets.count == 2
    found = []
    for page in range(2):
        image = picture(sheets.pdf(), page)
        assert all(abs(is_ - wanted) <= 1 for is_, wanted in zip(image.size, SHEET, strict=True))
        found += [(page, *seen) for seen in read(image)]
    wanted = [str(label.enrolment_id) for label in sheets.labels]
    assert [text for _, text, *_ in found] == wanted
    assert len(wanted) == len(HOSTILE)
    for position, (page, _, _, _, x_mm, y_mm) in enumerate(found, skip):
        row, column = divmod(position % cut.per_sheet, cut.columns)
        assert page == position // cut.per_sheet
        assert cut.left_mm <= x_mm - column * cut.pitch_x_mm <= cut.left_mm + cut.width_mm / 2
        middle_mm = cut.top_mm + row * cut.pitch_y_mm + cut.height_mm / 2
        assert y_mm == pytest.approx(middle_mm, abs=0.2)


@pytest.mark.parametrize("stock_id", STOCKS)
def test_a_full_sheet_is_read(city: Path, stock_id: str) -> None:
    enrol(city, {"np-240ac4123456": board("school-north", "R101")})
    cut = stock.known()[stock_id]
    sheets = _sheets(city, stock_id, copies=cut.per_sheet)
    assert sheets.count == 1
    assert [s.text for s in read(picture(sheets.pdf()))] == ["np-240ac4123456/1"] * cut.per_sheet


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.2 * MM))


def _turned(image: Image.Image) -> Image.Image:
    return image.rotate(12, expand=True, fillcolor=255, resample=Image.Resampling.BICUBIC)


def _far(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 2 // 5, image.height * 2 // 5), Image.Resampling.BOX)


def _pale(image: Image.Image) -> Image.Image:
    return image.point(lambda value: 120 + value * 80 // 255)


def _stained(image: Image.Image) -> Image.Image:
    """With a stain of 1.5 mm in the middle of each code."""
    stained = image.copy()
    draw = ImageDraw.Draw(stained)
    for seen in read(image):
        x, y, radius = seen.x_mm * MM, seen.y_mm * MM, 0.75 * MM
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=90)
    return stained


@pytest.mark.parametrize("stock_id", STOCKS)
@pytest.mark.parametrize(
    "spoilt",
    [
        (_blurred,),
        (_turned,),
        (_far,),
        (_pale,),
        (_stained,),
        (_stained, _turned, _pale, _blurred),
    ],
    ids=lambda steps: "".join(step.__name__ for step in steps),
)
def test_a_code_is_read_under_poor_conditions(hostile: Path, stock_id: str, spoilt: tuple) -> None:
    sheets = _sheets(hostile, stock_id)
    image = picture(sheets.pdf())
    for step in spoilt:
        image = step(image)
    found = sorted(seen.text for seen in read(image))
    assert found == sorted(str(label.enrolment_id) for label in sheets.labels)


@pytest.mark.parametrize("stock_id", STOCKS)
def test_codes_are_large_and_have_their_quiet_zone(hostile: Path, stock_id: str) -> None:
    cut = stock.known()[stock_id]
    page = pages(_sheets(hostile, stock_id).labels, cut, "de")[0]
    sizes = set()
    for box, code in zip(page.boxes, page.codes, strict=True):
        across = max(x + length for x, _, length in code.bars)
        assert across == max(y + 1 for _, y, _ in code.bars)
        side_mm, quiet_mm = across * code.module_mm, 4 * code.module_mm
        assert side_mm >= 12
        assert code.module_mm * DPI / 25.4 == pytest.approx(round(code.module_mm * DPI / 25.4))
        assert code.x_mm - quiet_mm >= box.x_mm + MARGIN_MM - 1e-6
        assert code.y_mm - quiet_mm >= box.y_mm + MARGIN_MM - 1e-6
        assert code.y_mm + side_mm + quiet_mm <= box.y_mm + box.height_mm - MARGIN_MM + 1e-6
        right_mm = code.x_mm + side_mm + quiet_mm
        beside = [t for t in page.texts if box.x_mm < t.x_mm < box.x_mm + box.width_mm]
        assert min(text.x_mm for text in beside) >= right_mm - 1e-6
        sizes.add((across, code.module_mm))
    assert len(sizes) == 1


def test_a_code_says_its_text_at_a_level_that_bears_damage(city: Path) -> None:
    keys = {"np-000000000001": 1, "np-000000000002": 9999, "np-ffffffffffff": 65535}
    enrol(city, {board_id: board("school-north", "R101", key) for board_id, key in keys.items()})
    found = read(picture(_sheets(city).pdf()))
    assert [(seen.text, seen.level, seen.version) for seen in found] == [
        ("np-000000000001/1", "Q", "2"),
        ("np-000000000002/9999", "Q", "2"),
        ("np-ffffffffffff/65535", "M", "2"),
    ]


@pytest.mark.parametrize("stock_id", STOCKS)
def test_html_holds_the_same_codes_and_only_what_is_ours(hostile: Path, stock_id: str) -> None:
    sheets = _sheets(hostile, stock_id)
    drawing = Drawing(sheets.html())
    known = {"html", "meta", "title", "style", "p", "svg", "rect", "text", "path"}
    assert drawing.tags == known
    assert drawing.title == "Netzpuls · Exampleville"
    (image,) = drawing.pages
    printed = read(picture(sheets.pdf()))
    for drawn, in_pdf in zip(read(image), printed, strict=True):
        assert drawn.text == in_pdf.text
        assert drawn.x_mm == pytest.approx(in_pdf.x_mm, abs=0.2)
        assert drawn.y_mm == pytest.approx(in_pdf.y_mm, abs=0.2)
    layout = pages(sheets.labels, sheets.format.stock, "de")[0]
    assert drawing.texts == [text.text for text in layout.texts]
    shown = "".join("".join(drawing.texts).split())
    for name in HOSTILE[:5]:
        assert "".join(name.split()) in shown


def test_german_is_right_in_the_pdf(city: Path) -> None:
    rename(city, "Käthe-Köhler-Mühle", ["Größe – 3 €", "Fu\u0308ller „A“", "Łódź Çınar"])
    rooms = inventory.load(city).sites["school-north"].rooms
    enrol(city, {f"np-24000000000{n}": board("school-north", r) for n, r in enumerate(rooms)})
    sheets = _sheets(city, "L7160")
    assert not sheets.notes
    pdf = sheets.pdf()
    said = words(pdf)
    for name in ("Käthe-Köhler", "Größe – 3 €", "Füller „A“", "Łódź Çınar", "Netzpuls · Exampl"):
        assert name in said
    # Embedded: whoever prints it has the same letters.
    assert pdf.count(b"/FontFile2") == len(Face)
    assert b"Helvetica" not in pdf


def test_every_face_has_the_letters_it_is_used_for() -> None:
    for letter in "abcxyzABCXYZ0189äöüÄÖÜßẞ§–—…·éèçñøåłąęśžčřšığşțșőű„“”‚‘’»«€№&<>\"'()[]{}%\\":
        assert Face.BOLD.has(letter), letter
        assert Face.PLAIN.has(letter), letter
    for letter in "np-0123456789abcdef":
        assert Face.MONO.has(letter)
        assert Face.MONO_BOLD.has(letter)


def test_what_cannot_be_shown_is_said() -> None:
    assert face.clean("A\u202eB\x07\u200bC\u00ad") == ("ABC", "")
    assert face.clean(" Raum\n\t 1\u00a0a ") == ("Raum 1 a", "")
    assert face.clean("u\u0308") == ("ü", "")
    assert face.clean("漢a字漢😀") == ("?a???", "漢字😀")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("stock_id", STOCKS)
def test_no_text_leaves_its_label_or_meets_another(
    hostile: Path, stock_id: str, language: Language
) -> None:
    cut = stock.known()[stock_id]
    page = pages(_sheets(hostile, stock_id).labels, cut, language)[0]
    for box in page.boxes:
        inside = [
            t
            for t in page.texts
            if box.x_mm < t.x_mm < box.x_mm + box.width_mm
            and box.y_mm < t.y_mm < box.y_mm + box.height_mm
        ]
        assert len(inside) >= 6
        for text in inside:
            assert text.size_mm >= SMALLEST_MM
            end_mm = text.x_mm + text.face.width(text.text, text.size_mm)
            assert end_mm <= box.x_mm + box.width_mm - MARGIN_MM + 1e-6
            assert text.y_mm - text.size_mm * 0.92 >= box.y_mm + MARGIN_MM - 1e-6
            assert text.y_mm + text.size_mm * 0.22 <= box.y_mm + box.height_mm - MARGIN_MM + 1e-6
        lines = sorted({(t.y_mm, t.size_mm) for t in inside})
        for (above_mm, above_size_mm), (below_mm, size_mm) in pairwise(lines):
            assert above_mm + above_size_mm * 0.22 <= below_mm - size_mm * 0.92 + 1e-6


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("stock_id", STOCKS)
def test_no_ink_is_outside_the_labels(hostile: Path, stock_id: str, language: Language) -> None:
    cut = stock.known()[stock_id]
    sheets = _sheets(hostile, stock_id, language)
    image = picture(sheets.pdf())
    draw = ImageDraw.Draw(image)
    slip_mm = MARGIN_MM - 0.3
    for box in pages(sheets.labels, cut, language)[0].boxes:
        corner = ((box.x_mm + slip_mm) * MM, (box.y_mm + slip_mm) * MM)
        other = (
            (box.x_mm + box.width_mm - slip_mm) * MM,
            (box.y_mm + box.height_mm - slip_mm) * MM,
        )
        assert image.crop((*map(round, corner), *map(round, other))).getextrema() == (0, 255)
        draw.rectangle((corner, other), fill=255)
    assert image.getextrema() == (255, 255)


def test_a_short_name_is_large_and_a_long_one_is_whole_as_long_as_it_can_be() -> None:
    space = Space(26.0, 6.0, 2)
    assert fit("Aula", Face.BOLD, space, 4.0) == (4.0, ["Aula"])
    size_mm, lines = fit("Goethe-Gymnasium am Markt", Face.BOLD, space, 4.0)
    assert (SMALLEST_MM < size_mm < 4.0, lines) == (True, ["Goethe-Gymnasium", "am Markt"])
    size_mm, lines = fit(HOSTILE[-1], Face.BOLD, space, 4.0)
    assert size_mm == SMALLEST_MM
    assert lines[-1].endswith("…")
    assert "".join(lines)[:-1] == HOSTILE[-1][: len("".join(lines)) - 1]
    assert fit("", Face.BOLD, space, 4.0).lines == []


@given(
    text=st.text(st.characters(codec="utf-8"), max_size=120),
    width_mm=st.floats(8, 60),
    height_mm=st.floats(2, 12),
    most=st.integers(1, 3),
)
def test_whatever_is_fitted_fits(text: str, width_mm: float, height_mm: float, most: int) -> None:
    shown, _ = face.clean(text)
    size_mm, lines = fit(shown, Face.BOLD, Space(width_mm, height_mm, most), 4.0)
    assert len(lines) <= most
    assert len(lines) * size_mm * LEADING <= height_mm + 1e-3
    assert all(Face.BOLD.width(line, size_mm) <= width_mm + 1e-9 for line in lines)
    kept = "".join("".join(lines).split())
    whole = "".join(shown.split())
    assert kept == whole or (kept.endswith("…") and whole.startswith(kept[:-1]))


def test_a_bare_number_is_called_a_room() -> None:
    for bare in ("101", "2.14", "12a", "3/07", "1-2"):
        assert room_name(bare, "de") == f"Raum {bare}"
        assert room_name(bare, "en") == f"Room {bare}"
    for name in ("Aula", "E01", "2.OG Flur", "", "Raum 101", "١"):
        assert room_name(name, "de") == name


def test_the_wording_is_in_the_language_asked_for(city: Path) -> None:
    enrol(city, {"np-240ac4123456": board("school-north", "R101")})
    german, english = (_sheets(city, "L4736", language) for language in ("de", "en"))
    assert "Bitte eingesteckt lassen." in words(german.pdf()).replace("\u00a0", " ")
    assert "Please leave plugged in." in words(english.pdf()).replace("\u00a0", " ")
    assert '<html lang="de">' in german.html()
    assert "Print on A4 at 100 %" in english.html()


def test_the_same_boards_give_the_same_files(hostile: Path) -> None:
    assert _sheets(hostile).pdf() == _sheets(hostile).pdf()
    assert _sheets(hostile).html() == _sheets(hostile).html()


def test_a_viewer_is_asked_not_to_scale(hostile: Path) -> None:
    assert b"/PrintScaling /None" in _sheets(hostile).pdf()


@pytest.mark.parametrize("stock_id", STOCKS)
def test_a_stock_is_one_that_a_sheet_can_be_cut_into(stock_id: str) -> None:
    cut = stock.known()[stock_id]
    assert cut.pitch_x_mm >= cut.width_mm
    assert cut.pitch_y_mm >= cut.height_mm
    right_mm = 210 - cut.place(cut.per_sheet - 1).x_mm - cut.width_mm
    bottom_mm = 297 - cut.place(cut.per_sheet - 1).y_mm - cut.height_mm
    assert right_mm == pytest.approx(cut.left_mm, abs=0.1)
    assert bottom_mm == pytest.approx(cut.top_mm, abs=0.5)
    assert cut.name.endswith(f", {cut.per_sheet} a sheet")
    assert [*cut.place(cut.per_sheet)] == [1, 0, 0, cut.left_mm, cut.top_mm]
