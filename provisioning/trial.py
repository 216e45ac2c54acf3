"""A board's trial at the bench: sensors, WLAN, time, gateway, an acknowledged report.

    NETZPULS BENCH {"step": "join", "ok": true, "ms": 2310, "rssi_dbm": -52, …}    a line a step

The board is told over its REPL what to do (`firmware/agent/bench.py`); nothing is written to its
flash, so that a cut at any moment leaves no more than a board that is not enrolled.
"""

from __future__ import annotations

import contextlib
import json
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import serial

from firmware.linkreport import table, term
from fleet.errors import NetzpulsError
from fleet.text import printable
from provisioning import port, selftest
from provisioning.bench import Bench
from provisioning.errors import SelfTestError
from provisioning.repl import Repl, ReplError

MARK = b"NETZPULS BENCH "
# What the bench tests, in this order; the steps before it need none.
ALONE = ("sensors",)
STEPS = ("join", "time", "gateway", "report")

# How long a board may take for a step, in seconds.
_MOST_S = {"sensors": 8.0, "join": 60.0, "time": 12.0, "gateway": 32.0, "report": 15.0}
_SLACK_S = 5.0
_STOP_S = 20.0
_CLOCK_OFF_S = 60
_KEPT_BYTES = 4096

_NETWORK = "is its access point on and in reach, on 2.4 GHz? Has the board its antenna?"
_AGAIN = "run the same command again"
_REASONS = {
    table.NETWORK_NOT_FOUND: ("its radio does not see the WLAN {ssid!r}", _NETWORK),
    table.WRONG_KEY: (
        "the WLAN {ssid!r} refuses its key",
        "mend the key of [wlan.{wlan}] in secrets/wlan.toml, or of the access point",
    ),
    table.SECURITY_MISMATCH: (
        "the WLAN {ssid!r} is not protected as the inventory says",
        "mend security of [wlan.{wlan}], or of the access point",
    ),
}
_LAYERS = {
    table.RADIO: ("its radio found no WLAN {ssid!r} that it can join", _NETWORK),
    table.ASSOCIATION: (
        "it cannot join the WLAN {ssid!r}",
        "is its key right in secrets/wlan.toml? Is the access point full? " + _NETWORK,
    ),
    table.ADDRESSING: (
        "it got no lease in the WLAN {ssid!r}",
        "does a DHCP server with free addresses run there?",
    ),
}
# By term.TROUBLES.
_TROUBLES = {
    "broker-silent": (
        "nobody answers at {broker}",
        "does netzpuls gateway bench run there? Does a firewall keep the port shut?",
    ),
    "broker-refused": (
        "nobody takes connections at {broker}",
        "start the bench's gateway: netzpuls gateway bench",
    ),
    "broker-untrusted": (
        "TLS: it does not trust the certificate of {broker}",
        "that must be the bench's gateway of this city: netzpuls gateway bench",
    ),
    "certificate-refused": (
        "TLS: {broker} refuses its certificate",
        "was the board revoked, or is the gateway another city's? netzpuls gateway bench says why",
    ),
}


Stage = Callable[[str], AbstractContextManager[None]]


@dataclass
class Trial:
    """One board's way over the bench.

    Args:
        line: its port, open; the agent runs.
        config: what `content` returned.
        bench: None tests only what needs none.
        secrets: texts that are never shown, should the board say them.
        stage: begins a step and ends it, see `flash`.
        on_wait: called a few times a second; what it raises ends the waiting.
    """

    line: serial.Serial
    board: str
    config: bytes
    bench: Bench | None
    secrets: Sequence[str] = field(repr=False)
    stage: Stage
    on_wait: Callable[[], None]

    def run(self) -> dict[str, Any]:
        """Go through all steps; the board starts anew afterwards.

        Returns: what it measured, flat.
        Raises: SelfTestError: with the step that was not passed, and what to do.
        """
        steps = self._steps()
        if not steps:
            return {}
        seq = int(time.time())  # of the report: higher than any before
        repl = Repl(self.line, self.on_wait)
        found: dict[str, Any] = {}
        step = steps[0]
        try:
            for step in steps:
                with self.stage(step):
                    if step == steps[0]:
                        self._begin(repl, steps, seq)
                    found |= self._measured(step, self._passed(repl, step))
                    if step == "report":
                        self._look(seq)
        except ReplError as error:
            raise SelfTestError(
                f"{self.board} does not do what it is told over its console: {error}",
                hint=f"{_AGAIN}; if it happens twice, try another cable",
                details={"step": step},
            ) from None
        except (OSError, termios.error) as error:
            raise SelfTestError(
                f"{self.board} went away while it was tested: {error}",
                hint=f"check the cable and {_AGAIN}",
                details={"step": step},
            ) from None
        finally:
            self._start_anew(repl)
        return found

    def _steps(self) -> list[str]:
        has_sensors = bool(json.loads(self.config).get("sensors"))
        steps = [*(ALONE if has_sensors else ()), *(STEPS if self.bench else ())]
        # Without a time server the time comes with the acknowledgement.
        return [each for each in steps if each != "time" or (self.bench and self.bench.ntp)]

    def _begin(self, repl: Repl, steps: Iterable[str], seq: int) -> None:
        most_ms = {step: int(_MOST_S[step] * 1000) for step in steps}
        repl.interrupt(_STOP_S)
        repl.run(
            f"from agent.bench import prove\nprove({self.config.decode()!r}, {most_ms!r}, {seq})\n"
        )

    def _passed(self, repl: Repl, step: str) -> dict[str, Any]:
        """Wait for a step's line, and judge it."""
        until = time.monotonic() + _MOST_S[step] + _SLACK_S
        said = bytearray()
        while True:
            try:
                line = repl.line(until - time.monotonic())
            except ReplError:
                raise self._failure(
                    step,
                    f"it did not say how that went for {_MOST_S[step] + _SLACK_S:.0f} s; "
                    + selftest.said(said + repl.heard, self.secrets),
                    _AGAIN,
                ) from None
            if line is None:
                fault = self._shown(repl.fault(_SLACK_S)).strip()
                raise self._failure(step, f"its test broke: {fault[-300:]}", _AGAIN)
            said = (said + line + b"\n")[-_KEPT_BYTES:]
            if selftest.MARK in line:
                raise self._failure(
                    step,
                    "it started anew in the middle of it",
                    f"is its supply strong enough for its radio? Try another port, and {_AGAIN}",
                )
            told = _document(line)
            if told is not None and told.get("step") == step:
                break
        if told.get("ok") is not True:
            raise self._failure(step, *self._why(step, told))
        return told

    def _look(self, seq: int) -> None:
        """See that the gateway has the report: a board can say anything.

        Raises: SelfTestError: it has not.
        """
        bench, key_id = self.bench, json.loads(self.config)["key_id"]
        if bench is not None and not bench.holds(self.board, key_id, seq):
            raise self._failure(
                "report",
                "it says that its report was acknowledged, but the bench's gateway has none",
                f"does netzpuls gateway bench run in {bench.folder.path}? Is this board ours?",
            )

    def _failure(self, step: str, why: str, hint: str) -> SelfTestError:
        return SelfTestError(
            f"{self.board} did not pass its self-test ({step}): {self._shown(why)}",
            hint=self._shown(hint),
            details={"step": step},
        )

    def _shown(self, text: str) -> str:
        return printable(selftest.hidden(text, self.secrets), 500)

    def _why(self, step: str, told: Mapping[str, Any]) -> tuple[str, str]:
        """Return what went wrong in a step, and what to do about it."""
        said = str(told.get("said") or "").strip()
        bench = self.bench
        if step == "sensors" or bench is None:
            why = said or "they took too long"
            return why, "check the wiring and [hardware] in inventory.toml, and try it again"
        names = {
            "ssid": bench.wlan.ssid,
            "wlan": bench.wlan_id,
            "broker": bench.gateway,
        }
        if step == "join":
            return _told(_joining(told), names, said)
        if step == "time":
            return (
                f"the time server {bench.ntp!r} does not tell it the time",
                "is it reached from the bench's WLAN? Another one is named as ntp of [bench]",
            )
        if told.get("late") and step == "report":
            return (
                f"its report was not acknowledged within {_MOST_S[step]:.0f} s"
                + ("" if told.get("taken") else "; not even the broker took it"),
                f"is the collector running? See what netzpuls gateway bench says of {self.board}",
            )
        return _told(_TROUBLES.get(_trouble(told), ("it failed at {broker}", "")), names, said)

    def _measured(self, step: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is worth telling of a step that was passed.

        Raises: SelfTestError: it got a wrong time, or none.
        """
        time_s = told.get("time_s")
        if step == "time" and not isinstance(time_s, int):
            raise self._failure(step, "it does not say what time it was told", _AGAIN)
        if isinstance(time_s, int):
            ahead_s = time_s - int(time.time())
            if abs(ahead_s) > _CLOCK_OFF_S:
                raise self._failure(
                    step,
                    f"it was told a time that is {abs(ahead_s)} s "
                    f"{'ahead of' if ahead_s > 0 else 'behind'} this computer's",
                    "set the clock that is wrong: the time server's, or this computer's",
                )
        names = {"rssi_dbm", "channel", "association_ms", "addressing_ms"}
        return {
            name: value
            for name, value in told.items()
            if name in names and isinstance(value, int) and not isinstance(value, bool)
        }

    def _start_anew(self, repl: Repl) -> None:
        """Have the board go on as it is flashed."""
        with contextlib.suppress(OSError, termios.error, ReplError, NetzpulsError):
            if port.has_reset_line(self.line):
                port.reset(self.line)
            else:
                repl.start_anew()


def _document(line: bytes) -> dict[str, Any] | None:
    """Return what a line says of a step, None if it is none."""
    at = line.find(MARK)
    if at < 0:
        return None
    try:
        document = json.loads(line[at + len(MARK) :])
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _trouble(told: Mapping[str, Any]) -> str:
    """Return what kept a board from the gateway, as term.TROUBLES names it."""
    number = told.get("trouble")
    if told.get("late"):
        return "broker-silent"
    if isinstance(number, int) and 0 <= number < len(term.TROUBLES):
        return term.TROUBLES[number]
    return ""


def _joining(told: Mapping[str, Any]) -> tuple[str, str]:
    layer, reason = told.get("layer"), told.get("reason")
    if isinstance(reason, int) and reason in _REASONS:
        return _REASONS[reason]
    if isinstance(layer, int) and layer in _LAYERS:
        why, hint = _LAYERS[layer]
        known = term.reason_name(reason) if isinstance(reason, int) else ""
        return (f"{why}: {known}" if known else why), hint
    return "it did not join the WLAN {ssid!r} in time", _NETWORK


def _told(texts: tuple[str, str], names: Mapping[str, str], said: str) -> tuple[str, str]:
    why, hint = (text.format(**names) for text in texts)
    return why + (f" ({said})" if said else ""), hint or _AGAIN
