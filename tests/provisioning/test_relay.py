"""A port carried over two descriptors: whatever becomes of the desk, the port is free again."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import threading
import tty
from collections.abc import Iterator
from typing import Any

import pytest

from provisioning import port, relay
from provisioning.errors import RemoteError

# pyserial 3.5 starts its thread in a way that Python no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")


class Line:
    """A port whose board talks without end, and the two ends of the desk's way to it."""

    def __init__(self) -> None:
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.name = os.ttyname(self._slave)
        self.heard, self.says = os.pipe()
        self.hears, self.told = os.pipe()
        self.ended: list[Any] = []
        self._stop = threading.Event()
        self._board = threading.Thread(target=self._talk, daemon=True)
        self._relay = threading.Thread(target=self._serve, daemon=True)
        self._board.start()
        self._relay.start()

    def _talk(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stop.is_set():
                if select.select([], [self.master], [], 0.05)[1]:
                    os.write(self.master, b"x" * 512)

    def _serve(self) -> None:
        try:
            relay.serve(self.name, self.heard, self.told, 1.0)
        except RemoteError as error:
            self.ended.append(error)
        else:
            self.ended.append(None)

    def is_over(self, patience_s: float) -> bool:
        self._relay.join(patience_s)
        return not self._relay.is_alive()

    def close(self) -> None:
        self._stop.set()
        self._board.join()
        for descriptor in (self.says, self.hears):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._relay.join(20)
        for descriptor in (self.master, self._slave, self.heard, self.told):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def line() -> Iterator[Line]:
    opened = Line()
    yield opened
    opened.close()


@pytest.mark.parametrize("how", ["silent", "closed its way here", "reads no more", "hung up"])
def test_a_desk_that_is_gone_while_the_board_talks(line: Line, how: str) -> None:
    assert os.read(line.hears, len(relay.READY)) == relay.READY
    if how == "closed its way here":
        os.close(line.says)
    elif how == "hung up":
        os.close(line.hears)
    assert not line.ended
    if how == "reads no more":  # and says all the same that it lives
        for _ in range(60):
            os.write(line.says, relay.ALIVE)
            if line.is_over(0.25):
                break
    assert line.is_over(10)
    assert line.ended == [None]  # its port did not go away
    port.open_port(line.name).close()
