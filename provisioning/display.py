"""What a technician sees while a board is flashed: bars on a terminal, else plain lines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from provisioning.flash import Progress as Step

STAGES = {
    "connect": "identify the board",
    "prepare": "make key, certificate and file system",
    "application": "write MicroPython",
    "file system": "write agent, configuration, identity",
    "self-test": "restart, self-test",
    "enrol": "enrol",
    "check": "compare application and files",
}

_NOTHING_SENT = dict.fromkeys(("application", "file system"), "already there")


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
