"""A table that breaks no word, however narrow the terminal is.

What does not fit beside the rest goes beneath its row, column by column.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_INDENT = (0, 0, 0, 4)


class Listing:
    """Titles and rows.

    Args:
        right: titles of the columns that are aligned to the right.
        movable: titles of the columns that may go beneath, the first one first.
    """

    def __init__(
        self, titles: Sequence[str], *, right: Sequence[str] = (), movable: Sequence[str] = ()
    ) -> None:
        self._titles = tuple(titles)
        self._right = right
        self._movable = [self._titles.index(title) for title in movable]
        self.rows: list[list[Text]] = []

    def add(self, *cells: str | Text) -> None:
        """Add a row; texts are shown as they are, without markup."""
        self.rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, and after each row what of it did not fit."""
        beneath: list[int] = []
        table = self._table(beneath)
        for at in self._movable:
            if Measurement.get(console, options.update(width=9999), table).maximum <= (
                options.max_width
            ):
                break
            beneath.append(at)
            table = self._table(beneath)
        if not beneath:
            yield table
            return
        head, *lines = console.render_lines(table, options, pad=False, new_lines=True)
        yield from head
        for row, line in zip(self.rows, lines, strict=False):
            yield from line
            moved = [self._named(at, row[at]) for at in reversed(beneath) if row[at].plain]
            if moved:
                yield Padding(Text("; ").join(moved), _INDENT)
        for line in lines[len(self.rows) :]:
            yield from line

    def _named(self, at: int, cell: Text) -> Text:
        title = self._titles[at]
        return Text.assemble((f"{title}: ", "dim"), cell) if title else cell

    def _table(self, beneath: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        kept = [at for at in range(len(self._titles)) if at not in beneath]
        for at in kept:
            title = self._titles[at]
            table.add_column(
                title, justify="right" if title in self._right else "left", no_wrap=True
            )
        for row in self.rows:
            table.add_row(*(row[at] for at in kept))
        return table
