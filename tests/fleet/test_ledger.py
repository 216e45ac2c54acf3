"""The ledger's SQL against the slow reference, and the cases that design.md names."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.linkreport import table
from fleet.ledger import Interval, Kind, Ledger
from fleet.period import Period
from fleet.stint import Stint, Window
from fleet.store import schema
from tests.fleet import reference
from tests.fleet.reference import Row

STINTS = [
    Stint("a1", "a1", "school-a"),
    Stint("a2", "a2", "school-a"),
    Stint("b1", "b1", "school-b"),
]
NOW_S = 1_000_000
COLUMNS = ", ".join(Row._fields)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as memory:
        memory.execute("SET threads = 1")
        memory.execute(f"CREATE TABLE report ({schema.DEFINITION})")
        yield memory


def _ledger(
    connection: duckdb.DuckDBPyConnection,
    rows: Sequence[Row],
    period: Period,
    windows: Sequence[Window] = (),
    stints: Sequence[Stint] = tuple(STINTS),
) -> Ledger:
    connection.execute("TRUNCATE report")
    with connection.appender("report", columns=list(Row._fields)) as appender:
        for row in rows:
            appender.append_row(*row)
    return Ledger(connection, period, stints, windows, recompute=True)


def _seconds(ledger: Ledger, kind: Kind) -> dict[str, list[reference.Second]]:
    """Spread intervals over seconds; they must follow one another and differ."""
    spread: dict[str, list[reference.Second]] = {}
    for interval in ledger.intervals(kind):
        seconds = spread.setdefault(interval.subject, [])
        assert interval.start_s == ledger.period.start_s + len(seconds)
        assert interval.length_s > 0
        seconds += [(interval.state, interval.layer, interval.reason)] * interval.length_s
    return spread


REASONS = st.sampled_from(
    [table.UNTESTED, table.OK, table.PROBE_FAILED, table.GATEWAY_SILENT, table.GATEWAY_SLOW,
     table.CONNECT_TIMEOUT, table.HTTP_SILENT, table.INTERNET_SLOW, 250]
)  # fmt: skip
ROWS = st.builds(
    Row,
    device=st.sampled_from(["a1", "a1", "a2", "b1", "x9"]),
    key_id=st.integers(1, 2),
    seq=st.integers(1, 30),
    boot=st.integers(1, 2),
    period_s=st.sampled_from([0, 1, 2, 3, 5, 10]),
    uptime_cs=st.integers(0, 4000),
    time_s=st.one_of(st.just(0), st.integers(NOW_S - 30, NOW_S + 50)),
    clock=st.integers(0, 4),
    state=st.integers(0, 5),
    layer=st.integers(0, 9),
    reason=st.integers(0, 2),
    gateway_reason=REASONS,
    internet_reason=REASONS,
    heard_all=st.none(),
    heard_well=st.none(),
    heard_weakly=st.none(),
)
WINDOWS = st.builds(
    Window,
    subject=st.sampled_from(["a1", "b1", "x9", "a1/0", "school-a", "school-b", "nobody"]),
    start_s=st.integers(NOW_S - 10, NOW_S + 50),
    end_s=st.integers(NOW_S - 10, NOW_S + 50),
)


@st.composite
def _places(draw: st.DrawFn) -> list[Stint]:
    """Return stints as moves and replacements make them."""
    if draw(st.booleans()):
        return STINTS
    moved_s, replaced_s = sorted(draw(st.tuples(*[st.integers(NOW_S - 5, NOW_S + 45)] * 2)))
    return [
        Stint("a1/0", "a1", "school-a", 0, moved_s),
        # a1 moves to school-b; there b1 takes its place, which hung nowhere until then.
        Stint("b1", "a1", "school-b", moved_s, replaced_s),
        Stint("b1", "b1", "school-b", replaced_s),
        Stint("a2", "a2", "school-a", draw(st.integers(0, 1)) * moved_s),
    ]


PLACES = _places()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROWS, max_size=25, unique_by=lambda row: (row.device, row.key_id, row.seq)),
    windows=st.lists(WINDOWS, max_size=4),
    length_s=st.integers(1, 40),
    stints=PLACES,
    seed=st.integers(0, 5),
)
def test_sql_and_reference_agree_at_every_second(
    connection: duckdb.DuckDBPyConnection,
    *,
    rows: list[Row],
    windows: list[Window],
    length_s: int,
    stints: list[Stint],
    seed: int,
) -> None:
    period = Period(NOW_S, NOW_S + length_s)
    random.Random(seed).shuffle(rows)
    ledger = _ledger(connection, rows, period, windows, stints)
    boards, lines = reference.ledger(rows, stints, period.start_s, period.end_s, windows)
    assert _seconds(ledger, "board") == boards
    assert _seconds(ledger, "line") == lines
    for kind in ("board", "line"):
        for states in ledger.seconds(kind).values():
            assert sum(states) == length_s


@settings(max_examples=25, deadline=None)
@given(
    start_s=st.integers(0, 20),
    period_s=st.sampled_from([1, 2, 3, 7]),
    gaps_s=st.lists(st.integers(0, 20), min_size=1, max_size=8),
)
def test_gaps_around_the_grace(
    connection: duckdb.DuckDBPyConnection, start_s: int, period_s: int, gaps_s: list[int]
) -> None:
    rows, at_s = [], NOW_S + start_s
    for seq, gap_s in enumerate(gaps_s, 1):
        at_s += gap_s
        rows.append(_up("a1", seq, at_s, period_s=period_s))
    period = Period(NOW_S, NOW_S + 100)
    boards, lines = reference.ledger(rows, STINTS, period.start_s, period.end_s)
    ledger = _ledger(connection, rows, period)
    assert _seconds(ledger, "board") == boards
    assert _seconds(ledger, "line") == lines


def _up(device: str, seq: int, time_s: int, *, period_s: int = 60, boot: int = 1) -> Row:
    return Row(
        device, 1, seq, boot, period_s, 0, time_s, table.CLOCK_NTP,
        table.UP, 0, table.OK, table.OK, table.OK,
    )  # fmt: skip


def _down(row: Row, layer: int = table.INTERNET, reason: int = table.CONNECT_TIMEOUT) -> Row:
    internet = reason if layer == table.INTERNET else table.UNTESTED
    return row._replace(state=table.DOWN, layer=layer, reason=reason, internet_reason=internet)


def _of(ledger: Ledger, kind: Kind, subject: str) -> list[Interval]:
    return [interval for interval in ledger.intervals(kind) if interval.subject == subject]


@pytest.mark.parametrize(("gap_s", "unknown_s"), [(150, 0), (151, 91), (60, 0), (152, 92)])
def test_a_gap_is_bridged_up_to_two_and_a_half_periods(
    connection: duckdb.DuckDBPyConnection, gap_s: int, unknown_s: int
) -> None:
    rows = [_up("a1", 1, NOW_S), _up("a1", 2, NOW_S + gap_s)]
    ledger = _ledger(connection, rows, Period(NOW_S, NOW_S + gap_s))
    assert ledger.seconds("board")["a1"][table.UNKNOWN] == unknown_s


def test_an_odd_period_has_a_grace_of_half_seconds(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    # G = 2.5 × 3 s = 7.5 s: seven seconds are bridged, eight are not.
    for gap_s, unknown_s in ((7, 0), (8, 5)):
        rows = [_up("a1", 1, NOW_S, period_s=3), _up("a1", 2, NOW_S + gap_s, period_s=3)]
        ledger = _ledger(connection, rows, Period(NOW_S, NOW_S + gap_s))
        assert ledger.seconds("board")["a1"][table.UNKNOWN] == unknown_s


def test_of_two_reports_with_the_same_time_the_higher_number_holds(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = [_up("a1", 7, NOW_S), _down(_up("a1", 8, NOW_S))]
    newer_key = rows[0]._replace(key_id=2, seq=1)
    period = Period(NOW_S - 60, NOW_S)
    for order in (rows, rows[::-1]):
        assert _ledger(connection, order, period).seconds("board")["a1"][table.DOWN] == 60
        both = _ledger(connection, [*order, newer_key], period)
        assert both.seconds("board")["a1"][table.UP] == 60


def test_reports_just_outside_the_period_count_inside(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = [_up("a1", 1, NOW_S - 50), _down(_up("a1", 2, NOW_S + 70))]
    ledger = _ledger(connection, rows, Period(NOW_S, NOW_S + 10))
    assert ledger.seconds("board")["a1"][table.DOWN] == 10


def test_reports_made_before_the_clock_was_known_get_their_time_later(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    early = [
        _up("a1", seq, 0)._replace(clock=table.CLOCK_NONE, uptime_cs=6000 * seq)
        for seq in (1, 2, 3)
    ]
    period = Period(NOW_S, NOW_S + 240)
    ledger = _ledger(connection, early, period)
    assert ledger.seconds("board")["a1"][table.UNKNOWN] == 240
    later = _up("a1", 4, NOW_S + 240)._replace(uptime_cs=24_000)
    ledger = _ledger(connection, [*early, later], period)
    assert ledger.seconds("board")["a1"][table.UP] == 240
    other_boot = later._replace(boot=2)
    ledger = _ledger(connection, [*early, other_boot], period)
    assert ledger.seconds("board")["a1"][table.UP] == 60


def _hour(clock_s: Callable[[int], int], quality: int = table.CLOCK_NTP) -> list[Row]:
    """An hour of reports, up but for the last minute, by a clock that goes as a test says."""
    rows = [
        _up("a1", seq, clock_s(NOW_S + 60 * seq))._replace(uptime_cs=6000 * seq, clock=quality)
        for seq in range(1, 61)
    ]
    return [*rows[:-1], _down(rows[-1])]


def _hour_s(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> tuple[int, int]:
    seconds = _ledger(connection, rows, Period(NOW_S, NOW_S + 3600)).seconds("board")["a1"]
    return seconds[table.UP], seconds[table.DOWN]


def test_a_better_clock_mends_what_was_made_with_a_worse_one(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for off_s in (-900_000, -3600, -7, 0, 7, 90, 3600, 50_000_000):
        kept = _hour(lambda time_s: time_s + off_s, table.CLOCK_KEPT)  # noqa: B023 - used at once
        known = _hour(lambda time_s: time_s)
        assert _hour_s(connection, kept[:20] + known[20:]) == (3540, 60), off_s
        assert _hour_s(connection, known[20:] + kept[:20]) == (3540, 60), off_s


def test_a_clock_that_is_set_back_reorders_and_drops_nothing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """A time server was wrong for a while; by which clock most was made, that holds."""
    for wrong_s in (61, 3600, 86_400 * 365):
        for first, last in ((0, 20), (10, 25), (40, 58)):
            off = range(NOW_S + 60 * first, NOW_S + 60 * last)
            rows = _hour(lambda t: t + wrong_s * (t in off))  # noqa: B023 - used at once
            assert _hour_s(connection, rows) == (3540, 60), (wrong_s, first)


def test_the_change_to_summer_time_and_the_ends_of_the_clocks_are_nothing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    # 29 March 2026 and 25 October 2026, 01:00 UTC; 2036 (NTP), 2038 (i32), 2106 (u32).
    for turn_s in (1_774_746_000, 1_792_890_000, 2_085_978_496, 1 << 31, (1 << 32) - 1900):
        start_s = turn_s - 1800
        rows = [
            _up("a1", seq, start_s + 60 * seq)._replace(uptime_cs=6000 * seq)
            for seq in range(1, 61)
        ]
        ledger = _ledger(connection, rows, Period(start_s, start_s + 3600))
        assert ledger.seconds("board")["a1"][table.UP] == 3600, turn_s


def test_the_overflow_of_the_monotonic_clock_is_no_step(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = [row._replace(uptime_cs=(row.uptime_cs - 180_000) % (1 << 32)) for row in _hour(int)]
    assert _hour_s(connection, rows) == (3540, 60)


def test_the_line_is_blamed_only_on_evidence(connection: duckdb.DuckDBPyConnection) -> None:
    period = Period(NOW_S, NOW_S + 60)
    up = _up("a1", 1, NOW_S + 60)
    gone = _down(_up("a2", 1, NOW_S + 60))
    no_wlan = _down(gone, table.ASSOCIATION, table.WRONG_KEY)._replace(gateway_reason=0)
    mute = gone._replace(gateway_reason=table.GATEWAY_SILENT, layer=table.GATEWAY)
    untested = _down(gone, table.RESOLVER, table.RESOLVER_SILENT)
    for rows, state in (
        ([up, gone], table.UP),
        ([gone], table.DOWN),
        ([gone, no_wlan], table.DOWN),
        ([no_wlan], table.UNKNOWN),
        ([mute], table.UNKNOWN),
        ([untested], table.UNKNOWN),
        ([], table.UNKNOWN),
    ):
        ledger = _ledger(connection, rows, period)
        assert ledger.seconds("line")["school-a"][state] == 60, rows


def test_a_window_of_a_site_holds_for_its_boards(connection: duckdb.DuckDBPyConnection) -> None:
    rows = [_down(_up(device, 1, NOW_S + 60)) for device in ("a1", "a2", "b1")]
    ledger = _ledger(
        connection, rows, Period(NOW_S, NOW_S + 60), [Window("school-a", NOW_S - 5, NOW_S + 20)]
    )
    for kind, subject in (("line", "school-a"), ("board", "a1"), ("board", "a2")):
        assert [(i.state, i.length_s) for i in _of(ledger, kind, subject)] == [
            (table.EXCLUDED, 20),
            (table.DOWN, 40),
        ]
    assert ledger.seconds("board")["b1"][table.EXCLUDED] == 0


def test_a_window_of_a_board_leaves_alone_the_place_that_it_takes_later(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = [_up("old", n, NOW_S + 60 * n) for n in range(1, 6)]
    stints = [
        Stint("new", "old", "school-a", 0, NOW_S + 300),
        Stint("new", "new", "school-a", NOW_S + 300),
    ]
    windows = [Window("new", NOW_S + 120, NOW_S + 420)]
    ledger = _ledger(connection, rows, Period(NOW_S, NOW_S + 600), windows, stints)
    assert [(i.state, i.length_s) for i in _of(ledger, "board", "new")] == [
        (table.UP, 300),
        (table.EXCLUDED, 120),
        (table.UNKNOWN, 180),
    ]
