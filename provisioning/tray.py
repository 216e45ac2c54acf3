"""A tray of boards: found, given their rooms and flashed side by side.

tray = Tray(request, rooms, find, screen)
boards = tray.run()
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

from fleet import authority
from fleet.inventory import Role
from provisioning import desk, flash, hashkey
from provisioning.desk import Desk
from provisioning.errors import StoppedError
from provisioning.flash import Flashed, FlashRequest, Found, Plan, carry_out
from provisioning.port import Adapter
from provisioning.room import Question, Rooms
from provisioning.roomlist import Row


class Attempt(desk.Attempt[Flashed]):
    """One board of a tray.

    Attributes:
        row: its place, None as long as it has none.
    """

    def __init__(self, adapter: Adapter) -> None:
        super().__init__(adapter)
        self.row: Row | None = None

    @property
    def room(self) -> str:
        """Its room, "" as long as it has none."""
        return self.row.room if self.row else ""

    def document(self) -> dict[str, Any]:
        """Return the board as `--json` prints it; the image is the whole tray's."""
        return {name: value for name, value in super().document().items() if name != "image"}


class Screen(desk.Screen, Protocol):
    """What the technician sees, and is asked."""

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
        self._desk = Desk(
            find, Attempt, self._flash, screen, expected=expected, failed=self._give_back
        )
        self._request = request
        self._rooms = rooms
        self._screen = screen
        self._questions = questions or Questions()
        self._wait_s = wait_s
        self._is_enough = is_enough
        self._plans: dict[tuple[Role, str | None], Plan] = {}
        self._planning = threading.Lock()
        self._running = -1
        self._changed = time.monotonic()
        self.plan = self._plan(request.role, request.hardware)
        for row in rooms.rows or []:
            self._plan(row.role, row.hardware)

    @property
    def is_interrupted(self) -> bool:
        """Whether it was stopped."""
        return self._desk.is_interrupted

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
            return self._desk.run(self._is_over, self._questions.close)
        finally:
            self._rooms.close()

    def _is_over(self) -> bool:
        desk = self._desk
        self._screen.waits(self._rooms.left)
        self._questions.answer(self._screen.ask)
        before, self._running = self._running, desk.running
        if self._running != before:
            self._changed = time.monotonic()
        desk.is_closed = desk.is_closed or self._is_enough()
        is_full = desk.is_closed or self._is_full(time.monotonic() - self._changed)
        return not self._running and is_full

    def _is_full(self, idle_s: float) -> bool:
        """Tell whether no further board is to be waited for, after so long without a change."""
        return self._rooms.left == 0 or (self._wait_s is not None and idle_s >= self._wait_s)

    def _flash(self, attempt: Attempt) -> Flashed:
        return carry_out(
            self.plan.at(attempt.adapter.port, ""),
            lambda step: self._desk.step(attempt, step),
            lambda found: self._settle(attempt, found),
        )

    def _settle(self, attempt: Attempt, found: Found) -> Plan:
        row = self._rooms.take(found, attempt.adapter.usb)
        attempt.row = row
        return self._plan(row.role, row.hardware).at(found.port, row.room)

    def _give_back(self, attempt: Attempt) -> None:
        if attempt.row:
            self._rooms.give_back(attempt.board)

    def _plan(self, role: Role, hardware: str | None) -> Plan:
        with self._planning:
            if (role, hardware) not in self._plans:
                request = replace(self._request, role=role, hardware=hardware)
                self._plans[role, hardware] = flash.prepare(request)
            return self._plans[role, hardware]


def _unanswered(question: Question) -> StoppedError:
    return StoppedError(
        f"{question.found.board} was stopped before it had a room",
        hint="run the same command again; nothing was written",
    )
