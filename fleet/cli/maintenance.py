"""`netzpuls fleet maintenance`: times that do not count, with who, when and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from fleet import inventory, period
from fleet import maintenance as windows
from fleet.cli import table
from fleet.cli.output import city_option, emit, json_option, result
from fleet.errors import UsageError
from fleet.inventory import Inventory
from fleet.maintenance import MAINTENANCE_FILE, Kind, Maintenance, Wish

_by_option = click.option(
    "--by",
    metavar="NAME",
    help="Who does it.  [default: your name in git, else your login]",
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def maintenance() -> None:
    """Times that do not count: enter, list and withdraw them."""


@maintenance.command()
@city_option
@click.option("--site", metavar="S", help="For this site and all that is there.")
@click.option("--board", metavar="ID", help="For this board, wherever it hung.")
@click.option("--access-point", metavar="ID", help="For this access point.")
@click.option("--gateway", metavar="ID", help="For all sites of this gateway.")
@click.option("--from", "start", metavar="WHEN", required=True, help="Since when: date or time.")
@click.option(
    "--to", "end", metavar="WHEN", required=True, help="Until when; a date counts in full."
)
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in every report.")
@_by_option
@_dry_run_option
@json_option
def add(
    *,
    city: Path,
    site: str | None,
    board: str | None,
    access_point: str | None,
    gateway: str | None,
    start: str,
    end: str,
    reason: str,
    by: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Enter a window, before its time or afterwards.

    It goes into maintenance.toml in the city's folder. Reports of that time, also of long ago,
    no longer count what was then, and say so.
    """
    known = inventory.load(city)
    kind, subject = _subject(
        {"site": site, "board": board, "access-point": access_point, "gateway": gateway}
    )
    wish = Wish(
        kind,
        subject,
        period.window(start, end, ZoneInfo(known.city.timezone)),
        reason,
        by or windows.author(city),
    )
    done = windows.add(known, wish, datetime.now(UTC), dry_run=dry_run)
    _emit(known, done, "entered", dry_run=dry_run, as_json=as_json)


@maintenance.command()
@click.argument("number", type=click.IntRange(1))
@city_option
@click.option("--reason", metavar="TEXT", required=True, help="Why it no longer holds.")
@_by_option
@_dry_run_option
@json_option
def withdraw(
    *, city: Path, number: int, reason: str, by: str | None, dry_run: bool, as_json: bool
) -> None:
    """Let a window no longer hold. It stays in the file, with who withdrew it and why."""
    known = inventory.load(city)
    author = by or windows.author(city)
    done = windows.withdraw(known, number, author, reason, datetime.now(UTC), dry_run=dry_run)
    _emit(known, done, "withdrawn", dry_run=dry_run, as_json=as_json)


@maintenance.command("list")
@city_option
@click.option("--all", "with_withdrawn", is_flag=True, help="The withdrawn ones, too.")
@json_option
def list_command(*, city: Path, with_withdrawn: bool, as_json: bool) -> None:
    """List the windows, as they were entered."""
    known = inventory.load(city)
    zone = ZoneInfo(known.city.timezone)
    found = [each for each in windows.load(known) if with_withdrawn or not each.withdrawn]
    document = {"maintenance": [each.document(zone) for each in found]}
    emit(document, lambda: _show(found, zone), as_json)


def show_maintenance(found: Iterable[Maintenance], zone: ZoneInfo) -> None:
    """Print which windows do not count, by whom they were entered and why."""
    for each in found:
        start_s, end_s = each.period.start_s, each.period.end_s
        when = f"{table.moment(start_s, zone)} to {table.moment(end_s, zone)}"
        entered = f"{each.entered.astimezone(zone):%d %b %Y}"
        late = ", afterwards" if each.afterwards else ""
        for line in (
            f"maintenance {each.number}: {' '.join(each.subject)}, {when}",
            f"  {each.reason} ({each.entered_by}, {entered}{late})",
        ):
            result.print(line, markup=False, soft_wrap=True)


def _subject(given: Mapping[Kind, str | None]) -> tuple[Kind, str]:
    said = [(kind, name) for kind, name in given.items() if name]
    if len(said) != 1:
        options = "--site, --board, --access-point and --gateway"
        raise UsageError("say for what it is", hint=f"give one of {options}")
    return said[0]


def _emit(city: Inventory, done: Maintenance, verb: str, *, dry_run: bool, as_json: bool) -> None:
    zone = ZoneInfo(city.city.timezone)
    document: dict[str, Any] = {"maintenance": done.document(zone), "dry_run": dry_run}

    def show() -> None:
        result.print(
            f"{'would be ' * dry_run}{verb}: {_told(done, zone)}"
            + ("" if dry_run else f" ({city.folder / MAINTENANCE_FILE})"),
            markup=False,
            soft_wrap=True,
        )

    emit(document, show, as_json)


def _told(each: Maintenance, zone: ZoneInfo) -> str:
    by = each.withdrawn.by if each.withdrawn else each.entered_by
    reason = each.withdrawn.reason if each.withdrawn else each.reason
    return (
        f"window {each.number}, {' '.join(each.subject)}, {table.span(each.period, zone)}: "
        f"{reason}, by {by}"
    )


def _show(found: list[Maintenance], zone: ZoneInfo) -> None:
    if not found:
        result.print("no maintenance window")
        return
    for each in found:
        late = ", when it had begun" if each.afterwards else ""
        head = f"{each.number}: {' '.join(each.subject)}, {table.span(each.period, zone)}"
        result.print(Text(head, "dim" if each.withdrawn else "bold"), soft_wrap=True)
        lines = [each.reason, f"entered {_when(each.entered, zone)} by {each.entered_by}{late}"]
        if each.withdrawn:
            end = each.withdrawn
            lines.append(f"withdrawn {_when(end.at, zone)} by {end.by}: {end.reason}")
        for line in lines:
            result.print(f"   {line}", markup=False, soft_wrap=True)


def _when(moment: datetime, zone: ZoneInfo) -> str:
    return period.shown(int(moment.timestamp()), zone)
