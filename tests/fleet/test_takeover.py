"""A store of an older Netzpuls is taken over in whole, and what follows from it is true."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

import fleet.cli
from firmware.linkreport import block
from firmware.linkreport import report as wire
from fleet.errors import StoreError
from fleet.store import Cursor, Gap, Store, gaps, schema
from fleet.verify import verify
from tests.fleet.town import DAY_S, LINE_CUT, TestBoard, Town, ingest, verified

HEARD = ", ".join(schema.HEARD)
ROOT = str(Path(__file__).parents[2])


# One access point of two, heard well.
AIR = wire.extension(block.AIR, bytes([2]) + bytes(10))
HEARS = {
    "extensions": wire.extension(block.OWN, bytes([2, 0, 0, 0, 0, 1, 0xC4, 6, 1])) + AIR,
}


def _old_store(folder: Path, items: list[object]) -> Store:
    """Write what version 1 wrote: reports as they are, and how far they were read."""
    new, old = Store(folder / "new"), Store(folder / "old")
    for city in (new, old):
        city.folder.parent.mkdir()
    with new.writing() as writer:
        ingest(writer, Cursor("database", 7), items)  # type: ignore[arg-type]
    old.folder.mkdir()
    with duckdb.connect(str(old.path)) as connection:
        connection.execute(f"ATTACH '{new.path}' AS new (READ_ONLY)")
        connection.execute(schema.CURSOR)
        connection.execute("INSERT INTO cursor FROM new.cursor")
        rows = f"SELECT * EXCLUDE ({HEARD}) FROM new.recent"  # noqa: S608
        connection.execute(f"CREATE TABLE report AS {rows}")
        connection.execute("CREATE TABLE schema AS SELECT 1 AS version")
    return old


def _items(count: int = 40) -> list[object]:
    boards = [TestBoard(f"np-240ac400001{n}", "goethe-schule", "101") for n in range(3)]
    raws = [
        (board, raw)
        for board in boards
        for values in (HEARS, LINE_CUT, HEARS)
        for raw in board.series(DAY_S + 60 * board.seq, count, **values)
    ]
    random.Random(1).shuffle(raws)
    return [verified(board, raw) for board, raw in raws[:-2]]


def test_an_older_store_is_taken_over_by_the_next_writer(tmp_path: Path) -> None:
    old = _old_store(tmp_path, _items())
    with pytest.raises(StoreError, match="older Netzpuls") as caught, old.reading():
        pass
    assert "fleet collect" in caught.value.hint
    told: list[str] = []
    with old.writing(told.append) as writer:
        assert writer.cursors() == {"gw-1": Cursor("database", 7)}
    assert told == [
        "taking over the store of an older Netzpuls: 358 reports",
        "taken over: 358 of 358 reports",
    ]
    answer = verify(old.folder.parent)
    assert (answer.reports, answer.boards, answer.differences) == (358, 3, ())
    with Store(tmp_path / "new").reading() as new, old.reading() as connection:
        assert gaps(connection) == gaps(new)
        for name in schema.KEPT:
            rows = f"SELECT * FROM {name} ORDER BY ALL"  # noqa: S608
            assert connection.execute(rows).fetchall() == new.execute(rows).fetchall()


@pytest.mark.parametrize("gone", [("debris",), ("part", "expired", "debris")])
def test_a_store_of_version_2_gets_what_it_lacks(tmp_path: Path, gone: tuple[str, ...]) -> None:
    store = Store(tmp_path)
    with store.writing() as writer:
        ingest(writer, Cursor("database", 7), _items())  # type: ignore[arg-type]
    with duckdb.connect(str(store.path)) as connection:
        for name in gone:
            connection.execute(f"DROP TABLE {name}")
        _forget_what_was_heard(store, connection, 2)
    with pytest.raises(StoreError, match="older Netzpuls"), store.reading():
        pass
    with store.writing() as writer:
        assert writer.cursors() == {"gw-1": Cursor("database", 7)}
        assert writer.pack(least=1, before_s=None) == 358
    answer = verify(tmp_path)
    assert (answer.reports, answer.differences) == (358, ())


def _forget_what_was_heard(
    store: Store, connection: duckdb.DuckDBPyConnection, version: int
) -> None:
    for name in schema.HEARD:
        connection.execute(f"ALTER TABLE recent DROP COLUMN {name}")
    connection.execute("DROP TABLE sighting")
    for path in (store.folder / "report").glob("*/*.parquet"):
        rows = f"SELECT * EXCLUDE ({HEARD}) FROM read_parquet('{path}')"  # noqa: S608
        connection.execute(f"CREATE OR REPLACE TEMP TABLE old AS {rows}")
        connection.execute(f"COPY old TO '{path}' (FORMAT parquet)")
    connection.execute("UPDATE schema SET version = $1", [version])


def test_a_store_of_version_3_learns_what_its_boards_heard(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing() as writer:
        ingest(writer, Cursor("database", 7), _items(600))  # type: ignore[arg-type]
        assert writer.pack(least=1, before_s=DAY_S + 86_400) > 1000
    heard = "FROM sighting ORDER BY ALL"
    with store.reading() as connection:
        before = connection.execute(heard).fetchall()
        parts = connection.execute("SELECT kind, day, reports FROM part ORDER BY ALL").fetchall()
    assert len(before) == 6
    with duckdb.connect(str(store.path)) as connection:
        _forget_what_was_heard(store, connection, 3)
    with pytest.raises(StoreError, match="older Netzpuls"), store.reading():
        pass
    told: list[str] = []
    with store.writing(told.append):
        pass
    assert "which access points boards heard" in told[0]
    with store.reading() as connection:
        assert connection.execute(heard).fetchall() == before
        found = connection.execute("SELECT kind, day, reports FROM part ORDER BY ALL").fetchall()
    assert found == parts
    assert len(list((store.folder / "report").glob("*/*.parquet"))) == len(parts) // 2
    answer = verify(tmp_path)
    assert (answer.reports, answer.differences, answer.misheard) == (5398, (), ())


_TAKE_OVER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import fleet.store.writer
from fleet.store import Store
fleet.store.writer._PIECE_ROWS = 400
with Store(Path({city!r})).writing(lambda text: print(text, flush=True)) as writer:
    pass
"""


def test_a_takeover_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    old = _old_store(tmp_path, _items(600))
    chance = random.Random(1)
    for lines in (1, 2, 3, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_OVER.format(root=ROOT, city=str(old.folder.parent))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(chance.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with old.writing():
        pass
    answer = verify(old.folder.parent)
    assert (answer.reports, answer.differences) == (5398, ())


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(list(arguments))
    assert isinstance(exited.value.code, int)
    return exited.value.code


def test_verify_says_equal_or_where_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    town = Town(tmp_path / "city")
    city = town.write()
    board = town.boards[0]
    with Store(city.folder).writing() as writer:
        items = [verified(board, raw) for raw in board.series(DAY_S, 60)]
        ingest(writer, Cursor("database", 60), items)
    call = ("fleet", "verify", "--city", str(city.folder))
    assert _run(*call) == 0
    said = "equal to the second: 1 interval of 1 board, recomputed from 60 reports"
    assert capsys.readouterr().out.strip() == said
    with duckdb.connect(str(Store(city.folder).path)) as connection:
        connection.execute("UPDATE interval SET end_s = end_s - 60")
    assert _run(*call, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == "ledger-differs"
    assert [(each["said_by"], each["end_s"] - DAY_S) for each in document["differences"]] == [
        ("intervals", 3540),
        ("reports", 3600),
    ]
    assert _run(*call) == 1
    captured = capsys.readouterr()
    assert board.id in captured.out
    assert "the ledger of 1 board is not what its reports say" in captured.err


def test_verify_names_since_when_it_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    town = Town(tmp_path / "city")
    city = town.write()
    board = town.boards[0]
    day_s = 86_400
    with Store(city.folder).writing() as writer:
        raws = [raw for day in range(9) for raw in board.series(DAY_S + day * day_s, 10)]
        ingest(writer, Cursor("database", 90), [verified(board, raw) for raw in raws])
        writer.expire(raw_before_s=DAY_S + 3 * day_s)
    call = ("fleet", "verify", "--city", str(city.folder))
    assert _run(*call) == 0
    # What is let go takes the next days with it: neighbours may be missing there.
    said = (
        "equal to the second since 2025-11-28 20:01:14: 2 intervals of 1 board, "
        "recomputed from 60 reports"
    )
    assert capsys.readouterr().out.strip() == said
    assert _run(*call, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["intervals"], document["since_s"]) == (2, DAY_S + 3 * day_s + 2 * 163_837)


def test_gaps_of_an_older_store_are_still_known(tmp_path: Path) -> None:
    board = TestBoard("np-240ac4000010", "goethe-schule", "101")
    items = [verified(board, raw) for raw in board.series(DAY_S, 9)]
    items = [*items[:3], *items[5:], verified(board, board.report(DAY_S + 900, oldest_seq=9))]
    copy = TestBoard(board.id, board.site, board.room, key=board.key, seq=10)
    items.append(verified(copy, copy.report(DAY_S + 960)))
    old = _old_store(tmp_path, list(items))
    with old.writing():
        pass
    with old.reading() as connection:
        assert gaps(connection) == [Gap(board.id, 1, lost=2, breaks=1)]
