"""Maintenance windows: entered, withdrawn, never deleted; and what they take out of figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet import exclusion, maintenance
from fleet.errors import ConfigurationError, UsageError
from fleet.maintenance import MaintenanceError, Wish
from fleet.period import Period
from tests.fleet.town import DAY_S, Town, maintain

NOW = datetime(2025, 11, 24, 9, 12, 44, 7, tzinfo=UTC)
HOUR = Period(DAY_S, DAY_S + 3600)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "city", ["goethe-schule", "hotspot"])


def _run(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", "maintenance", *arguments, "--city", str(town.folder)])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


ADD = ("add", "--site", "goethe-schule", "--from", "2025-11-22T08:00", "--to", "2025-11-22T10:00")


def test_what_is_entered_can_be_read_and_stays_when_withdrawn(town: Town) -> None:
    city = town.write()
    first = maintain(city, "site", "goethe-schule", DAY_S, DAY_S + 600)
    wish = Wish("gateway", "gw-1", Period(DAY_S, DAY_S + 60), "neue Firmware", "Jörg Müller")
    maintenance.add(city, wish, NOW)
    path = town.folder / "maintenance.toml"
    before = path.read_text()
    assert before == (
        "# Written by `netzpuls fleet maintenance`; windows are withdrawn, never deleted. "
        "Keep it in git.\n\n"
        "version = 1\n\n"
        "[[window]]\n"
        "number = 1\n"
        'site = "goethe-schule"\n'
        "start = 2025-11-22 01:00:00+01:00\n"
        "end = 2025-11-22 01:10:00+01:00\n"
        'reason = "a new switch"\n'
        "entered = 2025-11-23 01:10:00+01:00\n"
        'entered_by = "Erika Muster"\n\n'
        "[[window]]\n"
        "number = 2\n"
        'gateway = "gw-1"\n'
        "start = 2025-11-22 01:00:00+01:00\n"
        "end = 2025-11-22 01:01:00+01:00\n"
        'reason = "neue Firmware"\n'
        "entered = 2025-11-24 10:12:44+01:00\n"
        'entered_by = "Jörg Müller"\n'
    )
    assert maintenance.load(city)[0] == first
    gone = maintenance.withdraw(city, 1, "Erika Muster", "wrong day", NOW)
    assert gone.withdrawn is not None
    after = path.read_text()
    assert after == before.replace(
        'entered_by = "Erika Muster"\n',
        'entered_by = "Erika Muster"\n\n[window.withdrawn]\n'
        'at = 2025-11-24 10:12:44+01:00\nby = "Erika Muster"\nreason = "wrong day"\n',
    )
    assert [each.number for each in maintenance.holding(city, HOUR)] == [2]
    with pytest.raises(UsageError, match="withdrawn already, by Erika Muster"):
        maintenance.withdraw(city, 1, "x", "y", NOW)
    with pytest.raises(UsageError, match="no window 9"):
        maintenance.withdraw(city, 9, "x", "y", NOW)
    # The number is not given again, and the same window may be entered once more.
    assert maintain(city, "site", "goethe-schule", DAY_S, DAY_S + 600).number == 3
    with pytest.raises(UsageError, match="window 3 is the same"):
        maintain(city, "site", "goethe-schule", DAY_S, DAY_S + 600)


def test_a_window_is_for_what_there_is(town: Town) -> None:
    city = town.write()
    for kind, subject in (("site", "nowhere"), ("board", "np-000000000000"), ("gateway", "gw-9")):
        with pytest.raises(UsageError, match=f"no {kind} '{subject}'"):
            maintain(city, kind, subject, DAY_S, DAY_S + 60)  # type: ignore[arg-type]
    for reason, by in (("", "x"), ("  ", "x"), ("x", ""), ("x" * 501, "x"), ("a\x1b[2Jb", "x")):
        wish = Wish("site", "hotspot", HOUR, reason, by)
        with pytest.raises(UsageError, match=r"reason|entered_by"):
            maintenance.add(city, wish, NOW)
    assert not (town.folder / "maintenance.toml").exists()


def test_whom_a_window_is_for(town: Town) -> None:
    city = town.write()
    board = town.boards[0].id
    for kind, subject in (("gateway", "gw-1"), ("board", board)):
        maintain(city, kind, subject, DAY_S - 60, DAY_S + 60)  # type: ignore[arg-type]
    found = exclusion.maintenance_only(city, HOUR)
    expected = [(board, DAY_S), ("goethe-schule", DAY_S), ("hotspot", DAY_S)]
    assert sorted((each.subject, each.start_s) for each in found.windows) == sorted(expected)
    assert {each.end_s for each in found.windows} == {DAY_S + 60}
    assert exclusion.resting(city, DAY_S + 59) == {board, "goethe-schule", "hotspot"}
    assert exclusion.resting(city, DAY_S + 60) == set()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("number = 1\nsite = 'nowhere'", "there is no site nowhere"),
        (
            "number = 1\nsite = 'hotspot'\nboard = 'np-240ac4000010'",
            "for one site, board, access point or",
        ),
        ("number = 1", "for one site, board, access point or"),
        ("number = 1\nsite = 'hotspot'\nwhy = 'x'", "unknown key window.0.why"),
    ],
)
def test_a_wrong_file_is_told_and_never_ignored(town: Town, text: str, fault: str) -> None:
    city = town.write()
    rest = (
        "start = 2025-11-22T01:00:00+01:00\nend = 2025-11-22T02:00:00+01:00\nreason = 'x'\n"
        "entered = 2025-11-22T02:00:00Z\nentered_by = 'x'\n"
    )
    path = town.folder / "maintenance.toml"
    path.write_text(f"version = 1\n[[window]]\n{text}\n{rest}")
    with pytest.raises(ConfigurationError, match=fault):
        maintenance.load(city)
    for wrong, said in (
        (rest.replace("+01:00", ""), "needs its offset"),
        (rest.replace("T02:00:00+", "T00:00:00+"), "ends before it begins"),
        (rest.replace("2025-11-22T02:00:00+01:00", "9999-12-31T23:59:59Z"), "from 1971 to 2199"),
        (
            rest.replace("2025-11-22T01:00:00+01:00", "0001-01-01T00:00:00+14:00"),
            "from 1971 to 2199",
        ),
        (f"{rest}\n[[window]]\nnumber = 1\nsite = 'hotspot'\n{rest}", "stands there twice"),
    ):
        path.write_text(f"version = 1\n[[window]]\nnumber = 1\nsite = 'hotspot'\n{wrong}")
        with pytest.raises(ConfigurationError, match=said):
            maintenance.load(city)


def test_two_at_once_lose_nothing(town: Town) -> None:
    city = town.write()
    threads = [
        threading.Thread(target=maintain, args=(city, "site", "hotspot", DAY_S + n, DAY_S + n + 60))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = maintenance.load(city)
    assert [each.number for each in found] == list(range(1, 17))
    assert {each.period.start_s for each in found} == set(range(DAY_S, DAY_S + 16))


def test_a_folder_that_cannot_be_written_keeps_its_file(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = town.write()
    maintain(city, "site", "hotspot", DAY_S, DAY_S + 60)
    before = (town.folder / "maintenance.toml").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MaintenanceError, match="No space left"):
        maintenance.withdraw(city, 1, "x", "y", NOW)
    assert (town.folder / "maintenance.toml").read_bytes() == before
    assert [path.name for path in town.folder.iterdir() if path.name.startswith(".")] == []


def test_the_commands(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.write()
    by = ("--by", "Erika Muster")
    code, out, _ = _run(capsys, town, *ADD, "--reason", "switch", *by, "--dry-run")
    assert (code, out.startswith("would be entered: window 1, site goethe-schule")) == (0, True)
    assert not (town.folder / "maintenance.toml").exists()
    code, out, _ = _run(capsys, town, *ADD, "--reason", "switch", *by, "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, document["ok"], document["dry_run"]) == (0, True, False)
    assert document["maintenance"]["from"] == "2025-11-22T08:00:00+01:00"
    assert document["maintenance"]["afterwards"] is True
    code, out, err = _run(capsys, town, *ADD, "--reason", "switch", *by)
    assert (code, out) == (2, "")
    assert "window 1 is the same" in err
    code, out, _ = _run(capsys, town, "list")
    assert "1: site goethe-schule, 2025-11-22 08:00:00 to 2025-11-22 10:00:00" in out
    assert "by Erika Muster, when it had begun" in out
    code, out, _ = _run(capsys, town, "withdraw", "1", "--reason", "other day", *by)
    assert (code, out.startswith("withdrawn: window 1")) == (0, True)
    assert _run(capsys, town, "list")[1] == "no maintenance window\n"
    assert "by Erika Muster: other day" in _run(capsys, town, "list", "--all")[1]
    code, out, _ = _run(capsys, town, "list", "--all", "--json")
    assert json.loads(out)["maintenance"][0]["withdrawn"]["reason"] == "other day"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "--from", "2025-11-22", "--to", "2025-11-22", "--reason", "x"), "for what it is"),
        ((*ADD, "--board", "np-240ac4000010", "--reason", "x"), "for what it is"),
        ((*ADD[:3], "--from", "2025-11-22", "--to", "2025-11-20", "--reason", "x"), "before it"),
        (
            (*ADD[:3], "--from", "2025-11-22", "--to", "9999-12-31T23:59Z", "--reason", "x"),
            "from 1971 to 2199",
        ),
        (ADD, "--reason"),
        ((*ADD, "--reason", " "), "reason"),
        (("withdraw", "1", "--reason", "x"), "no window 1"),
    ],
)
def test_a_call_that_makes_no_sense(
    town: Town, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    town.write()
    code, out, err = _run(capsys, town, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "hint: " in err
    assert not (town.folder / "maintenance.toml").exists()


def test_who_enters_it_is_who_git_knows(town: Town, tmp_path: Path) -> None:
    town.write()
    environment = os.environ | {
        "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Jörg Müller",
    }  # fmt: skip
    place = ["--city", str(town.folder), "--reason", "switch", "--json", "--dry-run"]
    command = [sys.executable, "-m", "fleet.cli", "fleet", "maintenance", *ADD, *place]
    without = environment | {"GIT_CONFIG_COUNT": "0", "LOGNAME": "erika"}
    for variables, name in ((environment, "Jörg Müller"), (without, "erika")):
        done = subprocess.run(command, env=variables, capture_output=True, check=True)
        assert json.loads(done.stdout)["maintenance"]["entered_by"] == name
