"""What a gateway says of itself when city hall asks: one JSON document, bounded and versioned.

    {"status": 1, "gateway": "gw-mitte", "version": "0.1.0", "time_ms": …, "broker": true, …}

`netzpuls fleet check` asks for it over SSH. There it is the word of a host that may be broken or
hostile: `parse` takes nothing that is longer, older or odder than `Status` says.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from fleet import authority
from fleet.document import Table
from fleet.errors import READABLE, ConfigurationError, NetzpulsError
from fleet.gateway import broker, keyring, settings
from fleet.gateway.database import Reader
from fleet.gateway.settings import Folder, Settings
from fleet.inventory import BoardId, Id
from fleet.text import printable

# A document with as many silent boards as it may name has about 50 KiB.
MAX_BYTES = 1 << 17
MAX_SILENT = 1000
SILENT_S = 900

_MAX_TIME_S = 1 << 33
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Seconds = Annotated[int, Field(ge=0, le=_MAX_TIME_S)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+!-]{1,40}$")]
Part = Literal["gateway", "collector", "ca"]


class StatusError(NetzpulsError):
    """What a gateway said of itself cannot be read."""

    code = "status"


class Status(Table):
    """How a gateway is; times are Unix seconds by its own clock.

    Attributes:
        status: version of this document.
        version: of Netzpuls there.
        time_ms: when this was written, Unix milliseconds.
        broker: it answers with the right certificate.
        collector: it runs and is connected to the broker.
        restarts: how often children of the running supervisor had to be started again.
        waiting: reports that city hall has not pulled yet, by the cursor that it gave.
        waiting_since_s: when the oldest of these came.
        unacknowledged: reports behind a hole: the board holds them until the hole is filled.
        unacknowledged_since_s: when the oldest of these came.
        received_s: when the newest report came.
        boards: how many may report here.
        silent: when those were heard last that have said nothing for a while, 0 for never; of
            many only some.
        silent_count: how many these are.
    """

    status: Literal[1] = 1
    gateway: Id
    version: Version
    time_ms: Annotated[int, Field(ge=0, le=_MAX_TIME_S * 1000)]
    broker: bool
    collector: bool
    restarts: Count
    certificates: dict[Part, AwareDatetime]
    disk_free_bytes: Count
    disk_total_bytes: Count
    waiting: Count
    waiting_since_s: Seconds | None
    unacknowledged: Count
    unacknowledged_since_s: Seconds | None
    received_s: Seconds | None
    boards: Count
    silent: Annotated[dict[BoardId, Seconds], Field(max_length=MAX_SILENT)]
    silent_count: Count


def read(
    folder: Folder, *, after: int = 0, database: str | None = None, silent_s: int = SILENT_S
) -> Status:
    """Look at a gateway.

    Args:
        folder: the gateway's.
        after: the row that city hall has read up to.
        database: in which database that row counts; in another one nothing was read.
        silent_s: after how long without a report a board counts as silent.

    Raises: NetzpulsError: it is no gateway's folder, or cannot be read.
    """
    chosen = settings.load(folder)
    state = _state(folder)
    boards = keyring.load(folder.boards)
    stored: dict[str, Any] = dict.fromkeys(("waiting_since_s", "unacknowledged_since_s"))
    stored |= {"waiting": 0, "unacknowledged": 0, "received_s": None}
    heard: dict[str, int] = {}
    if folder.database.is_file():  # it has not run yet where there is none
        reader = Reader(folder.database)
        try:
            first = after if database == reader.database and after <= reader.last_row else 0
            stored |= reader.backlog(first)
            heard = reader.heard()
        finally:
            reader.close()
    now_s = int(time.time())
    silent = {
        board: heard.get(board, 0) for board in boards if now_s - heard.get(board, 0) >= silent_s
    }
    free, total = _disk(folder.path)
    return Status(
        gateway=chosen.id,
        version=metadata.version("netzpuls"),
        broker=_broker_answers(folder, chosen),
        collector=bool(state.get("ready")) and _collector_runs(state),
        restarts=_restarts(state),
        certificates=_certificates(folder),
        disk_free_bytes=free,
        disk_total_bytes=total,
        boards=len(boards),
        silent=dict(sorted(silent.items(), key=lambda each: each[1])[:MAX_SILENT]),
        silent_count=len(silent),
        **stored,
        time_ms=int(time.time() * 1000),  # the last thing of all: city hall compares it
    )


def parse(said: bytes, gateway_id: str) -> Status:
    """Return what a gateway said of itself.

    Raises: StatusError: it said something else.
    """
    hint = "see what this prints there: netzpuls gateway status --json --dir DIR"
    try:
        return Status.model_validate_json(said)
    except (ValidationError, RecursionError):
        words = _error_in(said) or (f'"{printable(said[:80].strip())}"' if said else "nothing")
    raise StatusError(f"{gateway_id} does not say how it is, but: {words}", hint=hint)


def _error_in(said: bytes) -> str | None:
    """Return the message if this is an error as `--json` prints it."""
    try:
        message = json.loads(said)["error"]["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return printable(message) if isinstance(message, str) else None


def _state(folder: Folder) -> dict[str, Any]:
    try:
        found = json.loads(folder.state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # it does not run
    return found if isinstance(found, dict) else {}


def _collector_runs(state: dict[str, Any]) -> bool:
    """Tell whether both the supervisor and the collector are alive and not stopped.

    The file stays behind when a supervisor is killed, and its numbers may be others' by then.
    """
    pids = state.get("pids")
    if not isinstance(pids, dict):
        return False
    marks = {"supervisor": b"gateway", "collector": b"fleet.gateway.collector"}
    return all(_lives(pids.get(name), mark) for name, mark in marks.items())


def _lives(pid: object, mark: bytes) -> bool:
    if not isinstance(pid, int):
        return False
    process = Path("/proc") / str(pid)
    try:
        # The name in brackets may hold anything, brackets too.
        state = (process / "stat").read_bytes().rpartition(b")")[2].split()[0]
        return state not in {b"T", b"t", b"Z", b"X"} and mark in (process / "cmdline").read_bytes()
    except (OSError, IndexError):
        return False


def _restarts(state: dict[str, Any]) -> int:
    found = state.get("restarts")
    counts = found.values() if isinstance(found, dict) else ()
    return sum(each for each in counts if isinstance(each, int) and each > 0)


def _broker_answers(folder: Folder, chosen: Settings) -> bool:
    try:
        return broker.reachable(folder, chosen)
    except ConfigurationError:  # a wrong certificate: boards do not connect to that
        return False


def _certificates(folder: Folder) -> dict[Part, datetime]:
    places: dict[Part, Path] = {
        "gateway": folder.certificate("gateway"),
        "collector": folder.certificate("collector"),
        "ca": folder.ca,
    }
    return {
        name: authority.read_certificate(path).not_valid_after_utc
        for name, path in places.items()
        if path.exists()
    }


def _disk(folder: Path) -> tuple[int, int]:
    """Return the bytes that are free for an ordinary user, and all that one may fill: as df."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise ConfigurationError(
            f"cannot look at the disk of {folder}: {error.strerror}", hint=READABLE
        ) from None
    free, used = found.f_bavail, found.f_blocks - found.f_bfree
    return free * found.f_frsize, (free + used) * found.f_frsize
