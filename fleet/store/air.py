"""Which own access points boards heard over which time: `sighting`, kept as reports come.

A report that came with a scan says which own access points it heard; that holds over the same
time as what it says of its board. Kept are, by board and access point, the stretches in which it
was heard, and whether well; under `SCAN` those of which all that was in the air is known, so that
what is not among it was not there. A report without a scan says nothing of the air.

    air     what one report says: all that it heard, as one number; 0 is nothing
    sky     what these numbers mean, while a piece is taken in

Source: docs/fleet.md, "How time is counted", 9; `fleet/point.py` says it by SQL over all reports.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from firmware.linkreport import block, table
from firmware.linkreport import report as wire
from firmware.linkreport.term import LAYERS
from fleet.store import fold
from fleet.store.fold import Columns, Ints

# Heard so well, an access point that falls silent is missed; as in firmware/agent/probes/radio.py.
WELL_DBM = -80
# The number that stands for a scan of which all is known; no access point has it.
SCAN = 0
BSSID_BYTES = 6
# An entry of the list of own access points.
OWN_BYTES = struct.calcsize(block.OWN_FORMAT)
# So many own access points a board names at most, the strongest.
_MOST_OWN = 10
_ASSOCIATION = LAYERS.index("association") - 1
# What one report heard, as a text; '' if it did not scan.
KEY = "coalesce(heard_all::INT || '/' || hex(heard_well) || '/' || hex(heard_weakly), '')"

Heard = tuple[bool | None, bytes | None, bytes | None]


def heard(report: wire.Report) -> Heard:
    """Return what a report says of own access points, as the store's columns have it.

    Returns: whether all in the air are named, the BSSIDs that were heard well, and those that
        were heard weakly, each sorted and one after the other; None for all if there was no scan.
    """
    own = told = None
    for number, content in wire.extensions(report.extensions):
        if number == block.OWN and own is None and len(content) % OWN_BYTES == 0:
            own = content
        elif number == block.AIR and told is None and content:
            told = content[0]
    if own is None and told is None:
        return None, None, None
    entries = list(struct.iter_unpack(block.OWN_FORMAT, own or b""))
    found = {bssid: rssi_dbm >= WELL_DBM for bssid, rssi_dbm, _, _ in entries}
    # Without a count a list that is not full is whole.
    whole = len(entries) < _MOST_OWN if told in (None, wire.NO_U8) else len(entries) == told
    # An association that stands proves more than a scan.
    works = (table.UP, table.DEGRADED)
    if (
        table.reason_state(report.layer_reasons[_ASSOCIATION]) in works
        and report.bssid != wire.NO_BSSID
    ):
        well = WELL_DBM <= report.rssi_dbm < wire.NO_RSSI
        found[report.bssid] = well or found.get(report.bssid, False)
    found.pop(wire.NO_BSSID, None)
    lists = [
        b"".join(sorted(b for b, well in found.items() if well is is_well))
        for is_well in (True, False)
    ]
    return whole, lists[0], lists[1]


def key(heard: Heard) -> str:
    """Return what one report heard as `KEY` has it."""
    whole, well, weakly = heard
    if whole is None or well is None or weakly is None:
        return ""
    return f"{int(whole)}/{well.hex().upper()}/{weakly.hex().upper()}"


class Sky:
    """What the numbers of a piece's airs mean."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def numbers(self, keys: Iterable[str]) -> Ints:
        """Return the numbers of airs that are told as texts, see `KEY`."""
        known = self._numbers
        return np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64)

    def sightings(self, pieces: Columns) -> Columns:
        """Return what the reports of (board, start_s, end_s, air) heard, by board and BSSID.

        A piece of which nothing was heard, or that covers nothing, is in it with nothing.
        """
        pieces = fold.take(pieces, (pieces["air"] > 0) & (pieces["start_s"] < pieces["end_s"]))
        meant = [_spelled(key) for key in self._numbers]
        counts = np.array([len(bssids) for bssids, _ in meant], np.int64)
        bssids = np.array([b for found, _ in meant for b in found], np.int64)
        wells = np.array([w for _, found in meant for w in found], np.int64)
        first = np.cumsum(counts) - counts
        times = counts[pieces["air"]]
        which = np.repeat(np.arange(len(times)), times)
        at = np.repeat(first[pieces["air"]] - np.cumsum(times) + times, times) + np.arange(
            len(which)
        )
        return {
            "board": pieces["board"][which],
            "bssid": bssids[at],
            "start_s": pieces["start_s"][which],
            "end_s": pieces["end_s"][which],
            "well": wells[at],
        }


def _spelled(key: str) -> tuple[list[int], list[int]]:
    """Return the BSSIDs of an air as numbers, and whether each was heard well."""
    if not key:
        return [], []
    whole, *lists = key.split("/")
    found = {SCAN: 0} if whole == "1" else {}
    for text, well in zip(lists, (1, 0), strict=True):
        for at in range(0, len(text), 2 * BSSID_BYTES):
            found.setdefault(int(text[at : at + 2 * BSSID_BYTES], 16), well)
    return list(found), list(found.values())


def relaid(old: Columns, ranges: Columns, new: Columns) -> Columns:
    """Return old sightings outside of ranges of boards and new ones within, joined.

    Args:
        old: (board, bssid, start_s, end_s, well), in any order.
        ranges: as `fold.relaid` has them.
        new: like `old`.
    """
    every = fold.joint(old, new)
    if not len(every["board"]):
        return every
    pair = np.lexsort((every["bssid"], every["board"]))
    begins = fold.begins(every["board"][pair], every["bssid"][pair])
    number = np.empty(len(pair), np.int64)
    number[pair] = np.cumsum(begins) - 1
    board, bssid = (every[name][pair[begins]] for name in ("board", "bssid"))
    # Each pair has its board's ranges.
    low, high = (np.searchsorted(ranges["board"], board, side) for side in ("left", "right"))
    count = high - low
    at = np.repeat(low - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    spread = {name: ranges[name][at] for name in ("low_s", "high_s")}
    spread["board"] = np.repeat(np.arange(len(board)), count)
    numbered = {
        "board": number,
        "start_s": every["start_s"],
        "end_s": every["end_s"],
        "period_s": np.zeros(len(number), np.int64),
        "fact": every["well"],
    }
    parts = [
        fold.take(numbered, _by_time(numbered, part))
        for part in _split(len(old["board"]), len(number))
    ]
    found = fold.relaid(parts[0], spread, parts[1])
    return {
        "board": board[found["board"]],
        "bssid": bssid[found["board"]],
        "start_s": found["start_s"],
        "end_s": found["end_s"],
        "well": found["fact"].astype(np.bool_),
    }


def _split(first: int, count: int) -> tuple[Ints, Ints]:
    return np.arange(first), np.arange(first, count)


def _by_time(numbered: Columns, part: Ints) -> Ints:
    key = fold.moment(numbered["board"][part], numbered["start_s"][part])
    return part[np.argsort(key, kind="stable")]
