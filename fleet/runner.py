"""Work on many hosts at once: bounded, streamed, stoppable.

    for outcome in run(hosts, work, parallel=16):
        print(outcome.target, outcome.value or outcome.error)

Results come as they are made; a host that hangs holds back its own only. Leaving the loop,
also by Ctrl-C, stops the rest: what has not begun does not begin, what has is told to stop.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from fleet.errors import NetzpulsError, StoreError

Target = TypeVar("Target")
Value = TypeVar("Value")

# How long work that was told to stop may take to do so; threads do not keep the process alive.
_STOP_S = 5.0


class Closable(Protocol):
    """Something that unblocks whoever waits on it when it is closed."""

    def close(self) -> None:
        """Close it; may be called from any thread."""


class Stop:
    """Tells work that it shall end, and closes what it waits on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Closable] = set()
        self._asked = False

    @property
    def asked(self) -> bool:
        """Whether work shall end."""
        return self._asked

    def ask(self) -> None:
        """Ask all work to end."""
        with self._lock:
            self._asked = True
            waiting = list(self._open)
        for closable in waiting:
            closable.close()

    @contextlib.contextmanager
    def closing(self, closable: Closable) -> Iterator[None]:
        """Close something, should work be asked to end within the block."""
        with self._lock:
            self._open.add(closable)
            asked = self._asked
        try:
            if asked:
                closable.close()
            yield
        finally:
            with self._lock:
                self._open.discard(closable)


@dataclass(frozen=True)
class Outcome(Generic[Target, Value]):
    """What became of one target: a value, or the error that says why not."""

    target: Target
    value: Value | None = None
    error: NetzpulsError | None = None


def run(
    targets: Sequence[Target], work: Callable[[Target, Stop], Value], parallel: int
) -> Generator[Outcome[Target, Value]]:
    """Do the same work for every target, at most `parallel` at a time.

    Raises: StoreError: the place where all results go is broken; the rest is stopped. Whatever
        else is no NetzpulsError is a defect and is raised as well.
    """
    waiting: SimpleQueue[Target] = SimpleQueue()
    done: SimpleQueue[tuple[Target, Value | None, BaseException | None]] = SimpleQueue()
    stop = Stop()
    for target in targets:
        waiting.put(target)

    def worker() -> None:
        while not stop.asked:
            try:
                target = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((target, work(target, stop), None))
            except BaseException as error:  # raised again by whoever reads `done`
                done.put((target, None, error))

    threads = [
        threading.Thread(target=worker, daemon=True, name=f"runner-{number}")
        for number in range(min(parallel, len(targets)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in targets:
            target, value, error = done.get()
            if error is not None and (
                isinstance(error, StoreError) or not isinstance(error, NetzpulsError)
            ):
                raise error
            yield Outcome(target, value, error)
    finally:
        stop.ask()
        until = time.monotonic() + _STOP_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
