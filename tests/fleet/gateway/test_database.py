"""What the database keeps does not depend on how it came."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.gateway.database import (
    MAX_REFUSAL_ROWS,
    OTHERS,
    Database,
    DatabaseError,
    Reader,
    StorageError,
)
from fleet.gateway.intake import FORKED, Refusal, Verified
from tests.fleet.gateway.scene import Sealer

BOARD, OTHER = "np-240ac4000001", "np-240ac4000002"


def made(count: int, board: str = BOARD, **values: Any) -> list[Verified]:
    sealer = Sealer(bytes(32))
    return [
        Verified(board, 1, seq, values.get("oldest_seq", 1), sealer.make(**values))
        for seq in range(1, count + 1)
    ]


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database.path)) as connection:
        return connection.execute(query).fetchall()


def stored(database: Database) -> set[tuple[str, int, int]]:
    found = rows(database, "SELECT device, key_id, seq FROM report")
    assert len(found) == len(set(found))
    return set(found)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "reports.db")) as opened:
        yield opened


@contextmanager
def scratch() -> Iterator[Database]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Database(Path(folder) / "reports.db")) as opened,
    ):
        yield opened


REPORTS = made(12) + made(12, OTHER)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(REPORTS), max_size=8), max_size=8))
def test_any_order_and_any_repetition_give_the_set(batches: list[list[Verified]]) -> None:
    with scratch() as database:
        sent: set[tuple[str, int, int]] = set()
        for batch in batches:
            outcome = database.commit(batch, [], 1000)
            sent |= {item[:3] for item in batch}
            assert stored(database) == sent
            assert not outcome.refusals
            assert not outcome.notes
            assert outcome.committed + outcome.duplicates == len(batch)
            for stream in outcome.streams:
                here = {seq for device, _, seq in sent if device == stream.device}
                assert set(range(1, stream.contiguous_seq + 1)) <= here
                assert stream.contiguous_seq + 1 not in here


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_a_board_gave_up_is_lost_and_the_rest_goes_on(data: st.DataObject) -> None:
    sealer, reports, oldest = Sealer(bytes(32)), [], 1
    for seq in range(1, 21):
        oldest = data.draw(st.integers(oldest, seq))
        reports.append(Verified(BOARD, 1, seq, oldest, sealer.make(oldest_seq=oldest)))
    kept = data.draw(st.lists(st.sampled_from(reports), min_size=1, unique=True))
    with scratch() as database:
        outcome = database.commit(kept, [], 1000)
        end = outcome.streams[0].contiguous_seq
        given_up = max(item.oldest_seq for item in kept) - 1
        here = {item.seq for item in kept}
        expected = next(s for s in range(1, 23) if s not in here and s > given_up) - 1
        assert end == expected
        lost = {
            seq
            for first, last in rows(database, "SELECT first_seq, last_seq FROM loss")
            for seq in range(first, last + 1)
        }
        assert lost == set(range(1, end + 1)) - here
        # Whoever was thought lost and comes after all is lost no more.
        database.commit(reports, [], 2000)
        assert rows(database, "SELECT * FROM loss") == []
        assert database.stream(BOARD, 1).contiguous_seq == 20


def test_the_same_number_with_other_content_is_refused(database: Database) -> None:
    first, second = made(2)
    forged = Verified(BOARD, 1, 2, 1, made(2, text="other")[1].raw)
    database.commit([first, second], [], 1000)
    outcome = database.commit([forged], [], 1001)
    assert outcome.committed == outcome.duplicates == 0
    assert [(r.reason, r.device) for r in outcome.refusals] == [(FORKED, BOARD)]
    assert outcome.streams[0].contiguous_seq == 2
    assert rows(database, "SELECT raw FROM report WHERE seq = 2") == [(second.raw,)]
    assert rows(database, "SELECT * FROM refusal") == [(FORKED, BOARD, 1, 1001)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_a_broken_chain_is_recorded_in_whatever_order_it_comes(
    database: Database, order: tuple[int, ...]
) -> None:
    first, _, third = made(3)
    second = Verified(BOARD, 1, 2, 1, made(2, text="from another chain")[1].raw)
    chain = [first, second, third]
    notes = []
    for at in order:
        notes += database.commit([chain[at]], [], 1000).notes
    # The second follows another first, and the third another second.
    assert rows(database, "SELECT seq FROM chain_break ORDER BY seq") == [(2,), (3,)]
    assert {note.event for note in notes} == {"chain-broken"}
    assert len(stored(database)) == 3


def test_a_first_report_that_follows_something_is_a_break(database: Database) -> None:
    sealer = Sealer(bytes(32))
    sealer.link = bytes([1]) * 16
    database.commit([Verified(BOARD, 1, 1, 1, sealer.make())], [], 1000)
    assert rows(database, "SELECT seq FROM chain_break") == [(1,)]


def test_keys_are_streams_of_their_own(database: Database) -> None:
    renewed = [Verified(BOARD, 2, item.seq, 1, item.raw) for item in made(2)]
    outcome = database.commit(made(3) + renewed, [], 1000)
    assert {(s.key_id, s.contiguous_seq) for s in outcome.streams} == {(1, 3), (2, 2)}
    assert database.stream(BOARD, 3).contiguous_seq == 0


def test_hostile_names_do_not_fill_the_disk(database: Database) -> None:
    refusals = [Refusal("board-unknown", f"np-{n:012x}") for n in range(MAX_REFUSAL_ROWS + 50)]
    database.commit([], refusals, 1000)
    database.commit([], refusals, 1001)
    assert rows(database, "SELECT count(*), sum(count) FROM refusal") == [
        (MAX_REFUSAL_ROWS + 1, 2 * len(refusals))
    ]
    assert rows(database, "SELECT device, count FROM refusal ORDER BY count DESC LIMIT 1") == [
        (OTHERS, 100)
    ]


def test_a_full_disk_stores_nothing_of_the_batch_and_passes(database: Database) -> None:
    first, *more = made(400)
    database.commit([first], [], 1000)
    connection = database._connected()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageError, match="full"):
        database.commit(more, [Refusal("seal-wrong", BOARD)], 1001)
    assert stored(database) == {first[:3]}
    assert rows(database, "SELECT * FROM refusal") == []
    # It was opened anew, so the limit is gone.
    assert database.commit(more, [], 1002).committed == 399


def test_every_commit_is_durable(database: Database) -> None:
    database.open()
    connection = database._connected()
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    damaged, foreign, newer = (tmp_path / name for name in ("damaged", "foreign", "newer"))
    damaged.write_bytes(b"no database, surely not" * 100)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE other (x)")
    with closing(Database(newer)) as database:
        database.open()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for path, words in (
        (damaged, "not a database"),
        (foreign, "no database of a Netzpuls gateway"),
        (newer, "version 99"),
    ):
        with pytest.raises(DatabaseError, match=words):
            Database(path).open()
        with pytest.raises(DatabaseError, match=words):
            Reader(path)
    with pytest.raises(DatabaseError, match="there is no"):
        Reader(tmp_path / "missing")


def test_readers_see_whole_commits_while_the_collector_writes(database: Database) -> None:
    reports = made(30)
    uuid = database.open()
    database.commit(reports[:10], [], 1000)
    with closing(Reader(database.path)) as one, closing(Reader(database.path)) as two:
        database.commit(reports[10:20], [], 1001)
        with closing(Reader(database.path)) as three:
            assert one.database == two.database == three.database == uuid
            assert (one.last_row, two.last_row, three.last_row) == (10, 10, 20)
            assert [row.row for row in one.rows(0, one.last_row)] == list(range(1, 11))
            assert [row.raw for row in three.rows(5, three.last_row)] == [
                item.raw for item in reports[5:20]
            ]
            assert [row.row for row in three.rows(5, three.last_row, limit=3)] == [6, 7, 8]
