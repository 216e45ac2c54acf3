"""Tables on a terminal, and how times and parts are written in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.console import Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fleet.cli.output import result
from fleet.period import Period, shown

NOTHING = "–"

# As far as a table's first column gives way on a narrow terminal.
_LEAST_COLUMNS = 10
_UNBOUNDED_COLUMNS = 1000


def print_whole(table: Table) -> None:
    """Print a table of which nothing is cut: beyond a point the terminal breaks its lines."""
    unbounded = result.options.update(max_width=_UNBOUNDED_COLUMNS)
    whole = Measurement.get(result, unbounded, table).maximum
    if not result.is_terminal and "COLUMNS" not in os.environ:
        result.width = whole  # a file or a pipe has no width
    else:
        first = Measurement.get(result, unbounded, Group(*table.columns[0].cells)).maximum
        result.width = max(result.width, whole - max(0, first - _LEAST_COLUMNS))
    result.print(table)


def plain(columns: Iterable[str], right: Sequence[str]) -> Table:
    """Return a table whose first column alone gives way where the terminal is narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=number > 0, overflow="fold"
        )
    return table


def fits(table: Table) -> bool:
    """Tell whether a table has room; a file or a pipe has no width."""
    unbounded = result.options.update(max_width=_UNBOUNDED_COLUMNS)
    bounded = result.is_terminal or "COLUMNS" in os.environ
    return not bounded or Measurement.get(result, unbounded, table).maximum <= result.width


def print_pairs(
    titles: Sequence[str], rows: Sequence[tuple[Text, Sequence[Text]]], right: Sequence[str]
) -> None:
    """Print each row as two lines, what it is and below it its cells, where a table is too wide."""
    widths = [
        max(len(title), *(len(cells[number]) for _, cells in rows))
        for number, title in enumerate(titles)
    ]

    def line(cells: Sequence[Text]) -> Text:
        padded: list[str | Text] = [" "]
        for title, cell, width in zip(titles, cells, widths, strict=True):
            space = " " * (width - len(cell))
            padded += [" ", space, cell] if title in right else [" ", cell, space]
        found = Text.assemble(*padded)
        found.rstrip()
        return found

    result.print(line([Text(title, "dim") for title in titles]), soft_wrap=True)
    for name, cells in rows:
        result.print(name, soft_wrap=True)
        result.print(line(cells), soft_wrap=True)


def percent(part: int, whole: int, digits: int) -> str:
    """Return a part as percent, rounded down: all but a second is never 100 %."""
    if not whole:
        return NOTHING
    scaled = part * 100 * 10**digits // whole
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}} %"


def count(number: int, what: str) -> str:
    """Return a number of things: `1 room`, `2 rooms`."""
    return f"{number} {what}{'s' * (number != 1)}"


def span(asked: Period, zone: ZoneInfo) -> str:
    """Return a period as a heading has it."""
    return f"{shown(asked.start_s, zone)} to {shown(asked.end_s, zone)}, {zone.key}"


def moment(moment_s: int, zone: ZoneInfo) -> str:
    """Return a moment without its year, which the heading shows: `22 Nov 08:05:00`."""
    return f"{datetime.fromtimestamp(moment_s, zone):%d %b %H:%M:%S}"
