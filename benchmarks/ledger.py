"""The ledger of a city's month: how fast it is kept, asked and recomputed, and what it weighs.

    python -m benchmarks.ledger --boards 1000 --days 30     # 43 million reports; pin it to one core

A seeded generator makes each board's reports, one a minute, with outages, silences, restarts that
lose the time, 1 % that arrive late (two hours on average, a week at most) and 1 % that come twice.
They arrive by the day and go through the store as collections do: which of them are new, when they
were made, what they change, their files, the commit. It begins with decoded columns and ends with
committed intervals; seals are left out. Rows a second and nanoseconds a row are of processor time,
of one core.

Answers are compared before speeds are: the ledger's seconds by board and state against a full
recompute by DuckDB, Polars and chDB from the same day files. Medians of three where it is one call.
"""

# ruff: noqa: S608 (SQL of this file's own constants)

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from firmware.linkreport import table
from fleet import exchange, ledger, recompute
from fleet.ledger import Ledger
from fleet.period import Period
from fleet.stint import Stint
from fleet.store import Store, fold, increment, part, stretch
from fleet.store.piece import NUMBERS, Piece

START_S = 1_793_404_800  # 2026-10-31T00:00:00Z
DAY_S, PERIOD_S, A_DAY = 86_400, 60, 1440
SITE_BOARDS = 10
# Small enough for CI; --boards 1000 --days 30 is a city's month.
BOARDS, DAYS = 40, 5
_IMPORTED = 100_000
# A way that takes longer than this is not asked thrice.
_ENOUGH_S = 60
_STAGES = (
    (stretch.Rows, "__init__", "which_continue_others"),
    (increment.Increment, "_fresh", "which_are_new"),
    (increment.Increment, "_timed", "clocks"),
    (increment.Increment, "_extend", "fold"),
    (increment.Increment, "_relay", "late_neighbours"),
    (increment.Increment, "_lay", "intervals_changed"),
    (increment.Increment, "_redo", "clocks_set_back_or_known_late"),
    (part.Shelf, "put", "reports_stored"),
)

Columns = dict[str, NDArray[Any]]
Timer = Callable[[], float]
Result = TypeVar("Result")


class City:
    """Makes the reports of all boards, day by day as they arrive."""

    def __init__(self, boards: int, days: int, seed: int = 1) -> None:
        self.boards, self.days = boards, days
        self._chance = np.random.default_rng(seed)
        self._phase_s = self._chance.integers(0, PERIOD_S, boards)
        self._drift_ppm = self._chance.normal(0, 3, boards)
        self._signal_dbm = self._chance.integers(-75, -45, boards)
        self._boot = np.ones(boards, np.int64)
        self._booted_s = START_S - self._chance.integers(0, 20 * DAY_S, boards).astype(np.int64)
        self._seq = np.zeros(boards, np.int64)
        self._late: list[Columns] = []

    def arrivals(self) -> Iterator[Columns]:
        """Yield what arrives on each day, in the order in which it does."""
        for day in range(self.days):
            made = self._day(day)
            here = self._chance.random(len(made["seq"])) >= 0.01
            wait_s = np.minimum(self._chance.exponential(7200, int((~here).sum())), 7 * DAY_S)
            late = {name: column[~here] for name, column in made.items()}
            late["due_s"] = late["true_s"] + wait_s.astype(np.int64)
            self._late.append(late)
            end_s = START_S + (day + 1) * DAY_S if day + 1 < self.days else 1 << 40
            due = [{n: c[each["due_s"] < end_s] for n, c in each.items()} for each in self._late]
            self._late = [
                {n: c[each["due_s"] >= end_s] for n, c in each.items()} for each in self._late
            ]
            again = np.sort(self._chance.integers(0, len(here), len(here) // 100))
            parts = [{n: c[here] for n, c in made.items()}, *due]
            parts.append({n: c[again][here[again]] for n, c in made.items()})
            yield {n: np.concatenate([each[n] for each in parts]) for n in made}

    def _day(self, day: int) -> Columns:
        chance, boards = self._chance, self.boards
        start_s = START_S + day * DAY_S
        true_s = start_s + self._phase_s[:, None] + PERIOD_S * np.arange(A_DAY)
        shape = true_s.shape
        silent = np.zeros(shape, np.bool_)
        state = np.full(shape, table.UP, np.uint8)
        layer, reason = np.zeros(shape, np.uint8), np.full(shape, table.OK, np.uint8)
        gateway, internet = reason.copy(), reason.copy()
        for at, length, kind, first, last in self._troubles(day):
            span = (slice(first, last), slice(at, at + length))
            if kind == "silent":
                silent[span] = True
            elif kind == "line":
                state[span], layer[span] = table.DOWN, table.INTERNET
                reason[span] = internet[span] = table.CONNECT_TIMEOUT
            elif kind == "slow":
                state[span], layer[span] = table.DEGRADED, table.INTERNET
                reason[span] = internet[span] = table.INTERNET_SLOW
            else:
                state[span], layer[span], reason[span] = (
                    table.DOWN,
                    table.ADDRESSING,
                    table.NO_LEASE,
                )
                gateway[span] = internet[span] = table.UNTESTED
        boot, uptime_s = np.empty(shape, np.int64), np.empty(shape, np.float64)
        restarts = chance.integers(0, A_DAY, boards)
        restarts[chance.random(boards) > 0.1] = A_DAY  # each board about every tenth day
        after = np.arange(A_DAY) >= restarts[:, None]
        boot[:] = self._boot[:, None] + after
        began_s = true_s[np.arange(boards), np.minimum(restarts, A_DAY - 1)] - 20
        booted_s = np.where(after, began_s[:, None], self._booted_s[:, None])
        uptime_s[:] = (true_s - booted_s) * (1 + self._drift_ppm[:, None] * 1e-6)
        self._boot += restarts < A_DAY
        self._booted_s = np.where(restarts < A_DAY, began_s, self._booted_s)
        there = ~silent
        seq = self._seq[:, None] + np.cumsum(there, axis=1)
        self._seq = seq[:, -1].copy()
        # The first two reports after a restart know no time.
        lost = after & (np.arange(A_DAY) < restarts[:, None] + 2)
        rows = there.ravel()
        count = int(rows.sum())

        def noise(low: int, high: int) -> NDArray[Any]:
            return chance.integers(low, high, count)

        def flat(grid: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(grid.ravel()[rows])

        board = flat(np.broadcast_to(np.arange(boards)[:, None], shape))
        works = flat(internet) == table.OK
        return {
            "board": board,
            "true_s": flat(true_s),
            "seq": flat(seq),
            "boot": flat(boot),
            "uptime_cs": (flat(uptime_s) * 100).astype(np.int64),
            "time_s": np.where(flat(lost), 0, flat(true_s)),
            "clock": np.where(flat(lost), table.CLOCK_NONE, table.CLOCK_NTP).astype(np.uint8),
            "state": flat(state),
            "layer": flat(layer),
            "reason": flat(reason),
            "gateway_reason": flat(gateway),
            "internet_reason": flat(internet),
            "rssi_dbm": (self._signal_dbm[board] + noise(-2, 3)).astype(np.int8),
            "gateway_rtt_us": (np.exp(chance.normal(7.6, 0.2, count)) // 100 * 100).astype(int),
            "resolver_ms": noise(12, 18),
            "internet_connect_ms": np.where(works, noise(18, 26), 0xFFFF),
            "internet_http_ms": np.where(works, noise(20, 30), 0xFFFF),
            "heap_free_bytes": 61_000 + noise(0, 16) * 64,
        }

    def _troubles(self, day: int) -> Iterator[tuple[int, int, str, int, int]]:
        """Yield (first minute, minutes, kind, first board, last board) of what goes wrong."""
        for kind, a_month, minutes, group in (
            ("lease", 3, 25, 1),
            ("slow", 3, 30, 1),
            ("silent", 2, 90, 1),
            ("line", 2, 40, SITE_BOARDS),
        ):
            groups = self.boards // group
            for first in self._chance.integers(
                0, groups, self._chance.poisson(a_month / 30 * groups)
            ):
                at = int(self._chance.integers(0, A_DAY))
                length = 1 + int(self._chance.exponential(minutes))
                yield at, length, kind, int(first) * group, int(first + 1) * group


_FIXED = {
    "key_id": 1, "period_s": PERIOD_S, "confidence_percent": 100, "channel": 6,
    "association_ms": 812, "addressing_ms": 341, "gateway_loss_percent": 0, "reset_cause": 1,
    "http_status": 204, "spool_reports": 1, "error_count": 0,
}  # fmt: skip


def _piece(arrived: Columns) -> Piece:
    """Return what arrived as a decoder would: every column, of its type."""
    count = len(arrived["seq"])
    boards = range(int(arrived["board"].max()) + 1)
    origins = [
        (f"np-{n:012X}".lower(), f"gw-{n // 20}", bytes.fromhex(f"240ac4{n:06x}")) for n in boards
    ]
    given = {name: np.full(count, value) for name, value in _FIXED.items()} | arrived
    given["received_s"] = arrived["true_s"] + 30
    given["oldest_seq"] = np.maximum(1, arrived["seq"] - 1)
    fine = np.full(count, table.OK, np.uint8)
    columns = {name: given.get(name, fine).astype(kind) for name, kind in NUMBERS.items()}
    columns["origin"] = arrived["board"]
    columns["air"] = np.zeros(count, np.int64)
    columns["link"] = columns["tag"] = np.full(count, fold.NO_SEAL, np.uint64)
    return Piece(origins, [(None, None, None)], columns)


class Clock:
    """Adds up the processor seconds of named stages, which other programs do not lengthen."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def time(self, name: str, act: Callable[[], Result]) -> Result:
        """Do something and add how long it took."""
        begin = time.process_time()
        try:
            return act()
        finally:
            self.seconds[name] += time.process_time() - begin

    @contextlib.contextmanager
    def watching(self, stages: Iterable[tuple[Any, str, str]]) -> Iterator[None]:
        """Add to stages whatever some methods take within the block."""
        with contextlib.ExitStack() as stack:
            for owner, method, name in stages:
                inner = getattr(owner, method)
                stack.callback(setattr, owner, method, inner)
                setattr(owner, method, self._watched(inner, name))
            yield

    def _watched(self, inner: Callable[..., Any], name: str) -> Callable[..., Any]:
        return lambda *args, **more: self.time(name, lambda: inner(*args, **more))


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Stay on one core, DuckDB's threads too."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _ingest(folder: Path, city: City, watch: Clock) -> Counter[str]:
    counts: Counter[str] = Counter()
    with Store(folder).writing() as writer:
        arriving = city.arrivals()
        while (arrived := watch.time("generator", lambda: next(arriving, None))) is not None:
            piece = watch.time("decode", functools.partial(_piece, arrived))
            found = watch.time("ingest", functools.partial(writer.take, piece))
            counts += Counter(new=found.new, duplicates=found.duplicates)
            # What is a day old goes to a file.
            end_s = int(arrived["true_s"].max()) // DAY_S * DAY_S
            pack = functools.partial(writer.pack, least=None, before_s=end_s)
            watch.time("day_files", pack)
            print(f"  {counts['new']:,} reports", file=sys.stderr, flush=True)
        watch.time("day_files", lambda: writer.pack(least=1, before_s=None))
    return counts


def _by_time(boards: int) -> int:
    """Take in a second day whose reports come as they were made, all boards mixed; rows a second.

    Reports stored are left out.
    """
    arriving = City(boards, 2).arrivals()
    watch = Clock()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)).writing() as writer:
        writer.take(_piece(next(arriving)))
        arrived = next(arriving)
        order = np.argsort(arrived["true_s"], kind="stable")
        piece = _piece({name: column[order] for name, column in arrived.items()})
        with watch.watching(_STAGES[-1:]):
            watch.time("ingest", lambda: writer.take(piece))
    return round(len(piece) / (watch.seconds["ingest"] - watch.seconds["reports_stored"]))


def _import(folder: Path) -> dict[str, int]:
    """Import a day's first reports from each format; rows a second."""
    days = (Store(folder).folder / "report").glob("*/*.parquet")
    first = max(days, key=lambda path: path.stat().st_size)
    found: dict[str, int] = {}
    for ending, form in (("parquet", "FORMAT parquet"), ("csv", "FORMAT csv, HEADER")):
        path = folder / f"import.{ending}"
        with duckdb.connect() as connection:
            rows = f"SELECT * EXCLUDE (bssid) FROM read_parquet('{first}') LIMIT {_IMPORTED}"
            connection.execute(f"COPY ({rows}) TO '{path}' ({form})")
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as city:
            imported = exchange.take(Path(city), [path], folder / "rejects")
        found[ending] = round(imported.rows / (time.process_time() - begin))
    return found


def _median(act: Callable[[], object], times: int = 3, clock: Timer = time.perf_counter) -> float:
    took = []
    for _ in range(times):
        begin = clock()
        act()
        took.append(clock() - begin)
    return statistics.median(took)


Answer = dict[tuple[str, int], int]
_SUMS = """
    SELECT device, state, sum(least(end_s, {end_s}) - greatest(start_s, {start_s}))::BIGINT
    FROM ({said}) WHERE start_s < {end_s} AND end_s > {start_s} AND start_s < end_s GROUP BY ALL
"""


def _sums(connection: duckdb.DuckDBPyConnection, said: str, period: Period) -> Answer:
    edges = {"start_s": period.start_s, "end_s": period.end_s}
    for name, value in edges.items():
        said = said.replace(f"${name}", str(value))
    rows = connection.execute(_SUMS.format(said=said, **edges)).fetchall()
    return {(device, state): seconds for device, state, seconds in rows}


def _polars(files: list[str], period: Period) -> Answer:
    """Return the same from the day files by Polars; no clock of the generator is ever set back."""
    pl = importlib.import_module("polars")
    names = ["device", "boot", "seq", "time_s", "uptime_cs", "period_s", "state"]
    rows = (
        pl.scan_parquet(files)
        .select(names)
        .with_columns(
            time_s=pl.col("time_s").cast(pl.Int64), uptime_cs=pl.col("uptime_cs").cast(pl.Int64)
        )
    )
    began = (
        rows.filter(pl.col("time_s") > 0)
        .group_by("device", "boot")
        .agg((pl.col("time_s") * 100 - pl.col("uptime_cs")).sort_by("seq").first().alias("boot_cs"))
    )
    lost = rows.filter(pl.col("time_s") == 0).join(began, on=["device", "boot"])
    columns = ["device", "at_s", "seq", "period_s", "state"]
    timed = pl.concat(
        [
            rows.filter(pl.col("time_s") > 0).with_columns(at_s=pl.col("time_s")).select(columns),
            lost.with_columns(at_s=(pl.col("boot_cs") + pl.col("uptime_cs")) // 100).select(
                columns
            ),
        ]
    ).sort("device", "at_s", -pl.col("seq").cast(pl.Int64))
    gap = pl.col("at_s").diff().over("device")
    period_s = pl.col("period_s").cast(pl.Int64)
    found = (
        timed.with_columns(
            start_s=pl.col("at_s") - pl.when(2 * gap <= 5 * period_s).then(gap).otherwise(period_s)
        )
        .with_columns(
            seconds=pl.col("at_s").clip(upper_bound=period.end_s)
            - pl.col("start_s").clip(lower_bound=period.start_s)
        )
        .filter(pl.col("seconds") > 0)
        .group_by("device", "state")
        .agg(pl.col("seconds").sum())
        .collect(engine="streaming")
    )
    return {(device, state): seconds for device, state, seconds in found.iter_rows()}


def _chdb(folder: Path, period: Period) -> Answer:
    """Return the same from the day files by chDB, ClickHouse within the process."""
    chdb = importlib.import_module("chdb")
    source = f"file('{folder}/report/*/*.parquet', Parquet)"
    said = chdb.query(
        f"""
        WITH rows AS (
            SELECT device, boot, seq, toInt64(time_s) AS time_s, toInt64(uptime_cs) AS uptime_cs,
                toInt64(period_s) AS period_s, state FROM {source}
        ),
        began AS (
            SELECT device, boot, argMin(time_s * 100 - uptime_cs, seq) AS boot_cs
            FROM rows WHERE time_s > 0 GROUP BY device, boot
        ),
        timed AS (
            SELECT device, time_s AS at_s, seq, period_s, state FROM rows WHERE time_s > 0
            UNION ALL
            SELECT device, intDiv(boot_cs + uptime_cs, 100), seq, period_s, state
            FROM (SELECT * FROM rows WHERE time_s = 0) AS lost JOIN began USING (device, boot)
        ),
        spaced AS (
            SELECT device, at_s, period_s, state, lagInFrame(toNullable(at_s), 1, NULL) OVER (
                PARTITION BY device ORDER BY at_s, seq DESC
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before_s
            FROM timed
        )
        SELECT device, state, sum(seconds) FROM (
            SELECT device, state, least(at_s, {period.end_s}) - greatest({period.start_s}, at_s -
                if(before_s IS NOT NULL AND 2 * (at_s - before_s) <= 5 * period_s,
                    assumeNotNull(at_s - before_s), period_s)) AS seconds
            FROM spaced
        ) WHERE seconds > 0 GROUP BY device, state
        """,
        "JSONCompactEachRow",
    )
    rows = [json.loads(line) for line in str(said).splitlines()]
    return {(device, int(state)): int(seconds) for device, state, seconds in rows}


def _ask(folder: Path, city: City) -> dict[str, Any]:
    """Ask the month's uptime in every way, after comparing the answers."""
    period = Period(START_S, START_S + city.days * DAY_S)
    store = Store(folder)
    with store.reading() as connection:
        shelf = part.Shelf(connection, store.folder)
        devices = sorted(
            row[0] for row in connection.execute("SELECT DISTINCT device FROM interval").fetchall()
        )
        stints = [Stint(d, d, f"site-{n // SITE_BOARDS}") for n, d in enumerate(devices)]
        kept = _sums(connection, ledger.KEPT, period)
        ways: dict[str, Callable[[], Answer]] = {
            "duckdb": lambda: _sums(connection, recompute.tell(connection, shelf), period),
            "duckdb_sorting": lambda: _sums(connection, ledger.ASSERTED, period),
        }
        files = [str(path) for path in sorted((store.folder / "report").glob("*/*.parquet"))]
        others = {
            "polars": lambda: _polars(files, period),
            "chdb": lambda: _chdb(store.folder, period),
        }
        recomputed: dict[str, Any] = {}
        for name, act in (ways | others).items():
            took: list[tuple[float, float]] = []
            while not took or (len(took) < 3 and sum(wall for wall, _ in took) < _ENOUGH_S):
                begin = time.perf_counter(), time.process_time()
                try:
                    answer = act()
                except ModuleNotFoundError:
                    break
                took.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
                if answer != kept:
                    wrong = {k for k in answer.keys() | kept.keys() if answer.get(k) != kept.get(k)}
                    raise RuntimeError(f"{name} gives another answer for {sorted(wrong)[:5]}")
            recomputed[name] = (
                {
                    "wall_s": round(statistics.median(wall for wall, _ in took), 3),
                    "cpu_s": round(statistics.median(cpu for _, cpu in took), 3),
                }
                if took
                else "not measured: make scale"
            )
        whole = Ledger(connection, period, stints)
        for states in (*whole.seconds("board").values(), *whole.seconds("line").values()):
            if sum(states) != period.length_s:
                raise RuntimeError("the states of a subject do not sum to the whole")
        ((intervals,),) = connection.execute("SELECT count(*) FROM interval").fetchall()
        weights = connection.execute(
            "SELECT sum(bytes) / sum(reports), count(*) FROM part WHERE kind = 'report'"
        ).fetchall()
        return {
            "equal_to_the_second": True,
            "intervals": intervals,
            "uptime_of_all_boards_ms": round(
                _median(lambda: _sums(connection, ledger.KEPT, period), 9) * 1000, 1
            ),
            "uptime_with_lines_and_outages_ms": round(
                _median(lambda: Ledger(connection, period, stints)) * 1000, 1
            ),
            "recompute_s": recomputed,
            "bytes_per_report_in_day_files": round(weights[0][0], 2),
            "day_files": weights[0][1],
            "ledger_file_bytes": store.path.stat().st_size,
        }


def measure(boards: int, days: int) -> dict[str, Any]:
    """Keep and ask the ledger of so many boards and days."""
    watch = Clock()
    city = City(boards, days)
    with tempfile.TemporaryDirectory() as folder:
        with _one_core(), watch.watching(_STAGES):
            counts = _ingest(Path(folder), city, watch)
        seconds = watch.seconds.copy()
        rows = counts.total()
        kept_s = seconds["ingest"]
        asked = _ask(Path(folder), city)
        imported = _import(Path(folder))
    with _one_core():
        by_time = _by_time(boards)
    files_s = seconds["day_files"]
    stages = [name for _, _, name in _STAGES]
    other_s = kept_s - sum(seconds[name] for name in stages)
    took: dict[str, float] = {name: seconds[name] for name in stages}
    took |= {"runs_boots_commit": other_s, "late_ones_to_day_files": files_s}
    return {
        "boards": boards,
        "days": days,
        "reports": counts["new"],
        "duplicates": counts["duplicates"],
        "rows_per_s": {
            "ledger_in_the_store": round(rows / (kept_s - seconds["reports_stored"])),
            "the_same_all_boards_mixed": by_time,
            "ledger_and_reports_stored": round(rows / kept_s),
            "with_late_ones_in_day_files": round(rows / (kept_s + files_s)),
        },
        "ns_per_row": {name: round(each / rows * 1e9) for name, each in took.items()},
        **asked,
        "import_rows_per_s": imported,
    }


def main() -> None:
    """Measure one size, and a tenth of it before, so that growth is seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--days", type=int, default=DAYS)
    chosen = parser.parse_args()
    tenth = measure(max(SITE_BOARDS, chosen.boards // 10), chosen.days)
    print(json.dumps({"whole": measure(chosen.boards, chosen.days), "tenth": tenth}))


if __name__ == "__main__":
    main()
