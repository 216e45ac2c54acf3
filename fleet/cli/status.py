"""`netzpuls gateway status`: how the gateway in a folder is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from fleet.cli.output import print_text, result
from fleet.gateway import status as statuses
from fleet.gateway.settings import Folder
from fleet.gateway.status import SILENT_S, Status
from fleet.period import duration


@click.command("status")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The gateway's folder.",
)
@click.option("--after", type=click.IntRange(0), default=0, help="City hall has rows up to this.")
@click.option("--database", help="Which database --after counts in; in another it has none.")
@click.option(
    "--silent-after",
    "silent_s",
    type=click.IntRange(1),
    default=SILENT_S,
    show_default=True,
    metavar="S",
    help="Seconds without a report after which a board is silent.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON on stdout, errors included."
)
def status(*, folder: Path, after: int, database: str | None, silent_s: int, as_json: bool) -> None:
    """Say how the gateway here is.

    Broker, collector, what waits, disk, clock, certificates, silent boards. Changes nothing;
    `netzpuls fleet check` calls it over SSH.
    """
    found = statuses.read(Folder(folder), after=after, database=database, silent_s=silent_s)
    if as_json:
        # Not the usual document: city hall takes no more than one line.
        print_text(found.model_dump_json() + "\n")
        return
    for line in describe(found):
        result.print(line, markup=False, soft_wrap=True)


def describe(found: Status) -> list[str]:
    """Return a gateway's status in words, one line each."""
    now_s = found.time_ms // 1000

    def since(moment_s: int | None) -> str:
        return "" if moment_s is None else f", the oldest for {duration(max(0, now_s - moment_s))}"

    clock = f"{datetime.fromtimestamp(now_s, UTC):%F %T} UTC"
    newest = "no report yet"
    if found.received_s is not None:
        newest = f"newest report {duration(max(0, now_s - found.received_s))} ago"
    waiting = f"{found.waiting:,} reports for city hall" + since(found.waiting_since_s)
    held = f"{found.unacknowledged:,} reports behind a hole" + since(found.unacknowledged_since_s)
    free = found.disk_free_bytes / max(1, found.disk_total_bytes)
    told = {
        "gateway": f"{found.gateway}, Netzpuls {found.version}, {clock}",
        "broker": "answers" if found.broker else "does not answer",
        "collector": "runs" if found.collector else "does not run",
        "restarts": f"{found.restarts} of broker or collector",
        "boards": f"{found.boards}, {found.silent_count} of them silent; {newest}",
        "waiting": waiting,
        "held": held,
        "disk": f"{free:.0%} free, {found.disk_free_bytes / 1e9:,.1f} GB",
    }
    ends = {f"{name} cert.": f"until {end:%F}" for name, end in found.certificates.items()}
    return [f"{name:16}{text}" for name, text in (told | ends).items()]
