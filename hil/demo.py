"""`netzpuls demo`: from blank boards to a line of uptime, once, in about a minute.

Nothing is assumed: what the boards say they made is compared with what the store holds, and
what the ledger blames with what was broken.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from firmware.linkreport import table as table_of_layers
from fleet import collect, inventory, report, uptime
from fleet.cli.outages import show_outages
from fleet.cli.output import json_option, print_document, progress, result
from fleet.cli.uptime import show_uptime
from fleet.errors import BenchError, NetzpulsError
from fleet.period import Period
from fleet.report import Outages
from fleet.store import Store
from fleet.uptime import Uptime
from hil.city import GATEWAY_ID, VirtualBoard, VirtualCity
from hil.console import ConsoleReader
from hil.gateway import Part
from provisioning.display import STAGES
from provisioning.flash import Progress

PERIOD_S = 2
_FIRST_REPORT_S = 30.0
_REFRESH_S = 0.25
_EVENTS_SHOWN = 8
_STATE_STYLE = {"up": "green", "degraded": "yellow", "down": "bold red", "unknown": "dim"}
# When, as a share of the time that boards report, and what.
_STORY = ((0.12, "kill-broker"), (0.35, "cut"), (0.5, "kill-collector"), (0.65, "restore"))


@dataclass
class _BoardView:
    stage: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    committed: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    joined: bool = False


class _Screen:
    """What is going on: a live table on a terminal, else one line for each event."""

    def __init__(self, *, quiet: bool) -> None:
        self._begin = time.monotonic()
        self._quiet = quiet
        self._live: Live | None = None
        self._events: list[Text] = []
        self._city: VirtualCity | None = None
        self._views: dict[str, _BoardView] = {}
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        if progress.is_terminal and not self._quiet:
            self._live = Live(self, console=progress, refresh_per_second=1 / _REFRESH_S)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def event(self, text: str, style: str = "") -> None:
        """Say that something happened."""
        at_s = time.monotonic() - self._begin
        self.events.append({"at_s": round(at_s, 1), "event": text})
        line = Text.assemble((f"{at_s:5.1f} s  ", "dim"), (text, style))
        self._events.append(line)
        if not self._live:
            progress.print(line, soft_wrap=True)

    def show(self, city: VirtualCity) -> None:
        """Show this city's boards from now on."""
        self._city = city
        self._views = {board.id: _BoardView() for board in city.boards}

    def flashing(self, board: VirtualBoard, step: Progress) -> None:
        """Take a step of one board's way through the desk."""
        view = self._views[board.id]
        view.stage, view.done_bytes, view.total_bytes = (
            STAGES[step.stage],
            step.done_bytes,
            step.total_bytes,
        )

    def told(self, board: VirtualBoard, said: dict[str, Any], committed: int) -> None:
        """Take what a board said last, and how much of it is safe."""
        view = self._views[board.id]
        view.joined = view.joined or said.get("state") in ("up", "degraded")
        if view.joined and said.get("state") != view.told.get("state"):
            place = f"{board.place.site_name} {board.place.room}"
            what = said["state"]
            if what != "up":
                what += f": {said.get('layer')}, {said.get('reason')}"
            self.event(f"{place} says {what}", _STATE_STYLE.get(str(said["state"]), ""))
        view.told, view.committed = dict(said), committed

    def __rich__(self) -> Group:
        """Return what the terminal shows now."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("site", "room", "board", "now", "made", "committed"):
            right = title in ("made", "committed")
            # Where the terminal is narrow, "now" alone gives way.
            table.add_column(title, justify="right" if right else "left", no_wrap=title != "now")
        for board in self._city.boards if self._city else ():
            view = self._views[board.id]
            table.add_row(
                board.place.site_name,
                board.place.room,
                board.id,
                _now(view),
                str(view.told.get("seq", "")),
                str(view.committed or ""),
            )
        elapsed = f"{time.monotonic() - self._begin:5.1f} s"
        events = self._events[-_EVENTS_SHOWN:]
        return Group(table, Text(), *events, Text(elapsed, "dim"))


def _now(view: _BoardView) -> Text:
    if view.told:
        state = str(view.told["state"])
        text = Text(state, _STATE_STYLE.get(state, ""), no_wrap=True, overflow="ellipsis")
        if state not in ("up", "unknown"):
            text.append(f" {view.told.get('layer')}: {view.told.get('reason')}")
        return text
    if view.total_bytes:
        filled = 8 * view.done_bytes // view.total_bytes
        percent = 100 * view.done_bytes // view.total_bytes
        bar = ("━" * filled, "cyan"), ("━" * (8 - filled), "dim")
        what = f" {percent:3} %  {view.stage}"
        return Text.assemble(*bar, what, no_wrap=True, overflow="ellipsis")
    return Text(view.stage, "dim", no_wrap=True, overflow="ellipsis")


@dataclass
class _Outcome:
    """What the demo found out; `document` is what `--json` prints."""

    folder: Path
    broken_site: str
    broken_boards: tuple[str, ...]
    flashed: int = 0
    made: dict[str, int] = field(default_factory=dict)
    spooled: int = 0
    dropped: int = 0
    committed: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    stored: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    collected: int = 0
    uptime: Uptime | None = None
    outages: Outages | None = None

    @property
    def lost(self) -> int:
        """Reports that a board made and the store does not hold."""
        return sum(
            made - len({seq for _, seq in self.stored.get(board, ()) if seq <= made})
            for board, made in self.made.items()
        )

    @property
    def duplicated(self) -> int:
        """Rows in the store beyond one for each report."""
        return sum(len(rows) - len(set(rows)) for rows in self.stored.values())

    @property
    def blames_rightly(self) -> bool:
        """Whether the ledger blames the cut line's boards, that layer, and nothing else."""
        found = [each.outage for each in self.outages.found] if self.outages else []
        layers = {layer for each in found for layer, _ in each.causes}
        lines = [each.subject for each in found if each.kind == "line"]
        boards = sorted(each.subject for each in found if each.kind == "board")
        return (
            layers == {table_of_layers.INTERNET}
            and lines == [self.broken_site]
            and boards == sorted(self.broken_boards)
        )

    @property
    def is_good(self) -> bool:
        """Whether all came out as it must."""
        made = sum(self.made.values())
        stored = sum(map(len, self.stored.values()))
        return self.lost == self.duplicated == 0 and made == stored and self.blames_rightly

    def document(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        uptime = self.uptime.document() if self.uptime else {}
        return {
            "boards_flashed": self.flashed,
            "reports_made": sum(self.made.values()),
            "committed": sum(map(len, self.committed.values())),
            "collected": self.collected,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "dropped_by_boards": self.dropped,
            "still_on_boards": self.spooled,
            "blames_rightly": self.blames_rightly,
            "cut": {"site": self.broken_site, "boards": list(self.broken_boards)},
            "outages": self.outages.document()["outages"] if self.outages else [],
            "period": uptime.get("period"),
            "sites": uptime.get("sites", []),
            "events": events,
            "folder": str(self.folder),
        }


@click.command()
@click.option("--boards", type=click.IntRange(1, 32), default=6, show_default=True)
@click.option(
    "--seconds",
    type=click.IntRange(15, 3600),
    default=22,
    show_default=True,
    help="How long the boards report.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".demo"),
    show_default=True,
    help="Where the city is made; an earlier demo's is removed.",
)
@click.option("--instant", is_flag=True, help="Flash without the time that line and flash take.")
@json_option
def demo(*, boards: int, seconds: int, folder: Path, instant: bool, as_json: bool) -> int:
    """Show the whole way once, on virtual boards and real parts.

    Boards are flashed by esptool, boot MicroPython, join their WLAN and report over mutual TLS
    through mosquitto. A school's line is cut and restored, the broker and the collector are
    killed. Then city hall collects over SSH and prints uptime and outages.

    Exits with 1 if a report was lost or doubled, or the wrong one was blamed.
    """
    with _Screen(quiet=as_json) as screen:
        outcome = _tell(screen, boards, seconds, folder, instant=instant)
    verdict = {"ok": True} if outcome.is_good else _failure(outcome).document()
    if as_json:
        print_document(verdict | outcome.document(screen.events))
    else:
        _show(outcome)
    return 0 if outcome.is_good else NetzpulsError.exit_code


def _failure(outcome: _Outcome) -> NetzpulsError:
    counts = f"{outcome.lost} reports lost, {outcome.duplicated} duplicated"
    blame = "" if outcome.blames_rightly else ", and the outages are not what was broken"
    error = NetzpulsError(counts + blame, hint=f"see {outcome.folder / 'gateway.log'}")
    error.code = "demo-failed"
    return error


def _tell(screen: _Screen, boards: int, seconds: int, folder: Path, *, instant: bool) -> _Outcome:
    screen.event("starting virtual boards, broker, collector and an SSH server on loopback")
    with VirtualCity(folder, boards, period_s=PERIOD_S, instant=instant, has_bench=True) as city:
        broken = city.boards[0].place.site
        outcome = _Outcome(city.folder, broken, tuple(board.id for board in city.sites[broken]))
        screen.show(city)
        screen.event(f"flashing {boards} blank boards side by side with esptool")
        outcome.flashed = len(city.flash(screen.flashing))
        screen.event(
            f"{outcome.flashed} boards verified, tested at the bench and enrolled", "green"
        )
        with _watching(city, screen) as watch:
            screen.event(
                "the boards join their WLANs; their first cycles, of one second here, end before a "
                "lease is there"
            )
            _wait_first(city, watch)
            begin_s = int(time.time()) + 1
            screen.event("every board's reports are committed and acknowledged", "green")
            _play(city, screen, outcome, seconds, watch)
            end_s = int(time.time()) - PERIOD_S
        screen.event("the boards send what they still hold, and tell how many they made")
        with ThreadPoolExecutor(boards) as pool:
            for board, told in zip(
                city.boards, pool.map(VirtualBoard.drain, city.boards), strict=True
            ):
                outcome.made[board.id] = told["made"]
                outcome.spooled += told["spooled"]
                outcome.dropped += told["lost"]
        outcome.committed = city.committed()
        screen.event(f"city hall collects from {GATEWAY_ID} over SSH")
        _collect(city, outcome, Period(begin_s, end_s))
        screen.event(f"{outcome.collected} reports collected", "green")
    return outcome


@contextlib.contextmanager
def _watching(city: VirtualCity, screen: _Screen) -> Iterator[Callable[[], dict[str, int]]]:
    """Follow the boards' consoles and the gateway's database; each call looks once."""
    with contextlib.ExitStack() as stack:
        consoles = [
            (board, stack.enter_context(ConsoleReader(board.process.link))) for board in city.boards
        ]

        def look() -> dict[str, int]:
            time.sleep(_REFRESH_S)
            counts = {board: len(rows) for board, rows in city.committed().items()}
            for board, console in consoles:
                screen.told(board, console.last, counts.get(board.id, 0))
            return counts

        yield look


def _wait_first(city: VirtualCity, look: Callable[[], dict[str, int]]) -> None:
    deadline = time.monotonic() + _FIRST_REPORT_S
    while time.monotonic() < deadline:
        counts = look()
        if all(counts.get(board.id) for board in city.boards):
            return
    silent = [board.id for board in city.boards if not look().get(board.id)]
    raise BenchError(
        f"no report of {', '.join(silent)} was committed within {_FIRST_REPORT_S:.0f} s",
        hint=f"see {city.folder / 'gateway.log'}",
    )


def _play(
    city: VirtualCity,
    screen: _Screen,
    outcome: _Outcome,
    seconds: int,
    look: Callable[[], dict[str, int]],
) -> None:
    """Break things at their time, and go on looking."""
    name = city.sites[outcome.broken_site][0].place.site_name
    begin = cut = time.monotonic()
    for share, act in (*_STORY, (1.0, "end")):
        while time.monotonic() < begin + share * seconds:
            look()
        if act == "cut":
            cut = time.monotonic()
            city.line(outcome.broken_site, up=False)
            screen.event(f"the internet line of {name} is cut", "bold red")
        elif act == "restore":
            city.line(outcome.broken_site, up=True)
            cut_s = time.monotonic() - cut
            screen.event(f"the line of {name} is restored after {cut_s:.1f} s", "green")
        elif act.startswith("kill-"):
            part: Part = "broker" if act == "kill-broker" else "collector"
            pid = city.kill(part)
            screen.event(f"the {part} is killed (SIGKILL, process {pid})", "bold red")


def _collect(city: VirtualCity, outcome: _Outcome, period: Period) -> None:
    known = inventory.load(city.city)
    for gateway in collect.collect(known):
        if gateway.error:
            raise gateway.error
        outcome.collected += gateway.new
    with Store(city.city).reading() as connection:
        for board, key_id, seq in connection.execute(
            "SELECT device, key_id, seq FROM report"
        ).fetchall():
            outcome.stored.setdefault(board, []).append((key_id, seq))
    outcome.uptime = uptime.find(known, period)
    # Behind the period boards are stopped, and what they say then is nobody's blame.
    outcome.outages = report.outages(known, period, now_s=period.end_s)


def _show(outcome: _Outcome) -> None:
    if outcome.uptime and outcome.outages:
        show_uptime(outcome.uptime)
        result.print()
        show_outages(outcome.outages)
    made, stored = sum(outcome.made.values()), sum(map(len, outcome.stored.values()))
    result.print()
    result.print(
        f"{made} reports made by {outcome.flashed} boards, {stored} in the store: "
        f"{outcome.lost} lost, {outcome.duplicated} duplicated, "
        "although the broker and the collector were killed.",
        style="green" if outcome.is_good else "bold red",
        soft_wrap=True,
    )
    if not outcome.blames_rightly:
        result.print(
            f"The outages above are not what was broken: the line of {outcome.broken_site}.",
            style="bold red",
        )
    netzpuls = _as_typed(Path(sys.argv[0])) if shutil.which("netzpuls") is None else "netzpuls"
    city = _as_typed(outcome.folder / "city")
    asked = f"--city {city}"
    if outcome.uptime:  # without the time in which boards start and stop
        shown = outcome.uptime.document()["period"]
        asked += f" --from {shown['from'][:19]} --to {shown['to'][:19]}"
    result.print(
        f"\nThe city stays in {city}. The second table again, as a program reads it:\n"
        f"  {netzpuls} fleet outages --json {asked}\n"
        "Next, a board of your own, for esptool and mpremote (docs/virtual-board.md):\n"
        f"  {netzpuls} lab board --link /tmp/board",
        markup=False,
        soft_wrap=True,
    )


def _as_typed(path: Path) -> str:
    """Return a path as a user would type it here."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
