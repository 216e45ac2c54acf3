"""What a board prints on its serial line, followed while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import termios
import threading
import tty
from pathlib import Path
from typing import Any, Self

_LINE_LIMIT_BYTES = 4096
_POLL_S = 0.2
REPORT = b"NETZPULS REPORT "


class ConsoleReader:
    """Reads a board's reports off its console, from entering to leaving.

    Attributes:
        last: what the newest report line said: seq, state, layer, reason; {} before the first.
    """

    def __init__(self, port: Path) -> None:
        self.last: dict[str, Any] = {}
        self._port = port
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"console {port}", daemon=True)

    def __enter__(self) -> Self:
        self._line = os.open(self._port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        with contextlib.suppress(termios.error):
            tty.setraw(self._line)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        os.close(self._line)

    def _follow(self) -> None:
        text = b""
        while not self._stopping.is_set():
            if not select.select([self._line], [], [], _POLL_S)[0]:
                continue
            try:
                piece = os.read(self._line, _LINE_LIMIT_BYTES)
            except OSError:
                return  # the board is gone
            *lines, text = (text + piece).split(b"\n")
            text = text[-_LINE_LIMIT_BYTES:]
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        told = report(line)
        if told is not None:
            self.last = told


def report(line: bytes) -> dict[str, Any] | None:
    """Return what a line of the console says of a report, None for another line."""
    if not line.startswith(REPORT):
        return None
    try:
        told = json.loads(line.removeprefix(REPORT))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
