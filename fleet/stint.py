"""Whose reports count for whom and when, and when nothing counts; what the ledger is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb

FOREVER_S = 1 << 40


@dataclass(frozen=True)
class Window:
    """A time in which a subject does not count: maintenance, or outside a calendar.

    `subject` is a board's id or a site's; a site's window holds for its line and its boards, a
    board's for each place while it hangs there.
    """

    subject: str
    start_s: int
    end_s: int


@dataclass(frozen=True)
class Stint:
    """A time in which a board's reports count for a subject, which is at one site.

    A subject may have several boards one after the other, but never two at a time.
    """

    subject: str
    board: str
    site: str
    start_s: int = 0
    end_s: int = FOREVER_S


def fill(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: str,
    rows: Iterable[Sequence[object]],
) -> None:
    """Make a temporary table of rows."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    with connection.appender(name) as appender:
        for row in rows:
            appender.append_row(*row)
