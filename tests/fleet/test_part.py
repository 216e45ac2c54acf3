"""Day files: the same answers, whatever is in them, and nothing lost whenever a writer stops."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from firmware.linkreport import table
from fleet import collect, inventory, report, uptime
from fleet.errors import ConfigurationError, StoreError
from fleet.inventory import Inventory
from fleet.period import Period
from fleet.store import Cursor, Ingested, Store, gaps, part, writer
from fleet.verify import verify
from tests.fleet.town import DAY_S, LINE_CUT, TestBoard, Town, Verified, ingest, verified

ROOT = str(Path(__file__).parents[2])
CURSOR = Cursor("database", 1)
WEEK = Period(DAY_S, DAY_S + 7 * 86_400)


@pytest.fixture
def board() -> TestBoard:
    return TestBoard("np-240ac4000010", "goethe-schule", "101")


def _days(board: TestBoard, days: int, hours: int = 2) -> list[Verified]:
    """Return reports of the first hours of some days, the last ten minutes of each down."""
    items = []
    for day in range(days):
        start_s = DAY_S + 86_400 * day
        raws = board.series(start_s, hours * 60 - 10)
        raws += board.series(start_s + hours * 3600 - 600, 10, **LINE_CUT)
        items += [verified(board, raw) for raw in raws]
    return items


def _put(store: Store, items: Sequence[Verified], *, pack: int | None = None) -> Ingested:
    with store.writing() as open_store:
        found = ingest(open_store, CURSOR, items)
        if pack is not None:
            open_store.pack(least=1, before_s=DAY_S + 86_400 * pack)
    return found


def _files(store: Store) -> dict[str, int]:
    return {
        kind: len(list((store.folder / kind).glob("*/*.parquet"))) for kind in ("report", "sealed")
    }


def _rows(store: Store) -> tuple[int, int]:
    """Return how many reports there are, and how many of them outside of day files."""
    with store.reading() as connection:
        ((all_of_them, recent),) = connection.execute(
            "SELECT (SELECT count(*) FROM report), (SELECT count(*) FROM recent)"
        ).fetchall()
    return all_of_them, recent


def _told(city: Inventory) -> list[object]:
    found = report.outages(city, WEEK, now_s=WEEK.end_s, with_evidence=True)
    return [uptime.find(city, WEEK).document(), found.document()]


def test_the_answers_are_the_same_from_day_files(tmp_path: Path) -> None:
    town = Town(tmp_path / "city")
    city = town.write()
    store = Store(city.folder)
    for each in town.boards:
        _put(store, _days(each, 3))
    before = _told(city)
    assert "evidence" in str(before)
    assert "'evidence': None" not in str(before)
    with store.writing() as open_store:
        assert open_store.pack(least=1, before_s=DAY_S + 2 * 86_400) == 480
    assert _rows(store) == (720, 240)
    assert _files(store) == {"report": 2, "sealed": 2}
    assert _told(city) == before
    assert verify(city.folder).differences == ()


def test_what_is_in_day_files_is_known(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    items = _days(board, 3)
    _put(store, items, pack=3)
    assert _rows(store) == (360, 0)
    assert _put(store, items[50:60]) == Ingested(duplicates=10)
    twin = TestBoard(board.id, board.site, board.room, key=board.key, seq=130)
    near = verified(twin, twin.report(items[130].report.time_s))
    far = verified(twin, twin.report(DAY_S + 9 * 86_400))
    clockless = verified(twin, twin.report(0, clock=0))
    assert _put(store, [near, far, clockless, items[3]]) == Ingested(duplicates=1, forks=3)
    assert _rows(store) == (360, 0)


def test_late_reports_and_late_clocks_change_days_that_are_in_files(
    tmp_path: Path, board: TestBoard
) -> None:
    store = Store(tmp_path)
    # All by a clock that was an hour slow, but for one that comes last and is by a time server.
    raws = board.series(DAY_S - 3600, 300, clock=1)
    board.seq += 100
    good = verified(board, board.report(DAY_S + 400 * 60 + 60))
    items = [verified(board, raw) for raw in raws]
    late = items.pop(100)
    down = items.pop(200)
    _put(store, items, pack=1)
    _put(store, [late])
    assert verify(tmp_path).differences == ()
    _put(store, [good])
    assert verify(tmp_path).differences == ()
    with store.reading() as connection:
        ((start_s,),) = connection.execute("SELECT min(start_s) FROM interval").fetchall()
    assert start_s == DAY_S
    _put(store, [down], pack=1)
    assert verify(tmp_path).differences == ()
    assert _rows(store) == (301, 0)


def test_an_older_database_put_back_costs_no_day_file(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    with store.writing():
        pass
    older = store.path.read_bytes()
    _put(store, _days(board, 2), pack=2)
    newer, files = store.path.read_bytes(), _files(store)
    store.path.write_bytes(older)
    told: list[str] = []
    with store.writing(told.append):
        pass
    said = "are of another netzpuls.duckdb: they stay there and do not count"
    assert told == [f"4 day files in {store.folder} {said}"]
    assert _files(store) == files == {"report": 2, "sealed": 2}
    store.path.write_bytes(newer)
    assert _rows(store) == (240, 0)
    assert verify(tmp_path).differences == ()


def test_files_of_other_people_stay_where_they_are(tmp_path: Path, board: TestBoard) -> None:
    elsewhere, store = tmp_path / "elsewhere", Store(tmp_path)
    (elsewhere / "papers").mkdir(parents=True)
    (elsewhere / "papers" / "thesis.txt").write_text("years of work")
    store.folder.mkdir()
    (store.folder / "report").symlink_to(elsewhere)
    (store.folder / "sealed" / "2025-11-22" / "notes").mkdir(parents=True)
    _put(store, _days(board, 2), pack=2)
    with store.writing() as open_store:
        open_store.expire(raw_before_s=DAY_S + 86_400, sealed_before_s=DAY_S + 86_400)
    assert _files(store) == {"report": 1, "sealed": 1}
    assert (elsewhere / "papers" / "thesis.txt").read_text() == "years of work"
    assert (store.folder / "sealed" / "2025-11-22" / "notes").is_dir()


def test_many_reports_of_a_day_are_written_once(
    tmp_path: Path, board: TestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "LEAST_DIRECT", 100)
    store = Store(tmp_path)
    items = _days(board, 3)
    clockless = TestBoard("np-240ac4000011", board.site, board.room)
    lost = [verified(clockless, clockless.report(0, clock=0)) for _ in range(150)]
    late = items.pop(50)
    random.Random(1).shuffle(items)
    with store.writing() as open_store:
        assert ingest(open_store, CURSOR, [*items, *lost]).new == 509
        assert _files(store) == {"report": 3, "sealed": 3}
        assert _rows(store) == (509, 150)
        assert ingest(open_store, CURSOR, [*items, late]) == Ingested(1, 359)
        twin = TestBoard(board.id, board.site, board.room, key=board.key, seq=130)
        fork = verified(twin, twin.report(DAY_S + 86_400 + 11 * 60))
        assert ingest(open_store, CURSOR, [fork]) == Ingested(forks=1)
    assert _rows(store) == (510, 151)
    with store.reading() as connection:
        for kind in ("report", "sealed"):
            for path in (store.folder / kind).glob("*/*.parquet"):
                rows = connection.read_parquet(str(path))
                keys = rows.project("device, key_id, seq").fetchall()
                assert keys == sorted(keys)
                assert len(keys) in (119, 120)
        ((gateways, bssids),) = connection.execute(
            "SELECT count(DISTINCT gateway), count(DISTINCT bssid) FROM report"
        ).fetchall()
    assert (gateways, bssids) == (1, 0)  # these boards name none
    assert verify(tmp_path).differences == ()


def test_a_full_disk_while_many_come_changes_nothing(
    tmp_path: Path, board: TestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "LEAST_DIRECT", 100)
    store = Store(tmp_path)
    items = _days(board, 2, hours=12)
    with store.writing() as open_store:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        try:
            with pytest.raises(StoreError):
                ingest(open_store, CURSOR, items)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _rows(store) == (0, 0)
    with store.writing():
        pass
    assert _files(store) == {"report": 0, "sealed": 0}
    assert _put(store, items).new == 1440
    assert verify(tmp_path).differences == ()


def test_many_files_of_a_day_become_one(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    items = _days(board, 2)
    random.Random(1).shuffle(items)
    for at in range(0, 240, 40):
        _put(store, items[at : at + 40], pack=2)
        assert _files(store)["report"] <= 2 * part.MOST_PARTS
        assert _files(store)["report"] == _files(store)["sealed"]
    assert _rows(store) == (240, 0)
    with store.reading() as connection:
        assert gaps(connection) == []
        ((distinct, sealed),) = connection.execute(
            "SELECT (SELECT count(DISTINCT seq) FROM report), (SELECT count(*) FROM sealed)"
        ).fetchall()
    assert (distinct, sealed) == (240, 240)
    assert verify(tmp_path).differences == ()


def test_a_collection_packs_days_that_are_over(
    tmp_path: Path, board: TestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LEAST_PACKED", 100)
    store = Store(tmp_path)
    today = [verified(board, raw) for raw in board.series(int(time.time()) - 600, 9)]
    _put(store, _days(board, 1)[:90])
    assert _rows(store) == (90, 90)
    _put(store, [*_days(board, 1), *today])
    assert _rows(store) == (219, 9)
    monkeypatch.setattr(writer, "_MOST_RECENT", 200)
    other = TestBoard("np-240ac4000011", board.site, board.room)
    items = [verified(other, raw) for raw in other.series(int(time.time()) - 80_000, 300)]
    with store.writing() as open_store:
        ingest(open_store, CURSOR, items)
        assert _rows(store)[1] == 0


def test_what_is_no_longer_kept_stays_in_the_ledger(tmp_path: Path) -> None:
    town = Town(tmp_path / "city")
    city = town.write()
    store = Store(city.folder)
    board = town.boards[0]
    items = _days(board, 6)
    late = items.pop(60)
    _put(store, items, pack=6)
    before = uptime.find(city, WEEK).document()
    with store.writing() as open_store:
        assert open_store.expire(sealed_before_s=DAY_S + 3 * 86_400) == 3
    assert _rows(store)[0] == 719
    found = report.outages(city, WEEK, now_s=WEEK.end_s, with_evidence=True).found
    assert [each.evidence is None for each in found if each.outage.kind == "board"] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    with store.writing() as open_store:
        assert open_store.expire(raw_before_s=DAY_S + 2 * 86_400 + 5) == 2
        assert ingest(open_store, CURSOR, items[:9]) == Ingested(duplicates=9)
    assert _rows(store)[0] == 480
    assert uptime.find(city, WEEK).document() == before
    # What comes for those days now cannot be held against its neighbours.
    _put(store, [late])
    assert uptime.find(city, WEEK).document() == before
    answer = verify(city.folder)
    assert answer.differences == ()
    assert answer.document()["expired_before_s"] == DAY_S + 2 * 86_400
    with store.writing() as open_store:
        open_store.expire(interval_before_s=DAY_S + 86_400)
    assert uptime.find(city, WEEK).document() != before


def test_reports_in_no_day_file_are_let_go_as_well(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    clockless = TestBoard("np-240ac4000011", board.site, board.room)
    items = _days(board, 4)
    for number in range(4):
        raw = clockless.report(0, clock=0)
        items.append(verified(clockless, raw, received_s=DAY_S + 86_400 * number))
    _put(store, items)
    with store.writing() as open_store:
        open_store.expire(raw_before_s=DAY_S + 86_400 + 9, sealed_before_s=DAY_S + 3 * 86_400)
    assert _rows(store) == (363, 363)
    with store.reading() as connection:
        query = "SELECT count(*) FROM sealed"
        assert connection.execute(query).fetchall() == [(121,)]
    answer = verify(tmp_path)
    assert (answer.expired_s, answer.differences) == (DAY_S + 86_400, ())
    assert _put(store, items) == Ingested(duplicates=484)
    assert _rows(store) == (363, 363)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("raw_months = 6\nsealed_months = 7", "sealed_months is more than raw_months"),
        ("raw_months = 25\ninterval_years = 2", "interval_years is less than raw_months"),
        ("sealed_months = 0", "greater than or equal to 1"),
    ],
)
def test_a_retention_that_contradicts_itself_is_refused(
    tmp_path: Path, lines: str, fault: str
) -> None:
    town = Town(tmp_path / "city")
    town.write()
    path = town.folder / "inventory.toml"
    written = path.read_text()
    path.write_text(f"{written}\n[store]\nraw_months = 6\n")
    assert inventory.load(town.folder).retention.sealed_s == 6 * 31 * 86_400
    path.write_text(f"{written}\n[store]\n{lines}\n")
    with pytest.raises(ConfigurationError, match=fault):
        inventory.load(town.folder)


_STORE = """
import random, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from fleet.store import Cursor, Store, part
from tests.fleet.town import DAY_S, TestBoard, ingest, verified
chance = random.Random({seed})
part.LEAST_DIRECT = {direct}
with Store(Path({city!r})).writing() as writer:
    row = writer.cursors().get("gw-1", Cursor("database", 0)).row
    board = TestBoard("np-240ac4000010", "goethe-schule", "101", seq=row, key=bytes(32))
    while True:
        items = [verified(board, raw) for raw in board.series(DAY_S + 3600 * row, 24)]
        chance.shuffle(items)
        row += 24
        ingest(writer, Cursor("database", row), items)
        print(row, flush=True)
        writer.pack(least=1, before_s=DAY_S + 3600 * (row - 100))
"""


def test_a_writer_killed_anywhere_leaves_all_that_it_acknowledged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(5):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _STORE.format(
                    root=ROOT, city=str(tmp_path), seed=seed, direct=(20, 50_000)[seed % 2]
                ),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        chance = random.Random(seed)
        told = int([process.stdout.readline() for _ in range(chance.randint(1, 9))][-1])
        time.sleep(chance.random() / 10)
        process.kill()
        process.communicate()
        count, _ = _rows(store)
        assert count >= told
        with store.writing() as open_store:
            assert open_store.cursors()["gw-1"].row == count
        answer = verify(tmp_path)
        assert (answer.reports, answer.differences) == (count, ())
        with store.reading() as connection:
            named = connection.execute("SELECT path FROM part").fetchall()
        there = [
            str(path.relative_to(store.folder))
            for kind in ("report", "sealed")
            for path in (store.folder / kind).glob("*/*")
        ]
        assert sorted(path for (path,) in named) == sorted(there)


def test_a_full_disk_while_packing_changes_nothing(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    with store.writing() as open_store:
        ingest(open_store, CURSOR, _days(board, 3, hours=12))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        try:
            with pytest.raises(StoreError) as caught:
                open_store.pack(least=1, before_s=DAY_S + 3 * 86_400)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "free space" in caught.value.hint
    assert _rows(store) == (2160, 2160)
    with store.writing() as open_store:
        assert _files(store) == {"report": 0, "sealed": 0}
        assert open_store.pack(least=1, before_s=DAY_S + 3 * 86_400) == 2160
    assert _rows(store) == (2160, 0)
    assert verify(tmp_path).differences == ()


def test_a_store_that_cannot_be_tidied_costs_no_collection(tmp_path: Path) -> None:
    town = Town(tmp_path / "city")
    town.gateway("gw-1", ssh_port=1)
    town.write()
    path = town.folder / "inventory.toml"
    path.write_text(f"{path.read_text()}\n[store]\nraw_months = 1\n")
    city = inventory.load(town.folder)
    store = Store(city.folder)
    _put(store, _days(town.boards[0], 1), pack=1)
    day_file = next((store.folder / "report").glob("*/*.parquet"))
    day_file.unlink()
    (day_file / "other").mkdir(parents=True)
    for _ in range(2):
        told: list[str] = []
        (found,) = collect.collect(city, tell=told.append)
        assert found.error is not None
        assert found.error.code != "store"
        assert any("the store was not tidied: " in each for each in told)


def test_days_that_cannot_be_packed_stay_and_are_told(
    tmp_path: Path, board: TestBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LEAST_PACKED", 100)
    store = Store(tmp_path)
    store.folder.mkdir()
    (store.folder / "report").touch()
    told: list[str] = []
    with store.writing(told.append) as open_store:
        ingest(open_store, CURSOR, _days(board, 1))
    assert ["the store was not tidied: " in each for each in told] == [True]
    assert _rows(store) == (120, 120)


def test_a_missing_day_file_is_said(tmp_path: Path, board: TestBoard) -> None:
    store = Store(tmp_path)
    _put(store, _days(board, 2), pack=2)
    next((store.folder / "report").glob("*/*.parquet")).unlink()
    with pytest.raises(StoreError, match=r"No files found|parquet"):
        _rows(store)


def _two_clocks(board: TestBoard) -> tuple[list[Verified], list[Verified]]:
    """Return a boot: its first day by a time server, others, later, by a clock that is slow."""
    first = board.series(DAY_S, 120)
    rest = []
    for day in (5, 6, 7):
        start_s = DAY_S + 86_400 * day
        for number in range(1, 121):
            board.seq = 1440 * day + number - 1
            # What it says is an hour slow; its monotonic clock is not.
            rest.append(board.report(start_s + 60 * number - 3600, clock=table.CLOCK_ACK))
    return [verified(board, raw) for raw in first], [verified(board, raw) for raw in rest]


def test_when_the_best_clock_of_a_boot_is_gone_its_times_stay(
    tmp_path: Path, board: TestBoard
) -> None:
    store = Store(tmp_path)
    first, rest = _two_clocks(board)
    late = [rest.pop(200) for _ in range(3)]
    _put(store, [*first, *rest])
    assert verify(tmp_path).differences == ()
    with store.writing() as open_store:
        open_store.expire(raw_before_s=DAY_S + 86_400)
    with store.reading() as connection:
        before = connection.execute("FROM interval ORDER BY ALL").fetchall()
    answer = verify(tmp_path)
    assert (answer.reports, answer.differences) == (357, ())
    # What comes late is timed as its neighbours are.
    _put(store, late)
    assert verify(tmp_path).differences == ()
    with store.reading() as connection:
        after = connection.execute("FROM interval ORDER BY ALL").fetchall()
    assert after[0] == before[0]
    assert after[-1] == before[-1]


def test_a_better_clock_moves_what_an_expired_one_had_timed(
    tmp_path: Path, board: TestBoard
) -> None:
    store = Store(tmp_path)
    kept = [verified(board, raw) for raw in board.series(DAY_S, 60, clock=table.CLOCK_ACK)]
    rest = []
    for day in (4, 5):
        for number in range(1, 61):
            board.seq = 1440 * day + number - 1
            at_s = DAY_S + 86_400 * day + 60 * number
            rest.append(verified(board, board.report(at_s - 3600, clock=table.CLOCK_KEPT)))
    _put(store, [*kept, *rest])
    with store.writing() as open_store:
        open_store.expire(raw_before_s=DAY_S + 86_400)
    assert verify(tmp_path).differences == ()
    # By the time server it began two minutes later.
    best = verified(board, board.report(DAY_S + 5 * 86_400 + 61 * 60 + 120))
    _put(store, [best])
    assert verify(tmp_path).differences == ()
    with store.reading() as connection:
        ((ends,),) = connection.execute(
            "SELECT count(*) FROM interval WHERE end_s = $1", [DAY_S + 4 * 86_400 + 3600 + 120]
        ).fetchall()
        ((old,),) = connection.execute(
            "SELECT count(*) FROM interval WHERE end_s = $1", [DAY_S + 4 * 86_400 + 3600]
        ).fetchall()
    assert (ends, old) == (1, 0)
