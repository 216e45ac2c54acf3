"""A tray of boards: found, given their rooms and flashed side by side, a thread for each.

    tray = Tray(request, rooms, find, screen)
    boards = tray.run()

One board that fails never stops the others. One that is plugged in later joins; one that failed
is tried again when it is plugged in anew.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

from fleet import authority
from fleet.errors import NetzpulsError
from fleet.inventory import Role
from provisioning import flash, hashkey, port
from provisioning.errors import NoBoardError, PortBusyError, StoppedError
from provisioning.flash import Flashed, FlashRequest, Found, Plan, Progress, carry_out
from provisioning.port import Adapter
from provisioning.room import Question, Rooms
from provisioning.roomlist import Row

SCAN_S = 1.0
ABSENT_S = 2.0  # a port that is away for less was not pulled out: chips with USB leave when reset
STOP_S = 5.0  # what a board's thread may take to hear that it is to stop

_POLL_S = 0.1


class Attempt:
    """One board on one port, from plugging it in to its end. Its own thread writes it.

    Attributes:
        board: its id, "" as long as it is not known.
        row: its place, None as long as it has none.
        stage: as in `flash.Progress`, "" before the first.
        done_bytes, total_bytes: of the stage.
        flashed, error: how it ended; neither: it is under way.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.board = ""
        self.row: Row | None = None
        self.stage = ""
        self.done_bytes = 0
        self.total_bytes = 0
        self.flashed: Flashed | None = None
        self.error: NetzpulsError | None = None
        self._stage_begin = self._send_begin = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.flashed is not None or self.error is not None

    @property
    def room(self) -> str:
        """Its room, "" as long as it has none."""
        return self.row.room if self.row else ""

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
            "ok": self.flashed is not None,
            "port": self.adapter.port,
            "usb": self.adapter.usb or None,
            "board": self.board or None,
            "room": self.room or None,
        }
        if self.flashed:
            flashed = self.flashed.document()
            del flashed["image"]
            return about | flashed
        error = self.error or _stopped(self)
        return about | {"stage": self.stage or None, "error": error.document()["error"]}


class Screen(Protocol):
    """What the technician sees. Its methods are called from all threads, but `ask`."""

    def started(self, attempt: Attempt) -> None:
        """Take a board that was plugged in."""

    def passed(self, attempt: Attempt) -> None:
        """Take it that a board has done its stage."""

    def ended(self, attempt: Attempt) -> None:
        """Take a board's end."""

    def waits(self, left: int | None) -> None:
        """Say that boards may be plugged in, for so many rooms (None: for any)."""

    def ask(self, question: Question) -> str | None:
        """Ask which room a board is for; as `room.Ask`."""


class Questions:
    """Brings questions from the boards' threads to the one that has the keyboard."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Question, Future[str | None]]] = queue.Queue()
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(self, question: Question) -> str | None:
        """Wait for an answer.

        Raises: StoppedError: there will be none.
        """
        answer: Future[str | None] = Future()
        with self._lock:
            if self._is_closed:
                raise _unanswered(question)
            self._waiting.put((question, answer))
        return answer.result()

    def answer(self, ask: Callable[[Question], str | None]) -> None:
        """Have the questions that wait answered."""
        while not self._waiting.empty():
            question, answer = self._waiting.get()
            try:
                answer.set_result(ask(question))
            except BaseException:
                answer.set_exception(_unanswered(question))
                raise

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._lock:
            self._is_closed = True
            while not self._waiting.empty():
                question, answer = self._waiting.get()
                answer.set_exception(_unanswered(question))


class Tray:
    """The boards of one run.

    Args:
        request: what is to be done with each; port, room, role and hardware are the tray's to say.
        rooms: who gets which room.
        find: the ports that are there now.
        screen: told what happens.
        expected: ports that must be there in the end.
        questions: those that `rooms` asks.
        wait_s: how long to wait for a further board; None: until every room has one.
        is_enough: whether the technician says that no more boards come.

    Raises: NetzpulsError: what no board could be flashed with, before one is touched.
    """

    def __init__(
        self,
        request: FlashRequest,
        rooms: Rooms,
        find: Callable[[], Sequence[Adapter]],
        screen: Screen,
        *,
        expected: Sequence[str] = (),
        questions: Questions | None = None,
        wait_s: float | None = 0,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.is_interrupted = False
        self._request = request
        self._rooms = rooms
        self._find = find
        self._screen = screen
        self._expected = expected
        self._questions = questions or Questions()
        self._wait_s = wait_s
        self._is_enough = is_enough
        self._plans: dict[tuple[Role, str | None], Plan] = {}
        self._planning = threading.Lock()
        self._settling = threading.Lock()
        self._stop = threading.Event()
        self._seen: dict[str, float] = {}
        self._threads: list[threading.Thread] = []
        self.plan = self._plan(request.role, request.hardware)
        for row in rooms.rows or []:
            self._plan(row.role, row.hardware)

    def run(self) -> list[Attempt]:
        """Flash what is plugged in and what joins; return how each board ended.

        An interrupt stops all of them cleanly: `is_interrupted` is set then.

        Raises:
            NoBoardError: there was none.
            NetzpulsError: the city's CA or hash key cannot be used; no board was touched.
        """
        authority.ensure(self._request.city, self.plan.inventory.city.id)
        hashkey.ensure(self._request.city)
        try:
            self._work()
        except KeyboardInterrupt:
            self.is_interrupted = True
            self._stop_all()
        ends = _last(self.attempts) + [
            _missing(name)
            for name in self._expected
            if not any(each.adapter.port == name for each in self.attempts)
        ]
        if not ends and not self.is_interrupted:
            raise NoBoardError(
                "no board is plugged in",
                hint="plug the boards in; an adapter that is not recognised is named with --port",
            )
        return ends

    def _work(self) -> None:
        next_scan, is_closed, changed = 0.0, False, time.monotonic()
        running = -1
        while True:
            now = time.monotonic()
            if now >= next_scan and not is_closed:
                self._plug_in(now)
                next_scan = now + SCAN_S
                self._screen.waits(self._rooms.left)
            self._questions.answer(self._screen.ask)
            before, running = running, sum(not each.is_over for each in self.attempts)
            if running != before:
                changed = time.monotonic()
            is_closed = is_closed or self._is_enough()
            if not running and (is_closed or self._is_full(time.monotonic() - changed)):
                return
            time.sleep(_POLL_S)

    def _is_full(self, idle_s: float) -> bool:
        """Tell whether no further board is to be waited for, after so long without a change."""
        return self._rooms.left == 0 or (self._wait_s is not None and idle_s >= self._wait_s)

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
        attempt = Attempt(adapter)
        self.attempts.append(attempt)
        self._screen.started(attempt)
        # A daemon: one that hangs in a dead line must not keep the process from ending.
        thread = threading.Thread(
            target=self._flash, args=(attempt,), name=f"flash {adapter.port}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _flash(self, attempt: Attempt) -> None:
        flashed, error = None, None
        try:
            flashed = carry_out(
                self.plan.at(attempt.adapter.port, ""),
                lambda step: self._step(attempt, step),
                lambda found: self._settle(attempt, found),
            )
            self._screen.passed(attempt)
        except NetzpulsError as failure:
            error = failure
        except Exception as defect:  # a defect with one board is no reason to lose the others
            if os.environ.get("NETZPULS_TRACEBACK"):
                traceback.print_exc()
            error = NetzpulsError(
                f"a defect in netzpuls: {type(defect).__name__}: {defect}",
                hint="run it again with NETZPULS_TRACEBACK=1 and report what it prints",
            )
            error.code = "defect"
        with self._settling:
            if error and attempt.row:
                self._rooms.give_back(attempt.board)
            if not attempt.is_over:
                attempt.flashed, attempt.error = flashed, error
        self._screen.ended(attempt)

    def _step(self, attempt: Attempt, step: Progress) -> None:
        if self._stop.is_set():
            raise _stopped(attempt)
        if attempt.stage and step.stage != attempt.stage:
            self._screen.passed(attempt)
        attempt.follow(step)

    def _settle(self, attempt: Attempt, found: Found) -> Plan:
        with self._settling:
            for other in self.attempts:
                if other.board == found.board and not other.is_over:
                    raise PortBusyError(
                        f"{found.board} is under way on {other.adapter.port} already",
                        hint="wait until that has ended, then plug it in again",
                    )
            attempt.board = found.board
        row = self._rooms.take(found, attempt.adapter.usb)
        attempt.row = row
        return self._plan(row.role, row.hardware).at(found.port, row.room)

    def _plan(self, role: Role, hardware: str | None) -> Plan:
        with self._planning:
            if (role, hardware) not in self._plans:
                request = replace(self._request, role=role, hardware=hardware)
                self._plans[role, hardware] = flash.prepare(request)
            return self._plans[role, hardware]

    def _stop_all(self) -> None:
        self._stop.set()
        self._questions.close()
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._settling:
            for each in self.attempts:
                if not each.is_over:
                    each.error = _stopped(each)


def _last(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return each board's last attempt; where no board answered, the port's, if it is the last."""
    return [
        each
        for at, each in enumerate(attempts)
        if not any(
            later.board == each.board if each.board else later.adapter == each.adapter
            for later in attempts[at + 1 :]
        )
    ]


def _missing(name: str) -> Attempt:
    attempt = Attempt(Adapter(name))
    try:
        port.check(name)
        attempt.error = _stopped(attempt)
    except NetzpulsError as error:
        attempt.error = error
    return attempt


def _stopped(attempt: Attempt) -> StoppedError:
    return StoppedError(
        f"{attempt.board or f'the board on {attempt.adapter.port}'} was stopped before its end",
        hint="run the same command again: it goes on where it stopped",
    )


def _unanswered(question: Question) -> StoppedError:
    return StoppedError(
        f"{question.found.board} was stopped before it had a room",
        hint="run the same command again; nothing was written",
    )
