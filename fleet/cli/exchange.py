"""`netzpuls fleet import` and `netzpuls fleet export`: reports from and to other tools."""

from __future__ import annotations

from pathlib import Path

import click

from fleet import exchange, inventory
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.errors import NetzpulsError
from fleet.exchange import Imported

_PATH = click.Path(path_type=Path, dir_okay=False)


class RejectedError(NetzpulsError):
    """Some rows of a file are no reports."""

    code = "rows-rejected"


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE…")
@city_option
@click.option(
    "--rejects",
    type=_PATH,
    default=Path("rejected.jsonl"),
    show_default=True,
    help="Where rows go that are no reports.",
)
@click.option("--dry-run", is_flag=True, help="Read and check all, store nothing.")
@json_option
def import_command(
    *, files: tuple[Path, ...], city: Path, rejects: Path, dry_run: bool, as_json: bool
) -> int:
    """Bring reports from files into the store: Parquet, CSV, JSON Lines.

    What is there already changes nothing. Rows that are no reports go to a file with their line
    and the reason; the others are stored all the same, and the exit code is 1.
    """
    known = inventory.load(city)

    def show(path: Path, found: Imported) -> None:
        progress.print(f"{path.name}: {found.rows:,} rows read", markup=False, soft_wrap=True)

    found = exchange.take(known.folder, list(files), rejects, show, dry_run=dry_run)
    done = "checked" if dry_run else f"{found.new:,} new, {found.duplicates:,} duplicates"
    line = f"{found.rows:,} rows: {done}, {found.rejected:,} rejected"
    strangers = sorted(found.devices - known.boards.keys())
    if strangers:
        named = ", ".join(strangers[:5]) + (" …" if len(strangers) > 5 else "")
        progress.print(
            f"{len(strangers):,} of {len(found.devices):,} boards are not in the registry: "
            f"{named}; fleet uptime tells of them apart until they are",
            markup=False,
            soft_wrap=True,
        )
    document = found.document() | {"unregistered_boards": strangers}
    if not found.rejected:
        emit(document, lambda: result.print(line, soft_wrap=True), as_json)
        return 0
    reason, count = max(found.reasons.items(), key=lambda item: item[1])
    error = RejectedError(
        f"{found.rejected:,} of {found.rows:,} rows are no reports; "
        f"most often: {reason} ({count:,})",
        hint=f"{rejects} names each; correct the rows and import the file again",
    )
    emit(
        error.document() | document,
        lambda: result.print(line, soft_wrap=True),
        as_json,
    )
    if not as_json:
        raise error
    return error.exit_code


@click.group("export")
def export() -> None:
    """Write what the store holds for other tools."""


@export.command("raw")
@click.argument("file", type=_PATH)
@city_option
@json_option
def raw(*, file: Path, city: Path, as_json: bool) -> None:
    """Write all reports to FILE, by its ending as Parquet, CSV or JSON Lines."""
    known = inventory.load(city)
    count = exchange.give(known.folder, file)
    emit(
        {"file": str(file), "reports": count},
        lambda: result.print(f"{file}: {count:,} reports", markup=False, soft_wrap=True),
        as_json,
    )
