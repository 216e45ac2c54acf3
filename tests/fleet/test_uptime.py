"""Uptime of any subject: by calendars, without maintenance, held against what was promised."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fleet.cli
from firmware.linkreport import table
from fleet import post, tally, uptime
from fleet.errors import ConfigurationError, UsageError
from fleet.exclusion import Exclusion
from fleet.inventory import Inventory, Sla, Subject
from fleet.ledger import Ledger
from fleet.period import Period
from fleet.post import Post
from fleet.stint import Stint
from fleet.store import Store
from fleet.tally import Tally
from tests.fleet.town import DAY_S, LINE_CUT, PERIOD_S, Town, fill_store, maintain

MONDAY_S = DAY_S + 2 * 86_400  # 2025-11-24T00:00:00Z, 01:00 in Berlin
SCHOOL_DAY = Period(MONDAY_S - 3600, MONDAY_S + 82_800)
EIGHT_S = MONDAY_S + 7 * 3600
TEACHING = {
    "kind": "teaching",
    "hours": {"weekdays": ["08:00-09:30", "09:50-11:20"]},
    "closed": [date(2025, 11, 25)],
}


@pytest.fixture
def town(tmp_path: Path) -> Town:
    found = Town(tmp_path / "city", ["goethe-schule", "hotspot"])
    found.calendars["teaching"] = TEACHING
    found.sites["goethe-schule"] |= {"calendar": "teaching", "land": "NI"}
    found.sites["hotspot"] |= {"kind": "hotspot", "district": "nord"}
    return found


def _fill(town: Town) -> Inventory:
    """Let all boards report the whole Monday; the school's line is cut from 09:00 to 10:00."""
    city = town.write()
    for board in town.boards:
        raws = []
        for minute in range(24 * 60 + 1):
            at_s = SCHOOL_DAY.start_s + PERIOD_S * minute
            cut = board.site == "goethe-schule" and EIGHT_S + 3600 < at_s <= EIGHT_S + 7200
            raws.append(board.report(at_s, **(LINE_CUT if cut else {})))
        fill_store(city, [(board, raws)])
    return city


def test_only_what_lies_within_the_calendar_counts(town: Town) -> None:
    city = _fill(town)
    answer = uptime.find(city, SCHOOL_DAY)
    goethe, hotspot = answer.sites
    # 40 of the 60 minutes of the cut line were lessons; the break between them parts no outage.
    assert goethe.line.seconds == (0, 140 * 60, 0, 40 * 60, 86_400 - 3 * 3600)
    assert (goethe.line.calendar_s, goethe.line.maintenance_s) == (86_400 - 3 * 3600, 0)
    assert goethe.line.outages == 1
    assert (goethe.calendar, hotspot.calendar) == ("teaching", "24/7")
    assert hotspot.line.seconds == (0, 86_400, 0, 0, 0)
    assert answer.lines.seconds == tuple(
        map(sum, zip(goethe.line.seconds, hotspot.line.seconds, strict=True))
    )
    around = uptime.find(city, SCHOOL_DAY, calendar="24/7").sites[0]
    assert around.line.seconds == (0, 82_800, 0, 3600, 0)
    with pytest.raises(ConfigurationError, match="needs the Land of site hotspot"):
        uptime.find(city, SCHOOL_DAY, calendar="teaching")
    only = uptime.find(city, SCHOOL_DAY, city.subject("goethe-schule"), "teaching")
    assert only.sites[0].line == goethe.line


def test_maintenance_in_lessons_is_told_beside_the_calendar(town: Town) -> None:
    city = _fill(town)
    window = maintain(city, "site", "goethe-schule", EIGHT_S + 5100, EIGHT_S + 6600)
    answer = uptime.find(city, SCHOOL_DAY)
    line = answer.sites[0].line
    # From 09:25 to 09:50; five minutes of it were a lesson.
    assert (line.maintenance_s, line.calendar_s) == (5 * 60, 86_400 - 3 * 3600)
    assert line.seconds[table.DOWN] == 35 * 60
    assert answer.excluded.maintenance == (window,)
    assert answer.document()["maintenance"][0]["entered_by"] == "Erika Muster"


def test_calendar_and_maintenance_are_all_that_is_excluded(town: Town) -> None:
    """Whatever is entered: their seconds and the ledger's excluded ones are the same."""
    town.boards[0].room = "102"
    city = town.write()
    chance = random.Random(7)
    boards = [board.id for board in town.boards]
    for _ in range(12):
        start_s = SCHOOL_DAY.start_s + chance.randrange(-3600, 86_400)
        kind, subject = chance.choice(
            [("board", chance.choice(boards)), ("site", "goethe-schule"), ("gateway", "gw-1")]
        )
        end_s = start_s + chance.randrange(1, 7200)
        maintain(city, kind, subject, start_s, end_s)  # type: ignore[arg-type]
        fill_store(city, [])
        answer = uptime.find(city, SCHOOL_DAY)
        places = post.posts(city)
        with Store(city.folder).reading() as connection:
            ledger = Ledger(connection, SCHOOL_DAY, post.stints(places), answer.excluded.windows)
            lines, found = ledger.seconds("line"), ledger.seconds("board")
        for site in answer.sites:
            spans = answer.excluded.outside[site.site]
            outside_s = sum(end_s - start_s for start_s, end_s in spans)
            for told in (site.line, *(each.tally for each in site.boards)):
                assert told.calendar_s == outside_s
                assert 0 <= told.maintenance_s <= SCHOOL_DAY.length_s - outside_s
                assert sum(told.seconds) == SCHOOL_DAY.length_s
            assert site.line.seconds == tuple(lines[site.site])
            for each in site.boards:
                assert each.tally.seconds == tuple(found[each.board])


def test_maintenance_of_a_board_is_not_that_of_the_place_that_it_takes_later(town: Town) -> None:
    city = town.write()
    old, new = (board.id for board in town.boards[:2])
    window = maintain(city, "board", new, EIGHT_S, EIGHT_S + 3600)
    excluded = Exclusion(city, SCHOOL_DAY, {}, {}, (window,))
    taken_s = EIGHT_S + 3000
    site, room = "goethe-schule", "101"
    stints = (Stint(new, old, site, 0, taken_s), Stint(new, new, site, taken_s))
    assert excluded.maintenance_s(Post(new, site, room, stints)) == 600


SECONDS = st.tuples(*[st.integers(0, 50)] * 5)


@given(
    seconds=SECONDS,
    promised=st.sampled_from([0.1, 33.3, 50.0, 66.7, 90.0, 99.9, 100.0]),
    coverage=st.sampled_from([1.0, 50.0, 90.0, 100.0]),
)
@example(seconds=(1, 8, 0, 1, 0), promised=90.0, coverage=100.0)
@example(seconds=(1, 9, 0, 0, 0), promised=90.0, coverage=100.0)
def test_a_promise_is_kept_or_not_to_the_second(
    seconds: tuple[int, ...], promised: float, coverage: float
) -> None:
    """Against the outcomes for every way in which the unknown seconds may have gone."""
    unknown, up, degraded, down, _ = seconds
    sla = Sla(kind="school", availability_percent=promised, coverage_percent=coverage)
    result = tally.judge(sla, Tally(seconds, 0), same_calendar=True).result
    known = up + degraded + down
    wanted = Fraction(str(promised)) / 100
    outcomes = {
        Fraction(up + degraded + lucky, known + unknown) >= wanted
        for lucky in range(unknown + 1)
        if known
    }
    if not known:
        assert result == "coverage-too-low"
    elif len(outcomes) == 1:
        assert result == ("met" if outcomes == {True} else "missed")
    elif known * 100 < Fraction(str(coverage)) * (known + unknown):
        assert result == "coverage-too-low"
    else:
        assert result == ("met" if Fraction(up + degraded, known) >= wanted else "missed")


def test_the_promise_of_99_9_percent_is_no_float() -> None:
    sla = Sla(kind="school", availability_percent=99.9)
    for down, result in ((1, "met"), (2, "missed")):
        found = Tally((0, 1000 - down, 0, down, 0), 1)
        assert tally.judge(sla, found, same_calendar=True).result == result
    assert tally.judge(sla, found, same_calendar=False).result == "other-calendar"


def test_which_promise_holds(town: Town) -> None:
    town.slas = [
        {"kind": "school", "availability_percent": 99.5, "calendar": "teaching"},
        {"subject": "site/hotspot", "availability_percent": 90},
        {"subject": "district/mitte", "availability_percent": 50},
        {"subject": "room/hotspot/201", "availability_percent": 80, "calendar": "24/7"},
    ]
    city = _fill(town)

    def results(calendar: str | None = None) -> dict[str, str]:
        rows = uptime.find(city, SCHOOL_DAY, calendar=calendar).rows()
        return {str(row.subject): row.verdict.result for row in rows if row.verdict}

    hotspot = town.boards[2].id
    assert results() == {
        "district/mitte": "met",
        "line/goethe-schule": "missed",
        "line/hotspot": "met",
        f"board/{hotspot}": "met",
    }
    assert results("24/7") | {"line/goethe-schule": "other-calendar"} == results("24/7")
    assert results("24/7")["district/mitte"] == "other-calendar"
    for wrong, said in (
        ({"availability_percent": 99}, "for a kind of site or for a subject"),
        ({"kind": "school", "availability_percent": 0}, "greater than 0"),
        ({"kind": "hotspot", "availability_percent": 9, "calendar": "x"}, "no [calendar.x]"),
        ({"subject": "site/nowhere", "availability_percent": 9}, "no 'site/nowhere'"),
        ({"subject": "line/hotspot", "availability_percent": 9}, "line/hotspot has two"),
    ):
        slas = town.slas
        town.slas = [*slas, wrong]
        with pytest.raises(ConfigurationError) as error:
            town.write()
        assert said in error.value.message
        town.slas = slas


def test_how_subjects_are_named(town: Town) -> None:
    town.sites["nord"] = town.sites["hotspot"] | {"rooms": ["Aula / Süd"]}
    city = town.write()
    board = town.boards[0].id
    for text, subject in (
        ("city", Subject("city")),
        ("mitte", Subject("district", "mitte")),
        ("goethe-schule", Subject("site", "goethe-schule")),
        ("line/goethe-schule", Subject("line", "goethe-schule")),
        ("goethe-schule/101", Subject("room", "goethe-schule", "101")),
        ("nord/Aula / Süd", Subject("room", "nord", "Aula / Süd")),
        ("room/nord/Aula / Süd", Subject("room", "nord", "Aula / Süd")),
        (board, Subject("board", board)),
        ("district/nord", Subject("district", "nord")),
    ):
        assert city.subject(text) == subject
        assert city.subject(str(subject)) == subject
    with pytest.raises(UsageError, match="may be district/nord or site/nord"):
        city.subject("nord")
    with pytest.raises(UsageError, match="no 'goethe-schul'") as error:
        city.subject("goethe-schul")
    assert "did you mean goethe-schule?" in error.value.hint
    for text in ("", "/", "room/goethe-schule", "room/goethe-schule/999", "board/mitte", "city/x"):
        with pytest.raises(UsageError):
            city.subject(text)


def _run(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", "uptime", "--city", str(town.folder), *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


DAY = ("--from", "2025-11-24", "--to", "2025-11-24")


def test_a_subject_has_what_it_consists_of(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    _fill(town)
    boards = [f"board/{board.id}" for board in town.boards]
    goethe = "line/goethe-schule"
    for subject, rows in (
        ("city", ["city/"]),
        ("district/mitte", ["district/mitte", goethe]),
        ("goethe-schule", [goethe, *boards[:2]]),
        ("line/goethe-schule", [goethe]),
        ("goethe-schule/102", boards[1:2]),
        (town.boards[2].id, boards[2:3]),
    ):
        code, out, _ = _run(capsys, town, *DAY, "--csv", "--subject", subject)
        found = list(csv.DictReader(io.StringIO(out)))
        assert (code, [f"{row['kind']}/{row['id']}" for row in found]) == (0, rows)
        document: dict[str, Any] = json.loads(
            _run(capsys, town, *DAY, "--json", "--subject", subject)[1]
        )
        assert ("lines" in document) == (subject == "city")
        entries = [*document["districts"], *document["sites"]]
        told = [entry for entry in entries if entry.get("line") or "seconds" in entry]
        told += [board for entry in document["sites"] for board in entry["boards"]]
        assert len(told) == len(rows) - (subject == "city")
    out = _run(capsys, town, *DAY, "--csv")[1]
    found = list(csv.DictReader(io.StringIO(out)))
    assert [row["kind"] for row in found] == [
        "city", "district", "district", "line", "board", "board", "line", "board", "board"
    ]  # fmt: skip
    for row in found:
        states = ("unknown", "up", "degraded", "down", "excluded")
        seconds = sum(int(row[f"{state}_s"]) for state in states)
        assert seconds == (2 * 86_400 if row["kind"] == "city" else 86_400)
        parts = int(row["outside_calendar_s"]) + int(row["maintenance_s"])
        assert parts == int(row["excluded_s"])


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_spreadsheet_runs_a_name(
    town: Town, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    name = f"{sign}cmd|' /C calc'!A0"
    town.sites["hotspot"]["name"] = name
    city = _fill(town)
    out = _run(capsys, town, *DAY, "--csv", "--subject", "line/hotspot")[1]
    (row,) = csv.DictReader(io.StringIO(out))
    assert city.sites["hotspot"].name == name
    assert row["name"] == f"'{name}"


def test_the_table_says_by_what_was_counted(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.slas = [{"kind": "school", "availability_percent": 99.5}]
    city = _fill(town)
    maintain(city, "site", "goethe-schule", EIGHT_S + 5100, EIGHT_S + 6600)
    code, out, err = _run(capsys, town, *DAY)
    assert (code, err) == (0, "")
    assert "each site by its own calendar\n" in out
    line = next(each for each in out.splitlines() if each.startswith("Goethe-Schule (teaching)"))
    assert " ".join(line.split()[2:]) == (
        "80.000 % 100.0 % 2:20:00 – 0:35:00 – 21:00:00 0:05:00 1 99.5 %: missed"
    )
    assert (
        "maintenance 1: site goethe-schule, 24 Nov 09:25:00 to 24 Nov 09:50:00\n"
        "  a new switch (Erika Muster, 25 Nov 2025, afterwards)\n"
    ) in out
    assert "by calendar" not in _run(capsys, town, *DAY, "--calendar", "24/7")[1]
    out = _run(capsys, town, "--month", "2025-11", "--calendar", "24/7")[1]
    assert "2025-11-01 00:00:00 to 2025-12-01 00:00:00" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--site", "hotspot", "--subject", "hotspot"), "both say what"),
        (("--month", "2025-11", "--from", "2025-11-01"), "both say when"),
        (("--csv", "--json"), "both say how"),
        (("--month", "2025-13"), "is no month"),
        (("--month", "2525-01"), "has not begun"),
        (("--calendar", "nope"), "no calendar 'nope'"),
        (("--subject", "nope"), "no 'nope'"),
        (("--site", "nope"), "no site 'nope'"),
        (("--from", "2025-06-30", "--to", "2025-07-05"), "of NI on 2025-06-30 are not known"),
    ],
)
def test_a_call_that_makes_no_sense(
    town: Town, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    town.write()
    code, out, err = _run(capsys, town, *arguments)
    assert code == 2
    assert said in (json.loads(out)["error"]["message"] if "--json" in arguments else err)
