"""Follows what all boards print, by their logs, so that their ports stay free for technicians."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Self

from hil.console import report
from hil.lab.board import LabBoard

_POLL_S = 0.05
_LINE_LIMIT_BYTES = 4096


class Consoles:
    """Hands every report line to its board, from entering to leaving."""

    def __init__(self, boards: Iterable[LabBoard]) -> None:
        self._logs = [(board, board.log.open("rb", buffering=0)) for board in boards]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="consoles", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for _board, log in self._logs:
            log.close()

    def _follow(self) -> None:
        begun = dict.fromkeys((board.id for board, _ in self._logs), b"")
        while not self._stopping.wait(_POLL_S):
            for board, log in self._logs:
                *lines, rest = (begun[board.id] + (log.read() or b"")).split(b"\n")
                begun[board.id] = rest[-_LINE_LIMIT_BYTES:]
                for line in lines:
                    told = report(line)
                    if told is not None:
                        board.hear(told)
