"""Access points: what is kept of them is what all reports say, and the slow reference, too."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.linkreport import block, table
from firmware.linkreport import report as wire
from fleet import cli, exchange, point, report, uptime
from fleet import explain as explanation
from fleet.errors import ConfigurationError
from fleet.inventory import Inventory
from fleet.ledger import Ledger, misheard
from fleet.period import Period
from fleet.point import Point
from fleet.stint import Stint, Window
from fleet.store import schema
from fleet.store.air import heard
from tests.fleet import reference
from tests.fleet.reference import Row
from tests.fleet.test_increment import ALWAYS, _add, _clear, _pack
from tests.fleet.test_ledger import _seconds
from tests.fleet.town import TestBoard, Town, fill_store, layers, maintain

DAY_S = 86_400
NOW_S = 20_414 * DAY_S  # 2025-11-22
A1, A2, OTHER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 9))
POINTS = [
    Point("access-point/a", "school-a", (int.from_bytes(A1), int.from_bytes(A2))),
    Point("access-point/b", "school-b", (int.from_bytes(OTHER),)),
]
STINTS = [
    Stint("a1", "a1", "school-a"),
    Stint("a2", "a2", "school-a"),
    Stint("b1/0", "b1", "school-b", 0, NOW_S + 10),
    Stint("b1", "b1", "school-a", NOW_S + 10),
]
LISTS = st.lists(st.sampled_from([A1, A2, OTHER]), unique=True, max_size=2).map(sorted)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as memory:
        memory.execute("SET threads = 1")
        memory.execute(schema.SCHEMA)
        yield memory


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    """Boards that report around midnight on some days, with scans and without."""
    rows = []
    for device in ("a1", "a2", "b1"):
        seq = 0
        most = draw(st.sampled_from([3, 3, 10]))
        days = draw(st.lists(st.integers(-11, -1), unique=True, max_size=most).map(sorted))
        for day in (*days, 0):
            at_s = NOW_S + day * DAY_S + draw(st.integers(-20, 20))
            clock = draw(st.sampled_from([3, 3, 3, 1, 0]))
            for _ in range(draw(st.integers(0, 8))):
                seq += 1
                at_s += draw(st.sampled_from([0, 2, 2, 2, 5, 7]))
                scanned = draw(st.sampled_from([None, True, True, True, False]))
                well, weakly = draw(st.tuples(LISTS, LISTS))
                rows.append(
                    Row(
                        device, 1, seq, 12 + day, 2, at_s * 100 % (1 << 32),
                        at_s + draw(st.sampled_from([0, 0, 0, 0, 9])) if clock else 0,
                        clock, 1, 0, 1, 1, 1, scanned,
                        None if scanned is None else b"".join(well),
                        None if scanned is None else b"".join(weakly),
                    )
                )  # fmt: skip
    return rows


WINDOWS = st.builds(
    Window,
    subject=st.sampled_from(["a1", "b1", "school-a", "access-point/a", "nobody"]),
    start_s=st.integers(NOW_S - 20, NOW_S + 20),
    end_s=st.integers(NOW_S - 20, NOW_S + 20),
)


@settings(max_examples=12, deadline=None)
@given(
    rows=_rows(),
    windows=st.lists(WINDOWS, max_size=2),
    pieces=st.integers(1, 4),
    shuffled=st.booleans(),
    packed=st.booleans(),
    look_back_days=st.sampled_from([0, 8, 14]),
    seed=st.integers(0, 1 << 16),
)
def test_any_pieces_in_any_order_give_what_all_reports_say(
    connection: duckdb.DuckDBPyConnection,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    rows: list[Row],
    windows: list[Window],
    pieces: int,
    shuffled: bool,
    packed: bool,
    look_back_days: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    _clear(connection)
    chance = random.Random(seed)
    given = list(rows)
    if shuffled:
        chance.shuffle(given)
    cuts = sorted(chance.randint(0, len(given)) for _ in range(pieces - 1))
    here: list[Row] = []
    for start, end in zip([0, *cuts], [*cuts, len(given)], strict=True):
        piece = given[start:end]
        _add(connection, [*piece, *chance.sample(here, min(2, len(here)))], folder)
        here += piece
        if packed:
            _pack(connection, folder, NOW_S - chance.randint(0, 5) * DAY_S)
        assert misheard(connection, ALWAYS) == []
    period = Period(NOW_S - 25, NOW_S + 25)
    truth = reference.points(rows, STINTS, POINTS, period, windows)
    for recompute in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(point, "LOOK_BACK_DAYS", look_back_days)
            ledger = Ledger(connection, period, STINTS, windows, POINTS, recompute=recompute)
        assert _seconds(ledger, "access-point") == truth
    for states in ledger.seconds("access-point").values():
        assert sum(states) == period.length_s


BEACON = "02:00:00:00:00:01"
MIDDAY_S = NOW_S + DAY_S // 2


def _own(*entries: tuple[bytes, int], air: int | None = None) -> bytes:
    """Return the blocks of a scan: BSSIDs with dBm, and how many there were in all."""
    content = b"".join(b + dbm.to_bytes(1, signed=True) + b"\6\1" for b, dbm in entries)
    told = bytes(wire.extension(block.OWN, content)) if entries else b""
    if air is not None:
        told += bytes(wire.extension(block.AIR, bytes([air, 0, 0, 0x80]) + bytes(7)))
    return told


def _report(extensions: bytes, **values: object) -> wire.Report:
    board = TestBoard("np-240ac4000010", "a", "101")
    return wire.unpack(board.report(NOW_S, extensions=extensions, **values))


@pytest.mark.parametrize(
    ("extensions", "values", "said"),
    [
        (b"", {}, (None, None, None)),
        (_own(air=0), {}, (True, b"", b"")),
        (_own((A2, -80), (A1, -79), (OTHER, -81), air=3), {}, (True, A1 + A2, OTHER)),
        (_own((A1, -60), air=2), {}, (False, A1, b"")),
        (_own((A1, -60)), {}, (True, A1, b"")),
        (_own(*[(bytes([2, 0, 0, 0, 1, n]), -60) for n in range(10)])[:92], {}, None),
        # The one that it is on is there, whatever the scan says.
        (_own(air=0), {"bssid": A1, "rssi_dbm": -60}, (True, A1, b"")),
        (_own((A1, -85), air=1), {"bssid": A1, "rssi_dbm": -60}, (True, A1, b"")),
        (
            _own(air=0),
            {"bssid": A1, "rssi_dbm": -60, "layer_reasons": layers(association=21)},
            (True, b"", b""),
        ),
        # Damaged or hostile blocks.
        (_own((bytes(6), -60), air=1), {}, (True, b"", b"")),
        (b"\x04\x05aaaaa", {}, (None, None, None)),
    ],
)
def test_what_a_report_says_of_the_air(
    extensions: bytes, values: dict[str, object], said: tuple[object, ...] | None
) -> None:
    found = heard(_report(extensions, **values))
    if said is None:  # a full list without a count may not be whole
        assert found[0] is False
        assert len(found[1] or b"") == 60
    else:
        assert found == said


@pytest.fixture
def town(tmp_path: Path) -> Town:
    found = Town(tmp_path / "city", ["a", "b"])
    found.points["aula"] = {"site": "a", "room": "101", "bssids": [BEACON]}
    return found


NO_NETWORK = {
    "state": table.DOWN,
    "layer": table.RADIO,
    "reason": table.NETWORK_NOT_FOUND,
    "layer_reasons": layers(radio=table.NETWORK_NOT_FOUND, association=0, gateway=0, internet=0),
}


def _fill(town: Town) -> Inventory:
    """One hour at site a: the first board is on the access point, the second one hears it.

    From minute 20 to 30 it is off, and the first board without a WLAN.
    """
    city = town.write()
    first, second = town.boards[:2]
    on = {"bssid": A1, "rssi_dbm": -60, "extensions": _own((A1, -60), air=1)}
    hears = {"extensions": _own((A1, -70), air=1)}
    off = {"extensions": _own(air=0)}
    fill_store(
        city,
        [
            (board, [
                *board.series(MIDDAY_S, 20, **well),
                *board.series(MIDDAY_S + 1200, 10, **gone),
                *board.series(MIDDAY_S + 1800, 30, **well),
            ])
            for board, well, gone in ((first, on, NO_NETWORK | off), (second, hears, off))
        ],
    )  # fmt: skip
    return city


HOUR = Period(MIDDAY_S, MIDDAY_S + 3600)


def test_one_access_point_is_the_cause_and_its_rooms_are_effects(town: Town) -> None:
    city = _fill(town)
    (site, _) = uptime.find(city, HOUR).sites
    (point,) = site.points
    assert point.tally.seconds == (0, 3000, 0, 600, 0)
    answer = report.outages(city, HOUR, now_s=HOUR.end_s, with_evidence=True)
    (cause,) = answer.causes
    assert (cause.kind, cause.name, cause.points) == ("access-point", "aula", ("aula",))
    assert (cause.start_s, cause.end_s) == (MIDDAY_S + 1200, MIDDAY_S + 1800)
    document = answer.document()
    assert document["causes"][0]["rooms"] == [{"site": "a", "room": "101"}]
    assert document["causes"][0]["name"] == "A, access point aula"
    first, second = document["outages"]
    assert (first["kind"], first["access_point"], first["effect"]) == (
        "access-point",
        "aula",
        False,
    )
    assert first["boards"] == [board.id for board in town.boards[:2]]
    assert first["evidence"]["blocks"]["air"]["own_access_points"] == 0
    assert (second["kind"], second["effect"]) == ("board", True)
    assert document["access_points"] == {
        "outages": 1, "longest_s": 600, "mttr_s": 600, "mtbf_s": 3000,
    }  # fmt: skip


def test_access_points_that_fall_silent_together_share_their_site(town: Town) -> None:
    town.points["hof"] = {"site": "a", "bssids": ["02:00:00:00:00:02"]}
    city = town.write()
    (board, other) = town.boards[:2]
    both = {"extensions": _own((A1, -60), (A2, -70), air=2)}
    fill_store(
        city,
        [
            (board, [*board.series(MIDDAY_S, 20, **both),
                     *board.series(MIDDAY_S + 1200, 5, extensions=_own(air=0)),
                     *board.series(MIDDAY_S + 1500, 35, **both)]),
            (other, other.series(MIDDAY_S, 60)),
        ],
    )  # fmt: skip
    (cause,) = report.outages(city, HOUR, now_s=HOUR.end_s).causes
    assert (cause.kind, cause.name, cause.points) == ("site", "a", ("aula", "hof"))


def test_maintenance_of_access_points_sites_and_monitors(town: Town) -> None:
    city = _fill(town)
    maintain(city, "access-point", "aula", MIDDAY_S + 1200, MIDDAY_S + 1500)
    found = uptime.find(city, HOUR, city.subject("access-point/aula"))
    (row,) = found.rows()
    assert row.tally.seconds == (0, 3000, 0, 300, 300)
    assert (row.tally.maintenance_s, str(row.subject)) == (300, "access-point/aula")
    maintain(city, "site", "a", MIDDAY_S + 1200, MIDDAY_S + 1560)
    (row,) = uptime.find(city, HOUR, city.subject("aula")).rows()
    assert (row.tally.maintenance_s, row.tally.seconds[table.DOWN]) == (360, 240)
    for board in town.boards[:2]:  # without monitors nobody knows
        maintain(city, "board", board.id, MIDDAY_S + 1560, MIDDAY_S + 1620)
    (row,) = uptime.find(city, HOUR, city.subject("aula")).rows()
    assert row.tally.seconds == (60, 3000, 0, 180, 360)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"site": "x", "bssids": [BEACON]}, r"access_point.hof.site: there is no \[site.x\]"),
        ({"site": "a", "room": "9", "bssids": [BEACON]}, "site 'a' has no room '9'"),
        ({"site": "b", "bssids": [BEACON]}, "is access_point.aula's already"),
        ({"site": "a", "bssids": []}, "bssids"),
        ({"site": "a", "bssids": ["02:00"]}, "bssids"),
    ],
)
def test_access_points_that_cannot_be_are_refused(
    town: Town, entry: dict[str, object], fault: str
) -> None:
    town.points["hof"] = entry
    with pytest.raises(ConfigurationError, match=fault) as caught:
        town.write()
    assert "access_point.hof" in caught.value.message


def test_boards_must_take_an_access_point_for_their_own(town: Town) -> None:
    town.sites["a"]["bssids"] = {"school": [BEACON]}
    town.write()
    town.points["hof"] = {"site": "a", "bssids": ["02:00:00:00:00:02"]}
    with pytest.raises(ConfigurationError, match="boards of a do not tell of 02:00:00:00:00:02"):
        town.write()


def _explained(city: Inventory, minute: int) -> explanation.Explanation:
    return explanation.explain(city, city.subject("aula"), MIDDAY_S + 60 * minute)


def test_why_an_access_point_was_up_or_down(
    town: Town, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    city = _fill(town)
    first, second = (board.id for board in town.boards[:2])
    found = _explained(city, 10)
    assert (found.state, found.rule) == (
        table.UP, f"9: the access point is up, because {first}, {second} heard it",
    )  # fmt: skip
    found = _explained(city, 25)
    assert (found.state, found.reason) == (table.DOWN, table.ACCESS_POINT_MISSING)
    assert "scanned and normally would have heard it, and none did" in found.rule
    assert found.words[0].hearing == explanation.Hearing(None, True, 3000, 3000, True)
    assert _explained(city, 70).rule.startswith("9: nobody knows")
    monkeypatch.setenv("NETZPULS_CITY", str(city.folder))
    with pytest.raises(SystemExit) as exited:
        cli.main(["fleet", "uptime", "--explain", "aula", _moment(25)])
    assert exited.value.code == 0
    told = capsys.readouterr().out
    assert "access-point/aula at" in told
    assert "on the last days on which it did, it heard it well for 0:50:00 of 0:50:00" in told


def _moment(minute: int) -> str:
    """Return a minute of the hour as people write it."""
    return datetime.fromtimestamp(MIDDAY_S + 60 * minute, UTC).isoformat()


def test_it_stands_in_tables_and_files(
    town: Town, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    town.slas = [{"subject": "access-point/aula", "availability_percent": 99}]
    city = _fill(town)
    place = ("--city", str(city.folder), "--from", _moment(0), "--to", _moment(60))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exited:
            cli.main(["fleet", *arguments, *place])
        assert exited.value.code == 0
        return capsys.readouterr().out

    lines = [" ".join(each.split()) for each in run("uptime", "--site", "a").splitlines()]
    assert lines[3].startswith("access point aula, 101 83.333 % 100.0 % 0:50:00 – 0:10:00 –")
    assert lines[3].endswith("1 99 %: missed")
    (row,) = csv.DictReader(io.StringIO(run("uptime", "--subject", "aula", "--csv")))
    assert (row["kind"], row["id"], row["room"], row["down_s"]) == (
        "access-point", "aula", "101", "600",
    )  # fmt: skip
    lines = [
        " ".join(each.split()) for each in run("outages", "--effects", "--figures").splitlines()
    ]
    assert lines[2].startswith("A, access point aula 22 Nov")
    assert "access points 1 0:10:00 0:10:00 0:50:00" in lines
    assert "access-point/aula 1 0:10:00 0:10:00 0:50:00" in lines
    assert "city 0 – – –" in lines
    document = json.loads(run("uptime", "--json"))
    assert document["sites"][0]["access_points"][0]["seconds"]["down"] == 600
    # There and back: what was heard is in the files, too.
    for suffix in exchange.FORMATS:
        path = tmp_path / f"reports{suffix}"
        exchange.give(city.folder, path)
        other = Town(tmp_path / suffix[1:], ["a", "b"])
        other.points = town.points
        there = other.write()
        assert exchange.take(there.folder, [path], tmp_path / "rejects").rejected == 0
        assert uptime.find(there, HOUR).sites == uptime.find(city, HOUR).sites
