"""A board and the real tools that use it, as a technician's desk has them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Self

from mpremote.transport_serial import SerialTransport

from hil.board import BoardProcess

TOOLS = Path(sys.executable).parent
TOOL_S = 60


class Desk:
    """A board and the tools on the desk beside it."""

    def __init__(self, process: BoardProcess) -> None:
        self.process = process
        self.link = str(process.link)
        self.control = process.control

    def esptool(self, *arguments: object, port: str = "", ok: bool = True) -> str:
        """Run the real esptool; return what it said."""
        return _run("esptool", "--port", port or self.link, *arguments, ok=ok)

    def mpremote(self, *arguments: object, ok: bool = True) -> str:
        """Run the real mpremote; return what it said."""
        return _run("mpremote", "connect", self.link, *arguments, ok=ok)

    def repl(self, *, soft_reset: bool = True) -> Repl:
        """Open mpremote's own transport, without the start of a process."""
        return Repl(self.link, soft_reset=soft_reset)

    def run(self, source: str) -> str:
        """Run a program in the raw REPL; return what it printed."""
        with self.repl() as repl:
            return repl.run(source)

    def put(self, name: str, source: str) -> None:
        """Write a program to the board's file system."""
        self.run(f"with open({name!r}, 'w') as file: file.write({textwrap.dedent(source)!r})")

    def power_cycle(self) -> None:
        """Take the power away and give it back."""
        self.control.power(on=False)
        self.control.power(on=True)


class Repl:
    """The board's raw REPL."""

    def __init__(self, link: str, *, soft_reset: bool) -> None:
        self.transport = SerialTransport(link)
        self.transport.enter_raw_repl(soft_reset=soft_reset)

    def run(self, source: str) -> str:
        return str(self.transport.exec(textwrap.dedent(source)).decode().replace("\r\n", "\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()


def _run(tool: str, *arguments: object, ok: bool) -> str:
    done = subprocess.run(
        [TOOLS / tool, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TOOL_S,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert (done.returncode == 0) == ok, text
    return text
