"""The sheet as PDF: A4, black only, its faces embedded."""

from __future__ import annotations

import io
from collections.abc import Sequence

from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

from provisioning.label import face
from provisioning.label.face import Face
from provisioning.label.layout import Code, Page
from provisioning.label.stock import SHEET_HEIGHT_MM, SHEET_WIDTH_MM


def render(pages: Sequence[Page], title: str) -> bytes:
    """Return the document; the same pages give the same bytes.

    It asks the viewer to print it as large as it is: fitted to a printer's margins the labels
    would be beside their places.
    """
    face.register()
    stream = io.BytesIO()
    canvas = Canvas(
        stream,
        pagesize=(SHEET_WIDTH_MM * mm, SHEET_HEIGHT_MM * mm),
        invariant=1,
        initialFontName=Face.PLAIN.value,  # type: ignore[arg-type]  # the stubs want a number
    )
    canvas.setTitle(title)
    canvas.setCreator("netzpuls board label")
    canvas.setViewerPreference("PrintScaling", "None")
    for page in pages:
        for text in page.texts:
            canvas.setFont(text.face.value, text.size_mm * mm)
            canvas.drawString(text.x_mm * mm, (SHEET_HEIGHT_MM - text.y_mm) * mm, text.text)
        for code in page.codes:
            _draw(canvas, code)
        canvas.showPage()
    canvas.save()
    return stream.getvalue()


def _draw(canvas: Canvas, code: Code) -> None:
    # One path for all bars: drawn one by one, fine white lines would show between them.
    path = canvas.beginPath()
    for x, y, length in code.bars:
        path.rect(
            (code.x_mm + x * code.module_mm) * mm,
            (SHEET_HEIGHT_MM - code.y_mm - (y + 1) * code.module_mm) * mm,
            length * code.module_mm * mm,
            code.module_mm * mm,
        )
    canvas.drawPath(path, stroke=0, fill=1)
