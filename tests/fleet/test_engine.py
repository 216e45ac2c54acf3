"""Every engine says of the same reports what DuckDB's own SQL says, row by row."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.linkreport import table
from fleet import engine, uptime
from fleet.cli import main
from fleet.engine import EngineError
from fleet.engine.expression import COLUMNS
from fleet.errors import UsageError
from fleet.inventory import Inventory
from fleet.ledger import Interval, Ledger
from fleet.period import Period
from fleet.stint import Stint, Window
from fleet.store import Cursor, Store, schema
from tests.fleet.cluster import Cluster, cluster
from tests.fleet.reference import Row, piece_of
from tests.fleet.town import DAY_S, LINE_CUT, Town, ingest, verified

# What Ibis and PySpark call is old to DuckDB and pandas.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "ResourceWarning")
]
ROOT = Path(__file__).parents[2]
BOARDS = 150
PERIOD = Period(DAY_S, DAY_S + 3600)
MONTH = Period(DAY_S, DAY_S + 30 * 86_400)
SITES = 10


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("spark")
    # As whoever runs a cluster would: so little is not worth 200 partitions.
    (folder / "spark-defaults.conf").write_text("spark.sql.shuffle.partitions 4\n")
    with pytest.MonkeyPatch.context() as patch, cluster(folder) as found:
        patch.setenv("SPARK_CONF_DIR", str(folder))
        yield found


def _rows(chance: random.Random) -> list[Row]:
    """Return boards that restart, lose and get the time, and have it set, also back."""
    rows = []
    for number in range(BOARDS):
        seq = 0
        for boot in range(chance.randint(1, 3)):
            uptime_s = chance.randint(0, 5)
            began_s = DAY_S + chance.randint(-50, 3000) + 60 * boot
            off_s, clock = 0, chance.randint(0, 4)
            for _ in range(chance.randint(0, 40)):
                seq += 1
                uptime_s += chance.choice([0, 1, 2, 2, 2, 2, 5, 7, 20])
                off_s += chance.choice([0] * 12 + [4, -4, 30, -30])
                clock = chance.choice([clock] * 6 + [0, 1, 2, 3])
                rows.append(
                    Row(
                        f"np-{number:04}", 1 + boot % 2 * chance.randint(0, 1), seq, boot,
                        chance.choice([2, 2, 2, 3, 10, 0]), uptime_s * 100,
                        began_s + uptime_s + off_s if clock else 0, clock,
                        chance.choice([1, 1, 1, 1, 2, 3, 3, 0, 7]), chance.choice([0, 0, 7, 9]),
                        chance.choice([1, 1, 74]), chance.choice([table.OK, table.GATEWAY_SILENT]),
                        chance.choice([table.OK, table.OK, table.CONNECT_TIMEOUT, 250]),
                    )
                )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with boards of every kind, in day files and in none."""
    chance = random.Random(5)
    rows = _rows(chance)
    chance.shuffle(rows)
    found = Store(tmp_path_factory.mktemp("it's a city"))
    with found.writing() as writer:
        for some in (rows[::3], rows[1::3], rows[2::3]):
            writer.take(piece_of(some))
            writer.pack(least=1, before_s=DAY_S + 1500)
    return found


Told = tuple[list[Interval], list[Interval], dict[str, list[int]]]


def _told(store: Store, period: Period, url: str | None) -> Told:
    """Return all that a ledger says, from a store's reports by its own SQL or by an engine."""
    names = [f"np-{number:04}" for number in range(BOARDS)]
    stints = [Stint(name, name, f"site-{n % SITES}") for n, name in enumerate(names[:-9])]
    windows = [Window(name, DAY_S + 600, DAY_S + 900) for name in ("site-1", names[7])]
    with store.reading() as connection:
        said = engine.ask(url, store, connection, period) if url else None
        ledger = Ledger(connection, period, stints, windows, recompute=not url, said=said)
        return ledger.intervals("board"), ledger.intervals("line"), ledger.seconds("board")


@pytest.mark.parametrize("url", ["duckdb", "chdb"])
@pytest.mark.parametrize("period", [PERIOD, Period(DAY_S + 700, DAY_S + 701), MONTH])
def test_an_engine_says_what_duckdb_says(store: Store, url: str, period: Period) -> None:
    expected = _told(store, period, None)
    assert len(expected[0]) > 100
    assert _told(store, period, url) == expected


# Starting a cluster is half a minute's work, on a busy machine several.
@pytest.mark.timeout(900)
def test_a_cluster_of_spark_says_what_duckdb_says(store: Store, spark: Cluster) -> None:
    assert _told(store, MONTH, spark.master) == _told(store, MONTH, None)
    assert list(store.folder.glob("engine-*")) == []


def _city(folder: Path) -> Inventory:
    town = Town(folder)
    city = town.write()
    store = Store(city.folder)
    with store.writing() as writer:
        for board in town.boards:
            raws = board.series(DAY_S, 90) + board.series(DAY_S + 5400, 10, **LINE_CUT)
            items = [verified(board, raw) for raw in raws]
            ingest(writer, Cursor("database", 1), items)
            writer.pack(least=1, before_s=DAY_S + 3600)
    return city


@pytest.mark.timeout(900)
def test_every_figure_of_uptime_is_the_same_by_every_engine(
    tmp_path: Path, spark: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    city = _city(tmp_path / "city")
    period = Period(DAY_S, DAY_S + 7200)
    expected = uptime.find(city, period).document()
    assert '"down": 600' in json.dumps(expected)
    for url in ("duckdb", "chdb", spark.master):
        assert uptime.find(city, period, engine_url=url).document() == expected
    asked = ["fleet", "uptime", "--city", str(city.folder), "--csv"]
    asked += ["--from", "2025-11-22T00:00:00Z", "--to", "2025-11-22T02:00:00Z"]
    printed = []
    for more in ([], ["--engine", "duckdb"]):
        with pytest.raises(SystemExit) as ended:
            main([*asked, *more])
        assert ended.value.code in (0, None)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "600" in printed[0]


def test_all_of_the_cluster_listens_on_loopback_only(spark: Cluster) -> None:
    pids = {str(process.pid) for process in spark.processes}
    listening = subprocess.run(
        ["ss", "-Hltnp"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    ours = [line for line in listening if any(f"pid={pid}," in line for pid in pids)]
    assert len(ours) >= 3
    for line in ours:
        assert line.split()[3].rpartition(":")[0] in ("127.0.0.1", "[::ffff:127.0.0.1]"), line


@pytest.mark.parametrize(
    "url", ["spark", "spark://", "spark://host", "spark://host:7077/x", "ftp://h:1", "DuckDB", ""]
)
def test_an_unknown_engine_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="there is no engine"):
        engine.check(url)


def test_a_master_that_does_not_answer_is_said(store: Store) -> None:
    with pytest.raises(EngineError, match=r"no Spark master answers at spark://127\.0\.0\.1:9: "):
        _told(store, PERIOD, "spark://127.0.0.1:9")
    with pytest.raises(EngineError, match="no Spark master answers"):
        _told(store, PERIOD, "spark://127.0.0.1:99999")
    assert list(store.folder.glob("engine-*")) == []


def test_a_package_that_is_not_there_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    city = _city(tmp_path / "city")
    code = (
        "import sys; sys.modules['ibis'] = None\n"
        "from fleet.cli import main; sys.argv[0] = 'netzpuls'; main()"
    )
    for url, extra in (("spark://127.0.0.1:7077", "spark"), ("chdb", "clickhouse")):
        done = subprocess.run(
            [sys.executable, "-c", code, "fleet", "uptime", "--city", city.folder, "--json",
             "--engine", url],
            stdout=subprocess.PIPE, text=True, check=False, env=os.environ | {"PYTHONPATH": ROOT},
        )  # fmt: skip
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["code"]) == (1, "engine")
        assert "the Python package ibis is not installed" in error["message"]
        assert f"pip install 'netzpuls[{extra}]'" in error["hint"]


def test_what_the_engine_reads_is_what_a_report_has() -> None:
    assert set(COLUMNS) <= set(schema.COLUMNS)
