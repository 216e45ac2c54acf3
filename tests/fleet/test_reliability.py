"""Outages by a calendar, and MTTR and MTBF of every kind of subject."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleet.cli
from firmware.linkreport import table
from fleet import outage, reliability, report, uptime
from fleet.errors import ConfigurationError, UsageError
from fleet.inventory import OWN, Inventory
from fleet.ledger import Interval
from fleet.period import Period
from tests.fleet.test_uptime import EIGHT_S, MONDAY_S, SCHOOL_DAY, TEACHING
from tests.fleet.town import LINE_CUT, PERIOD_S, Town, fill_store, layers, maintain

NO_LEASE = {
    "state": table.DOWN,
    "layer": table.ADDRESSING,
    "reason": table.NO_LEASE,
    "layer_reasons": layers(addressing=table.NO_LEASE, gateway=0, internet=0),
}


@pytest.fixture
def town(tmp_path: Path) -> Town:
    found = Town(tmp_path / "city", ["goethe-schule", "hotspot"])
    found.calendars["teaching"] = TEACHING
    found.sites["goethe-schule"] |= {"calendar": "teaching", "land": "NI"}
    found.sites["hotspot"] |= {"kind": "hotspot", "district": "nord"}
    return found


def _fill(town: Town, *cuts: tuple[int, int]) -> Inventory:
    """Let all boards report for a Monday; the school's line is cut at some minutes after eight."""
    city = town.write()
    for board in town.boards:
        raws = []
        for minute in range(24 * 60 + 1):
            at_s = SCHOOL_DAY.start_s + PERIOD_S * minute
            after = (at_s - EIGHT_S) // 60
            cut = board.site == "goethe-schule" and any(a < after <= b for a, b in cuts)
            raws.append(board.report(at_s, **(LINE_CUT if cut else {})))
        fill_store(city, [(board, raws)])
    return city


def _lines(
    city: Inventory, calendar: str | None, period: Period = SCHOOL_DAY
) -> list[tuple[int, ...]]:
    answer = report.outages(city, period, now_s=SCHOOL_DAY.end_s, calendar=calendar)
    return [
        (
            (each.start_s - EIGHT_S) // 60,
            (each.end_s - EIGHT_S) // 60,
            each.outages[0].outage.length_s // 60,
            each.times,
        )
        for each in answer.causes
        if each.kind == "line"
    ]


def test_outages_are_cut_to_the_calendar_and_last_through_its_breaks(town: Town) -> None:
    # Lessons are from 0 to 90 and from 110 to 200 minutes after eight.
    city = _fill(town, (-60, 10), (60, 120), (195, 600))
    assert _lines(city, None) == [(-60, 10, 70, 1), (60, 120, 60, 1), (195, 600, 405, 1)]
    found = [(0, 10, 10, 1), (60, 120, 40, 1), (195, 200, 5, 1)]
    assert _lines(city, OWN) == found
    # Asked from the middle of one, its begin is found by the calendar, too.
    assert _lines(city, OWN, Period(EIGHT_S + 115 * 60, SCHOOL_DAY.end_s)) == found[1:]
    answer = report.outages(city, SCHOOL_DAY, now_s=SCHOOL_DAY.end_s, calendar=OWN)
    line = uptime.find(city, SCHOOL_DAY, city.subject("line/goethe-schule")).sites[0].line
    summary = answer.summary("line", ["goethe-schule"])
    assert sum(summary.lengths_s) == line.seconds[table.DOWN]
    assert len(summary.lengths_s) == line.outages
    assert summary.working_s == line.seconds[table.UP]
    mine = [each for each in answer.figures if each.site == "goethe-schule"]
    assert {str(each.subject): len(each.summary.lengths_s) for each in mine} == {
        "line/goethe-schule": 3, "room/goethe-schule/101": 3, "room/goethe-schule/102": 3,
        f"board/{town.boards[0].id}": 3, f"board/{town.boards[1].id}": 3,
    }  # fmt: skip


def test_what_recovers_in_a_break_and_fails_again_is_one_outage(town: Town) -> None:
    city = _fill(town, (80, 95), (105, 115))
    assert _lines(city, None) == [(80, 95, 15, 1), (105, 115, 10, 1)]
    assert _lines(city, OWN) == [(80, 115, 15, 1)]
    maintain(city, "site", "goethe-schule", EIGHT_S + 84 * 60, EIGHT_S + 86 * 60)
    assert _lines(city, OWN) == [(80, 115, 13, 1)]
    assert _lines(city, None)[0] == (80, 84, 4, 1)


def test_calendars_that_are_not_there_or_cannot_be_told(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    city = _fill(town, (60, 120))
    with pytest.raises(UsageError, match="no calendar 'lessons'"):
        report.outages(city, SCHOOL_DAY, calendar="lessons")
    with pytest.raises(ConfigurationError, match="needs the Land of site hotspot"):
        report.outages(city, SCHOOL_DAY, calendar="teaching")
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(
            ["fleet", "outages", "--city", str(city.folder), "--from", "2025-11-24", "--to",
             "2025-11-24", "--calendar", "own"]
        )  # fmt: skip
    assert exited.value.code == 0
    told = capsys.readouterr().out
    assert "cut to each site's own calendar" in told
    assert "0:40:00" in told
    town.calendars["own"] = TEACHING
    with pytest.raises(ConfigurationError, match="this id means each site's own calendar"):
        town.write()


def test_a_room_works_while_one_of_its_boards_does(town: Town) -> None:
    for board in town.boards[:2]:
        board.room = "101"
    city = town.write()
    first, second = town.boards[:2]
    start_s = MONDAY_S
    fill_store(
        city,
        [
            (first, [*first.series(start_s, 10), *first.series(start_s + 600, 20, **NO_LEASE),
                     *first.series(start_s + 1800, 30)]),
            (second, [*second.series(start_s, 20), *second.series(start_s + 1200, 20, **NO_LEASE),
                      *second.series(start_s + 2400, 20)]),
        ],
    )  # fmt: skip
    answer = report.outages(city, Period(start_s, start_s + 3600), now_s=start_s + 3600)
    room = {"outages": 1, "longest_s": 600, "mttr_s": 600, "mtbf_s": 3000}
    document = answer.document()
    assert document["rooms"] == room
    assert {"subject": "room/goethe-schule/101"} | room in document["subjects"]
    assert document["boards"] == {
        "outages": 2, "longest_s": 1200, "mttr_s": 1200, "mtbf_s": 2400,
    }  # fmt: skip
    assert document["districts"][0] == {
        "district": "mitte", "outages": 0, "longest_s": None, "mttr_s": None, "mtbf_s": None,
    }  # fmt: skip


STATES = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(boards=st.lists(STATES, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_rooms_second_by_second(boards: list[list[int]], seed: int) -> None:
    chance = random.Random(seed)
    length_s = 30
    told, seconds = [], []
    for states in boards:
        cuts = sorted(chance.sample(range(1, length_s), len(states) - 1))
        edges = [0, *cuts, length_s]
        told.append(
            [
                Interval("b", a, b, s, 0, 0)
                for a, b, s in zip(edges, edges[1:], states, strict=False)
            ]
        )
        seconds.append(
            [s for a, b, s in zip(edges, edges[1:], states, strict=False) for _ in range(a, b)]
        )
    found = [each.state for each in reliability._room(told) for _ in range(each.length_s)]
    truth = []
    for here in zip(*seconds, strict=True):
        if {table.UP, table.DEGRADED} & set(here):
            truth.append(table.UP)
        elif table.DOWN in here:
            truth.append(table.DOWN)
        else:
            truth.append(table.EXCLUDED if table.EXCLUDED in here else table.UNKNOWN)
    assert found == truth
    # Through what does not count, runs are those of the rest alone.
    runs = list(outage.runs(told[0], through=True))
    down_s = sum(each.length_s for run in runs for each in run.intervals)
    assert down_s == seconds[0].count(table.DOWN)
