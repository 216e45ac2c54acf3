"""The ledger's fold: columns of reports in, edits of what is kept out. Pure, no I/O.

Columns are numpy arrays of one length, by name. `owner` numbers the (device, key) pairs and
`board` the devices, both in the order of their names, so that sorting by number groups boards.
Times are UTC seconds, `_cs` hundredths of a second. What a report asserts is one number, its fact.

    Report i of period P asserts its fact  over (t[i-1], t[i]]   if t[i] - t[i-1] <= 2.5 P
                                           over (t[i] - P, t[i]] otherwise, and for the first

So a report at time t changes only (t[i-1], t[i+1]]: that is all that is ever laid anew.

Source: docs/fleet.md, "How time is counted"; `fleet/ledger.py` says it by SQL over all reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.linkreport import table

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Columns = dict[str, NDArray[Any]]

# No report before; a time that nobody knows; the end of all times.
NEVER_S = -(1 << 34)
END_S = (1 << 35) - 1
# Stands for a link or a tag of a report that came without its seal.
NO_SEAL = (1 << 64) - 1
NEVER_KEY = (1 << 63) - 1
_TIME_BITS = 37
_STEP_CS = 500

_FACT_BITS = (
    ("state", 3), ("layer", 8), ("reason", 8), ("internet_reason", 8), ("reaches", 1),
    ("misses", 1),
)  # fmt: skip
FACTS = tuple(name for name, _ in _FACT_BITS)
_STATE_OF = np.array([table.reason_state(number) for number in range(256)])
_FINE = (_STATE_OF == table.UP) | (_STATE_OF == table.DEGRADED)
_FAILED = _STATE_OF == table.DOWN


def facts(rows: Mapping[str, NDArray[Any]]) -> Ints:
    """Return what each report asserts as one number; a state that no board may claim is unknown."""
    state = rows["state"]
    known = (state >= table.UP) & (state <= table.DOWN)
    internet, gateway_fine = rows["internet_reason"], _FINE[rows["gateway_reason"]]
    values = {
        "state": np.where(known, state, table.UNKNOWN),
        "layer": rows["layer"],
        "reason": rows["reason"],
        "internet_reason": internet,
        "reaches": known & _FINE[internet],
        "misses": known & gateway_fine & _FAILED[internet],
    }
    fact = np.zeros(len(state), np.int64)
    at = 0
    for name, bits in _FACT_BITS:
        fact |= values[name].astype(np.int64) << at
        at += bits
    return fact


def spelled(fact: Ints) -> Columns:
    """Return facts as columns, as `facts` made them."""
    found: Columns = {}
    at = 0
    for name, bits in _FACT_BITS:
        value = fact >> at & ((1 << bits) - 1)
        found[name] = value.astype(np.bool_ if bits == 1 else np.uint8)
        at += bits
    return found


def packed(columns: Mapping[str, NDArray[Any]]) -> Ints:
    """Return the facts of spelled columns."""
    fact = np.zeros(len(columns["state"]), np.int64)
    at = 0
    for name, bits in _FACT_BITS:
        fact |= columns[name].astype(np.int64) << at
        at += bits
    return fact


def moment(board: Ints, at_s: Ints) -> Ints:
    """Return numbers that sort as (board, time) does."""
    return (board << _TIME_BITS) + (at_s - NEVER_S)


def begins(*keys: NDArray[Any]) -> Bools:
    """Tell where a run of equal keys begins."""
    found = np.ones(len(keys[0]), np.bool_)
    if len(found):
        found[1:] = False
        for key in keys:
            found[1:] |= key[1:] != key[:-1]
    return found


def take(columns: Mapping[str, NDArray[Any]], chosen: NDArray[Any]) -> Columns:
    """Return some rows of columns, by number or mask."""
    return {name: column[chosen] for name, column in columns.items()}


def joint(*parts: Mapping[str, NDArray[Any]]) -> Columns:
    """Return columns one after the other; the first says which."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# -- which reports are new -------------------------------------------------------------------


def fresh(
    rows: Columns, runs: Mapping[str, Ints], *, in_order: bool
) -> tuple[Columns, Bools, Bools]:
    """Return stretches by (owner, first_seq), which of them are known, and which only in part.

    Known is what lies in a run, or in another stretch that came before; of one whose reports did
    not follow one another in the piece (`in_order`) that is not told. `runs` are sorted by (owner,
    first_seq). Of what is in part known or lies across others nobody can tell before it is taken
    apart.
    """
    key = rows["owner"] << 32 | rows["first_seq"]
    if not (key[1:] > key[:-1]).all():
        rows = take(rows, np.lexsort((rows["row"], key)))
        key = rows["owner"] << 32 | rows["first_seq"]
    last = rows["owner"] << 32 | rows["last_seq"]
    # Of those that begin before it, the one that reaches farthest: it alone can have it whole.
    reached = np.maximum.accumulate(last)
    farther = np.ones(len(key), np.bool_)
    farther[1:] = last[1:] > reached[:-1]
    holder = np.maximum.accumulate(np.where(farther, np.arange(len(key)), 0))
    known = ~farther & (rows["row"][holder] < rows["row"])
    if not in_order:
        known &= (rows["first"] == rows["last"])[holder]
    over = np.zeros(len(key), np.bool_)
    over[1:] = (key[1:] <= reached[:-1]) & ~known[1:]
    if len(runs["owner"]):
        starts = runs["owner"] << 32 | runs["first_seq"]
        ends = runs["owner"] << 32 | runs["last_seq"]
        below = np.searchsorted(starts, key, "right") - 1
        held = (below >= 0) & (key <= ends[below])
        after = np.append(starts, NEVER_KEY)[below + 1]
        partly = np.where(held, last > ends[below], last >= after)
        known |= held & ~partly
        over |= partly
    if over.any():
        # A stretch that lies across others takes all of them with it.
        group = np.cumsum(key > np.append(-1, reached[:-1])) - 1
        over = np.bincount(group, over)[group] > 0
    return rows, known, over & (rows["last"] > rows["first"])


def runs_with(rows: Mapping[str, NDArray[Any]], runs: Mapping[str, NDArray[Any]]) -> Columns:
    """Return the runs of sequence numbers after new stretches, sorted by (owner, first_seq), came.

    A run is a longest stretch of numbers that are there. It keeps what its neighbours will be
    held against: of both ends the boot, time and trust, of the first the link, of the last the
    tag (`NO_SEAL` where not known), and how many of its reports do not vouch for the one before.
    """
    made: Columns = {name: rows[name] for name in ("owner", "first_seq", "last_seq", "oldest_seq")}
    made |= {"breaks": np.zeros(len(rows["owner"]), np.int64)}
    made |= {"link": rows["link"], "tag": rows["tag"]}
    for end in ("first", "last"):
        made[f"{end}_boot"] = rows["boot"].astype(np.int64)
        made[f"{end}_time_s"] = rows[f"{end}_time_s"]
        made[f"{end}_trust"] = rows["trust"]
    every = joint(made, runs)
    every = take(every, np.argsort(every["owner"] << 32 | every["first_seq"], kind="stable"))
    starts = every["owner"] << 32 | every["first_seq"]
    ends = every["owner"] << 32 | every["last_seq"]
    follows = np.zeros(len(starts), np.bool_)
    # The last number of one owner is no neighbour of the first of the next.
    follows[1:] = (starts[1:] == ends[:-1] + 1) & (every["owner"][1:] == every["owner"][:-1])
    broken = every["breaks"].copy()
    broken[1:] += follows[1:] & _breaks(every["tag"][:-1], every["link"][1:])
    first = np.flatnonzero(~follows)
    last = np.append(first[1:], len(starts)) - 1
    merged = {
        name: column[last if name.startswith("last_") or name == "tag" else first]
        for name, column in every.items()
    }
    merged["breaks"] = np.add.reduceat(broken, first)
    merged["oldest_seq"] = np.maximum.reduceat(every["oldest_seq"], first)
    return merged


def _breaks(tag: NDArray[Any], link: NDArray[Any]) -> Bools:
    return np.asarray((tag != link) & (tag != NO_SEAL) & (link != NO_SEAL))


# -- when reports were made ------------------------------------------------------------------


def trust(rows: Mapping[str, NDArray[Any]]) -> Ints:
    """Return how good the own time of each stretch is, 0 for none."""
    best = np.minimum(rows["clock"], table.CLOCK_NTP).astype(np.int64)
    return np.where(rows["first_time_s"] > 0, best, 0)


def boots(rows: Mapping[str, NDArray[Any]]) -> Columns:
    """Return one row per boot of new stretches, which are sorted by (owner, boot, first_seq).

    best: the trust of its best clock; the reports made with it are its best, and all below is
    of these. `anchor_seq`, `boot_cs`: of the first, and when it says that the boot began.
    `falls`: a later one has an earlier time. `lower`: there are other reports as well.
    """
    first = np.flatnonzero(begins(rows["owner"], rows["boot"]))
    count = np.diff(np.append(first, len(rows["owner"])))
    best = np.maximum.reduceat(rows["trust"], first)
    chosen = np.flatnonzero(rows["trust"] == np.repeat(best, count))
    number = np.repeat(np.arange(len(first)), count)[chosen]
    first_s, last_s = rows["first_time_s"][chosen], rows["last_time_s"][chosen]
    start = np.flatnonzero(begins(number))  # every boot has a best one
    stop = np.append(start[1:], len(number)) - 1
    falls = np.zeros(len(number), np.bool_)
    falls[1:] = (number[1:] == number[:-1]) & (first_s[1:] < last_s[:-1])
    return {
        "owner": rows["owner"][first],
        "boot": rows["boot"][first].astype(np.int64),
        "best": best,
        "anchor_seq": rows["first_seq"][chosen[start]],
        "last_seq": rows["last_seq"][chosen[stop]],
        "first_time_s": first_s[start],
        "last_time_s": last_s[stop],
        "boot_cs": first_s[start] * 100 - rows["uptime_cs"][chosen[start]],
        "least_cs": np.minimum.reduceat(rows["least_cs"][chosen], start),
        "most_cs": np.maximum.reduceat(rows["most_cs"][chosen], start),
        "lower": np.diff(np.append(start, len(number))) < count,
        "falls": np.logical_or.reduceat(falls, start),
        "whole": np.zeros(len(first), np.bool_),
        "to_s": np.full(len(first), NEVER_S),
        "longest_s": np.maximum.reduceat(rows["period_s"], first).astype(np.int64),
    }


def boots_with(
    made: Mapping[str, NDArray[Any]],
    old: Mapping[str, NDArray[Any]],
    is_old: Bools,
    unclear: Bools,
) -> tuple[Columns, Bools]:
    """Return the boots after new ones came, and of which the times must be found anew.

    Args:
        made: what `boots` says of the new rows.
        old: the same boots as they were; anything where `is_old` is false.
        is_old: which were there.
        unclear: whether new rows lie between old ones in a way that may be a fall.

    Only a boot whose clock was set back, or whose earlier reports get another time by a better
    or an earlier anchor, has to be looked at in whole.
    """
    better = is_old & (made["best"] > old["best"])
    worse = is_old & (made["best"] < old["best"])
    equal = is_old & ~better & ~worse
    later = equal & (made["anchor_seq"] > old["last_seq"])
    sooner = equal & (made["last_seq"] < old["anchor_seq"])
    falls = np.where(worse, old["falls"], made["falls"])
    falls = falls | (equal & (old["falls"] | unclear))
    falls |= later & (made["first_time_s"] < old["last_time_s"])
    falls |= sooner & (made["last_time_s"] > old["first_time_s"])
    anchors = equal & (made["anchor_seq"] < old["anchor_seq"])
    keeps = worse | (equal & ~anchors)  # the anchor that it had
    ends = worse | (equal & (made["last_seq"] < old["last_seq"]))
    merged: Columns = {name: np.array(column) for name, column in made.items()}
    for name in ("anchor_seq", "boot_cs", "first_time_s"):
        merged[name] = np.where(keeps, old[name], made[name])
    for name in ("last_seq", "last_time_s"):
        merged[name] = np.where(ends, old[name], made[name])
    merged["best"] = np.where(worse, old["best"], made["best"])
    for name, least in (("least_cs", np.minimum), ("most_cs", np.maximum)):
        both = least(old[name], made[name])
        merged[name] = np.where(worse, old[name], np.where(equal, both, made[name]))
    merged["lower"] = made["lower"] | worse | better | (equal & old["lower"])
    merged["falls"] = falls
    merged["whole"] = is_old & old["whole"]
    merged["to_s"] = np.where(is_old, old["to_s"], NEVER_S)
    merged["longest_s"] = np.where(
        is_old, np.maximum(old["longest_s"], made["longest_s"]), made["longest_s"]
    )
    moved = anchors & old["lower"] & (made["boot_cs"] != old["boot_cs"])
    return merged, better | moved | mended(merged)


def mended(boot: Mapping[str, NDArray[Any]]) -> Bools:
    """Tell of which boots the clock was set back by more than is let pass."""
    steps = boot["most_cs"] - boot["least_cs"] > _STEP_CS
    return np.asarray(steps & boot["falls"] & (boot["best"] > 0))


def between(
    rows: Mapping[str, NDArray[Any]], best: Ints, old: Mapping[str, NDArray[Any]], runs: Columns
) -> Bools:
    """Tell which of new best stretches may not lie between their neighbours in time.

    Beside each stand the trust of its boot and what was known of it; `runs` are their owners'
    before these came.
    """
    key = rows["owner"] << 32 | rows["first_seq"]
    below = np.searchsorted(runs["owner"] << 32 | runs["first_seq"], key, "right") - 1
    suspect = np.zeros(len(key), np.bool_)
    for end, mine, near_by, needed, sign in (
        ("last", "first", below, rows["last_seq"] > old["anchor_seq"], 1),
        ("first", "last", below + 1, rows["first_seq"] < old["last_seq"], -1),
    ):
        there = (near_by >= 0) & (near_by < len(runs["owner"]))
        at = np.clip(near_by, 0, len(runs["owner"]) - 1)
        near = there & (runs["owner"][at] == rows["owner"]) & (runs[f"{end}_trust"][at] == best)
        near &= runs[f"{end}_boot"][at] == rows["boot"]
        fits = sign * (rows[f"{mine}_time_s"] - runs[f"{end}_time_s"][at]) >= 0
        suspect |= needed & ~(near & fits)
    return suspect


def times(rows: Mapping[str, NDArray[Any]], best: Ints, boot_cs: Ints) -> tuple[Ints, Ints]:
    """Return when the first and the last report of each stretch were made; none is mended.

    It is `NEVER_S` where nobody knows.
    """
    first_s, last_s = rows["first_time_s"].copy(), rows["last_time_s"].copy()
    other = np.flatnonzero(rows["trust"] < best)  # of one report each
    if len(other):
        at_cs = boot_cs[other] + rows["uptime_cs"][other]
        first_s[other] = np.sign(at_cs) * (np.abs(at_cs) // 100)  # towards 0, as SQL divides
        last_s[other] = first_s[other]
    for at_s in (first_s, last_s):
        at_s[best == 0] = NEVER_S
    return first_s, last_s


# -- intervals -------------------------------------------------------------------------------


def since(board: Ints, first_s: Ints, last_s: Ints, period_s: NDArray[Any], before_s: Ints) -> Ints:
    """Return from when on each stretch holds, until its last report was made.

    They are sorted by board and time and do not overlap; of reports with equal times the one that
    holds comes first. `before_s` says for each board that occurs, in order, when the report before
    its first one was made, `NEVER_S` if there is none.
    """
    gap_s = np.empty(len(first_s), np.int64)
    gap_s[1:] = first_s[1:] - last_s[:-1]
    first = np.flatnonzero(begins(board))
    gap_s[first] = first_s[first] - before_s
    period_s = period_s.astype(np.int64)
    return first_s - np.where(2 * gap_s <= 5 * period_s, gap_s, period_s)


def laid(board: Ints, start_s: Ints, end_s: Ints, period_s: NDArray[Any], fact: Ints) -> Columns:
    """Return the intervals that reports assert, neighbours that say the same joined."""
    pieces = {
        "board": board,
        "start_s": start_s,
        "end_s": end_s,
        "period_s": period_s.astype(np.int64),
        "fact": fact,
    }
    return joined(pieces)


def crossing(board: Ints, first_s: Ints, last_s: Ints) -> Bools:
    """Tell which stretches lie within the time of others of their board.

    They are sorted by (board, first_s).
    """
    start, reached = moment(board, first_s), np.maximum.accumulate(moment(board, last_s))
    group = np.cumsum(start > np.append(-1, reached[:-1])) - 1
    return np.asarray(np.bincount(group)[group] > 1)


def joined(pieces: Mapping[str, NDArray[Any]]) -> Columns:
    """Join neighbours that say the same; pieces are sorted by board and time."""
    there = pieces["start_s"] < pieces["end_s"]
    if not there.all():
        pieces = take(pieces, there)
    new = begins(pieces["board"], pieces["fact"], pieces["period_s"])
    new[1:] |= pieces["start_s"][1:] != pieces["end_s"][:-1]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(new)) - 1 if len(first) else first
    found = take(pieces, first)
    found["end_s"] = pieces["end_s"][last]
    return found


def relaid(
    old: Mapping[str, NDArray[Any]],
    ranges: Mapping[str, Ints],
    new: Mapping[str, NDArray[Any]],
) -> Columns:
    """Return old intervals outside of ranges and new ones within, joined.

    Args:
        old: sorted by board and time.
        ranges: (board, low_s, high_s], sorted, those of one board apart from each other.
        new: none reaches out of its range.
    """
    low = moment(ranges["board"], ranges["low_s"])
    high = moment(ranges["board"], ranges["high_s"])
    start, end = moment(old["board"], old["start_s"]), moment(old["board"], old["end_s"])
    first = np.searchsorted(high, start, "right")  # the first range that ends after it starts
    count = np.maximum(np.searchsorted(low, end, "left") - first, 0)
    # What is left of an interval that n ranges overlap are the n + 1 parts between them.
    which = np.repeat(np.arange(len(start)), count + 1)
    part = np.arange(len(which)) - np.repeat(np.cumsum(count + 1) - count - 1, count + 1)
    left = take(old, which)
    cut = part > 0
    left["start_s"] = left["start_s"].copy()
    left["end_s"] = left["end_s"].copy()
    left["start_s"][cut] = ranges["high_s"][(first[which] + part - 1)[cut]]
    cut = part < count[which]
    left["end_s"][cut] = ranges["low_s"][(first[which] + part)[cut]]
    left = take(left, left["start_s"] < left["end_s"])
    every = joint(new, left)
    return joined(take(every, np.argsort(moment(every["board"], every["start_s"]), kind="stable")))


def changes_nothing(
    at_s: Ints, period_s: Ints, fact: Ints, inside: Mapping[str, NDArray[Any]]
) -> Bools:
    """Tell which late reports leave the intervals as they are.

    `inside` is, row by row, the last interval that starts before the report. A report that says
    what its interval says anyway, under the same period, only splits a stretch in two; not so
    within the first period, because what was not bridged before it might be now.
    """
    same = (inside["fact"] == fact) & (inside["period_s"] == period_s)
    return np.asarray(same & (at_s > inside["start_s"] + period_s) & (at_s <= inside["end_s"]))
