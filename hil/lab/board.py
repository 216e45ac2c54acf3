"""A board of the lab: the virtual one in a namespace of its own, and what it said so far."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.inventory import Role
from hil.board import BoardProcess, Settings
from hil.board.control import ControlClient
from hil.city import Place
from hil.lab.capture import Capture
from hil.lab.site import Site

_KEPT = 2000


@dataclass(frozen=True)
class Told:
    """One report line of the console.

    Attributes:
        at_s: when it was read, on this machine's monotonic clock.
    """

    at_s: float
    seq: int
    state: str
    layer: str
    reason: str

    @property
    def verdict(self) -> str:
        """The reason, or the state where that is all there is to say."""
        return self.state if self.state == "up" else self.reason


class LabBoard:
    """A running board; its history grows while its console is followed.

    Args:
        network: the site's; a plug of its switch becomes the board's.
        number: of the plug.

    Attributes:
        radio: the air as it is without faults (see hil.board.radio).
        ssid: the WLAN that it measures.
    """

    def __init__(
        self, place: Place, network: Site, number: int, *, mac: bytes, radio: dict[str, Any]
    ) -> None:
        self.place = place
        self.mac = mac
        self.radio = radio
        self.ssid = str(radio["access_points"][0]["ssid"])
        self.id = "np-" + mac.hex()
        self.history: list[Told] = []
        self.process: BoardProcess
        self._changed = threading.Condition()
        self._network = network
        self._number = number
        self._capture: Capture | None = None
        self._has_lan = place.role == "ap-monitor"
        self.namespace = network.plug_board(number, mac, lan=self._has_lan)

    @property
    def role(self) -> Role:
        """What it does."""
        return self.place.role

    @property
    def control(self) -> ControlClient:
        """The way to its control socket."""
        return self.process.control

    def start(self, settings: Settings) -> None:
        """Switch it on, still blank."""
        with self.namespace.inside():
            self.process = BoardProcess(settings)

    @property
    def log(self) -> Path:
        """Where all stands that it printed."""
        return self.link.with_suffix(".log")

    @property
    def link(self) -> Path:
        """Its serial port."""
        return self.process.link

    def hear(self, told: dict[str, Any]) -> None:
        """Take what a report line of its console said."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            said = Told(
                time.monotonic(),
                int(told["seq"]),
                str(told["state"]),
                str(told["layer"]),
                str(told["reason"]),
            )
            with self._changed:
                self.history.append(said)
                del self.history[:-_KEPT]
                self._changed.notify_all()

    def capture(self, path: Path) -> None:
        """Write all frames of its links to a file until `end_capture`."""
        self.end_capture()
        links = [f"b{self._number}w"] + ([f"b{self._number}e"] if self._has_lan else [])
        self._capture = Capture(self._network.switch, links, path)

    def end_capture(self) -> int:
        """Stop writing; return how many frames there were."""
        capture, self._capture = self._capture, None
        return capture.close() if capture else 0

    @property
    def last(self) -> Told | None:
        """Its newest report."""
        return self.history[-1] if self.history else None

    def since(self, begin_s: float) -> list[Told]:
        """Return what it said since a moment."""
        with self._changed:
            return [told for told in self.history if told.at_s >= begin_s]

    def wait(
        self, begin_s: float, wanted: Callable[[list[Told]], bool], timeout_s: float
    ) -> list[Told]:
        """Wait until what it said since `begin_s` is as wanted, or the time is over; return it."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                told = [each for each in self.history if each.at_s >= begin_s]
                left_s = deadline - time.monotonic()
                if wanted(told) or left_s <= 0:
                    return told
                self._changed.wait(left_s)
