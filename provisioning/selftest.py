"""The board's own word that it is well: one line on its console after each start.

NETZPULS SELFTEST {"ok": true, "board": "np-…", "agent": "0.1.0", "config": "ok", …}
"""

from __future__ import annotations

import json
import termios
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import serial

from fleet.text import printable
from provisioning.errors import SelfTestError

MARK = b"NETZPULS SELFTEST "

_READ_S = 0.2
_KEPT_BYTES = 64 * 1024
_SHOWN_LINES = 8
_CHECKED = ("config", "identity", "radio")


def read(
    port: serial.Serial,
    board_id: str,
    deadline_s: float,
    secrets: Sequence[str] = (),
    on_wait: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Wait for the board's self-test and judge it.

    Args:
        port: open, at the console's speed; the board has just been restarted.
        board_id: who should be speaking.
        deadline_s: how long the board may take.
        secrets: texts that are never shown, should the console hold them.
        on_wait: called a few times a second; what it raises ends the waiting.

    Returns: the self-test's document.
    Raises: SelfTestError: none came in time, it is not well, or another board speaks.
    """
    console = bytearray()
    end = time.monotonic() + deadline_s
    try:
        port.timeout = _READ_S
        while time.monotonic() < end:
            on_wait()
            console += port.read(max(1, port.in_waiting))
            document = _find(console)
            if document is not None:
                return _judged(document, board_id, secrets)
            del console[:-_KEPT_BYTES]
    except (OSError, termios.error) as error:
        raise SelfTestError(
            f"{board_id} went away before its self-test: {error}",
            hint="check the cable and run the same command again",
        ) from None
    raise SelfTestError(
        f"{board_id} did not pass its self-test within {deadline_s:.0f} s; "
        f"{said(console, secrets)}",
        hint="press EN on the board and run the same command again; "
        "is the image for this board, and MicroPython 1.24 or newer?",
    )


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return text with no secret in it."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "(secret)")
    return text


def _without(document: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """Return a self-test whose texts hold no secret, nested ones left out."""
    return {
        hidden(key, secrets): hidden(value, secrets) if isinstance(value, str) else value
        for key, value in document.items()
        if value is None or isinstance(value, (bool, int, str))
    }


def _find(console: bytearray) -> dict[str, Any] | None:
    at = console.find(MARK)
    end = console.find(b"\n", at)
    if at < 0 or end < 0:
        return None
    try:
        document = json.loads(console[at + len(MARK) : end])
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        # A line garbled on its way; what came before it is kept for the error.
        console[at : at + len(MARK)] = b"(garbled self-test) "
        return None
    return document


def _judged(document: dict[str, Any], board_id: str, secrets: Sequence[str]) -> dict[str, Any]:
    speaker = document.get("board")
    document = _without(document, secrets)
    if speaker != board_id:
        other = printable(hidden(str(speaker), secrets))
        raise SelfTestError(
            f"{board_id} was flashed, but {other} speaks on its port",
            hint="was the board changed meanwhile? run the same command again",
        )
    if document.get("ok") is not True:
        faults = [
            f"{item}: {printable(str(document.get(item)))}"
            for item in _CHECKED
            if document.get(item) != "ok" and not isinstance(document.get(item), int)
        ]
        raise SelfTestError(
            f"{board_id} says that it is not well: {'; '.join(faults) or 'without a reason'}",
            hint="mend what it names and run the same command again",
            details={"self_test": _shown(document)},
        )
    return _shown(document)


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with every text made safe to show."""
    return {
        printable(key): printable(value) if isinstance(value, str) else value
        for key, value in document.items()
        if value is None or isinstance(value, (bool, int, str))
    }


def said(console: bytes | bytearray, secrets: Iterable[str]) -> str:
    """Return the last of what a console said, safe to show."""
    text = hidden(bytes(console).decode("utf-8", "backslashreplace"), secrets)
    # What starts again and again says the same again and again.
    lines = list(dict.fromkeys(printable(line, 120) for line in text.splitlines() if line.strip()))
    if not lines:
        return "its console was silent"
    return "its console said: " + " / ".join(lines[-_SHOWN_LINES:])
