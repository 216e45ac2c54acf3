"""A virtual board as a process of its own, for tests and for the demo.

with BoardProcess(Settings(link=folder / "np0", instant=True)) as board:
    subprocess.run(["esptool", "--port", board.link, "flash-id"])
    board.control.power(on=False)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from fleet.errors import BenchError
from hil.board.board import Settings
from hil.board.control import ControlClient

_READY_S = 20.0
_STOP_S = 5.0


class BoardProcess:
    """Starts a board and waits until it is ready; it does not outlive this process.

    Args:
        command_prefix: what to start it with, to run it in another network namespace:
            ("ip", "netns", "exec", "room-1"), ("nsenter", "--net=/proc/1234/ns/net").
    Raises: BenchError: the board could not be started; the message is the board's own.
    """

    def __init__(self, settings: Settings, command_prefix: Sequence[str] = ()) -> None:
        self.settings = settings
        self.link: Path = settings.link
        self.control = ControlClient(settings.control_path)
        self.rfc2217_port: int | None = None
        command = [*command_prefix, sys.executable, "-m", "hil.board", "--with-parent", "--json"]
        command += ["--link", str(settings.link.absolute()), "--mac", settings.mac.hex(":")]
        command += ["--heap", str(settings.heap_bytes)]
        for option, value in (
            ("--rfc2217", settings.rfc2217),
            ("--log", settings.log),
            ("--flash", settings.flash),
            ("--radio", settings.radio),
            ("--lan", settings.lan),
            ("--control", settings.control),
            ("--micropython", settings.micropython),
        ):
            if value is not None:
                command += [option, str(value.absolute() if isinstance(value, Path) else value)]
        for name in settings.interfaces:
            command += ["--interface", name]
        for name in settings.sensors:
            command += ["--sensor", name]
        if settings.instant:
            command.append("--instant")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed when this process ends: --with-parent
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> None:
        document = self._read_document()
        if not document["ok"]:
            error = document["error"]
            raise BenchError(error["message"], hint=error["hint"])
        self.rfc2217_port = document["rfc2217"]

    def _read_document(self) -> dict[str, Any]:
        stdout, deadline, text = self.process.stdout, time.monotonic() + _READY_S, b""
        while stdout is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                raise BenchError(f"the virtual board at {self.link} did not start in {_READY_S} s")
            piece = os.read(stdout.fileno(), 65536)
            if not piece:
                break
            text += piece
            with contextlib.suppress(ValueError):  # not all of it yet
                return dict(json.loads(text))
        raise BenchError(f"the virtual board at {self.link} ended at once: {text!r}")

    def stop(self) -> None:
        """End the board cleanly; kill it if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_S)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
