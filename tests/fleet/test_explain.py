"""Why a state was so: for every second the same as the slow reference, with rules and reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fleet.cli
from firmware.linkreport import table
from fleet import explain
from fleet.explain import Word
from fleet.store import schema
from tests.fleet import reference
from tests.fleet.reference import Row
from tests.fleet.test_ledger import NOW_S, ROWS
from tests.fleet.town import DAY_S, LINE_CUT, PERIOD_S, Town, fill_store, maintain


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as memory:
        memory.execute("SET threads = 1")
        memory.execute(f"CREATE TABLE report ({schema.DEFINITION}); {schema.TABLES}")
        yield memory


def _words(
    connection: duckdb.DuckDBPyConnection, rows: list[Row], device: str, seconds: range
) -> list[Word]:
    connection.execute("TRUNCATE report")
    with connection.appender("report", columns=list(Row._fields)) as appender:
        for row in rows:
            appender.append_row(*row)
    return [explain._word(connection, device, "101", second) for second in seconds]


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(ROWS, max_size=15, unique_by=lambda row: (row.device, row.key_id, row.seq)),
    device=st.sampled_from(["a1", "a2"]),
)
def test_the_report_that_holds_is_the_references(
    connection: duckdb.DuckDBPyConnection, *, rows: list[Row], device: str
) -> None:
    seconds = range(NOW_S, NOW_S + 20)
    held = reference.holding(device, rows, seconds.start, seconds.stop)
    for word, row in zip(_words(connection, rows, device, seconds), held, strict=True):
        found = word.holds
        assert (found and (found.key_id, found.seq)) == (row and (row.key_id, row.seq))
        assert word.rules()
        line, _, _ = reference._line([row])
        expected = {table.UP: "reaches", table.DOWN: "misses", table.UNKNOWN: "none"}[line]
        assert word.evidence == expected
        if found:
            assert found.at_s - found.covered_s <= word.moment_s < found.at_s
            assert row is not None
            assert found.at_s == reference.time_of(row, rows)
        else:
            assert word.state == table.UNKNOWN


def _row(seq: int, time_s: int, **values: int) -> Row:
    row = Row(
        "a1", 1, seq, 1, 60, 6000 * seq, time_s, table.CLOCK_NTP,
        table.UP, 0, table.OK, table.OK, table.OK,
    )  # fmt: skip
    return row._replace(**values)


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ([], "2: no report of it is there"),
        ([_row(1, NOW_S)], "2: it is after the last report, 1"),
        ([_row(1, NOW_S + 61)], "2: it is before the first report"),
        ([_row(1, NOW_S + 60)], "1: report 1 is the first: it tells of one period, 60 s"),
        ([_row(1, NOW_S - 90), _row(2, NOW_S + 60)], "1: report 2 tells of the 150 s since report"),
        (
            [_row(1, NOW_S - 91), _row(2, NOW_S + 60)],
            "1: report 2 is the first after 0:02:31, more than 2.5 periods: it tells of one",
        ),
        ([_row(1, NOW_S - 91), _row(2, NOW_S + 61)], "2: no report covers it: between 1 and 2"),
        ([_row(1, NOW_S + 9), _row(2, NOW_S + 9)], "3: of the reports with its time it has the"),
        ([_row(1, 0, clock=0), _row(2, NOW_S + 90)], "4: its board knew no time then; boot 1"),
        (
            [_row(1, NOW_S - 570, clock=table.CLOCK_KEPT), _row(2, NOW_S + 90)],
            "4: its own clock was -600 s off a better one of boot 1",
        ),
        ([_row(1, NOW_S + 9, state=4)], "2: its state is none that a board may claim"),
    ],
)
def test_every_rule_is_named(
    connection: duckdb.DuckDBPyConnection, rows: list[Row], rule: str
) -> None:
    (word,) = _words(connection, rows, "a1", range(NOW_S, NOW_S + 1))
    assert any(each.startswith(rule) for each in word.rules()), word.rules()


MOMENT = "2025-11-22T01:14:30"
MOMENT_S = DAY_S + 14 * 60 + 30


@pytest.fixture
def town(tmp_path: Path) -> Town:
    town = Town(tmp_path / "city", ["goethe-schule", "hotspot"])
    city = town.write()
    first, second, third, _ = town.boards
    fill_store(
        city,
        [
            (first, [*first.series(DAY_S, 10), *first.series(DAY_S + 600, 10, **LINE_CUT)]),
            (second, second.series(DAY_S + 600, 10, **LINE_CUT)),
            (third, third.series(DAY_S, 20)),
        ],
    )
    return town


def _run(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", "uptime", "--city", str(town.folder), *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


def _explained(capsys: pytest.CaptureFixture[str], town: Town, what: str) -> dict[str, Any]:
    code, out, _ = _run(capsys, town, "--explain", what, MOMENT, "--json")
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    return document


def test_a_line_is_explained_by_each_boards_word(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third, _ = town.boards
    line = _explained(capsys, town, "line/goethe-schule")
    assert (line["state"], line["layer"], line["calendar"]) == ("down", "internet", "24/7")
    assert line["rule"].startswith(f"6: the line is down: {first.id}, {second.id} found")
    word = line["boards"][0]
    assert (word["board"], word["line_evidence"]) == (first.id, "misses")
    assert word["rules"] == ["1: report 15 tells of the 60 s since report 14"]
    assert (
        word["report"] | {"number": 15, "gateway": "gw-1", "clock": "time server"}
        == (word["report"])
    )
    assert word["report"]["reported_time"] == "2025-11-22T01:15:00+01:00"
    assert word["report"]["received"] == "2025-11-22T01:00:00+01:00"
    assert word["before"]["number"] == 14
    hotspot = _explained(capsys, town, "hotspot")
    assert hotspot["state"] == "up"
    assert hotspot["rule"] == f"6: the line is up, because {third.id} reached the internet"
    assert [each["state"] for each in hotspot["boards"]] == ["up", "unknown"]
    city = _explained(capsys, town, "city")
    assert (city["state"], city["lines"]) == (None, {"goethe-schule": "down", "hotspot": "up"})
    code, out, _ = _run(capsys, town, "--explain", "goethe-schule/102", MOMENT)
    assert code == 0
    assert out.startswith("room/goethe-schule/102 at 2025-11-22 01:14:30, Europe/Berlin: down, int")
    assert "  report 5 (key 1, boot 1) made 2025-11-22 01:15:00: down, internet: connect-" in out


def test_what_does_not_count_is_explained_by_whom_and_why(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    town.calendars["market"] = {"kind": "opening", "hours": {"weekdays": ["08:00-18:00"]}}
    city = town.write()
    maintain(city, "gateway", "gw-1", MOMENT_S, MOMENT_S + PERIOD_S)
    line = _explained(capsys, town, "line/goethe-schule")
    assert (line["state"], line["outside_calendar"]) == ("excluded", "")
    assert [each["entered_by"] for each in line["maintenance"]] == ["Erika Muster"]
    assert line["boards"][0]["state"] == "down"
    place = ("--explain", "line/goethe-schule", MOMENT, "--calendar", "market")
    code, out, _ = _run(capsys, town, *place)
    assert code == 0
    assert "5: it does not count, by calendar market: outside the hours of that day\n" in out
    assert "  a new switch (Erika Muster, 23 Nov 2025, afterwards)\n" in out
    assert "without that:\n6: the line is down" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--explain", "nope", MOMENT), "no 'nope'"),
        (("--explain", "city", "tomorrow"), "is no date or time"),
        (("--explain", "city", "2125-01-01"), "in the future"),
        (("--explain", "city"), "--explain"),
        (("--explain", "city", MOMENT, "--month", "2025-11"), "says what and when itself"),
    ],
)
def test_a_question_that_makes_no_sense(
    town: Town, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = _run(capsys, town, *arguments)
    assert (code, out) == (2, "")
    assert said in err
