"""`netzpuls fleet`: collect reports, show uptime and outages, check whether all is well."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from zoneinfo import ZoneInfo

import click
from rich.console import Group
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from firmware.linkreport.table import DEGRADED, DOWN, EXCLUDED, UNKNOWN, UP
from firmware.linkreport.term import reason_name
from fleet import inventory, period, report
from fleet.check import CRITICAL_DAYS, PARTS, WARNING_DAYS, Answer, Thresholds, check
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.collect import (
    DEFAULT_PARALLEL,
    DEFAULT_TIMEOUT_S,
    Collected,
    CollectionError,
    collect,
)
from fleet.ledger import FOREVER_S
from fleet.outage import Outage
from fleet.period import Period, duration, shown
from fleet.report import BoardUptime, Outages, PlacedOutage, Tally, Uptime

# As far as a table's first column gives way on a narrow terminal.
_LEAST_COLUMNS = 10
_UNBOUNDED_COLUMNS = 1000
_NOTHING = "–"
_THEN = {"silence": "then silent", "excluded": "then excluded"}

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _period_options(command: Decorated) -> Decorated:
    for option in (
        click.option("--site", metavar="S", help="Only this site."),
        click.option(
            "--to",
            "end",
            metavar="WHEN",
            help="Until when; a date counts in full.  [default: now]",
        ),
        click.option(
            "--from",
            "start",
            metavar="WHEN",
            help="Since when: a date or time, in the city's time zone.  [default: 24 h before]",
        ),
    ):
        command = option(command)
    return command


@click.group()
def fleet() -> None:
    """Collect reports; show uptime and outages."""


@fleet.command("collect")
@city_option
@click.option(
    "--gateway", "gateways", multiple=True, metavar="ID", help="Only this one; repeatable."
)
@click.option("--again", is_flag=True, help="Read from the beginning; nothing is stored twice.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="Seconds that one gateway may take in all.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=DEFAULT_PARALLEL,
    show_default=True,
    metavar="N",
    help="How many gateways at a time.",
)
@json_option
def collect_command(
    *,
    city: Path,
    gateways: tuple[str, ...],
    again: bool,
    timeout_s: float,
    parallel: int,
    as_json: bool,
) -> int:
    """Pull what is new from the gateways over SSH.

    What came is kept whatever happens next, and the next run goes on from there. Exits with 1
    if a gateway failed; the others are collected all the same.
    """
    known = inventory.load(city)
    chosen = tuple(dict.fromkeys(gateways)) or tuple(sorted(known.gateways))
    with _Display(len(chosen)) as display:
        found = collect(
            known,
            chosen,
            again=again,
            timeout_s=timeout_s,
            parallel=parallel,
            on_progress=display.show,
        )
    failed = [each.gateway for each in found if each.error]
    document: dict[str, Any] = {"gateways": [each.document() for each in found]}
    if not failed:
        emit(document, lambda: _print(_collected_table(found)), as_json)
        return 0
    error = CollectionError(
        f"{len(failed)} of {len(found)} gateways failed: {', '.join(failed)}",
        hint="what to do about each stands above; what came is kept, run the command again",
    )
    emit(error.document() | document, lambda: _print(_collected_table(found)), as_json)
    if not as_json:
        raise error
    return error.exit_code


@fleet.command()
@city_option
@_period_options
@json_option
def uptime(
    *, city: Path, site: str | None, start: str | None, end: str | None, as_json: bool
) -> None:
    """Show for each line and board how long it worked.

    Availability is the working part of what is known; coverage says how much is known. Both are
    rounded down, so 100 % means that no second of downtime was seen.
    """
    known = inventory.load(city)
    asked = _asked(known, start, end)
    answer = report.uptime(known, asked, site)
    emit(answer.document(), lambda: show_uptime(answer), as_json)


@fleet.command()
@city_option
@_period_options
@json_option
def outages(
    *, city: Path, site: str | None, start: str | None, end: str | None, as_json: bool
) -> None:
    """Show the outages of lines and boards in a period.

    Each one that touches the period is shown with its true begin and end. An outage ends when
    the subject works again. If reports stop first, it is known to have lasted until then; down
    again after a silence is another outage. With --json each brings its evidence: what the
    report that began it measured.
    """
    known = inventory.load(city)
    asked = _asked(known, start, end)
    answer = report.outages(known, asked, site, with_evidence=as_json)
    emit(answer.document(), lambda: show_outages(answer), as_json)


@fleet.command("check")
@city_option
@click.option(
    "-w",
    "--warning",
    "warning_days",
    type=click.IntRange(0),
    default=WARNING_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Warn of certificates that end sooner.",
)
@click.option(
    "-c",
    "--critical",
    "critical_days",
    type=click.IntRange(0),
    default=CRITICAL_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Critical are those that end sooner than this.",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(list(PARTS)),
    multiple=True,
    help="Look at this alone; repeatable.  [default: all]",
)
@json_option
def check_command(
    *,
    city: Path,
    warning_days: int,
    critical_days: int,
    parts: tuple[str, ...],
    as_json: bool,
) -> int:
    """Say whether all is well, as a monitoring plugin does.

    Certificates of boards, gateways and the CA, boards and lines that are down or silent, by what
    was collected. Exits with 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    answer = check(inventory.load(city), Thresholds(warning_days, critical_days), parts)
    emit(answer.document(), lambda: _show_answer(answer), as_json)
    return int(answer.status)


def _show_answer(answer: Answer) -> None:
    """Print the status line with performance data, then each finding on a line of its own."""
    found = [f"{each.subject}: {each.message}" for each in answer.worst_first]
    first, *others = found or ["all is well"]
    more = f" (and {len(others)} more)" if others else ""
    figures = " ".join(metric.text() for metric in answer.metrics)
    line = f"NETZPULS {answer.status.name} - {_plain(first)}{more}"
    _line(f"{line} | {figures}" if figures else line)
    for each in answer.worst_first if others else ():
        _line(f"{each.status.name}: {_plain(each.subject)}: {_plain(each.message)}")


def _plain(text: str) -> str:
    return text.replace("|", "/")  # behind that sign performance data begin


def _line(text: str) -> None:
    result.print(text, markup=False, soft_wrap=True)


def _asked(city: inventory.Inventory, start: str | None, end: str | None) -> Period:
    return period.parse(start, end, ZoneInfo(city.city.timezone), int(time.time()))


class _Display:
    """Progress of a collection on stderr: a bar on a terminal, and a line per gateway."""

    def __init__(self, gateways: int) -> None:
        self._bar = Progress(
            TextColumn("collecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("gateways, {task.fields[rows]:,} reports"),
            TimeElapsedColumn(),
            console=progress,
            transient=True,
            disable=not progress.is_terminal,
        )
        self._task = self._bar.add_task("", total=gateways, rows=0)
        self._rows: dict[str, int] = {}
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, collected: Collected) -> None:
        """Show how far a gateway is; called from several threads."""
        self._rows[collected.gateway] = collected.rows
        self._done += collected.done
        self._bar.update(self._task, completed=self._done, rows=sum(self._rows.values()))
        if not collected.done:
            return
        error = collected.error
        if error is None:
            what = f"{collected.new:,} new in {collected.duration_s:.1f} s"
            if collected.refused:
                reasons = ", ".join(f"{n} {reason}" for reason, n in collected.refused.items())
                what += f"; refused: {reasons}"
            progress.print(f"{collected.gateway}: {what}", markup=False, soft_wrap=True)
            return
        progress.print(f"error: {error.message}", style="red", markup=False, soft_wrap=True)
        if error.hint:
            progress.print(f"hint: {error.hint}", markup=False, soft_wrap=True)


def _print(table: Table) -> None:
    """Print a table of which nothing is cut: beyond a point the terminal breaks its lines."""
    unbounded = result.options.update(max_width=_UNBOUNDED_COLUMNS)
    whole = Measurement.get(result, unbounded, table).maximum
    if not result.is_terminal and "COLUMNS" not in os.environ:
        result.width = whole  # a file or a pipe has no width
    else:
        first = Measurement.get(result, unbounded, Group(*table.columns[0].cells)).maximum
        result.width = max(result.width, whole - max(0, first - _LEAST_COLUMNS))
    result.print(table)


def _table(columns: Iterable[str], right: Sequence[str]) -> Table:
    """Return a table whose first column alone gives way where the terminal is narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=number > 0, overflow="fold"
        )
    return table


def _collected_table(found: Sequence[Collected]) -> Table:
    counts = ("new", "duplicates", "refused", "lost", "seconds")
    table = _table(("gateway", *counts, ""), counts)
    for each in found:
        table.add_row(
            Text(each.gateway),
            f"{each.new:,}",
            f"{each.duplicates:,}",
            _alarm(sum(each.refused.values())),
            _alarm(each.lost),
            f"{each.duration_s:.1f}",
            Text("failed", "bold red") if each.error else Text("good", "green"),
        )
    return table


def _alarm(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "")


def _percent(part: int, whole: int, digits: int) -> str:
    """Return a part as percent, rounded down: all but a second is never 100 %."""
    if not whole:
        return _NOTHING
    scaled = part * 100 * 10**digits // whole
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}} %"


def show_uptime(answer: Uptime) -> None:
    """Print the table of `fleet uptime`."""
    has_excluded = any(
        tally.seconds[EXCLUDED]
        for site in answer.sites
        for tally in (site.line, *(board.tally for board in site.boards))
    )
    states = [("up", UP), ("degraded", DEGRADED), ("down", DOWN), ("unknown", UNKNOWN)]
    if has_excluded:
        states.append(("excluded", EXCLUDED))
    figures = ["available", "covered", *(name for name, _ in states), "outages"]
    table = _table(["site · room and board", *figures], figures)

    def row(name: Text, tally: Tally) -> None:
        working = _percent(tally.working_s, tally.known_s, 3)
        style = "bold red" if tally.seconds[DOWN] else "green" if tally.known_s else "dim"
        table.add_row(
            name,
            Text(working, style),
            _percent(tally.known_s, tally.asked_s, 1),
            *(_hours(tally, state) for _, state in states),
            str(tally.outages) if tally.known_s else _NOTHING,
        )

    for site in answer.sites:
        row(Text(site.name, "bold"), site.line)
        for board in site.boards:
            row(Text(f"  {board.room}  {_held(board, answer.zone)}"), board.tally)
    if len(answer.sites) > 1:
        table.add_section()
        row(Text("all lines", "bold"), answer.lines)
    if answer.strangers:
        table.add_section()
        for board in answer.strangers:
            row(Text(f"not registered  {board.board}"), board.tally)
    result.print(Text(f"{answer.city}, {_span(answer.period, answer.zone)}", "bold"))
    _print(table)


def _held(there: BoardUptime, zone: ZoneInfo) -> str:
    """Return who held a place: `np-2 (until 22 Nov 08:05:00 np-1)`."""
    limits = [
        f"until {_moment(stint.end_s, zone)} {stint.board}".removesuffix(there.board).rstrip()
        for stint in there.stints
        if stint.end_s < FOREVER_S
    ]
    return there.board + (f" ({', '.join(limits)})" if limits else "")


def _hours(tally: Tally, state: int) -> Text:
    seconds = tally.seconds[state]
    style = "red" if state == DOWN else "yellow" if state == DEGRADED else ""
    return Text(duration(seconds), style) if seconds else Text(_NOTHING, "dim")


def _span(asked: Period, zone: ZoneInfo) -> str:
    return f"{shown(asked.start_s, zone)} to {shown(asked.end_s, zone)}, {zone.key}"


def show_outages(answer: Outages) -> None:
    """Print the table of `fleet outages`."""
    result.print(Text(f"{answer.city}, {_span(answer.period, answer.zone)}", "bold"))
    if not answer.found:
        result.print("no outage was seen (netzpuls fleet uptime shows how much was looked at)")
        return
    table = _table(("site and room", "since", "until", "length", "layer: reason"), ("length",))
    for each in answer.found:
        found = each.outage
        layer, reason = found.cause
        table.add_row(
            _where(each),
            _moment(found.start_s, answer.zone),
            _until(found, answer.zone),
            duration(found.length_s),
            f"{report.layer_name(layer)}: {reason_name(reason)}",
        )
    _print(table)


def _until(found: Outage, zone: ZoneInfo) -> Text:
    if found.end == "ongoing":
        return Text("still down", "bold red")
    since, until = _moment(found.start_s, zone), _moment(found.end_s, zone)
    if since[:6] == until[:6]:
        until = until[7:]
    return Text(until if found.end == "recovered" else f"{until} {_THEN[found.end]}")


def _moment(moment_s: int, zone: ZoneInfo) -> str:
    """Return a moment without its year, which the heading shows: `22 Nov 08:05:00`."""
    return f"{datetime.fromtimestamp(moment_s, zone):%d %b %H:%M:%S}"


def _where(each: PlacedOutage) -> Text:
    if each.outage.kind == "line":
        return Text.assemble((each.site_name, "bold"), ", line")
    room = each.room if each.alone_in_room else f"{each.room} {each.board}".strip()
    if each.effect:
        return Text(f"  {room}", "dim")
    return Text(f"{each.site_name or 'not registered:'} {room}")
