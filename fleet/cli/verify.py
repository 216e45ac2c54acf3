"""`netzpuls fleet verify`: is the ledger what the reports say?"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from firmware.linkreport.term import STATES, reason_name
from fleet import inventory, report
from fleet.cli import table
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.period import shown
from fleet.verify import Verification
from fleet.verify import mend as mending
from fleet.verify import verify as compare

# So many differences stand in the table; all are in the JSON document.
_SHOWN = 20


@click.command()
@city_option
@json_option
@click.option(
    "--mend",
    is_flag=True,
    help="Lay anew what differs, from the reports; the store's file is kept beside it as it was.",
)
def verify(*, city: Path, as_json: bool, mend: bool) -> int:
    """Recompute the ledger from all reports and compare it with what the store keeps.

    For auditors: every interval of every board is found anew by SQL. With what keeps the intervals
    up to date it shares the rules of the clock, by which some boots are timed, and no more. Exits
    with 1 if any second differs.
    """
    known = inventory.load(city)
    answer = compare(known.folder)
    error = answer.error(known.city.name)
    zone = ZoneInfo(known.city.timezone)
    mended: dict[str, Any] = {}
    if error and mend:
        mended["mended"] = answer.differing()
        answer, before = mending(known.folder, answer, lambda said: progress.print(escape(said)))
        mended["before"] = str(before)
        error = answer.error(known.city.name)
        progress.print(
            f"laid anew: {escape(', '.join(mended['mended']))}; the store's file as it was is "
            f"{escape(str(before))}",
            soft_wrap=True,
        )
    if error is None:
        document = answer.document() | mended
        emit(document, lambda: result.print(answer.text(zone), soft_wrap=True), as_json)
        return 0
    document = error.document() | answer.document() | mended
    emit(document, lambda: table.print_whole(_differences(answer, zone)), as_json)
    if not as_json:
        raise error
    return error.exit_code


def _differences(answer: Verification, zone: ZoneInfo) -> Table:
    found = table.plain(("board", "since", "until", "said by", "state", "layer: reason"), ())
    for each in answer.differences[:_SHOWN]:
        interval = each.interval
        found.add_row(
            Text(interval.subject),
            shown(interval.start_s, zone),
            shown(interval.end_s, zone),
            each.said_by,
            STATES[interval.state],
            f"{report.layer_name(interval.layer)}: {reason_name(interval.reason)}",
        )
    return found
