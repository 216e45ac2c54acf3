"""`netzpuls fleet uptime`: tables and CSV of how long things worked."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from firmware.linkreport.table import DEGRADED, DOWN, UNKNOWN, UP
from firmware.linkreport.term import STATES
from fleet import inventory, period
from fleet import uptime as figures
from fleet.cli import table
from fleet.cli.explain import explain
from fleet.cli.maintenance import show_maintenance
from fleet.cli.output import city_option, emit, json_option, print_text, result
from fleet.errors import UsageError
from fleet.inventory import ALWAYS, Subject
from fleet.period import Period, duration, iso
from fleet.stint import FOREVER_S
from fleet.tally import Tally, Verdict
from fleet.uptime import BoardUptime, Row, Uptime

_RESULTS = {
    "met": ("met", "green"),
    "missed": ("missed", "bold red"),
    "coverage-too-low": ("cannot be said", "yellow"),
    "other-calendar": ("by another calendar", "dim"),
}
_CSV_COLUMNS = (
    "kind", "id", "name", "district", "site", "room", "board", "calendar", "from", "to",
    "availability", "coverage", *(f"{state}_s" for state in STATES), "outside_calendar_s",
    "maintenance_s", "outages", "promised_percent", "promise",
)  # fmt: skip

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def period_options(command: Decorated) -> Decorated:
    """Give a command --from, --to and --site."""
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


def asked(city: inventory.Inventory, start: str | None, end: str | None) -> Period:
    """Return the period that a user asked for.

    Raises: UsageError: the texts make none.
    """
    return period.parse(start, end, ZoneInfo(city.city.timezone), int(time.time()))


@click.command()
@city_option
@period_options
@click.option("--month", metavar="YYYY-MM", help="All of a month, instead of --from and --to.")
@click.option(
    "--subject",
    metavar="WHAT",
    help="city, district/ID, site/ID, line/ID, room/SITE/ROOM, access-point/ID or board/ID.  "
    "[default: all]",
)
@click.option(
    "--calendar",
    metavar="ID",
    help="Count by this calendar of the inventory, or by 24/7.  [default: each site's own, "
    "24/7 where it has none]",
)
@click.option(
    "--explain",
    "question",
    nargs=2,
    metavar="WHAT WHEN",
    help="Instead: why a subject was in its state in that second.",
)
@click.option(
    "--engine",
    metavar="URL",
    help="Recompute all from the reports there instead of asking the kept intervals: duckdb, chdb "
    "or spark://HOST:PORT.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout, one line per subject.")
@json_option
def uptime(
    *,
    city: Path,
    site: str | None,
    start: str | None,
    end: str | None,
    month: str | None,
    subject: str | None,
    calendar: str | None,
    question: tuple[str, str] | None,
    engine: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show for each line, access point and board how long it worked.

    Availability is the working part of what is known; coverage says how much is known. Both are
    rounded down, so 100 % means that no second of downtime was seen. What lies outside the
    calendar, and maintenance, does not count; both are told.
    """
    if site and subject:
        raise UsageError("--site and --subject both say what", hint="give one of them")
    if month and (start or end):
        raise UsageError("--month and --from or --to both say when", hint="give one of them")
    if as_csv and as_json:
        raise UsageError("--csv and --json both say how", hint="give one of them")
    known = inventory.load(city)
    if question:
        if site or subject or month or start or end or engine or as_csv:
            raise UsageError(
                "--explain says what and when itself", hint="only --calendar and --json go with it"
            )
        explain(known, *question, calendar, as_json=as_json)
        return
    if site:
        known.site(site)
    told = Subject("site", site) if site else known.subject(subject) if subject else None
    if month:
        when = period.month(month, ZoneInfo(known.city.timezone), int(time.time()))
    else:
        when = asked(known, start, end)
    answer = figures.find(known, when, told, calendar, engine)
    if as_csv:
        print_text(_csv(answer))
    else:
        emit(answer.document(), lambda: show_uptime(answer, calendar), as_json)


def show_uptime(answer: Uptime, calendar: str | None = ALWAYS) -> None:
    """Print the table of `fleet uptime`: as one, or where that is too wide a row in two lines.

    Args:
        answer: what to show.
        calendar: by which all sites were counted; None if each by its own.
    """
    rows = list(answer.rows())
    columns: dict[str, Callable[[Row], Text]] = {
        "available": lambda row: _available(row.tally),
        "covered": lambda row: Text(table.percent(row.tally.known_s, row.tally.asked_s, 1)),
        "up": lambda row: _hours(row.tally.seconds[UP]),
        "degraded": lambda row: _hours(row.tally.seconds[DEGRADED], "yellow"),
        "down": lambda row: _hours(row.tally.seconds[DOWN], "red"),
        "unknown": lambda row: _hours(row.tally.seconds[UNKNOWN]),
    }
    if any(row.tally.calendar_s for row in rows):
        columns["outside"] = lambda row: _hours(row.tally.calendar_s)
    if any(row.tally.maintenance_s for row in rows):
        columns["maint."] = lambda row: _hours(row.tally.maintenance_s)
    result.print(
        Text(f"{answer.city}, {table.span(answer.period, answer.zone)}", "bold"), soft_wrap=True
    )
    own = calendar is None and {row.calendar for row in rows} != {ALWAYS}
    if own:
        result.print("each site by its own calendar")
    elif calendar not in (None, ALWAYS):
        result.print(f"by calendar {calendar}", markup=False)
    sections = _sections(answer, rows)
    if not _show_table(sections, answer.zone, columns, own=own):
        _show_pairs(sections, answer.zone, columns, own=own)
    show_maintenance(answer.excluded.maintenance, answer.zone)


def _sections(answer: Uptime, rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows as they are shown: sites and boards, then what sums them up."""
    parts, sums, strangers = [], [], []
    for row in rows:
        if row.subject.kind == "city":
            if answer.told or len(answer.sites) > 1:
                sums.append(row)
        elif row.subject.kind == "district":
            if answer.told or len(answer.districts) > 1:
                sums.insert(len(sums) - 1 if not answer.told else 0, row)
        elif row.site is None:
            strangers.append(row)
        else:
            parts.append(row)
    return [section for section in (parts, sums, strangers) if section]


def _show_table(
    sections: list[list[Row]],
    zone: ZoneInfo,
    columns: dict[str, Callable[[Row], Text]],
    *,
    own: bool,
) -> bool:
    """Print one table if the terminal is wide enough for it."""
    has_promise = any(row.verdict for section in sections for row in section)
    names = [*columns, "outages"]
    shown = table.plain(
        ["site · room and board", *names, *(["promised"] if has_promise else [])], names
    )
    for section in sections:
        for row in section:
            shown.add_row(
                _name(row, zone, own=own),
                *(figure(row) for figure in columns.values()),
                str(row.tally.outages) if row.tally.known_s else table.NOTHING,
                *([_promise(row.verdict)] if has_promise else []),
            )
        shown.add_section()
    if not table.fits(shown):
        return False
    table.print_whole(shown)
    return True


def _show_pairs(
    sections: list[list[Row]],
    zone: ZoneInfo,
    columns: dict[str, Callable[[Row], Text]],
    *,
    own: bool,
) -> None:
    """Print each row as two lines: what it is, and below it the figures."""
    pairs = []
    for row in (row for section in sections for row in section):
        told: list[str | Text] = [_name(row, zone, own=own)]
        if row.tally.known_s:
            told.append(f", {table.count(row.tally.outages, 'outage')}")
        if row.verdict:
            told += [", promised ", _promise(row.verdict)]
        pairs.append((Text.assemble(*told), [figure(row) for figure in columns.values()]))
    table.print_pairs(list(columns), pairs, list(columns))


def _name(row: Row, zone: ZoneInfo, *, own: bool) -> Text:
    if row.subject.kind == "city":
        return Text("all lines", "bold")
    if row.subject.kind == "district":
        return Text(f"{row.name}, all lines", "bold")
    if row.subject.kind == "access-point":
        return Text(f"  access point {row.subject.id}" + f", {row.name}" * bool(row.name))
    if row.place is None:
        return Text.assemble((row.name, "bold"), f" ({row.calendar})" if own else "")
    held = _held(row.place, zone)
    return Text(f"  {row.place.room}  {held}" if row.site else f"not registered  {held}")


def _held(there: BoardUptime, zone: ZoneInfo) -> str:
    """Return who held a place: `np-2 (until 22 Nov 08:05:00 np-1)`."""
    limits = [
        f"until {table.moment(stint.end_s, zone)} {stint.board}".removesuffix(there.board).rstrip()
        for stint in there.stints
        if stint.end_s < FOREVER_S
    ]
    return there.board + (f" ({', '.join(limits)})" if limits else "")


def _available(found: Tally) -> Text:
    style = "bold red" if found.seconds[DOWN] else "green" if found.known_s else "dim"
    return Text(table.percent(found.working_s, found.known_s, 3), style)


def _hours(seconds: int, style: str = "") -> Text:
    return Text(duration(seconds), style) if seconds else Text(table.NOTHING, "dim")


def _promise(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text(table.NOTHING, "dim")
    words, style = _RESULTS[verdict.result]
    return Text.assemble(f"{verdict.sla.availability_percent:g} %: ", (words, style))


def _cell(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def _csv(answer: Uptime) -> str:
    """Return one line per subject, times as programs read them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_CSV_COLUMNS)
    for row in answer.rows():
        found, verdict = row.tally, row.verdict
        district = row.site.district if row.site else ""
        writer.writerow(
            _cell(value)
            for value in (
                row.subject.kind,
                row.subject.id,
                row.site.name if row.site else row.name,
                row.subject.id if row.subject.kind == "district" else district,
                row.site.site if row.site else "",
                row.name
                if row.subject.kind == "access-point"
                else row.place.room
                if row.place
                else "",
                row.place.board if row.place else "",
                row.calendar,
                iso(answer.period.start_s, answer.zone),
                iso(answer.period.end_s, answer.zone),
                "" if found.availability is None else found.availability,
                "" if found.coverage is None else found.coverage,
                *found.seconds,
                found.calendar_s,
                found.maintenance_s,
                found.outages,
                verdict.sla.availability_percent if verdict else "",
                verdict.result if verdict else "",
            )
        )
    return text.getvalue()
