"""The label sheets that can be bought, by the number on the pack: see stock.toml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from fleet import document
from fleet.document import Table

DEFAULT = "L4736"
SHEET_WIDTH_MM, SHEET_HEIGHT_MM = 210.0, 297.0

Millimetres = Annotated[float, Field(gt=0, le=SHEET_HEIGHT_MM)]


class Stock(Table):
    """One cut of an A4 sheet into labels."""

    name: str
    packs: list[str]
    columns: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=1)]
    width_mm: Millimetres
    height_mm: Millimetres
    pitch_x_mm: Millimetres
    pitch_y_mm: Millimetres
    left_mm: Millimetres
    top_mm: Millimetres

    @property
    def per_sheet(self) -> int:
        """How many labels a sheet has."""
        return self.columns * self.rows

    def place(self, position: int) -> Place:
        """Return where the label is that a printer who counts row by row comes to at `position`."""
        sheet, rest = divmod(position, self.per_sheet)
        row, column = divmod(rest, self.columns)
        return Place(
            sheet,
            row,
            column,
            self.left_mm + column * self.pitch_x_mm,
            self.top_mm + row * self.pitch_y_mm,
        )


class Place(NamedTuple):
    """A label's place: sheet, row and column count from 0, its corner from the sheet's top left."""

    sheet: int
    row: int
    column: int
    x_mm: float
    y_mm: float


class _StockFile(Table):
    version: Literal[1]
    stock: dict[str, Stock]


@functools.cache
def known() -> Mapping[str, Stock]:
    """Return the sheets that there are, by their id."""
    return document.load(_StockFile, Path(__file__).with_name("stock.toml")).stock
