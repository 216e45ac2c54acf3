"""The network lab as a user starts it: in a process of its own, steered over its socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from hil.lab.control import LabClient

START_S = 60.0
STOP_S = 30.0
ROOT = Path(__file__).parents[3]


def lab_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fleet.cli", "lab", *arguments]


def processes(folder: Path) -> list[str]:
    """Return the command lines that name a folder."""
    table = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in table.stdout.splitlines() if str(folder) in line]


class RunningLab:
    """A lab in a folder, from entering to leaving."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        user: int | None = None,
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.folder = folder
        self.period_s = 6
        self.client = LabClient(folder)
        command = lab_command("up", "--json", "--dir", str(folder), "--period", "6", *options)
        self.process = subprocess.Popen(
            [python, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            user=user,
            env=environment,
        )
        self.document: dict[str, Any] = {}

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_S
        assert self.process.stdout is not None
        text = b""
        while time.monotonic() < deadline:
            piece = os.read(self.process.stdout.fileno(), 65536)
            text += piece
            with contextlib.suppress(ValueError):
                self.document = json.loads(text)
                break
            if not piece:
                break
        assert self.document.get("ok"), (self.document, self._stderr())
        return self

    def _stderr(self) -> str:
        self.process.kill()
        return self.process.communicate()[1].decode(errors="replace")[-2000:]

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=STOP_S)

    @property
    def boards(self) -> list[dict[str, Any]]:
        return list(self.client.call("status")["lab"]["boards"])

    def fault(self, name: str, site: str | None = None, board: str | None = None) -> dict[str, Any]:
        return self.client.call("fault", name=name, site=site, board=board)

    def heal(self, name: str | None = None) -> None:
        self.client.call("heal", name=name, site=None)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], periods: float) -> None:
        """Wait until every board is as wanted."""
        deadline = time.monotonic() + periods * self.period_s
        while not all(map(wanted, boards := self.boards)):
            assert time.monotonic() < deadline, [
                (each["role"], each["state"], each["verdict"], each["age_s"]) for each in boards
            ]
            time.sleep(0.2)
