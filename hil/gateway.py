"""A site's gateway on the bench: the real `netzpuls gateway run` as a process of ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fleet.errors import NetzpulsError
from fleet.gateway import leash
from fleet.gateway.settings import Folder
from fleet.text import printable

Part = Literal["broker", "collector"]

_READY_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.05


class GatewayProcess:
    """Broker and collector of one folder; started and stopped as often as wanted.

    Args:
        log: where its words go.
        leashed: end it with the thread that starts it (see fleet.gateway.leash).
    """

    def __init__(self, folder: Folder, log: Path, *, leashed: bool = True) -> None:
        self.folder = folder
        self._log = log
        self._leashed = leashed
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it; `environment` is added to this process's own."""
        command = [sys.executable, "-m", "fleet.cli", "gateway", "run"]
        command += ["--dir", str(self.folder.path)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                leash.command(*command) if self._leashed else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env=os.environ | environment if environment else None,
            )

    def wait_ready(self) -> None:
        """Wait until it takes reports.

        Raises: NetzpulsError: it does not; with its own words.
        """
        process, deadline = self._process, time.monotonic() + _READY_S
        while process and process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if json.loads(self.folder.state.read_text())["ready"]:
                    return
            time.sleep(_POLL_S)
        words = self._log.read_text(errors="replace").strip().splitlines()
        raise NetzpulsError(
            "the gateway did not start: " + printable("; ".join(words[-2:]) or "it said nothing"),
            hint=f"see {self._log}",
        )

    def pid(self, part: Part) -> int:
        """Return the process id of one of its parts."""
        return int(json.loads(self.folder.state.read_text())["pids"][part])

    def send(self, part: Part, number: signal.Signals) -> int:
        """Send a signal to one of its parts; return the process id."""
        pid = self.pid(part)
        os.kill(pid, number)
        return pid

    def stop(self) -> None:
        """End it, politely and then not so."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
