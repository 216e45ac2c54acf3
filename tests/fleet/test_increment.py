"""The ledger kept up to date piece by piece is at any time what all reports together say."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.linkreport import table
from fleet import recompute
from fleet.ledger import Ledger, differences, misheard
from fleet.period import Period
from fleet.stint import Window
from fleet.store import increment, part, schema
from fleet.store.part import Shelf
from tests.fleet import reference
from tests.fleet.reference import Row, piece_of
from tests.fleet.test_ledger import NOW_S, PLACES, ROWS, WINDOWS, _seconds, _up

ALWAYS = Period(1, 1 << 33)
_KEPT = tuple(schema.KEPT)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as memory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "LEAST_DIRECT", part.LEAST_DIRECT)  # examples change it
        memory.execute("SET threads = 1")
        memory.execute(schema.SCHEMA)
        memory.execute("CREATE TEMP VIEW report AS FROM recent")
        yield memory


def _clear(connection: duckdb.DuckDBPyConnection) -> None:
    for name in ("recent", "part", *_KEPT):
        connection.execute(f"TRUNCATE {name}")
    Shelf(connection, Path()).show()
    part.LEAST_DIRECT = 50_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def _add(connection: duckdb.DuckDBPyConnection, rows: Sequence[Row], folder: Path = Path()) -> int:
    new = increment.add(connection, Shelf(connection, folder), piece_of(rows)).new
    Shelf(connection, folder).show()
    return new


def _pack(connection: duckdb.DuckDBPyConnection, folder: Path, before_s: int) -> None:
    """Move what is older to day files, and make those of a day one if they are many."""
    Shelf(connection, folder).pack(before_s)
    for day in Shelf(connection, folder).crowded():
        Shelf(connection, folder).compact(day)
    Shelf(connection, folder).show()


def _assert_equal(connection: duckdb.DuckDBPyConnection) -> None:
    assert differences(connection, ALWAYS) == []
    assert misheard(connection, ALWAYS) == []


def _assert_recomputed(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Hold what is recomputed without sorting against what is kept, which was held before."""
    said = recompute.tell(connection, Shelf(connection, folder))
    assert differences(connection, ALWAYS, said) == []


# As boards report: numbers and monotonic time rise, the clock is kept, set and set back.
@st.composite
def _boards(draw: st.DrawFn) -> list[Row]:
    rows = []
    for device in ("a1", "a2", "b1"):
        seq = 0
        for boot in range(draw(st.integers(1, 2))):
            uptime_s = draw(st.integers(0, 5))
            began_s = NOW_S + draw(st.integers(-50, 100)) + 60 * boot
            off_s, clock = 0, draw(st.integers(0, 3))
            for _ in range(draw(st.integers(0, 12))):
                seq += 1
                period_s = draw(st.sampled_from([2, 2, 2, 3, 10]))
                uptime_s += draw(st.sampled_from([0, 1, 2, 2, 2, 2, 5, 7, 20]))
                off_s += draw(st.sampled_from([0, 0, 0, 0, 0, 0, 4, -4, 30, -30]))
                clock = draw(st.sampled_from([clock, clock, clock, 0, 1, 2, 3]))
                rows.append(
                    Row(
                        device, 1 + boot % 2 * draw(st.integers(0, 1)), seq, boot, period_s,
                        uptime_s * 100, began_s + uptime_s + off_s if clock else 0, clock,
                        draw(st.sampled_from([1, 1, 1, 3, 0])), draw(st.sampled_from([0, 0, 7])),
                        1, 1, draw(st.sampled_from([table.OK, table.CONNECT_TIMEOUT])),
                    )
                )  # fmt: skip
    return rows


# As most boards report: nearly always the same, so that many reports are taken as one.
@st.composite
def _quiet_boards(draw: st.DrawFn) -> list[Row]:
    rows = []
    for device in ("a1", "b1"):
        seq, boot, uptime_s, began_s = 0, 0, 0, NOW_S + draw(st.integers(-20, 20))
        for _ in range(draw(st.integers(1, 5))):
            kind = draw(st.sampled_from(["state", "silence", "boot", "key", "clock", "air"]))
            uptime_s += 40 if kind == "silence" else 2
            if kind == "boot":
                boot, began_s, uptime_s = boot + 1, began_s + uptime_s + 3, 0
            began_s += draw(st.sampled_from([0, 7, -9])) if kind == "clock" else 0
            state = 3 if kind == "state" else 1
            heard = (True, b"\2" * 6, b"") if kind == "air" else (None, None, None)
            for _ in range(draw(st.integers(1, 12))):
                seq += 1
                uptime_s += 2
                rows.append(
                    Row(
                        device, 1 + (kind == "key"), seq, boot, 2, uptime_s * 100,
                        began_s + uptime_s, 3, state, 0, 1, 1, table.OK, *heard,
                    )
                )  # fmt: skip
    return rows


@settings(max_examples=15, deadline=None)
@given(
    rows=st.one_of(
        _boards(),
        _quiet_boards(),
        st.lists(ROWS, max_size=25),
    ),
    windows=st.lists(WINDOWS, max_size=3),
    stints=PLACES,
    length_s=st.integers(1, 40),
    pieces=st.integers(1, 4),
    shuffled=st.sampled_from(["not", "pieces", "all"]),
    packed=st.booleans(),
    direct=st.sampled_from([2, 50_000]),
    seed=st.integers(0, 1 << 16),
)
def test_any_pieces_in_any_order_give_what_all_reports_say(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    *,
    rows: list[Row],
    windows: list[Window],
    stints: list[reference.Stint],
    length_s: int,
    pieces: int,
    shuffled: str,
    packed: bool,
    direct: int,
    seed: int,
) -> None:
    _clear(connection)
    part.LEAST_DIRECT = direct
    rows = list({(row.device, row.key_id, row.seq): row for row in rows}.values())
    chance = random.Random(seed)
    if shuffled == "all":
        chance.shuffle(rows)
    cuts = sorted(chance.randint(0, len(rows)) for _ in range(pieces - 1))
    split = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    if shuffled == "pieces":
        chance.shuffle(split)
    here: list[Row] = []
    for piece in split:
        twice = list(piece)
        for row in chance.sample(here + piece, min(2, len(here))):
            twice.insert(chance.randint(0, len(twice)), row)
        here += piece
        assert _add(connection, twice, folder) == len(piece)
        if packed:
            _pack(connection, folder, NOW_S + chance.randint(-50, 150))
        _assert_equal(connection)
    _assert_recomputed(connection, folder)
    period = Period(NOW_S, NOW_S + length_s)
    ledger = Ledger(connection, period, stints, windows)
    boards, lines = reference.ledger(rows, stints, period.start_s, period.end_s, windows)
    assert _seconds(ledger, "board") == boards
    assert _seconds(ledger, "line") == lines
    for states in ledger.seconds("board").values():
        assert sum(states) == length_s


def _dump(connection: duckdb.DuckDBPyConnection, name: str) -> list[tuple[object, ...]]:
    # How far a boot had to be looked at depends on what came when, what it says does not.
    columns = ", ".join(n for n in schema.KEPT[name] if n not in ("whole", "falls"))
    return connection.table(name).project(columns).order(columns).fetchall()


@settings(max_examples=8, deadline=None)
@given(
    rows=st.one_of(_boards(), _quiet_boards()),
    seed=st.integers(0, 1 << 16),
    size=st.integers(3, 12),
)
def test_what_is_kept_does_not_depend_on_the_pieces(
    connection: duckdb.DuckDBPyConnection, rows: list[Row], seed: int, size: int
) -> None:
    _clear(connection)
    rows = list({(row.device, row.key_id, row.seq): row for row in rows}.values())
    if rows:
        _add(connection, rows)
    at_once = {name: _dump(connection, name) for name in _KEPT}
    _clear(connection)
    random.Random(seed).shuffle(rows)
    for at in range(0, len(rows), size):
        _add(connection, rows[at : at + size])
    assert {name: _dump(connection, name) for name in _KEPT} == at_once


def test_a_late_report_that_says_nothing_new_changes_no_interval(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    _clear(connection)
    rows = [_up("a1", seq, NOW_S + 60 * seq)._replace(uptime_cs=6000 * seq) for seq in range(1, 10)]
    _add(connection, [row for row in rows if row.seq != 5])
    before = connection.execute("SELECT rowid, * FROM interval").fetchall()
    _add(connection, [rows[5]])
    assert connection.execute("SELECT rowid, * FROM interval").fetchall() == before
    _assert_equal(connection)
    down = rows[3]._replace(seq=20, time_s=NOW_S + 200, uptime_cs=20_000, state=table.DOWN)
    _add(connection, [down])
    _assert_equal(connection)
    assert len(Ledger(connection, Period(NOW_S, NOW_S + 480), ()).intervals("board")) == 3


def test_many_boards_changed_at_their_end_and_before_it_keep_their_intervals(
    tmp_path: Path,
) -> None:
    """More than one vector of DuckDB of intervals is changed twice by one piece, over and over."""

    def said(boards: range, *seqs: int) -> list[Row]:
        return [
            _up(f"np-{board:04d}", seq, NOW_S + 60 * seq)._replace(
                uptime_cs=6000 * seq, state=table.DOWN if seq in (2, 3, 6) else table.UP
            )
            for board in boards
            for seq in seqs
        ]

    path = str(tmp_path / "store.duckdb")
    with duckdb.connect() as memory:
        memory.execute(f"ATTACH '{path}' AS city; USE city; {schema.SCHEMA}")
        _add(memory, said(range(1200), 1, 2, 4))
        second = piece_of([*said(range(1200), 5, 6, 7), *said(range(0, 1200, 20), 3)])
        found = set()
        for _ in range(30):
            memory.execute("USE memory; DETACH city")
            memory.execute(f"ATTACH '{path}' AS city; USE city")
            memory.begin()
            increment.add(memory, Shelf(memory, tmp_path), second)
            found.update(memory.execute(_INTERVALS).fetchall())
            memory.rollback()
        increment.add(memory, Shelf(memory, tmp_path), second)
        Shelf(memory, tmp_path).show()
        _assert_equal(memory)
        assert found == set(memory.execute(_INTERVALS).fetchall())


_INTERVALS = "SELECT count(*), sum(start_s)::HUGEINT, sum(end_s)::HUGEINT FROM interval"


def test_of_reports_under_one_number_the_first_in_the_piece_counts(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Although it came by another gateway, and all others of the board follow one another."""
    rows = [
        _up(device, seq, NOW_S + 60 * seq)._replace(uptime_cs=6000 * seq)
        for seq in range(1, 30)
        for device in ("a1", "b1")
    ]
    other = rows[20]._replace(state=table.DOWN)
    for at, states in ((0, {1, 3}), (len(rows), {1})):
        _clear(connection)
        piece = piece_of([*rows[:at], other, *rows[at:]])
        columns = dict(piece.columns)
        columns["origin"] = columns["origin"].copy()
        columns["origin"][at] = len(piece.origins)
        origins = [*piece.origins, (other.device, "gw-2", None)]
        piece = dataclasses.replace(piece, origins=origins, columns=columns)
        added = increment.add(connection, Shelf(connection, Path()), piece)
        assert (added.new, added.known.tolist()) == (len(rows), [len(rows) if at else 21])
        Shelf(connection, Path()).show()
        _assert_equal(connection)
        said = connection.execute("SELECT DISTINCT state FROM interval WHERE device = 'a1'")
        assert {state for (state,) in said.fetchall()} == states


def test_a_piece_of_nothing_changes_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    _clear(connection)
    assert increment.add(connection, Shelf(connection, Path()), piece_of([])).new == 0
    assert connection.execute("SELECT count(*) FROM run").fetchall() == [(0,)]


def test_the_highest_number_of_one_board_is_no_neighbour_of_the_next_board(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    _clear(connection)
    piece = piece_of([_up("a1", (1 << 32) - 1, NOW_S), _up("b1", 1, NOW_S)])
    piece.columns["seq"][1] = 0
    assert increment.add(connection, Shelf(connection, Path()), piece).new == 2
    assert increment.add(connection, Shelf(connection, Path()), piece).new == 0
