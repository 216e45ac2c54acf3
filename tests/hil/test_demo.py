"""The demo, as a user runs it: real parts, counted reports, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet import file
from hil import demo
from hil.city import places
from hil.demo import PERIOD_S

COMMAND = (sys.executable, "-m", "fleet.cli", "demo", "--instant")


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that have to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo") / "city"
    done = subprocess.run(
        [*COMMAND, "--json", "--seconds", "16", "--dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _processes_of(folder) == []
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_no_report_is_lost_or_doubled_although_broker_and_collector_are_killed(
    told: dict[str, Any],
) -> None:
    assert told["ok"] is True
    assert told["boards_flashed"] == 6
    assert told["reports_made"] >= 6 * 16 // PERIOD_S
    assert told["reports_made"] == told["committed"] == told["collected"]
    assert told["lost"] == told["duplicated"] == 0
    killed = [e["event"] for e in told["events"] if "is killed" in e["event"]]
    assert [event.split()[1] for event in killed] == ["broker", "collector"]


def test_exactly_the_boards_of_the_cut_line_are_down_and_only_there(told: dict[str, Any]) -> None:
    assert told["blames_rightly"] is True
    line, *boards = told["outages"]
    assert (line["kind"], line["site"], line["layer"]) == ("line", "goethe-schule", "internet")
    assert sorted(each["board"] for each in boards) == sorted(told["cut"]["boards"])
    assert {each["room"] for each in boards} == {"101", "102"}
    for each in (line, *boards):
        assert each["reason"] == "connect-timeout"
        assert 0 < each["length_s"] <= 16
    for site in told["sites"]:
        is_cut = site["site"] == told["cut"]["site"]
        assert (site["line"]["availability"] < 1) is is_cut
        assert site["line"]["seconds"]["down"] == (line["length_s"] if is_cut else 0)
        total = sum(site["line"]["seconds"].values())
        assert total == told["period"]["seconds"]


def test_the_city_stays_and_answers(told: dict[str, Any]) -> None:
    city = Path(told["folder"]) / "city"
    listed = subprocess.run(
        [sys.executable, "-m", "fleet.cli", "board", "list", "--city", str(city), "--json"],
        capture_output=True,
        check=True,
    )
    assert len(json.loads(listed.stdout)["boards"]) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "city"
    process = subprocess.Popen(
        [*COMMAND, "--boards", "2", "--dir", str(folder)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "committed and acknowledged" in line:
            break
    assert _processes_of(folder)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert _processes_of(folder) == []


def test_interrupted_while_flashing_it_does_not_flash_on(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    command = [each for each in COMMAND if each != "--instant"]
    process = subprocess.Popen(
        [*command, "--boards", "2", "--dir", str(folder)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    assert any("flashing" in line for line in process.stderr)
    while set((folder / "board1.flash").read_bytes()[0x1000:0x2000]) == {0xFF}:
        time.sleep(0.05)  # the test's own deadline ends this
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not (folder / "city" / "registry.toml").exists()
    assert _processes_of(folder) == []


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "city"
    process = subprocess.Popen(
        [*COMMAND, "--boards", "2", "--dir", str(folder)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "flashing" in line:
            break
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while _processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_of(folder) == []


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [*COMMAND, "--json", "--dir", str(tmp_path)], capture_output=True, check=False
    )
    assert done.returncode == 3
    assert "--dir" in json.loads(done.stdout)["error"]["hint"]
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_where_another_demo_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".netzpuls-virtual-city").touch()
    (tmp_path / "gateway.log").write_text("alive")
    with file.locked(tmp_path):
        done = subprocess.run(
            [*COMMAND, "--json", "--dir", str(tmp_path)], capture_output=True, check=False
        )
    assert done.returncode == 3
    assert "another virtual city is alive" in json.loads(done.stdout)["error"]["message"]
    assert (tmp_path / "gateway.log").read_text() == "alive"


def test_what_goes_wrong_is_one_document_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tell(*_: object, **__: object) -> demo._Outcome:
        return demo._Outcome(tmp_path, "goethe-schule", (), made={"np-240ac4100001": 3})

    monkeypatch.setattr(demo, "_tell", tell)
    with pytest.raises(SystemExit, match="1"):
        fleet.cli.main(["demo", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["lost"]) == (False, 3)
    assert document["error"]["code"] == "demo-failed"
    assert "3 reports lost" in document["error"]["message"]


def test_places_for_any_number_of_boards() -> None:
    assert [place.site for place in places(6)] == [
        "goethe-schule",
        "goethe-schule",
        "schiller-schule",
        "schiller-schule",
        "hotspot-marktplatz",
        "hotspot-bahnhof",
    ]
    for boards in (1, 2, 7, 32):
        found = places(boards)
        assert len(found) == boards
        assert len({(place.site, place.room) for place in found}) == boards
