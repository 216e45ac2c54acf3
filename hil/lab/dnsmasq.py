"""dnsmasq, the real one: a router's DHCP server or its DNS server, and the internet's resolver.

One process for each, so that one can die while the other lives. What it says is in its log.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

from hil import tool
from hil.lab.error import LabError
from hil.lab.namespace import Namespace

_STOP_S = 3.0
_START_S = 5.0
_POLL_S = 0.01
_STARTED = b"started, "
# --no-daemon: it must not change its user, which a user namespace of one user does not have.
_ALWAYS = ("--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-queries")


class Dnsmasq:
    """One dnsmasq in a namespace; `options` are its own long options without dashes."""

    def __init__(self, namespace: Namespace, log: Path, options: tuple[str, ...]) -> None:
        self.options = options
        self.namespace = namespace
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def start(self, *more: str) -> None:
        """Start it, with further options; returns when it serves.

        Raises: LabError: it ended at once. ToolMissingError: it is not on this machine.
        """
        command = [str(tool.find("dnsmasq")), *_ALWAYS]
        command += [f"--{option}" for option in (*self.options, *more)]
        with self._log.open("ab") as log, self.namespace.inside():
            begin = log.tell()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        deadline = time.monotonic() + _START_S
        while _STARTED not in (said := self._said(begin)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = " ".join(said.decode(errors="replace").split())
                raise LabError(f"dnsmasq did not start in {self.namespace.name}: {text}")
            time.sleep(_POLL_S)

    def _said(self, begin: int) -> bytes:
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read()

    def stop(self) -> None:
        """End it, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
        process.wait()

    def restart(self, *more: str) -> None:
        """Start it anew with other options."""
        self.stop()
        self.start(*more)

    def pause(self) -> None:
        """Let it hang: its socket takes what comes, and nothing answers."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
