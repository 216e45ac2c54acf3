"""What the lab shows while it runs: a live table of boards, faults and verdicts, or lines."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from fleet.cli.output import progress
from hil.lab.board import LabBoard
from hil.lab.laboratory import Laboratory
from hil.lab.listing import Listing

_REFRESH_S = 0.5
_EVENTS_SHOWN = 6
_STYLE = {"up": "green", "degraded": "yellow", "down": "bold red", "unknown": "dim"}
_SILENT_PERIODS = 2.5  # as the ledger's grace


class Screen:
    """Events as lines; with `live`, on a terminal, a table that follows the boards."""

    def __init__(self, *, live: bool = False, quiet: bool = False) -> None:
        self._begin_s = time.monotonic()
        self._quiet = quiet
        self._lab: Laboratory | None = None
        self._events: list[Text] = []
        self._live: Live | None = None
        if live and progress.is_terminal and not quiet:
            self._live = Live(self, console=progress, refresh_per_second=1 / _REFRESH_S)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, lab: Laboratory) -> None:
        """Show this lab's boards from now on."""
        self._lab = lab

    def event(self, text: str, style: str = "") -> None:
        """Say that something happened."""
        if self._quiet:
            return
        at_s = time.monotonic() - self._begin_s
        line = Text.assemble((f"{at_s:6.1f} s  ", "dim"), (text, style))
        self._events.append(line)
        del self._events[:-_EVENTS_SHOWN]
        if not self._live:
            progress.print(line, soft_wrap=True)

    def __rich__(self) -> Group:
        """Return what the terminal shows now."""
        return Group(*([boards(self._lab)] if self._lab else []), Text(), *self._events)


def boards(lab: Laboratory) -> Listing:
    """Return the table of boards: place, role, faults, verdict, since when, reports."""
    table = Listing(
        ("place", "role", "faults", "verdict", "since", "reports"),
        right=("since", "reports"),
        movable=("faults", "role", "verdict"),
    )
    now_s = time.monotonic()
    for board in lab.boards:
        verdict, since_s = _verdict(board, now_s, lab.period_s)
        table.add(
            f"{board.place.site_name} {board.place.room}",
            board.role.rpartition("-")[2],  # a row is to fit into 80 columns
            Text(", ".join(lab.faults_of(board)), "magenta"),
            verdict,
            f"{since_s:.0f} s" if since_s is not None else "",
            str(board.last.seq) if board.last else "",
        )
    return table


def _verdict(board: LabBoard, now_s: float, period_s: int) -> tuple[Text, float | None]:
    history = board.since(0)
    if not history:
        return Text("no report yet", "dim"), None
    last = history[-1]
    if now_s - last.at_s > _SILENT_PERIODS * period_s:
        return Text("unknown: silent", "dim"), now_s - last.at_s
    begin_s = last.at_s
    for told in reversed(history):
        if told.verdict != last.verdict:
            break
        begin_s = told.at_s
    text = Text(last.state, _STYLE.get(last.state, ""))
    if last.state != "up":
        text.append(f" {last.layer}: {last.reason}")
    return text, now_s - begin_s
