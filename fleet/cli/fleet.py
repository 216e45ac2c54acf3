"""`netzpuls fleet`: collect reports, show uptime and outages, check whether all is well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from firmware.linkreport.term import reason_name
from fleet import inventory, report, span
from fleet.check import CRITICAL_DAYS, PARTS, WARNING_DAYS, Answer, Thresholds, check
from fleet.cli import table
from fleet.cli.exchange import export, import_command
from fleet.cli.maintenance import maintenance, show_maintenance
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.cli.uptime import asked, period_options, uptime
from fleet.cli.verify import verify
from fleet.collect import (
    DEFAULT_PARALLEL,
    DEFAULT_TIMEOUT_S,
    Collected,
    CollectionError,
    collect,
)
from fleet.inventory import OWN
from fleet.outage import End
from fleet.period import duration
from fleet.reliability import KINDS, Summary
from fleet.report import Outages, PlacedOutage

_SILENT = {"netzpuls": "reports lost, boards ran on", "silence": "no report of any board"}
_THEN = {"silence": "then silent", "excluded": "then excluded"}


@click.group()
def fleet() -> None:
    """Collect reports; show uptime and outages."""


fleet.add_command(uptime)
fleet.add_command(maintenance)
fleet.add_command(verify)
fleet.add_command(import_command)
fleet.add_command(export)


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
            tell=lambda text: progress.print(text, markup=False, soft_wrap=True),
        )
    failed = [each.gateway for each in found if each.error]
    document: dict[str, Any] = {"gateways": [each.document() for each in found]}
    if not failed:
        emit(document, lambda: table.print_whole(_collected_table(found)), as_json)
        return 0
    error = CollectionError(
        f"{len(failed)} of {len(found)} gateways failed: {', '.join(failed)}",
        hint="what to do about each stands above; what came is kept, run the command again",
    )
    emit(error.document() | document, lambda: table.print_whole(_collected_table(found)), as_json)
    if not as_json:
        raise error
    return error.exit_code


@fleet.command()
@city_option
@period_options
@click.option(
    "--calendar",
    metavar="ID",
    help="Cut to what lies within this calendar of the inventory; own: within each site's own.  "
    "[default: around the clock]",
)
@click.option("--effects", "with_effects", is_flag=True, help="List what each cause led to.")
@click.option("--figures", "with_figures", is_flag=True, help="List MTTR and MTBF of each subject.")
@json_option
def outages(
    *,
    city: Path,
    site: str | None,
    start: str | None,
    end: str | None,
    calendar: str | None,
    with_effects: bool,
    with_figures: bool,
    as_json: bool,
) -> None:
    """Show what broke in a period: each cause once, its effects counted.

    Each one that touches the period is shown with its true begin and end. An outage ends when
    the subject works again. If reports stop first, it is known to have lasted until then; down
    again after a silence is another outage. With --json each brings its evidence: what the
    report that began it measured.
    """
    known = inventory.load(city)
    answer = report.outages(
        known, asked(known, start, end), site, calendar=calendar, with_evidence=as_json
    )

    def show() -> None:
        show_outages(answer, with_effects=with_effects)
        if with_figures:
            show_figures(answer)

    emit(answer.document(), show, as_json)


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


def _collected_table(found: Sequence[Collected]) -> Table:
    counts = ("new", "duplicates", "refused", "lost", "seconds")
    shown = table.plain(("gateway", *counts, ""), counts)
    for each in found:
        shown.add_row(
            Text(each.gateway),
            f"{each.new:,}",
            f"{each.duplicates:,}",
            _alarm(sum(each.refused.values())),
            _alarm(each.lost),
            f"{each.duration_s:.1f}",
            Text("failed", "bold red") if each.error else Text("good", "green"),
        )
    return shown


def _alarm(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "")


def show_outages(answer: Outages, *, with_effects: bool = False) -> None:
    """Print the table of `fleet outages`: the causes, and each outage below them if asked for."""
    result.print(
        Text(f"{answer.city}, {table.span(answer.period, answer.zone)}", "bold"), soft_wrap=True
    )
    if answer.calendar == OWN:
        result.print("cut to each site's own calendar")
    elif answer.calendar:
        result.print(f"cut to calendar {answer.calendar}", markup=False)
    if not answer.causes:
        result.print("no outage was seen (netzpuls fleet uptime shows how much was looked at)")
        show_maintenance(answer.maintenance, answer.zone)
        return
    titles = ("since", "until", "length", "layer: reason")
    rows = [
        row
        for number in range(len(answer.causes))
        for row in _rows(answer, number, with_effects=with_effects)
    ]
    shown = table.plain(("cause", *titles), ("length",))
    for name, told, cells in rows:
        shown.add_row(Text.assemble(name, f"\n  {told}" * bool(told)), *cells)
    if table.fits(shown):
        table.print_whole(shown)
    else:
        pairs = [
            (Text.assemble(name, f", {told}" * bool(told)), cells) for name, told, cells in rows
        ]
        table.print_pairs(titles, pairs, ("length",))
    totals = [(plural.replace("_", " "), answer.summary(kind)) for kind, plural in KINDS.items()]
    _show_summaries("", [(name, each) for name, each in totals if each.lengths_s])
    show_maintenance(answer.maintenance, answer.zone)


def show_figures(answer: Outages) -> None:
    """Print how often each subject failed, and what districts and the city come to."""
    rows = [(str(each.subject), each.summary) for each in answer.figures]
    rows += [
        (f"district/{district}", answer.summary("line", sites))
        for district, sites in answer.districts.items()
    ]
    _show_summaries("subject", [*rows, ("city", answer.summary("line"))])


def _show_summaries(title: str, rows: Sequence[tuple[str, Summary]]) -> None:
    if not rows:
        return
    titles = ("outages", "longest", "to repair", "between")
    shown = table.plain((title, *titles), titles)
    for name, summary in rows:
        shown.add_row(
            Text(name),
            str(len(summary.lengths_s)),
            *(_length(each) for each in (summary.longest_s, summary.mttr_s, summary.mtbf_s)),
        )
    result.print()
    table.print_whole(shown)


def _rows(
    answer: Outages, number: int, *, with_effects: bool
) -> Iterator[tuple[Text, str, list[Text]]]:
    """Yield what a cause is, what it reached, and its cells; and its effects if asked for."""
    cause = answer.causes[number]
    found = cause.outages[0].outage if cause.outages else None
    told = []
    if cause.kind in ("provider", "district"):
        told.append(table.count(len(cause.lines), "line"))
    if len(cause.points) > 1:
        told.append(table.count(len(cause.points), "access point"))
    if cause.rooms and cause.kind not in ("room", "board"):
        told.append(table.count(len(cause.rooms), "room"))
    if cause.times > 1:
        told.append(f"{cause.times} times")
    cells = [
        Text(table.moment(cause.start_s, answer.zone)),
        _until(cause.start_s, cause.end_s, cause.end, answer.zone),
        Text(duration(span.length_s(cause.down))),
        Text(_why(*found.cause) if found else _SILENT[cause.kind]),
    ]
    yield Text(answer.name_of(number), "bold"), ", ".join(told), cells
    for each in answer.found if with_effects else ():
        if each.cause == number and each.effect:
            effect = each.outage
            cells = [
                Text(table.moment(effect.start_s, answer.zone)),
                _until(effect.start_s, effect.end_s, effect.end, answer.zone),
                Text(duration(effect.length_s)),
                Text(_why(*effect.cause)),
            ]
            yield _where(each), "", cells


def _length(seconds: int | None) -> str:
    return table.NOTHING if seconds is None else duration(seconds)


def _why(layer: int, reason: int) -> str:
    return f"{report.layer_name(layer)}: {reason_name(reason)}"


def _until(start_s: int, end_s: int, end: End, zone: ZoneInfo) -> Text:
    if end == "ongoing":
        return Text("still down", "bold red")
    since, until = table.moment(start_s, zone), table.moment(end_s, zone)
    if since[:6] == until[:6]:
        until = until[7:]
    return Text(until if end == "recovered" else f"{until} {_THEN[end]}")


def _where(each: PlacedOutage) -> Text:
    if each.outage.kind == "line":
        return Text(f"  {each.site_name}, line", "dim")
    if each.access_point:
        return Text(f"  access point {each.access_point}", "dim")
    room = each.room if each.alone_in_room else f"{each.room} {each.board}".strip()
    return Text(f"  {room}", "dim")
