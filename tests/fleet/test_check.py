"""`netzpuls fleet check`: what a monitoring system is told, and by which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from firmware.linkreport import table
from fleet import authority, check, visit
from fleet.check import METRICS, Answer, Figure, Range, Status, Thresholds
from fleet.errors import UsageError
from fleet.inventory import Inventory
from fleet.store import Store
from fleet.visit import Visit
from tests.fleet.town import DAY_S, LINE_CUT, TestBoard, Town, fill_store, layers, maintain

NOW_S = DAY_S + 7200
NO_LEASE = {
    "state": table.DOWN,
    "layer": table.ADDRESSING,
    "reason": table.NO_LEASE,
    "layer_reasons": layers(addressing=table.NO_LEASE, gateway=0, resolver=0, internet=0),
}


class Ending(Town):
    """A town whose boards' certificates end when a test says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["goethe-schule", "hotspot"])
        self.more: dict[str, dict[str, Any]] = {}

    def _registered(self, board: TestBoard) -> dict[str, Any]:
        return super()._registered(board) | self.more.get(board.id, {})


@pytest.fixture
def town(tmp_path: Path) -> Ending:
    return Ending(tmp_path / "city")


def _days(days: float, now_s: float = NOW_S) -> datetime:
    return datetime.fromtimestamp(int(now_s), UTC) + timedelta(days=days)


def _visited(
    city: Inventory, *, days: float = 400, age_s: int = 0, now_s: int = NOW_S, **ends: float
) -> None:
    certificates = {
        name: _days(ends.get(name, days), now_s) for name in ("gateway", "collector", "ca")
    }
    folder = Store(city.folder).folder
    folder.mkdir(exist_ok=True)
    visit.remember(
        folder, {"gw-1": Visit(collected=_days(-age_s / 86_400, now_s), certificates=certificates)}
    )


def _check(city: Inventory, part: str) -> Answer:
    return check.check(city, parts=[part], live=False, now_s=NOW_S)


def _found(answer: Answer) -> list[tuple[str, str]]:
    return [(each.status.name, each.subject) for each in answer.worst_first]


@pytest.mark.parametrize(
    ("days", "status"),
    [
        (400, Status.OK),
        (30, Status.OK),
        (29.9, Status.WARNING),
        (7, Status.WARNING),
        (6.9, Status.CRITICAL),
        (0.1, Status.CRITICAL),
        (-1, Status.CRITICAL),
    ],
)
def test_every_certificate_is_warned_of_in_time(town: Ending, days: float, status: Status) -> None:
    first = town.boards[0]
    town.more[first.id] = {"certificate_expires": _days(days)}
    city = town.write()
    _visited(city)
    answer = _check(city, "certificates")
    assert answer.status is status
    assert _found(answer) == ([] if status is Status.OK else [(status.name, first.id)])
    assert [figure.text() for figure in answer.figures] == [
        f"certificate_days={int(days // 1)};30:;7:"
    ]
    town.more.clear()
    city = town.write()
    for name, subject in (("gateway", "gw-1"), ("collector", "collector of gw-1")):
        _visited(city, **{name: days})
        found = _found(_check(city, "certificates"))
        assert found == ([] if status is Status.OK else [(status.name, subject)])


def test_the_cas_end_is_warned_of(town: Ending) -> None:
    city = town.write()
    _visited(city)
    authority.ensure(city.folder, "musterstadt")
    end_s = int(authority.load(city.folder).certificate.not_valid_after_utc.timestamp())
    for name in town.boards:
        town.more[name.id] = {"certificate_expires": _days(900, end_s)}
    city = town.write()
    _visited(city, now_s=end_s)
    answer = check.check(city, parts=["certificates"], live=False, now_s=end_s - 20 * 86_400)
    assert _found(answer) == [("WARNING", "CA")]
    assert "netzpuls board ca --renew" in answer.worst_first[0].message


def test_boards_out_of_service_are_not_warned_of(town: Ending) -> None:
    ended = {"certificate_expires": _days(-1)}
    town.more[town.boards[0].id] = ended | {"retired": _days(-9)}
    town.more[town.boards[1].id] = ended | {"revoked": _days(-9)}
    city = town.write()
    _visited(city)
    assert _check(city, "certificates").status is Status.OK


def test_a_gateway_that_was_never_collected_is_unknown(town: Ending) -> None:
    assert _found(_check(town.write(), "certificates")) == [("UNKNOWN", "gw-1")]


def test_down_and_silent(town: Ending) -> None:
    city = town.write()
    _visited(city)
    first, second, third, fourth = town.boards
    start_s = NOW_S - 3600
    fill_store(city, [(board, board.series(start_s, 60)) for board in town.boards])
    assert _check(city, "reports").status is Status.OK
    later_s = NOW_S + 3600
    fill_store(
        city,
        [
            (first, first.series(NOW_S, 60, **LINE_CUT)),
            (second, second.series(NOW_S, 60, **NO_LEASE)),
            (third, third.series(NOW_S, 60)),
        ],
    )
    _visited(city, now_s=later_s)
    answer = check.check(city, parts=["reports"], live=False, now_s=later_s)
    assert _found(answer) == [
        ("CRITICAL", "Goethe-Schule"),
        ("WARNING", f"Hotspot, 202 ({fourth.id})"),
        ("WARNING", f"Goethe-Schule, 102 ({second.id})"),
    ]
    assert [each.message for each in answer.worst_first] == [
        "the line is down",
        "silent for 1:00:00",
        "down: addressing, no-lease",
    ]
    assert {figure.name: figure.value for figure in answer.figures} == {
        "lines_down": 1,
        "sites_silent": 0,
        "collection_age": 0,
        "boards_silent": 1,
        "boards_down": 1,
        "boards_rebooting": 0,
        "boards_outdated": 0,
    }


def test_silence_counts_from_the_last_collection(town: Ending) -> None:
    """What was not collected yet is no silence; that nothing was collected is one of its own."""
    city = town.write()
    fill_store(city, [(board, board.series(NOW_S - 3600, 30)) for board in town.boards])
    _visited(city, age_s=1800)
    assert _found(_check(city, "reports")) == []
    _visited(city, age_s=0)
    assert [status for status, _ in _found(_check(city, "reports"))] == [
        *["CRITICAL"] * 2,
        *["WARNING"] * 4,
    ]
    _visited(city, age_s=3700)
    assert _found(_check(city, "reports")) == [("WARNING", "gw-1")]


@pytest.mark.parametrize(
    ("age_s", "told"),
    [
        (600, None),
        (3600, "silent since it was flashed"),
        (90_000, "silent for a day or more"),
    ],
)
def test_a_board_that_was_just_flashed_is_not_silent(
    town: Ending, age_s: int, told: str | None
) -> None:
    *others, new = town.boards
    town.more[new.id] = {"enrolled": datetime.fromtimestamp(NOW_S - age_s, UTC)}
    city = town.write()
    fill_store(city, [(board, board.series(NOW_S - 3600, 60)) for board in others])
    _visited(city)
    answer = _check(city, "reports")
    assert [each.message for each in answer.worst_first] == [told] * (told is not None)


def test_nothing_is_said_of_what_is_in_maintenance(town: Ending) -> None:
    city = town.write()
    fill_store(city, [(board, board.series(NOW_S - 3600, 20)) for board in town.boards[1:]])
    fill_store(city, [(town.boards[0], town.boards[0].series(NOW_S - 3600, 60, **LINE_CUT))])
    _visited(city)
    silent = [("CRITICAL", "Hotspot"), *[("WARNING", f"Hotspot, 20{n}") for n in (1, 2)]]

    def found() -> list[tuple[str, str]]:
        return [(a, b.split(" (")[0]) for a, b in _found(_check(city, "reports"))]

    line = [("CRITICAL", "Goethe-Schule"), ("WARNING", "Goethe-Schule, 102")]
    assert sorted(found()) == sorted([*line, *silent])
    maintain(city, "board", town.boards[1].id, NOW_S - 60, NOW_S + 60)
    assert sorted(found()) == sorted([*line[:1], *silent])
    maintain(city, "site", "goethe-schule", NOW_S - 60, NOW_S + 60)
    assert sorted(found()) == sorted(silent)
    maintain(city, "gateway", "gw-1", NOW_S - 60, NOW_S - 1)
    assert sorted(found()) == sorted(silent)
    maintain(city, "gateway", "gw-1", NOW_S - 61, NOW_S + 60)
    assert found() == []


def test_nothing_collected_is_unknown(town: Ending) -> None:
    assert _found(_check(town.write(), "reports")) == [("UNKNOWN", "Musterstadt")]


def test_the_worst_is_the_answer_and_causes_come_first() -> None:
    def answer(**values: float) -> list[str]:
        made = Answer()
        for metric, value in values.items():
            made.see("x", metric, "s", "m", value)
        return [each.metric for each in made.worst_first]

    assert answer() == []
    assert answer(boards_down=1, disk_free=8, certificate_days=3) == [
        *("certificate_days", "disk_free", "boards_down"),
    ]
    assert answer(sites_silent=1, gateways_unreachable=1, lines_down=1) == [
        *("gateways_unreachable", "lines_down", "sites_silent"),
    ]
    made = Answer()
    made.doubt("x", "s", "m")
    assert made.status is Status.UNKNOWN
    made.see("x", "boards_down", "s", "m")
    assert made.status is Status.WARNING
    made.see("x", "lines_down", "s", "m")
    assert made.status is Status.CRITICAL
    assert [each.status.name for each in made.worst_first] == ["CRITICAL", "WARNING", "UNKNOWN"]


def test_of_one_metric_the_worst_value_comes_first() -> None:
    made = Answer()
    for subject, days in (("a", 20), ("b", 9), ("c", 25)):
        made.see("x", "certificate_days", subject, f"ends in {days}", days)
    assert [each.subject for each in made.worst_first] == ["b", "a", "c"]
    assert made.figures[0].value == 9


def test_what_counts_is_held_against_its_number() -> None:
    made = Answer(Thresholds.parse(["boards_silent=2"], ["boards_silent=4"]))
    statuses = []
    for number in range(6):
        made.see("x", "boards_silent", str(number), "silent")
        statuses.append(made.status.name)
    assert statuses == ["OK", "OK", "WARNING", "WARNING", "CRITICAL", "CRITICAL"]
    assert len(made.worst_first) == 6


def test_a_board_that_restarts_often_is_named(town: Ending) -> None:
    city = town.write()
    for board in town.boards:
        restarts = 5 if board is town.boards[0] else 3
        reports = [
            board.report(NOW_S - 3600 + 60 * n, boot=1 + min(restarts, n // 10)) for n in range(60)
        ]
        fill_store(city, [(board, reports)])
    _visited(city)
    answer = _check(city, "reports")
    assert [(each.metric, each.subject, each.message) for each in answer.worst_first] == [
        (
            "boards_rebooting",
            f"Goethe-Schule, 101 ({town.boards[0].id})",
            "restarted 5 times within a day",
        )
    ]
    # Restarts of days ago that came only now are no news.
    later_s = NOW_S + 2 * 86_400
    fill_store(city, [(board, board.series(later_s - 3600, 60, boot=9)) for board in town.boards])
    _visited(city, now_s=later_s)
    answer = check.check(city, parts=["reports"], live=False, now_s=later_s)
    assert _found(answer) == []


def test_only_the_sites_asked_for_are_looked_at(town: Ending) -> None:
    city = town.write()
    fill_store(city, [(town.boards[0], town.boards[0].series(NOW_S - 3600, 60, **LINE_CUT))])
    fill_store(city, [(board, board.series(NOW_S - 7200, 9)) for board in town.boards[1:]])
    _visited(city)

    def found(*sites: str) -> set[str]:
        answer = check.check(city, parts=["reports"], sites=sites, live=False, now_s=NOW_S)
        return {each.subject.split(",")[0] for each in answer.worst_first}

    assert found() == {"Goethe-Schule", "Hotspot"}
    assert found("hotspot") == {"Hotspot"}
    assert found("goethe-schule") == {"Goethe-Schule"}
    with pytest.raises(UsageError):
        found("nowhere")


def test_boards_with_an_older_agent_are_counted(town: Ending) -> None:
    town.more[town.boards[2].id] = {"agent": "0.9.12"}
    for board in town.boards[:2]:
        town.more[board.id] = {"agent": "0.10.1"}
    town.more[town.boards[3].id] = {"agent": "0.10.1"}
    city = town.write()
    _visited(city)
    fill_store(city, [(board, board.series(NOW_S - 3600, 60)) for board in town.boards])
    limits = Thresholds.parse(["boards_outdated=0"])
    answer = check.check(city, limits, ["reports"], live=False, now_s=NOW_S)
    assert [each.text for each in answer.worst_first] == [
        f"Hotspot, 201 ({town.boards[2].id}): has agent 0.9.12, others have 0.10.1"
    ]
    assert _check(city, "reports").status is Status.OK


def _run(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", "check", "--no-live", "--city", str(town.folder), *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


def test_a_plugin_says_one_line_and_exits_with_its_state(
    town: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = int(time.time())
    town.sites["goethe-schule"]["name"] = "Goethe|Schule"
    city = town.write()
    _visited(city, days=399.5, now_s=now_s)
    fill_store(city, [(board, board.series(now_s - 660, 10)) for board in town.boards])
    code, out, err = _run(capsys, town)
    assert (code, err) == (0, "")
    assert out.startswith(
        "NETZPULS OK - all is well | lines_down=0;;0;0 sites_silent=0;;0;0 "
        "certificate_days=399;30:;7: collection_age="
    )
    assert out.count("\n") == 1
    fill_store(city, [(town.boards[0], town.boards[0].series(now_s - 60, 1, **NO_LEASE))])
    _visited(city, now_s=now_s, gateway=9.5)
    code, out, err = _run(capsys, town)
    assert (code, err) == (1, "")
    line, *rest = out.splitlines()
    assert line.startswith("NETZPULS WARNING - gw-1: certificate ends in 9 days, on ")
    assert "(and 1 more) | " in line
    assert rest[1].startswith(f"WARNING: Goethe/Schule, 101 ({town.boards[0].id}): down: ")
    assert _run(capsys, town, "-c", "certificate_days=20:")[0] == 2
    silenced = "-w", "certificate_days=~:,boards_down=~:", "-c", "certificate_days=~:"
    assert _run(capsys, town, *silenced)[0] == 0
    code, out, _ = _run(capsys, town, "--part", "certificates", "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["status"]) == (1, True, "WARNING")
    assert document["metrics"] == {"certificate_days": 9}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["-w", "30"],
        ["-w", "weather=3"],
        ["-c", "queue=20:10"],
        ["-c", "queue="],
        ["--part", "weather"],
        ["--site", "nowhere"],
        ["-t", "0"],
    ],
)
def test_what_is_no_call_is_unknown_and_not_critical(
    town: Ending, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    town.write()
    code, out, err = _run(capsys, town, *arguments)
    assert code == 3
    assert out.startswith("NETZPULS UNKNOWN - ")
    assert err.startswith("hint: ")


def test_a_city_that_cannot_be_read_is_unknown(
    town: Ending, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _run(capsys, town)
    assert code == 3
    assert out.startswith("NETZPULS UNKNOWN - no inventory.toml in ")
    code, out, _ = _run(capsys, town, "--json")
    assert code == 3
    assert json.loads(out)["error"]["code"] == "configuration"


@pytest.mark.parametrize(
    ("text", "alerts", "rests"),
    [
        ("10", [-0.1, 10.1, 11], [0, 5, 10]),
        ("10:", [9.9, -1], [10, 1e9]),
        ("~:10", [10.01], [-1e9, 10]),
        ("10:20", [9, 21], [10, 15, 20]),
        ("@10:20", [10, 15, 20], [9, 21]),
        ("@10", [0, 10], [-1, 11]),
        ("-5:5", [-6, 6], [-5, 0, 5]),
        ("~:", [], [-1e9, 0, 1e9]),
        (".5:1.5", [0.4, 1.6], [0.5, 1.5]),
        ("0", [1, -1], [0]),
    ],
)
def test_ranges_are_those_of_the_guidelines(
    text: str, alerts: list[float], rests: list[float]
) -> None:
    limit = Range.parse(text)
    assert [limit.alerts(value) for value in alerts] == [True] * len(alerts)
    assert [limit.alerts(value) for value in rests] == [False] * len(rests)


@pytest.mark.parametrize(
    "text", ["", "@", ":", "@:", "~", "1:2:3", "20:10", "a", "1e3", "10:~", "٣"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Range.parse(text)


def test_labels_and_numbers_of_performance_data() -> None:
    assert Figure("x", 3, "", "", "5").text() == "x=3;;5"
    assert Figure("x", 3.25, "s", "10:", "@1:2", 0, 100).text() == "x=3.25s;10:;@1:2;0;100"
    assert Figure("it's = so", 1).text() == "'it''s _ so'=1"


def test_every_metric_has_thresholds_that_are_ranges() -> None:
    limits = Thresholds()
    for name, kind in METRICS.items():
        assert (limits.warning_of(name) is None) == (kind.warning is None)
        assert (limits.critical_of(name) is None) == (kind.critical is None)
        assert Thresholds.parse([f"{name}=1:2"], [f"{name}=3:4,queue=5"])


def test_time_that_is_up_is_unknown(town: Ending) -> None:
    """Also where nothing can be interrupted: here a pipe that nobody writes to."""
    city = town.write()
    (city.folder / "ca.pem").unlink(missing_ok=True)
    os.mkfifo(city.folder / "ca.pem")
    command = [sys.executable, "-m", "fleet.cli", "fleet", "check", "--no-live", "-t", "2"]
    for options, told in (
        ([], "NETZPULS UNKNOWN - timed out after 2 s: "),
        (["--json"], "{"),
    ):
        done = subprocess.run(
            [*command, "--city", str(city.folder), *options],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 3
        assert done.stdout.startswith(told)
        assert done.stderr == ""
        if options:
            assert json.loads(done.stdout)["error"]["code"] == "timed-out"
