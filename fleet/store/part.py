"""Where the reports are that the store holds."""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from pathlib import Path

import duckdb


class Shelf:
    """The reports of a store."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def show(self) -> None:
        """Let SQL see all reports as `report`."""
        self._connection.execute("CREATE OR REPLACE TEMP VIEW report AS FROM recent")

    def source(
        self, columns: tuple[str, ...], low_s: int | None = None, high_s: int | None = None
    ) -> str:
        """Return SQL for columns of the stored reports and `cold`, whether from a day file."""
        return f"SELECT {', '.join(columns)}, false AS cold FROM recent"
