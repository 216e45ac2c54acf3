"""How the gateway logs: one line for each event, on stderr.

2026-11-22T06:30:00.512Z warning refused reason=seal-wrong device=np-240ac4123456
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Hashable

from fleet.text import printable

_LOGGER = logging.getLogger("netzpuls.gateway")
_MAX_KEYS = 1000


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = record.levelname.lower()
        # A log that cannot be written (its disk is full) must not stop what it is about.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{at}.{int(record.msecs):03d}Z {level} {record.getMessage()}\n")
            sys.stderr.flush()


def configure(*, verbose: bool = False) -> None:
    """Send the gateway's events to stderr; `verbose` adds those of level debug."""
    _LOGGER.handlers = [_Stderr()]
    _LOGGER.propagate = False
    _LOGGER.setLevel(logging.DEBUG if verbose else logging.INFO)


def event(level: int, name: str, /, **fields: object) -> None:
    """Log one event; fields that are None or empty are left out."""
    if _LOGGER.isEnabledFor(level):
        said = {key: value for key, value in fields.items() if value not in ("", None)}
        _LOGGER.log(level, " ".join([name, *(f"{k}={_value(v)}" for k, v in said.items())]))


def info(name: str, /, **fields: object) -> None:
    """Log what an operator may want to know."""
    event(logging.INFO, name, **fields)


def warning(name: str, /, **fields: object) -> None:
    """Log what an operator should look at some time."""
    event(logging.WARNING, name, **fields)


def error(name: str, /, **fields: object) -> None:
    """Log what an operator must mend."""
    event(logging.ERROR, name, **fields)


class Throttle:
    """Lets one line through for each key and interval, and counts the others."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: dict[Hashable, tuple[float, int]] = {}

    def admit(self, key: Hashable) -> int | None:
        """Return how many lines were held back since the last one, None if this one is, too."""
        now = time.monotonic()
        if key not in self._last and len(self._last) >= _MAX_KEYS:
            self._forget(now)
            if len(self._last) >= _MAX_KEYS:
                return None
        since, held = self._last.get(key, (-self._interval_s, 0))
        if now - since < self._interval_s:
            self._last[key] = (since, held + 1)
            return None
        self._last[key] = (now, 0)
        return held

    def _forget(self, now: float) -> None:
        due = [key for key, (since, _) in self._last.items() if now - since >= self._interval_s]
        for key in due:
            del self._last[key]


def _value(value: object) -> str:
    text = printable(str(value))
    if text and not any(c in text for c in ' ="'):
        return text
    escaped = text.replace('"', "'")
    return f'"{escaped}"'
