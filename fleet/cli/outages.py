"""`netzpuls fleet outages`: what broke, why, and what that led to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from firmware.linkreport.term import reason_name
from fleet import inventory, report, span
from fleet.cli import table
from fleet.cli.maintenance import show_maintenance
from fleet.cli.output import city_option, emit, json_option, result
from fleet.cli.uptime import asked, period_options
from fleet.inventory import OWN
from fleet.outage import End
from fleet.period import duration
from fleet.reliability import KINDS, Summary
from fleet.report import Outages, PlacedOutage

_SILENT = {"netzpuls": "reports lost, boards ran on", "silence": "no report of any board"}
_THEN = {"silence": "then silent", "excluded": "then excluded"}


@click.command()
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
        Text("still silent", "bold red")
        if cause.end == "ongoing" and found is None
        else _until(cause.start_s, cause.end_s, cause.end, answer.zone),
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
