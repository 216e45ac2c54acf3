"""A site's gateway in the lab: the real one, in a namespace on the site's LAN."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from fleet.gateway.settings import Folder
from hil.gateway import GatewayProcess, Part
from hil.lab.namespace import Namespace

_CLOCK = Path(__file__).parent / "clock"


class LabGateway:
    """Broker and collector of one site, stopped and started as faults want it."""

    def __init__(self, namespace: Namespace, folder: Folder, log: Path) -> None:
        self.folder = folder
        self._namespace = namespace
        # Not leashed: faults start it from threads that end; the lab's PID namespace ends it.
        self._process = GatewayProcess(folder, log, leashed=False)
        self._lock = threading.Lock()

    def start(self, clock_ahead_s: int = 0) -> None:
        """Start it, its Python's clock so far ahead, and wait until it takes reports."""
        clock = {"PYTHONPATH": str(_CLOCK), "NETZPULS_LAB_CLOCK_AHEAD_S": str(clock_ahead_s)}
        with self._lock:
            with self._namespace.inside():
                self._process.start(clock if clock_ahead_s else None)
            self._process.wait_ready()

    def stop(self) -> None:
        """End it."""
        with self._lock:
            self._process.stop()

    def restart(self, clock_ahead_s: int = 0) -> None:
        """Start it anew."""
        self.stop()
        self.start(clock_ahead_s)

    def send(self, part: Part, number: signal.Signals) -> None:
        """Send a signal to broker or collector."""
        self._process.send(part, number)
