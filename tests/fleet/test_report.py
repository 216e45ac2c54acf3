"""Uptime and outages, from reports in the store to what the user reads."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from firmware.linkreport import block, table, term
from firmware.linkreport import report as wire
from fleet import report, uptime
from fleet.cli.output import result
from fleet.errors import UsageError
from fleet.inventory import Inventory
from fleet.period import Period
from fleet.report import Outages
from tests.fleet.town import (
    DAY_S,
    LINE_CUT,
    PERIOD_S,
    TestBoard,
    Town,
    fill_store,
    layers,
    maintain,
)

NO_LEASE = {
    "state": table.DOWN,
    "layer": table.ADDRESSING,
    "reason": table.NO_LEASE,
    "layer_reasons": layers(addressing=table.NO_LEASE, gateway=0, resolver=0, internet=0),
}
SLOW = {
    "state": table.DEGRADED,
    "layer": table.INTERNET,
    "reason": table.INTERNET_SLOW,
    "layer_reasons": layers(internet=table.INTERNET_SLOW),
}
HOUR = Period(DAY_S, DAY_S + 3600)
LATER_S = DAY_S + 86_400


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "city", ["goethe-schule", "hotspot"])


def _tell(board: TestBoard, *parts: tuple[int, dict[str, Any]]) -> tuple[TestBoard, list[bytes]]:
    """Let a board report for so many minutes each; an empty dict says up, None says nothing."""
    raws: list[bytes] = []
    at_s = DAY_S
    for minutes, values in parts:
        if values is not None:
            raws += board.series(at_s, minutes, **values)
        at_s += PERIOD_S * minutes
    return board, raws


UP: dict[str, Any] = {}
SILENT: Any = None


def _fill(town: Town, *parts: tuple[int, dict[str, Any]], at: int = 0) -> Inventory:
    city = town.write()
    fill_store(city, [_tell(town.boards[at], *parts)])
    return city


def _found(answer: Outages, kind: str = "board") -> list[tuple[int, int, str, str]]:
    return [
        (
            (each.outage.start_s - DAY_S) // 60,
            (each.outage.end_s - DAY_S) // 60,
            each.outage.end,
            term.reason_name(each.outage.cause[1]),
        )
        for each in answer.found
        if each.outage.kind == kind
    ]


def test_availability_and_coverage(town: Town) -> None:
    city = _fill(town, (30, UP), (6, NO_LEASE), (4, SLOW))
    answer = uptime.find(city, HOUR)
    goethe = answer.sites[0]
    board = goethe.boards[0]
    assert board.board == town.boards[0].id
    assert board.tally.seconds == (1200, 1800, 240, 360, 0)
    assert board.tally.availability == 34 / 40
    assert board.tally.coverage == 40 / 60
    assert board.tally.outages == 1
    assert goethe.line.seconds == (1560, 2040, 0, 0, 0)
    # Without evidence there is no figure, neither 0 nor 1.
    assert goethe.boards[1].tally.availability is None
    assert answer.sites[1].line.availability is None
    assert answer.lines.seconds == (5160, 2040, 0, 0, 0)


def test_excluded_windows_leave_the_sum_alone(town: Town) -> None:
    city = _fill(town, (60, NO_LEASE))
    maintain(city, "site", "goethe-schule", DAY_S - 50, DAY_S + 600)
    answer = uptime.find(city, HOUR, city.subject("goethe-schule"))
    assert answer.sites[0].boards[0].tally.seconds == (0, 0, 0, 3000, 600)
    assert answer.sites[0].boards[0].tally.coverage == 1
    (found,) = report.outages(city, HOUR, now_s=LATER_S).found
    assert (found.outage.start_s, found.outage.length_s) == (DAY_S + 600, 3000)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(5, UP), (5, NO_LEASE), (5, UP)], [(5, 10, "recovered", "no-lease")]),
        ([(5, UP), (5, NO_LEASE), (5, SLOW)], [(5, 10, "recovered", "no-lease")]),
        ([(5, UP), (5, NO_LEASE)], [(5, 10, "ongoing", "no-lease")]),
        ([(5, NO_LEASE), (2, LINE_CUT), (1, UP)], [(0, 7, "recovered", "no-lease")]),
        ([(2, NO_LEASE), (5, LINE_CUT), (1, UP)], [(0, 7, "recovered", "connect-timeout")]),
        (
            [(5, NO_LEASE), (9, SILENT), (5, NO_LEASE), (1, UP)],
            [(0, 5, "silence", "no-lease"), (14, 19, "recovered", "no-lease")],
        ),
        ([(5, UP), (9, SILENT)], []),
        # Two missing reports are more than the grace of 2.5 periods, one is not.
        ([(5, NO_LEASE), (1, SILENT), (5, NO_LEASE)], [(0, 11, "ongoing", "no-lease")]),
    ],
)
def test_what_ends_an_outage(
    town: Town, parts: list[tuple[int, Any]], expected: list[tuple[int, int, str, str]]
) -> None:
    city = _fill(town, *parts)
    assert _found(report.outages(city, HOUR, now_s=LATER_S)) == expected


def test_an_outage_has_its_true_begin_and_end_whatever_was_asked(town: Town) -> None:
    city = _fill(town, (10, UP), (600, NO_LEASE), (10, UP))
    for period in (Period(DAY_S + 36_000, DAY_S + 36_060), HOUR, Period(DAY_S, LATER_S)):
        found = _found(report.outages(city, period, now_s=LATER_S))
        assert found == [(10, 610, "recovered", "no-lease")]
    before = report.outages(city, Period(DAY_S, DAY_S + 600), now_s=LATER_S)
    assert _found(before) == []


def test_a_cut_line_is_one_cause_with_its_boards_as_effects(town: Town) -> None:
    city = town.write()
    first, second, third, _ = town.boards
    fill_store(
        city,
        [
            _tell(first, (10, UP), (10, LINE_CUT), (10, UP)),
            _tell(second, (11, UP), (10, LINE_CUT), (10, UP), (5, NO_LEASE), (1, UP)),
            _tell(third, (40, UP)),
        ],
    )
    answer = report.outages(city, HOUR, now_s=LATER_S)
    assert [(each.outage.kind, each.room, each.effect) for each in answer.found] == [
        ("line", "", False),
        ("board", "101", True),
        ("board", "102", True),
        ("board", "102", False),
    ]
    line = answer.found[0].outage
    assert line.boards == (first.id, second.id)
    assert (line.start_s, line.end_s) == (DAY_S + 660, DAY_S + 1200)
    assert line.causes == {(table.INTERNET, table.CONNECT_TIMEOUT): 1080}
    document = answer.document()["outages"][0]
    assert document["layer"] == "internet"
    assert document["reason"] == "connect-timeout"
    assert document["start"] == "2025-11-22T01:11:00+01:00"
    assert report.outages(city, HOUR, "hotspot", now_s=LATER_S).found == ()


def test_an_outage_brings_the_report_that_began_it(town: Town) -> None:
    city = town.write()
    first, second, *_ = town.boards
    lease = struct.pack(block.LEASE_FORMAT, 0xFFFFFFFF, bytes(4), 0, 0xFFFF)
    silent = NO_LEASE | {"extensions": wire.extension(block.LEASE, lease), "rssi_dbm": -61}
    worse = NO_LEASE | {"extensions": wire.extension(block.ERROR, b"later")}
    cut = LINE_CUT | {"extensions": wire.extension(99, b"x")}
    fill_store(
        city,
        [
            _tell(first, (10, UP), (1, silent), (4, worse), (10, UP), (5, cut), (1, UP)),
            _tell(second, (26, UP), (4, LINE_CUT), (1, UP)),
        ],
    )
    answer = report.outages(city, HOUR, now_s=LATER_S, with_evidence=True)
    board, line, *effects = [each.document(answer.zone) for each in answer.found]
    assert board["evidence"] == {
        "board": first.id,
        "time": "2025-11-22T01:11:00+01:00",
        "confidence_percent": 100,
        "layers": dict.fromkeys(term.LAYERS[1:], "ok")
        | {"addressing": "no-lease"}
        | dict.fromkeys(("gateway", "resolver", "internet"), "untested"),
        "measured": board["evidence"]["measured"],
        "blocks": {"lease": {"duration_s": None, "server": None, "servers": 0, "lease_ms": None}},
    }
    assert board["evidence"]["measured"]["rssi_dbm"] == -61
    assert "http_status" not in board["evidence"]["measured"]
    assert line["kind"] == "line"
    assert line["evidence"]["board"] == first.id
    assert line["evidence"]["layers"]["internet"] == "connect-timeout"
    assert [each["evidence"]["board"] for each in effects] == [first.id, second.id]
    assert effects[0]["evidence"]["blocks"] == {"unknown": [{"kind": 99, "content": "78"}]}
    plain = report.outages(city, HOUR, now_s=LATER_S)
    assert [each.evidence for each in plain.found] == [None] * len(answer.found)


def test_an_outage_whose_last_report_lies_behind_a_window_has_evidence(town: Town) -> None:
    city = _fill(town, (10, UP), (1, NO_LEASE), (10, UP))
    maintain(city, "board", town.boards[0].id, DAY_S + 630, DAY_S + 700)
    answer = report.outages(city, HOUR, now_s=LATER_S, with_evidence=True)
    (found,) = answer.found
    assert (found.outage.end, found.outage.end_s) == ("excluded", DAY_S + 630)
    assert found.evidence is not None
    assert found.evidence.report.time_s == DAY_S + 660


def test_boards_that_the_registry_does_not_know_are_not_hidden(town: Town) -> None:
    city = _fill(town, (60, UP))
    stranger = TestBoard("np-ffffffffffff", "", "")
    fill_store(city, [_tell(stranger, (60, NO_LEASE))])
    answer = uptime.find(city, HOUR)
    assert [board.board for board in answer.strangers] == [stranger.id]
    assert uptime.find(city, HOUR, city.subject("hotspot")).strangers == ()
    (found,) = report.outages(city, HOUR, now_s=LATER_S).found
    assert found.document(answer.zone)["site"] is None


def test_an_unknown_site_is_a_usage_error(town: Town) -> None:
    city = _fill(town, (1, UP))
    with pytest.raises(UsageError, match="no site 'nowhere'"):
        report.outages(city, HOUR, "nowhere")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


DAY = ("--from", "2025-11-22T01:00", "--to", "2025-11-22T02:00")


def test_downtime_never_reads_as_100_percent(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    city = town.write()
    board = town.boards[0]
    # A day, bridged by reports that are far apart, with one second of downtime at its end.
    raws = [board.report(DAY_S + 86_399 * n, period_s=65_535) for n in (0, 1)]
    raws.append(board.report(DAY_S + 86_400, period_s=65_535, **NO_LEASE))
    fill_store(city, [(board, raws)])
    period = ("--from", "2025-11-22T01:00", "--to", "2025-11-23T01:00", "--city", str(town.folder))
    code, out, err = _run(capsys, "uptime", *period)
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if board.id in line)
    assert "99.998 %" in line
    assert "100.0 %" in line
    _, out, _ = _run(capsys, "uptime", *period, "--json")
    document = json.loads(out)
    assert document["ok"] is True
    found = document["sites"][0]["boards"][0]
    assert found["seconds"]["down"] == 1
    assert found["availability"] == 86_399 / 86_400


def test_tables_say_what_json_says(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    city = town.write()
    fill_store(city, [_tell(board, (10, UP), (10, LINE_CUT), (5, UP)) for board in town.boards[:2]])
    place = ("--city", str(town.folder), *DAY)
    code, out, err = _run(capsys, "uptime", *place)
    assert (code, err) == (0, "")
    assert "Musterstadt, 2025-11-22 01:00:00 to 2025-11-22 02:00:00, Europe/Berlin" in out
    site = next(line for line in out.splitlines() if line.startswith("Goethe-Schule"))
    assert " ".join(site.split()[1:]) == "60.000 % 41.6 % 0:15:00 – 0:10:00 0:35:00 1"
    hotspot = next(line for line in out.splitlines() if line.startswith("Hotspot"))
    assert " ".join(hotspot.split()[1:]) == "– 0.0 % – – – 1:00:00 –"
    code, out, _ = _run(capsys, "outages", *place)
    assert "Goethe-Schule, line" in out
    assert "internet: connect-timeout" in out
    assert "01:20:00" in out
    _, out, _ = _run(capsys, "outages", *place, "--json")
    found = json.loads(out)["outages"]
    assert [each["kind"] for each in found] == ["line", "board", "board"]
    assert {each["length_s"] for each in found} == {600}
    assert {each["end_by"] for each in found} == {"recovered"}
    assert {each["evidence"]["layers"]["internet"] for each in found} == {"connect-timeout"}


def test_a_terminal_without_utf8_gets_what_it_can_show(town: Town) -> None:
    town.sites["goethe-schule"]["name"] = "Szkoła"
    city = town.write()
    fill_store(city, [_tell(town.boards[0], (10, UP))])
    command = [sys.executable, "-m", "fleet.cli", "fleet", "uptime", "--city", str(town.folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    for option in ([], ["--json"]):
        done = subprocess.run(
            [*command, *DAY, *option], env=environment, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        said = done.stdout.decode("latin-1")
        if option:
            assert json.loads(said)["sites"][0]["name"] == "Szkoła"
        else:
            assert "Szko?a" in said


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_nothing_is_cut_on_a_narrow_terminal(
    town: Town,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    city = _fill(town, (10, UP), (5, NO_LEASE))
    place = ("--city", str(city.folder), *DAY)
    wide = {show: _run(capsys, show, *place)[1] for show in ("uptime", "outages")}
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(result, "_width", None)
    # What is too wide for a table has each row in two lines; ids and figures stay whole.
    for show, said in wide.items():
        narrow = _run(capsys, show, *place)[1]
        titles = {"site", "·", "and", "board", "room", "outages", "cause"}
        words = set(said.replace(",", " ").split()) - titles
        assert words - set(narrow.replace(",", " ").split()) == set(), narrow
        assert max(map(len, narrow.splitlines()[1:])) <= max(columns, 78)


def test_asking_before_anything_was_collected(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    town.write()
    code, out, _ = _run(capsys, "uptime", "--city", str(town.folder), "--json")
    assert code == 1
    error = json.loads(out)["error"]
    assert error["code"] == "store"
    assert "fleet collect" in error["hint"]
