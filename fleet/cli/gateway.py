"""`netzpuls gateway`: prepare, run and read a site's gateway."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fleet import authority, inventory
from fleet.cli.lazy import LazyGroup
from fleet.cli.output import city_option, emit, json_option, progress
from fleet.cli.status import status
from fleet.errors import UsageError
from fleet.gateway import prepare as preparation
from fleet.gateway import roster as rosters
from fleet.gateway import settings, supervisor, transfer
from fleet.gateway.database import Reader
from fleet.gateway.settings import Folder
from fleet.gateway.transfer import Header

_folder_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The gateway's folder.",
)


# Over SSH, with packages that a gateway does not have.
_OF_CITY_HALL = {
    "trust": ("fleet.cli.trust:trust", "Show a gateway's host key and record it."),
    "wheelhouse": ("fleet.cli.install:wheelhouse_command", "Make the packages for gateways."),
    "install": ("fleet.cli.install:install", "Make bare Debian hosts into gateways."),
    "upgrade": ("fleet.cli.install:upgrade", "Bring gateways to a new release."),
    "rollback": ("fleet.cli.install:rollback", "Go back to the release before."),
    "remove": ("fleet.cli.install:remove", "Take Netzpuls off a host, its data stays."),
}


@click.group(cls=LazyGroup, lazy=_OF_CITY_HALL)
def gateway() -> None:
    """Install, prepare and run a site's gateway."""


gateway.add_command(status)


@gateway.command()
@click.argument("gateway_id", metavar="ID")
@_folder_option
@city_option
@click.option(
    "--listen",
    default="0.0.0.0",  # noqa: S104 - boards come from the LAN
    show_default=True,
    help="New folder: the address that the broker listens on.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="New folder: the broker's port.  [default: the inventory's]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@json_option
def prepare(
    gateway_id: str,
    *,
    folder: Path,
    city: Path,
    listen: str,
    port: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make or renew a gateway's folder.

    It gets settings, certificates and its boards' report keys. Run it again whenever boards were
    enrolled or revoked; a running gateway notices. The folder holds secrets: copy it to the
    gateway by ssh, for the user that runs it there.
    """
    known = inventory.load(city)
    ca = authority.load(city) if dry_run else authority.ensure(city, known.city.id)
    chosen = preparation.plan(known, ca, gateway_id, Folder(folder), listen=listen, port=port)
    if not dry_run:
        preparation.apply(chosen)

    def render() -> None:
        would = "would write" if dry_run else "wrote"
        for change in chosen.changes:
            progress.print(f"{would} {change.path} ({change.why})", markup=False, soft_wrap=True)
        if not chosen.changes:
            progress.print("nothing has changed")
        progress.print(
            f"{gateway_id} has {chosen.boards} board{'s' * (chosen.boards != 1)} and "
            f"certificates until {chosen.certificate_expires:%Y-%m-%d}; "
            f"next: netzpuls gateway run --dir {folder}",
            markup=False,
            soft_wrap=True,
        )

    emit(chosen.document() | {"dry_run": dry_run}, render, as_json)


@gateway.command()
@_folder_option
@click.option(
    "--only",
    type=click.Choice(supervisor.PARTS),
    help="Run one of the two, as a service of systemd; ends with it.",
)
@click.option("--verbose", is_flag=True, help="Log what goes well, too.")
def run(*, folder: Path, only: supervisor.Part | None, verbose: bool) -> None:
    """Run broker and collector.

    Until Ctrl-C or SIGTERM; whichever of the two dies is started again. Logs to stderr, one line
    for each event; `ready` says that boards are served.
    """
    supervisor.run(folder, only=only, verbose=verbose)


@gateway.command()
@city_option
@click.option(
    "--listen",
    default="0.0.0.0",  # noqa: S104 - boards come from the bench's WLAN
    show_default=True,
    help="New folder: the address that the broker listens on.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="New folder: the port that it listens on.  [default: the inventory's]",
)
@click.option("--verbose", is_flag=True, help="Log what goes well, too.")
def bench(*, city: Path, listen: str, port: int | None, verbose: bool) -> None:
    """Run the gateway of the desk's bench, with which boards are tested before they are enrolled.

    Its folder is made or renewed first, as [bench] of the inventory says. Boards that are at the
    desk are known to it, and what they report here counts nowhere. Until Ctrl-C or SIGTERM.
    """
    known = inventory.load(city)
    ca = authority.ensure(city, known.city.id)
    chosen = preparation.plan_bench(known, ca, listen=listen, port=port)
    preparation.apply(chosen)
    supervisor.run(chosen.folder.path, verbose=verbose)


@gateway.command()
@_folder_option
@click.option("--after", type=click.IntRange(0), default=0, help="Only rows after this one.")
@click.option("--database", help="Which database --after counts in; in another all is read.")
@click.option("--limit", type=click.IntRange(1), help="At most so many rows.")
def read(*, folder: Path, after: int, database: str | None, limit: int | None) -> None:
    """Write collected reports to stdout.

    `netzpuls fleet collect` calls it over SSH. It reads while the gateway runs and changes
    nothing.
    """
    if sys.stdout.isatty():
        raise UsageError(
            "reports are binary and this is a terminal",
            hint="netzpuls fleet collect calls this; to keep them: … > reports.transfer",
        )
    place = Folder(folder)
    chosen = settings.load(place)
    reader = Reader(place.database)
    try:
        # A restored or new database counts anew: rows that the reader has are no use there.
        known = database in (None, reader.database) and after <= reader.last_row
        first = after if known else 0
        header = Header(reader.database, chosen.id, first, reader.last_row)
        rows = reader.rows(first, reader.last_row, limit)
        transfer.write(sys.stdout.buffer, header, rows)
    finally:
        reader.close()


@gateway.command()
@_folder_option
def roster(*, folder: Path) -> None:
    """Take from stdin who may report here.

    `netzpuls fleet collect` calls it over SSH: report keys of this gateway's boards, the city's
    CA certificate and the certificates that no longer hold. A running gateway notices.
    """
    if sys.stdin.isatty():
        raise UsageError(
            "the roster comes from city hall and this is a terminal",
            hint="run there: netzpuls fleet collect",
        )
    rosters.serve(Folder(folder), sys.stdin.buffer, sys.stdout.buffer)
