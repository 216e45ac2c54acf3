"""The city's store: every report that was collected, and the ledger that follows from them.

    <city>/store/netzpuls.duckdb   see `fleet.store.schema`
    <city>/store/report, sealed    reports of days that are over, see `fleet.store.part`
    <city>/store/spill             what a collection has no room for in memory, while it runs
    <city>/store/writer.lock       held while a collection runs; names its process
    <city>/store/file.lock         held for the moments in which the file is open
    <city>/store/turn.lock         held while waiting for file.lock, so that nobody overtakes

One collection at a time writes; it opens the file for each piece only, so that any number of
readers can work between two pieces.
"""

from fleet.store.writer import (
    STORE_FILE,
    STORE_FOLDER,
    Cursor,
    Gap,
    Ingested,
    Store,
    Writer,
    count_reports,
    gaps,
    tidying,
)

__all__ = [
    "STORE_FILE",
    "STORE_FOLDER",
    "Cursor",
    "Gap",
    "Ingested",
    "Store",
    "Writer",
    "count_reports",
    "gaps",
    "tidying",
]
