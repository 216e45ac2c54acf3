"""`netzpuls fleet collect`: pull what is new, once or on a schedule."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fleet import inventory, watch
from fleet.cli import table
from fleet.cli.login import unlock
from fleet.cli.output import bounds, city_option, emit, json_option, progress
from fleet.collect import (
    DEFAULT_PARALLEL,
    DEFAULT_TIMEOUT_S,
    Collected,
    CollectionError,
    collect,
)
from fleet.errors import UsageError
from fleet.watch import DEFAULT_EVERY_S


@click.command("collect")
@city_option
@click.option(
    "--gateway", "gateways", multiple=True, metavar="ID", help="Only this one; repeatable."
)
@click.option("--again", is_flag=True, help="Read from the beginning; nothing is stored twice.")
@bounds(
    DEFAULT_TIMEOUT_S, "Seconds that one gateway may take in all.", DEFAULT_PARALLEL, least_s=0.1
)
@click.option("--watch", "forever", is_flag=True, help="Go on, a round and a line every so often.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=1),
    default=DEFAULT_EVERY_S,
    show_default=True,
    metavar="S",
    help="With --watch: seconds from round to round, a tenth more or less.",
)
@json_option
def collect_command(
    *,
    city: Path,
    gateways: tuple[str, ...],
    again: bool,
    timeout_s: float,
    parallel: int,
    forever: bool,
    every_s: float,
    as_json: bool,
) -> int:
    """Pull what is new from the gateways over SSH.

    What came is kept whatever happens next, and the next run goes on from there. Exits with 1
    if a gateway failed; the others are collected all the same. With --watch a failure is said and
    the next round comes; SIGTERM ends it with 0.
    """
    known = inventory.load(city)
    if forever and (again or as_json):
        raise UsageError(
            "--watch goes with neither --again nor --json",
            hint="a schedule reads on from where it was, and says a line for each round",
        )
    chosen = tuple(dict.fromkeys(gateways)) or tuple(sorted(known.gateways))
    unlock(known, chosen)
    if forever:
        return _watch(city, gateways, every_s=every_s, timeout_s=timeout_s, parallel=parallel)
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


class _TerminatedError(KeyboardInterrupt):
    """Somebody ended a schedule as services are ended."""


def _watch(
    city: Path, gateways: Sequence[str], *, every_s: float, timeout_s: float, parallel: int
) -> int:
    def end(_signal: int, _frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    schedule = watch.rounds(city, gateways, every_s=every_s, timeout_s=timeout_s, parallel=parallel)
    try:
        with closing(schedule):
            for each in schedule:
                progress.print(each.line(), markup=False, soft_wrap=True)
    except _TerminatedError:
        progress.print("ended", markup=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


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
