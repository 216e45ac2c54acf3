"""The technician's desk on the bench: many virtual boards flashed and enrolled side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol, TypeVar

from hil.board import BoardProcess
from provisioning.flash import Flashed, FlashRequest, Progress, flash_board


class OnDesk(Protocol):
    """A board that can be flashed."""

    process: BoardProcess


_Board = TypeVar("_Board", bound=OnDesk)


def flash_all(
    boards: Sequence[_Board],
    request: Callable[[_Board], FlashRequest],
    enrolled: Callable[[], None],
    on_progress: Callable[[_Board, Progress], None],
) -> list[Flashed]:
    """Flash, test and enrol boards by the real desk's code.

    `request` says what is to be done with a board; `enrolled` is called after each, never twice
    at a time, and gives its key to the gateway.
    """
    preparing = Lock()

    def one(board: _Board) -> Flashed:
        flashed = flash_board(request(board), lambda progress: on_progress(board, progress))
        with preparing:
            enrolled()
        return flashed

    with ThreadPoolExecutor(len(boards), "flash") as pool:
        try:
            return list(pool.map(one, boards))
        except BaseException:
            for board in boards:
                board.process.stop()  # else the others would be flashed to their end first
            raise
