"""The speed that each USB adapter has proved to carry, kept for the next board on it.

    $XDG_STATE_HOME/netzpuls/adapters.json    {"10c4:ea60 0001": 1500000, …}

Only a convenience of this machine and user: whatever is wrong with the file, it is as if there
were none.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from serial.tools import list_ports

from fleet import file

_MOST = 1000
_noting = threading.Lock()  # a tray's boards end at the same time


def name(port: str) -> str | None:
    """Return what an adapter is called whatever port it gets: ids and serial number, None for none.

    One without a serial number is known by the USB socket that it is plugged into.
    """
    if "://" in port:
        return None
    device = str(Path(port).resolve())
    for each in list_ports.comports():
        if each.device == device and each.vid is not None:
            return f"{each.vid:04x}:{each.pid:04x} {each.serial_number or each.location}"
    return None


def speed(adapter: str | None) -> int | None:
    """Return the speed that an adapter is known to carry."""
    found = _load().get(adapter or "")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def remember(adapter: str | None, baud: int) -> None:
    """Note the speed that an adapter carries."""
    with _noting:
        known = _load()
        if adapter is None or known.get(adapter) == baud:
            return
        known.pop(adapter, None)
        known[adapter] = baud
        content = json.dumps(dict(list(known.items())[-_MOST:]), indent=1) + "\n"
        with contextlib.suppress(OSError):
            _path().parent.mkdir(parents=True, exist_ok=True)
            file.write(_path(), content)


def _load() -> dict[str, object]:
    try:
        document = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "netzpuls" / "adapters.json"
