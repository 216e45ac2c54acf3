"""Boards worked on side by side, a thread for each.

    desk = Desk(find, make, work, screen)
    boards = desk.run(is_over)

One board that fails never stops the others. One that is plugged in later joins; one that failed
is tried again when it is plugged in anew.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from fleet.errors import NetzpulsError
from fleet.inventory import Inventory
from provisioning import port
from provisioning.errors import NoBoardError, PortBusyError, PortMissingError, StoppedError
from provisioning.flash import Progress
from provisioning.port import Adapter

SCAN_S = 1.0
ABSENT_S = 2.0  # a port that is away for less was not pulled out: chips with USB leave when reset
STOP_S = 5.0  # what a board's thread may take to hear that it is to stop

_POLL_S = 0.1


class Result(Protocol):
    """What became of a board that could be worked on."""

    @property
    def ending(self) -> str:
        """In a few words, such as "enrolled, 18.7 s"."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is left to do about it."""

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""


R = TypeVar("R", bound=Result)


class Attempt(Generic[R]):
    """One board on one port, from plugging it in to its end. Its own thread writes it.

    Attributes:
        board: its id, "" as long as it is not known.
        stage: as in `flash.Progress`, "" before the first.
        done_bytes, total_bytes: of the stage.
        result, error: how it ended; neither: it is under way.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.board = ""
        self.stage = ""
        self.done_bytes = 0
        self.total_bytes = 0
        self.result: R | None = None
        self.error: NetzpulsError | None = None
        self._stage_begin = self._send_begin = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.result is not None or self.error is not None

    @property
    def is_good(self) -> bool:
        """Whether it has ended, and nothing is left to do about it."""
        return self.result is not None and self.result.is_good

    @property
    def name(self) -> str:
        """What it is called where it is alone: its id, or its port as long as it has none."""
        return self.board or self.adapter.port

    @property
    def room(self) -> str:
        """Its room, "" as long as it has none."""
        return ""

    @property
    def stage_s(self) -> float:
        """How long it is in its stage."""
        return time.monotonic() - self._stage_begin

    @property
    def rate(self) -> float:
        """Bytes a second on the line, in this stage."""
        return self.done_bytes / max(time.monotonic() - self._send_begin, 0.001)

    @property
    def left_s(self) -> float | None:
        """How long the stage will still take at that rate; None if nobody knows."""
        return (self.total_bytes - self.done_bytes) / self.rate if self.done_bytes else None

    def follow(self, step: Progress) -> None:
        """Take one step of progress."""
        now = time.monotonic()
        if step.stage != self.stage:
            self.total_bytes = 0
            self._stage_begin = now
        if not self.total_bytes:
            self._send_begin = now
        self.stage, self.done_bytes, self.total_bytes = (
            step.stage,
            step.done_bytes,
            step.total_bytes,
        )

    def document(self) -> dict[str, Any]:
        """Return the board as `--json` prints it."""
        about: dict[str, Any] = {
            "ok": self.is_good,
            "port": self.adapter.port,
            "usb": self.adapter.usb or None,
            "board": self.board or None,
            "room": self.room or None,
        }
        if self.result:
            return about | self.result.document()
        error = self.error or stopped(self)
        return about | {"stage": self.stage or None, "error": error.document()["error"]}


class Registered(Attempt[R]):
    """One board that the registry should have."""

    def __init__(self, adapter: Adapter, known: Inventory) -> None:
        super().__init__(adapter)
        self._known = known

    @property
    def room(self) -> str:
        """The room in which the registry has it, "" for none."""
        entry = self._known.boards.get(self.board)
        return entry.room if entry else ""


A = TypeVar("A", bound=Attempt[Any])


class Screen(Protocol):
    """What the technician sees. Its methods are called from all threads."""

    def started(self, attempt: Attempt[Any]) -> None:
        """Take a board that was plugged in."""

    def passed(self, attempt: Attempt[Any]) -> None:
        """Take it that a board has done its stage."""

    def ended(self, attempt: Attempt[Any]) -> None:
        """Take a board's end."""


class Desk(Generic[A]):
    """The boards of one run.

    Args:
        find: the ports that are there now.
        make: begins an attempt.
        work: does it, in a thread of its own; returns its result. It hands each step of progress
            to `step`.
        screen: told what happens.
        expected: ports that must be there in the end.
        failed: told of one that failed, before its end counts.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Adapter]],
        make: Callable[[Adapter], A],
        work: Callable[[A], Any],
        screen: Screen,
        *,
        expected: Sequence[str] = (),
        failed: Callable[[A], None] = lambda _: None,
    ) -> None:
        self.attempts: list[A] = []
        self.is_interrupted = False
        self.is_closed = False  # whether no more boards join
        self._find = find
        self._make = make
        self._work = work
        self._screen = screen
        self._expected = expected
        self._failed = failed
        self._settling = threading.Lock()
        self._stop = threading.Event()
        self._seen: dict[str, float] = {}
        self._threads: list[threading.Thread] = []

    @property
    def running(self) -> int:
        """How many boards are being worked on."""
        return sum(not each.is_over for each in self.attempts)

    def run(
        self, is_over: Callable[[], bool], stopping: Callable[[], None] = lambda: None
    ) -> list[A]:
        """Work on what is plugged in and what joins; return how each board ended.

        An interrupt stops all of them cleanly: `is_interrupted` is set then, and `stopping` is
        called first.

        Args:
            is_over: asked a few times a second whether that was all.
            stopping: lets go whoever waits for the technician.

        Raises: NoBoardError: there was none.
        """
        next_scan = 0.0
        try:
            while True:
                now = time.monotonic()
                if now >= next_scan and not self.is_closed:
                    self._plug_in(now)
                    next_scan = now + SCAN_S
                if is_over():
                    break
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            self.is_interrupted = True
            self._stop.set()
            stopping()
            self._stop_all()
        ends = _last(self.attempts) + [
            self._missing(name)
            for name in self._expected
            if not any(each.adapter.port == name for each in self.attempts)
        ]
        if not ends and not self.is_interrupted:
            raise NoBoardError(
                "no board is plugged in",
                hint="plug the boards in; an adapter that is not recognised is named with --port",
            )
        return ends

    def step(self, attempt: A, step: Progress) -> None:
        """Take one step of progress; what it raises stops the work.

        Raises:
            StoppedError: the work is to end.
            PortBusyError: the same board is under way on another port.
        """
        if self._stop.is_set():
            raise stopped(attempt)
        if attempt.stage and step.stage != attempt.stage:
            _guarded(self._screen.passed, attempt)
        attempt.follow(step)
        if step.board and not attempt.board:
            self._claim(attempt, step.board)

    def _claim(self, attempt: A, board: str) -> None:
        with self._settling:
            for other in self.attempts:
                if other.board == board and not other.is_over:
                    raise PortBusyError(
                        f"{board} is under way on {other.adapter.port} already",
                        hint="wait until that has ended, then plug it in again",
                    )
            attempt.board = board

    def _plug_in(self, now: float) -> None:
        """Begin with boards that were plugged in, forget ports that were pulled out."""
        there = self._find()
        for adapter in there:
            if adapter.port not in self._seen:
                self._begin(adapter)
            self._seen[adapter.port] = now
        busy = {each.adapter.port for each in self.attempts if not each.is_over}
        self._seen = {
            name: last
            for name, last in self._seen.items()
            if name in busy or now - last <= ABSENT_S
        }

    def _begin(self, adapter: Adapter) -> None:
        attempt = self._make(adapter)
        self.attempts.append(attempt)
        _guarded(self._screen.started, attempt)
        # A daemon: one that hangs in a dead line must not keep the process from ending.
        thread = threading.Thread(
            target=self._carry_out, args=(attempt,), name=f"desk {adapter.port}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _carry_out(self, attempt: A) -> None:
        result, error = None, None
        try:
            result = self._work(attempt)
        except NetzpulsError as failure:
            error = failure
        except Exception as defect:  # a defect with one board is no reason to lose the others
            error = _told(defect)
        if error is None:
            _guarded(self._screen.passed, attempt)
        with self._settling:
            if error:
                _guarded(self._failed, attempt)
            if not attempt.is_over:
                attempt.result, attempt.error = result, error
        _guarded(self._screen.ended, attempt)

    def _stop_all(self) -> None:
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._settling:
            for each in self.attempts:
                if not each.is_over:
                    each.error = stopped(each)

    def _missing(self, name: str) -> A:
        attempt = self._make(Adapter(name))
        try:
            port.check(name)
            if not self.is_interrupted:
                raise PortMissingError(f"there is no port {name}", hint="plug the board in")
            attempt.error = stopped(attempt)
        except NetzpulsError as error:
            attempt.error = error
        return attempt


def _guarded(tell: Callable[[A], None], attempt: A) -> None:
    """Tell somebody of a board; a defect there changes nothing about how the board ends."""
    try:
        tell(attempt)
    except Exception as defect:
        _told(defect)


def _told(defect: Exception) -> NetzpulsError:
    """Return what is told of a defect: where it is, not its text, which may hold a secret."""
    if os.environ.get("NETZPULS_TRACEBACK"):
        traceback.print_exception(defect)
    frames = traceback.extract_tb(defect.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    error = NetzpulsError(
        f"a defect in netzpuls: {type(defect).__name__}{where}",
        hint="run it again with NETZPULS_TRACEBACK=1 and report what it prints",
    )
    error.code = "defect"
    return error


def _last(attempts: Sequence[A]) -> list[A]:
    """Return each board's last attempt; where no board answered, the port's, if it is the last."""
    return [
        each
        for at, each in enumerate(attempts)
        if not any(
            later.board == each.board if each.board else later.adapter == each.adapter
            for later in attempts[at + 1 :]
        )
    ]


def stopped(attempt: Attempt[Any]) -> StoppedError:
    """Return the error of a board whose work was stopped."""
    return StoppedError(
        f"{attempt.board or f'the board on {attempt.adapter.port}'} was stopped before its end",
        hint="run the same command again: it goes on where it stopped",
    )
