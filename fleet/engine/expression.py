"""What boards said, found from all reports by expressions that any SQL engine can run.

    rows = said(table)                       numbers of one type, what each report asserts as one
    boots = booted(rows)                     by which clock each boot is timed      small
    fallen = falling(rows, of boots)         boots whose clock was set back         mostly empty
    intervals(rows, boots, fallen, …)        what each board asserted, and when     small

The first results are small and go back to the engine as tables, because an engine that takes no
note of what it has read already would read all reports again for each use.

Every window orders by what is unique in it and asks for the row before or after with a default:
a NULL there is not the same everywhere, nor is the frame. Divisions are of exact multiples.

Source: docs/fleet.md, "How time is counted"; `fleet/ledger.py` and `fleet/store/clock.py` say the
same in DuckDB's SQL.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import ibis
from ibis import _

from firmware.linkreport import table, term
from fleet.ledger import LONGEST_GRACE_S
from fleet.period import Period
from fleet.store.fold import NEVER_S

# An Ibis table; engines differ in what they make of it, not in what it says.
Table = Any

COLUMNS = (
    "device", "key_id", "seq", "boot", "period_s", "uptime_cs", "time_s", "clock", "state",
    "layer", "reason", "gateway_reason", "internet_reason",
)  # fmt: skip
BOOT = ("device", "key_id", "boot")
_TIMED = ("device", "key_id", "seq", "period_s", "fact", "at_s")
_STEP_CS = 500
_OVERFLOW_CS = 1 << 32
# How much each value is shifted to the left in the one number that a report asserts.
_FACT = {"state": 0, "layer": 3, "reason": 11, "internet_reason": 19, "reaches": 27, "misses": 28}
_BITS = {"state": 3, "reaches": 1, "misses": 1}


def facts() -> str:
    """Return SQL that makes the columns of an interval of the number `fact`."""
    values = []
    for name, shift in _FACT.items():
        value = f"fact::BIGINT >> {shift} & {(1 << _BITS.get(name, 8)) - 1}"
        kind = "BOOLEAN" if _BITS.get(name) == 1 else "UTINYINT"
        values.append(f"({value})::{kind} AS {name}")
    return ", ".join(values)


def said(report: Table) -> Table:
    """Return what the ledger needs of each report; `fact` is all that it asserts."""
    rows = report.mutate(
        **{name: report[name].cast("int64") for name in COLUMNS if name != "device"}
    )
    known = rows.state.isin([table.UP, table.DEGRADED, table.DOWN])
    reaches = known & rows.internet_reason.isin(_reasons(table.UP, table.DEGRADED))
    misses = (
        known
        & rows.gateway_reason.isin(_reasons(table.UP, table.DEGRADED))
        & rows.internet_reason.isin(_reasons(table.DOWN))
    )
    values = {
        "state": ibis.ifelse(known, rows.state, table.UNKNOWN),
        "layer": rows.layer,
        "reason": rows.reason,
        "internet_reason": rows.internet_reason,
        "reaches": ibis.ifelse(reaches, 1, 0),
        "misses": ibis.ifelse(misses, 1, 0),
    }
    parts = [(value * (1 << _FACT[name])).cast("int64") for name, value in values.items()]
    clock = ibis.ifelse(rows.clock < table.CLOCK_NTP, rows.clock, table.CLOCK_NTP)
    return rows.select(
        "device", "key_id", "seq", "boot", "period_s", "uptime_cs", "time_s",
        trust=ibis.ifelse(rows.time_s > 0, clock, 0).cast("int64"),
        fact=functools.reduce(lambda a, b: a + b, parts),
    )  # fmt: skip


def _reasons(*states: int) -> list[int]:
    return [number for number in sorted(term.REASONS) if table.reason_state(number) in states]


def booted(rows: Table) -> Table:
    """Return of each boot its best trust, when it began by that clock, and whether it stepped."""
    rows = rows.mutate(offset_cs=rows.time_s * 100 - rows.uptime_cs)
    clocks = rows.group_by([*BOOT, "trust"]).agg(
        least_cs=rows.offset_cs.min(),
        most_cs=rows.offset_cs.max(),
        boot_cs=rows.offset_cs.argmin(rows.seq),
    )
    best = clocks.mutate(best=clocks.trust.max().over(ibis.window(group_by=BOOT)))
    return best.filter(best.trust == best.best, best.best > 0).select(
        *BOOT, "best", "boot_cs", steps=ibis.ifelse(_.most_cs - _.least_cs > _STEP_CS, 1, 0)
    )


def falling(rows: Table, boots: Table) -> Table:
    """Return those of some boots in which a later report of the best clock has an earlier time."""
    good = rows.join(boots, BOOT).filter(_.trust == _.best)
    good = good.mutate(before_s=_before("time_s", BOOT, ["seq"]))
    return good.filter(_.time_s < _.before_s).select(*BOOT).distinct()


def intervals(rows: Table, boots: Table, fallen: Table | None, period: Period) -> Table:
    """Return (device, start_s, end_s, fact) of what the boards asserted, gaps left out.

    Neighbours that say the same are one, but may still be several where a report between them
    covers nothing.

    Args:
        rows: of `said`.
        boots: of `booted`.
        fallen: of `falling`; None if there are none.
        period: beyond its edges reports count as far as they may reach into it.
    """
    timed = _timed(rows, boots, fallen)
    reach_s = LONGEST_GRACE_S
    timed = timed.filter(_.at_s >= period.start_s - reach_s, _.at_s <= period.end_s + reach_s)
    # Of equal times the one that holds comes first; the gap before the others is 0.
    order = [_.at_s, _.key_id.desc(), _.seq.desc()]
    timed = timed.mutate(
        before_s=_before("at_s", ["device"], order),
        fact_before=_before("fact", ["device"], order),
        after_s=_after("at_s", ["device"], order),
    )
    timed = timed.mutate(bridged=2 * (_.at_s - _.before_s) <= 5 * _.period_s)
    timed = timed.mutate(begins=~_.bridged | (_.fact != _.fact_before))
    edges = timed.filter(_.begins | (_.after_s == NEVER_S)).mutate(
        start_s=ibis.ifelse(_.bridged, _.before_s, _.at_s - _.period_s),
        until_s=ibis.ifelse(_.begins, _.before_s, _.at_s),
    )
    edges = edges.mutate(next_s=_after("until_s", ["device"], order))
    edges = edges.mutate(end_s=ibis.ifelse(_.next_s == NEVER_S, _.at_s, _.next_s))
    return edges.filter(_.begins, _.start_s < _.end_s).select("device", "start_s", "end_s", "fact")


def _timed(rows: Table, boots: Table, fallen: Table | None) -> Table:
    """Return the rows with the time at which each was made; without those that nobody can time."""
    here = rows.join(boots, BOOT)
    if fallen is None:
        return _by_anchor(here)
    kept = here.anti_join(fallen, BOOT)
    here = here.semi_join(fallen, BOOT)
    good = here.filter(here.trust == here.best).mutate(
        before_s=_before("time_s", BOOT, ["seq"]), before_cs=_before("uptime_cs", BOOT, ["seq"])
    )
    gone_cs = (_.uptime_cs - _.before_cs + _OVERFLOW_CS) % _OVERFLOW_CS
    step_cs = ibis.ifelse(_.before_s == NEVER_S, 0, (_.time_s - _.before_s) * 100 - gone_cs)
    good = good.mutate(step_cs=step_cs)
    good = good.mutate(step_cs=ibis.ifelse(_.step_cs.abs() > _STEP_CS, _.step_cs, 0))
    so_far = ibis.window(group_by=BOOT, order_by="seq", preceding=None, following=0)
    good = good.mutate(ahead_cs=_.step_cs.sum().over(so_far).cast("int64"))
    # The clock by which most reports were made holds for all; of two, the later one.
    clocks = good.group_by([*BOOT, "ahead_cs"]).agg(reports=_.count(), last_seq=_.seq.max())
    by_weight = ibis.window(group_by=BOOT, order_by=[_.reports.desc(), _.last_seq.desc()])
    held = clocks.mutate(place=ibis.row_number().over(by_weight)).filter(_.place == 0)
    held = held.select(*BOOT, held_cs="ahead_cs")
    good = good.join(held, BOOT).mutate(at_cs=_.time_s * 100 - (_.ahead_cs - _.held_cs))
    anchors = good.mutate(offset_cs=_.at_cs - _.uptime_cs)
    anchors = anchors.group_by(list(BOOT)).agg(anchor_cs=_.offset_cs.argmin(_.seq))
    others = here.filter(here.trust < here.best).join(anchors, BOOT)
    return ibis.union(
        _by_anchor(kept),
        good.mutate(at_s=_seconds(_.at_cs)).select(*_TIMED),
        others.mutate(at_s=_seconds(_.anchor_cs + _.uptime_cs)).select(*_TIMED),
    )


def _by_anchor(here: Table) -> Table:
    at_s = ibis.ifelse(_.trust == _.best, _.time_s, _seconds(_.boot_cs + _.uptime_cs))
    return here.mutate(at_s=at_s).select(*_TIMED)


def _seconds(at_cs: Any) -> Any:
    """Return hundredths as whole seconds, towards 0."""
    return ((at_cs - at_cs % 100) / 100).cast("int64")


def _before(column: str, group: Sequence[str], order: Sequence[Any]) -> Any:
    return _[column].lag(1, ibis.literal(NEVER_S, "int64")).over(_frame(group, order))


def _after(column: str, group: Sequence[str], order: Sequence[Any]) -> Any:
    return _[column].lead(1, ibis.literal(NEVER_S, "int64")).over(_frame(group, order))


def _frame(group: Sequence[str], order: Sequence[Any]) -> Any:
    # ClickHouse looks no farther than the frame.
    return ibis.window(group_by=list(group), order_by=list(order), preceding=None, following=None)
