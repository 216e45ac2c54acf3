"""The runner: bounded, streamed, stoppable."""

from __future__ import annotations

import threading
import time

import pytest

from fleet.errors import HostError, StoreError
from fleet.runner import Stop, run


def test_results_come_as_they_are_made_and_errors_are_results() -> None:
    late = threading.Event()

    def work(target: int, stop: Stop) -> int:
        if target == 0:
            late.wait(10)
        if target == 2:
            raise HostError("two is down")
        return target * 10

    seen = []
    for outcome in run(range(4), work, parallel=2):
        seen.append((outcome.target, outcome.value, outcome.error and outcome.error.message))
        if len(seen) == 3:
            late.set()
    assert seen == [(1, 10, None), (2, None, "two is down"), (3, 30, None), (0, 0, None)]


def test_never_more_than_asked_for_at_a_time() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(target: int, stop: Stop) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    assert len(list(run(range(30), work, parallel=3))) == 30
    assert most == 3


class _Waiting:
    """Something that blocks until it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_leaving_early_stops_what_runs_and_begins_nothing_new() -> None:
    begun: list[int] = []
    waiting = [_Waiting() for _ in range(5)]

    def work(target: int, stop: Stop) -> None:
        begun.append(target)
        if target:
            with stop.closing(waiting[target]):
                waiting[target].closed.wait(30)

    began = time.monotonic()
    outcomes = run(range(5), work, parallel=3)
    assert next(outcomes).target == 0
    outcomes.close()
    assert time.monotonic() - began < 4
    assert sorted(begun) in ([0, 1, 2], [0, 1, 2, 3])
    assert all(waiting[target].closed.is_set() for target in begun if target)


@pytest.mark.parametrize("error", [StoreError("disk full"), ZeroDivisionError("a defect")])
def test_what_is_wrong_for_all_ends_all(error: Exception) -> None:
    def work(target: int, stop: Stop) -> None:
        raise error

    with pytest.raises(type(error)):
        list(run(range(9), work, parallel=2))
