"""Reports that continue each other, taken as one: nearly all that a board says, it said before.

A *stretch* is one report or more of one board, key and boot, numbers following one another, whose
best clock goes forward, which say the same under the same period, none of them so late that what
was said before would have ended. What the ledger keeps of them, it keeps by their ends. So a day of
reports is a pass over columns, and the arithmetic of `fleet.store.fold` is done with some
hundredths of them. Where a stretch is not new as a whole, or others lie within its time, its
reports are taken one by one, as stretches of one.

`fleet/recompute.py` does the same by SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.linkreport import table
from fleet.store import fold
from fleet.store.fold import NO_SEAL, Bools, Columns, Ints

# So many rows at a time stay in a processor's cache.
_BLOCK = 1 << 15
# If so many rows make no stretch with the one before, they are sorted.
_CROWD = 4
_FACTS = ("state", "layer", "reason", "gateway_reason", "internet_reason")
_SAME = ("origin", "air", "key_id", "boot", "period_s", *_FACTS)
_NEEDED = (*_SAME, "clock", "seq", "time_s", "uptime_cs", "oldest_seq", "link", "tag")


class Rows:
    """The reports of a piece, in an order in which they continue each other.

    Attributes:
        known: the rows of which the piece holds another one before, as far as that was seen.
        in_order: stretches are made of rows that follow one another in the piece.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self._columns = columns
        self._order: Ints | None = None
        self.in_order = True
        self.known = np.zeros(0, np.int64)
        self._starts = _starts(columns)
        if len(self._starts) * _CROWD > len(columns["seq"]):
            self._sort()

    def _sort(self) -> None:
        columns = self._columns
        key = columns["origin"].astype(np.int64) << 32 | columns["seq"]
        if (key[1:] > key[:-1]).all():
            return
        order = np.argsort(key, kind="stable")
        again = ~fold.begins(key[order], columns["key_id"][order])
        self.known, self._order, self.in_order = order[again], order[~again], False
        self._columns = {name: columns[name][self._order] for name in _NEEDED}
        self._starts = _starts(self._columns)

    def stretches(self) -> Columns:
        """Return all stretches: what their rows share, and of what they do not, the ends."""
        last = np.append(self._starts[1:], len(self._columns["seq"])) - 1
        return self._of(self._starts, last if len(self._starts) else self._starts)

    def numbers(self, stretches: Columns) -> Ints:
        """Return the numbers of the rows of stretches."""
        rows = _rows(stretches)
        return rows if self._order is None else np.asarray(self._order[rows])

    def singly(self, stretches: Columns, chosen: Bools | None = None) -> Columns:
        """Return stretches, the chosen ones (all if None) report by report.

        What else is told of them, each of their rows has; with `first_at_s`, of more than one
        row each was made when it says.
        """
        if chosen is None:
            chosen = np.ones(len(stretches["first"]), np.bool_)
        rows = _rows(fold.take(stretches, chosen))
        count = stretches["last"] - stretches["first"] + 1
        single = self._of(rows, rows)
        for name in stretches.keys() - single.keys():
            single[name] = np.repeat(stretches[name][chosen], count[chosen])
        if "first_at_s" in stretches:
            several = np.repeat(count[chosen] > 1, count[chosen])
            for name in ("first_at_s", "last_at_s"):
                single[name] = np.where(several, single["first_time_s"], single[name])
        return fold.joint(fold.take(stretches, ~chosen), {n: single[n] for n in stretches})

    def _of(self, first: Ints, last: Ints) -> Columns:
        columns = self._columns
        row = first if self._order is None else self._order[first]
        found: Columns = {"first": first, "last": last, "row": row}
        for name in ("link", "clock", *_SAME):
            found[name] = columns[name][first]
        found["tag"] = columns["tag"][last]
        for name in ("seq", "time_s"):
            found[f"first_{name}"] = columns[name][first].astype(np.int64)
            found[f"last_{name}"] = columns[name][last].astype(np.int64)
        found["uptime_cs"] = columns["uptime_cs"][first].astype(np.int64)
        if len(first) and (first != last).any():
            offset_cs = columns["time_s"].astype(np.int64) * 100 - columns["uptime_cs"]
            found["least_cs"] = np.minimum.reduceat(offset_cs, first)
            found["most_cs"] = np.maximum.reduceat(offset_cs, first)
            oldest = np.maximum.reduceat(columns["oldest_seq"], first)
        else:
            found["least_cs"] = found["first_time_s"] * 100 - found["uptime_cs"]
            found["most_cs"] = found["least_cs"]
            oldest = columns["oldest_seq"][first]
        found["oldest_seq"] = oldest.astype(np.int64)
        return found


def _rows(stretches: Columns) -> Ints:
    first = stretches["first"]
    count = stretches["last"] - first + 1
    total = int(count.sum())
    found: Ints = np.arange(total) + np.repeat(first - np.cumsum(count) + count, count)
    return found


def _starts(columns: Mapping[str, NDArray[Any]]) -> Ints:
    """Return which rows do not continue the one before."""
    count = len(columns["seq"])
    if not count:
        return np.zeros(0, np.int64)
    found = [np.zeros(1, np.int64)]
    for begin in range(1, count, _BLOCK):
        rows = slice(begin - 1, min(count, begin + _BLOCK))
        block = {name: columns[name][rows] for name in _NEEDED}
        found.append(np.flatnonzero(~_continues(block)) + begin)
    return np.concatenate(found)


def _continues(rows: Mapping[str, NDArray[Any]]) -> Bools:
    """Tell of each row but the first whether it continues the one before."""
    time_s, seq = rows["time_s"], rows["seq"]
    timed = (rows["clock"] >= table.CLOCK_NTP) & (time_s > 0)
    found: Bools = timed[1:] & timed[:-1]
    for name in _SAME:
        found &= rows[name][1:] == rows[name][:-1]
    # Numbers without a sign go round at 0, which is no going forward.
    found &= (seq[1:] > seq[:-1]) & (seq[1:] - seq[:-1] == 1)
    grace_s = (rows["period_s"][1:].astype(np.uint32) * 5) >> 1
    found &= (time_s[1:] > time_s[:-1]) & (time_s[1:] - time_s[:-1] <= grace_s)
    link, tag = rows["link"][1:], rows["tag"][:-1]
    found &= (link == tag) | (link == NO_SEAL) | (tag == NO_SEAL)
    return found
