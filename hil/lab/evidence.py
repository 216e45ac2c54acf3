"""What the site's collector holds of a board: layer reasons, and the blocks that reports carry."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import time
from dataclasses import dataclass

import firmware.linkreport.report as wire
from firmware.linkreport.block import UPLINK, UPLINK_FORMAT
from firmware.linkreport.term import TROUBLES
from fleet.gateway.settings import Folder

_POLL_S = 0.2


@dataclass(frozen=True)
class Stored:
    """One report as the collector committed it.

    Attributes:
        layer_reasons: one reason for each layer, radio first.
        trouble: the uplink block's, "none" without one.
    """

    seq: int
    layer_reasons: bytes
    trouble: str
    blocks: tuple[tuple[int, bytes], ...]


def stored(folder: Folder, board: str, first_seq: int) -> list[Stored]:
    """Return a board's reports from a sequence number on."""
    found = []
    where = f"file:{folder.database}?mode=ro"
    with contextlib.closing(sqlite3.connect(where, uri=True)) as connection:
        rows = connection.execute(
            "SELECT raw FROM report WHERE device = ? AND seq >= ? ORDER BY key_id, seq",
            (board, first_seq),
        )
        for (raw,) in rows:
            report = wire.unpack(raw)
            blocks = tuple(wire.extensions(report.extensions))
            found.append(Stored(report.seq, report.layer_reasons, _trouble(blocks), blocks))
    return found


def wait_for(folder: Folder, board: str, first_seq: int, last_seq: int, timeout_s: float) -> None:
    """Wait until the collector has a board's reports up to one; or the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if any(report.seq >= last_seq for report in stored(folder, board, first_seq)):
            return
        time.sleep(_POLL_S)


def _trouble(blocks: tuple[tuple[int, bytes], ...]) -> str:
    for kind, content in blocks:
        if kind == UPLINK and len(content) == struct.calcsize(UPLINK_FORMAT):
            number = struct.unpack(UPLINK_FORMAT, content)[0]
            return str(TROUBLES[number]) if number < len(TROUBLES) else f"trouble-{number}"
    return "none"
