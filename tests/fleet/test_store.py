"""The store: nothing twice, nothing half, one writer, clear words when it cannot."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from fleet import store
from fleet.errors import StoreError
from fleet.store import Cursor, Gap, Ingested, Store, Writer
from tests.fleet.town import DAY_S, TestBoard, ingest, verified

CURSOR = Cursor("database", 1)
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def board() -> TestBoard:
    return TestBoard("np-240ac4000010", "goethe-schule", "101")


def _count(city: Store) -> int:
    with city.reading() as connection:
        row = connection.execute("SELECT count(*) FROM report").fetchone()
    assert row is not None
    return int(row[0])


def test_reports_go_in_once_and_come_out_decoded(tmp_path: Path, board: TestBoard) -> None:
    city = Store(tmp_path)
    items = [verified(board, raw) for raw in board.series(DAY_S, 5, rssi_dbm=-61)]
    with city.writing() as writer:
        assert writer.cursors() == {}
        assert ingest(writer, Cursor("database", 5), items) == Ingested(new=5)
        assert ingest(writer, Cursor("database", 9), items[2:]) == Ingested(duplicates=3)
        assert writer.cursors() == {"gw-1": Cursor("database", 9)}
    with city.reading() as connection:
        rows = connection.execute(
            "SELECT seq, time_s, rssi_dbm, http_status, bssid, internet_reason, raw "
            "FROM report JOIN sealed USING (device, key_id, seq) ORDER BY seq"
        ).fetchall()
    assert rows == [
        (n, DAY_S + 60 * n, -61, None, None, 1, item.raw) for n, item in enumerate(items, 1)
    ]


def test_a_city_in_git_keeps_its_store_out(tmp_path: Path) -> None:
    with Store(tmp_path).writing():
        assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"


def test_duplicates_within_one_piece_count_once(tmp_path: Path, board: TestBoard) -> None:
    items = [verified(board, raw) for raw in board.series(DAY_S, 3)]
    with Store(tmp_path).writing() as writer:
        found = ingest(writer, CURSOR, [*items, items[1], items[1]])
    assert found == Ingested(new=3, duplicates=2)
    assert _count(Store(tmp_path)) == 3


def test_other_bytes_under_a_number_in_use_are_a_fork(tmp_path: Path, board: TestBoard) -> None:
    first = verified(board, board.report(DAY_S))
    twin = TestBoard(board.id, board.site, board.room, key=board.key)
    second = verified(twin, twin.report(DAY_S + 1))
    with Store(tmp_path).writing() as writer:
        ingest(writer, CURSOR, [first])
        assert ingest(writer, CURSOR, [second, first]) == Ingested(duplicates=1, forks=1)
    assert _count(Store(tmp_path)) == 1


def test_gaps_are_lost_numbers_and_broken_links(tmp_path: Path, board: TestBoard) -> None:
    items = [verified(board, raw) for raw in board.series(DAY_S, 6)]
    dropped = verified(board, board.report(DAY_S + 420, oldest_seq=5))
    copy = TestBoard(board.id, board.site, board.room, key=board.key, seq=7)
    forged = verified(copy, copy.report(DAY_S + 480))
    with Store(tmp_path).writing() as writer:
        ingest(writer, CURSOR, [items[0], *items[3:]])
    with Store(tmp_path).reading() as connection:
        assert store.gaps(connection) == []  # 2 and 3 may still come
    with Store(tmp_path).writing() as writer:
        ingest(writer, CURSOR, [dropped])
    with Store(tmp_path).reading() as connection:
        assert store.gaps(connection) == [Gap(board.id, 1, lost=2, breaks=0)]
    with Store(tmp_path).writing() as writer:
        ingest(writer, CURSOR, [items[1], forged])
    with Store(tmp_path).reading() as connection:
        assert store.gaps(connection) == [Gap(board.id, 1, lost=1, breaks=1)]


def test_without_a_store_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught, Store(tmp_path).reading():
        pass
    assert "nothing was collected yet" in caught.value.message
    assert "fleet collect" in caught.value.hint


def test_a_second_writer_is_told_who_has_it(tmp_path: Path) -> None:
    with Store(tmp_path).writing():
        with pytest.raises(StoreError) as caught, Store(tmp_path).writing():
            pass
        assert f"process {os.getpid()} is writing" in caught.value.message
    with Store(tmp_path).writing():
        pass


_READ = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from fleet.store import Store, count_reports
for _ in range(5):
    with Store(Path({city!r})).reading() as connection:
        print(sum(count_reports(connection).values()))
"""


def test_readers_get_their_turn_while_a_writer_is_busy(tmp_path: Path, board: TestBoard) -> None:
    items = [verified(board, raw) for raw in board.series(DAY_S, 2000)]
    ended = threading.Event()

    def write(writer: Writer) -> None:
        while not ended.is_set():
            ingest(writer, CURSOR, items)

    with Store(tmp_path).writing() as writer:
        ingest(writer, CURSOR, items)
        busy = [threading.Thread(target=write, args=(writer,)) for _ in range(2)]
        for thread in busy:
            thread.start()
        began = time.monotonic()
        try:
            reader = subprocess.run(
                [sys.executable, "-c", _READ.format(root=ROOT, city=str(tmp_path))],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            ended.set()
            for thread in busy:
                thread.join()
    assert (reader.stdout, reader.stderr) == ("2000\n" * 5, "")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("content", [b"this is no database" * 1000, None])
def test_what_is_no_store_is_left_alone(tmp_path: Path, content: bytes | None) -> None:
    city = Store(tmp_path)
    city.folder.mkdir()
    if content:
        city.path.write_bytes(content)
    else:
        with duckdb.connect(str(city.path)) as connection:
            connection.execute("CREATE TABLE schema AS SELECT 99 AS version")
    before = city.path.read_bytes()
    with pytest.raises(StoreError, match=r"not a valid DuckDB|has schema 99"), city.writing():
        pass
    with pytest.raises(StoreError, match=r"not a valid DuckDB|has schema 99"), city.reading():
        pass
    assert city.path.read_bytes() == before


def test_a_damaged_store_is_no_defect(tmp_path: Path, board: TestBoard) -> None:
    city = Store(tmp_path)
    with city.writing() as writer:
        ingest(writer, CURSOR, [verified(board, board.report(DAY_S))])
    content = city.path.read_bytes()
    headers = 12_288
    city.path.write_bytes(content[:headers] + bytes(b ^ 0x55 for b in content[headers:]))
    with pytest.raises(StoreError, match="Corrupt") as caught, city.reading():
        pass
    assert f"move all of {city.folder} away" in caught.value.hint
    with pytest.raises(StoreError, match="Corrupt"), city.writing():
        pass


def test_a_full_disk_changes_nothing(tmp_path: Path, board: TestBoard) -> None:
    city = Store(tmp_path)
    with city.writing() as writer:
        ingest(writer, CURSOR, [verified(board, board.report(DAY_S))])
        many = [verified(board, raw) for raw in board.series(DAY_S, 3000)]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(StoreError) as caught:
                ingest(writer, Cursor("database", 3000), many)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "free space" in caught.value.hint
        assert writer.cursors()["gw-1"] == CURSOR
        assert _count(city) == 1
        assert ingest(writer, Cursor("database", 3000), many).new == 3000


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from fleet.store import Cursor, Store
from tests.fleet.town import DAY_S, TestBoard, ingest, verified
with Store(Path({city!r})).writing() as writer:
    row = writer.cursors().get("gw-1", Cursor("database", 0)).row
    board = TestBoard("np-240ac4000010", "goethe-schule", "101", seq=row)
    while True:
        items = [verified(board, raw) for raw in board.series(DAY_S + 60 * row, 50)]
        row += 50
        ingest(writer, Cursor("database", row), items)
        print(row, flush=True)
"""


def test_a_killed_writer_leaves_pieces_whole(tmp_path: Path) -> None:
    city = Store(tmp_path)
    for chance in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED.format(root=ROOT, city=str(tmp_path))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = random.Random(chance).randint(1, 4)
        told = [int(process.stdout.readline()) for _ in range(lines)][-1]
        process.kill()
        process.communicate()
        count = _count(city)
        with city.writing() as writer:
            row = writer.cursors()["gw-1"].row
        assert told <= row == count == _count(city)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"cannot look into .*: File name too long"),
        Store(tmp_path / ("x" * 300)).reading(),
    ):
        pass


def test_a_store_on_a_read_only_disk_is_read(
    tmp_path: Path, board: TestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = Store(tmp_path)
    with city.writing() as writer:
        ingest(writer, CURSOR, [verified(board, board.report(DAY_S))])
    opened = os.open

    def read_only(path: Path, flags: int, *more: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    assert _count(city) == 1
