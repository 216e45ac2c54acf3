"""A REPL that is none: a hostile board at the other end."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning import repl
from provisioning.repl import Repl, ReplError


class Liar:
    """Says that it is in raw-paste mode, and then that it has room, for ever and for nothing."""

    in_waiting = 1

    def __init__(self) -> None:
        self.timeout = 0.0
        self._said = b"raw REPL; CTRL-B to exit\r\n>R\x01\x00\x00"

    def write(self, data: bytes) -> int:
        return len(data)

    def read(self, size: int) -> bytes:
        said, self._said = self._said, b""
        return said or b"\x01" * size


def test_a_board_that_never_has_room_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl, "_GIVE_S", 0.3)
    port: Any = Liar()
    with pytest.raises(ReplError, match="does not take"):
        Repl(port, lambda: None).run("print(1)")
