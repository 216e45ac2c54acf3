"""`netzpuls fleet check`: whether all is well, for Icinga, Nagios and Checkmk."""

from __future__ import annotations

from pathlib import Path

import click

from fleet import inventory
from fleet.check import CRITICAL_DAYS, PARTS, WARNING_DAYS, Answer, Thresholds, check
from fleet.cli.output import city_option, emit, json_option, result


@click.command("check")
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
