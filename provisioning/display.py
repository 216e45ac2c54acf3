"""What a technician sees while boards are flashed: bars or a table on a terminal, else lines."""

from __future__ import annotations

import contextlib
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.cli.output import progress, result
from fleet.text import printable
from provisioning.application import Application
from provisioning.bench import TESTED
from provisioning.desk import A, Attempt, stopped
from provisioning.errors import StoppedError
from provisioning.flash import Flashed, Plan
from provisioning.flash import Progress as Step
from provisioning.room import Question

STAGES = {
    "connect": "identify the board",
    "room": "find its room",
    "prepare": "make key, certificate and file system",
    "application": "write MicroPython",
    "file system": "write agent, configuration, identity",
    "self-test": "restart, self-test",
    "sensors": "sensors answer",
    "join": "join the bench's WLAN",
    "time": "get the time",
    "gateway": "connect to the bench's gateway",
    "report": "have a report acknowledged",
    "enrol": "enrol",
    "check": "compare application and files",
}

# For the narrow column of a tray's table.
_SHORT = {
    "connect": "identify",
    "room": "room?",
    "prepare": "prepare",
    "application": "MicroPython",
    "file system": "files",
    "self-test": "self-test",
    "sensors": "sensors",
    "join": "join",
    "time": "time",
    "gateway": "gateway",
    "report": "report",
    "enrol": "enrol",
    "check": "compare",
}
_WIDE = 110
_BAR = 16
_NOTHING_SENT = dict.fromkeys(("application", "file system"), "already there")


def say(text: str, console: Console = result) -> None:
    """Print a line, wrapped by the terminal alone."""
    console.print(text, markup=False, soft_wrap=True)


def say_below(text: str, console: Console = result) -> None:
    """Print what belongs to the line above it; on a terminal it breaks no word."""
    if console.is_terminal:
        console.print(Padding(Text(text), (0, 0, 0, 4)))
    else:
        say(f"    {text}", console)


def headed(attempts: Sequence[A]) -> Iterator[tuple[str, A]]:
    """Yield each board with the beginning of its line: name and room, in columns."""
    rooms = [printable(each.room) or "-" for each in attempts]
    wide = max((len(each.name) for each in attempts), default=0)
    wider = max(map(len, rooms), default=0)
    for room, each in zip(rooms, attempts, strict=True):
        yield f"{each.name:{wide}}  {room:{wider}}  ", each


def say_failed(head: str, attempt: Attempt[Any]) -> None:
    """Print that a board failed, why, and what to do."""
    error = attempt.error or stopped(attempt)
    how = "stopped" if isinstance(error, StoppedError) else "failed"
    say(f"{head}{how}" + f" ({attempt.stage})" * bool(attempt.stage))
    say_below(error.message)
    say_below(error.hint)


@contextlib.contextmanager
def interruptible(left: str) -> Iterator[None]:
    """Tell what Ctrl-C leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        if left:
            say(left, progress)
        raise


def half_written(port: str) -> str:
    """Return what is to be told of a board whose flashing was interrupted."""
    return (
        f"The board on {port} is not enrolled and may be half written: "
        "run the same command again; it goes on where it stopped."
    )


def show_flashed(flashed: Flashed) -> None:
    """Print what a board is from now on."""
    entry = flashed.entry
    say(
        f"{flashed.board} is enrolled: {entry.site}, {entry.room}, {entry.role}, "
        f"key {entry.key_id}, certificate until {entry.certificate_expires:%Y-%m-%d}, "
        f"tested {TESTED['alone' if flashed.not_tested else 'bench']}, "
        f"in {flashed.seconds['total']:.1f} s"
    )


def show_bench(planned: Plan, console: Console = result) -> None:
    """Print with what boards are tested, and what is not tested where there is no bench."""
    bench = planned.bench
    if bench:
        say(f"bench: WLAN {printable(bench.wlan.ssid)}, gateway {bench.gateway}", console)
        return
    why = (
        "as --no-bench says" if planned.request.no_bench else "there is no [bench] in the inventory"
    )
    say(
        f"note: {why}, so boards are tested alone: not whether they join a WLAN, get the time, "
        "reach a gateway by TLS and have a report acknowledged (docs/provisioning.md, The bench)",
        console,
    )


def show_image(image: Application, console: Console) -> None:
    """Print what is known of a MicroPython image."""
    what = "stand-in, for virtual boards only" if image.stand_in else image.version
    say(f"MicroPython image {printable(image.path.name)} ({what or 'without a version'})", console)
    say(f"SHA-256 {image.sha256}", console)


class Display:
    """Shows the stages of one board, with bytes on the line and their rate."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[sent]}"),
                console=console,
            )
        self._task: TaskID | None = None
        self._last: Step | None = None
        self._begin = 0.0

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        if self._bars:
            self._bars.stop()

    def show(self, step: Step) -> None:
        """Take one step of progress."""
        if self._last is None or step.stage != self._last.stage:
            self._finish()
            self._begin = time.monotonic()
            if self._bars:
                self._task = self._bars.add_task(STAGES[step.stage], total=None, sent="")
        self._last = step
        if self._bars and self._task is not None and step.total_bytes:
            self._bars.update(
                self._task,
                total=step.total_bytes,
                # The flash is still busy when all is sent: full means verified.
                completed=min(step.done_bytes, step.total_bytes - 1),
                sent=self._sent(step),
            )

    def _finish(self) -> None:
        if self._last is None:
            return
        if self._bars and self._task is not None:
            total = self._last.total_bytes or 1
            self._bars.update(self._task, total=total, completed=total)
            return
        sent = self._sent(self._last) or _NOTHING_SENT.get(self._last.stage, "")
        parts = [f"{time.monotonic() - self._begin:.1f} s", sent]
        self._console.print(
            f"{STAGES[self._last.stage]}: {', '.join(filter(None, parts))}",
            markup=False,
            soft_wrap=True,
        )

    def _sent(self, step: Step) -> str:
        if not step.total_bytes:
            return ""
        seconds = max(time.monotonic() - self._begin, 0.001)
        return f"{step.done_bytes:,} bytes, {step.done_bytes / seconds / 1000:,.0f} kB/s"


class TrayDisplay:
    """Shows a tray: one row a board on a terminal; else a line for each stage that is done.

    It is a `tray.Screen`. What goes wrong is told at once, above the table.
    """

    def __init__(self, console: Console, *, has_keyboard: bool) -> None:
        self._console = console
        self._has_keyboard = has_keyboard
        self._rows: list[Attempt[Any]] = []
        self._lock = threading.Lock()
        self._printing = threading.Lock()
        self._waits = ""
        self._live: Live | None = None
        self._held: list[Sequence[str]] | None = (
            None  # what is told while a question is on the screen
        )
        if console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._show_table()
        return self

    def __exit__(self, *_: object) -> None:
        self._hide_table()

    def _show_table(self) -> None:
        if self._live:
            self._echo(on=False)  # a key that is pressed would move the table
            self._live.start()

    def _hide_table(self) -> None:
        if self._live:
            self._live.stop()
            self._echo(on=True)

    def _echo(self, *, on: bool) -> None:
        if not self._has_keyboard:
            return
        attributes = termios.tcgetattr(sys.stdin)
        attributes[3] = attributes[3] | termios.ECHO if on else attributes[3] & ~termios.ECHO
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, attributes)

    def __rich__(self) -> RenderableType:
        with self._lock:
            rows = list(self._rows)
        return Group(_table(rows, self._console.width), Text(self._waits))

    def started(self, attempt: Attempt[Any]) -> None:
        """Take a board that was plugged in; it takes the place of what ended on its port."""
        with self._lock:
            self._rows = [each for each in self._rows if each.adapter != attempt.adapter]
            self._rows.append(attempt)

    def passed(self, attempt: Attempt[Any]) -> None:
        """Take it that a board has done its stage."""
        if self._live or attempt.stage == "connect":
            return
        if attempt.stage == "room":
            self._tell(f"{attempt.board} on {attempt.adapter.port}: {printable(attempt.room)}")
            return
        sent = _NOTHING_SENT.get(attempt.stage, "")
        if attempt.total_bytes:
            sent = f"{attempt.done_bytes:,} bytes, {attempt.rate / 1000:,.0f} kB/s"
        parts = filter(None, (f"{attempt.stage_s:.1f} s", sent))
        self._tell(f"{_name(attempt)}: {STAGES[attempt.stage]}: {', '.join(parts)}")

    def ended(self, attempt: Attempt[Any]) -> None:
        """Take a board's end."""
        if isinstance(attempt.error, StoppedError):
            self._tell(f"{_name(attempt)}: stopped")
        elif attempt.error:
            self._tell(f"{_name(attempt)}: failed", attempt.error.message, attempt.error.hint)
        elif attempt.result and not self._live:
            self._tell(f"{_name(attempt)}: {attempt.result.ending}")

    def waits(self, left: int | None) -> None:
        """Say that boards may be plugged in, for so many rooms (None: for any)."""
        if left == 0:
            said = "All rooms have their boards."
        else:
            rooms = "" if left is None else f" {left} room{'s' if left != 1 else ''} left."
            ends = " Enter: no more boards." if self._has_keyboard else ""
            said = f"Plug in further boards.{rooms}{ends}"
        self._waits = f"{said} Ctrl-C: stop."

    def ask(self, question: Question) -> str | None:
        """Ask which room a board is for; None at the end of the input."""
        self._hide_table()
        with self._lock:
            self._held = []
        try:
            found = question.found
            if question.refusal:
                say(question.refusal, self._console)
            proposed = f" [{question.proposed}]" if question.proposed else ""
            say(f"{found.board} on {found.port}, {found.chip}", self._console)
            self._console.print(f"  room{proposed}: ", end="", markup=False, soft_wrap=True)
            answer = sys.stdin.readline()
        finally:
            with self._lock:
                held, self._held = self._held or [], None
            for lines in held:
                self._print(lines)
        self._show_table()
        return answer.strip() if answer else None

    def _tell(self, *lines: str) -> None:
        with self._lock:
            if self._held is not None:
                self._held.append(lines)
                return
        self._print(lines)

    def _print(self, lines: Sequence[str]) -> None:
        head, *below = lines
        with self._printing:  # what is told of two boards at once is not mixed
            say(head, self._console)
            for text in below:
                say_below(text, self._console)


def _table(rows: list[Attempt[Any]], width: int) -> Table:
    is_wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2 if is_wide else 1, 0, 0))
    table.add_column("port", no_wrap=True)
    table.add_column("board", no_wrap=True, min_width=15)
    table.add_column("room", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    if is_wide:
        table.add_column("", width=_BAR)
    for name, most in (("kB", 11), ("kB/s", 4), ("left", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=most)
    for each in rows:
        is_sending = bool(each.total_bytes) and not each.is_over
        bar: RenderableType = ""
        sent = ["", "", ""]
        if is_sending:
            # The flash is still busy when all is sent: full means verified.
            bar = ProgressBar(each.total_bytes + 1, each.done_bytes, width=_BAR)
            left = each.left_s
            sent = [
                f"{each.done_bytes // 1000:,}/{each.total_bytes // 1000:,}",
                f"{each.rate / 1000:,.0f}",
                "" if left is None else f"{left:.0f} s",
            ]
        table.add_row(
            _short(each.adapter.port.removeprefix("/dev/"), 14 if is_wide else 9),
            each.board or "…",
            _short(each.room, 20 if is_wide else 10),
            _standing(each),
            *([bar] if is_wide else []),
            *sent,
        )
    return table


def _standing(attempt: Attempt[Any]) -> Text:
    if attempt.result:
        return Text(attempt.result.ending, "green" if attempt.is_good else "yellow")
    if attempt.error:
        return Text(f"failed: {_SHORT.get(attempt.stage, '')}".rstrip(": "), "red")
    waits = "" if attempt.total_bytes else f" {attempt.stage_s:.0f} s"
    return Text(_SHORT.get(attempt.stage, "") + waits)


def _name(attempt: Attempt[Any]) -> str:
    """Return how a board is called in a line: by its id as soon as it is known."""
    board = attempt.board or f"the board on {attempt.adapter.port}"
    return f"{board} ({printable(attempt.room)})" if attempt.room else board


def _short(text: str, most: int) -> str:
    """Cut text at its beginning: what tells ports and rooms apart stands at the end."""
    text = printable(text)
    return text if len(text) <= most else "…" + text[1 - most :]
