"""`netzpuls fleet run` on real OpenSSH servers, and what its audit log says afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fleet.cli
from fleet.errors import StoreError, UsageError
from fleet.run import MOST_OUTPUT_BYTES, Ran, choose, run
from fleet.text import printable
from tests.fleet.conftest import Login
from tests.fleet.line import Line
from tests.fleet.town import Town


@pytest.fixture
def town(tmp_path: Path, login: Login) -> Town:
    town = Town(tmp_path / "city", ["goethe-schule", "schiller-schule"])
    for name in ("gw-1", "gw-2", "gw-3"):
        login.gateway(town, name)
    town.sites["schiller-schule"]["gateway"] = "gw-2"
    return town


def _log(town: Town) -> list[dict[str, Any]]:
    path = town.folder / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _cli(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    town.write()
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["fleet", "run", "--city", str(town.folder), *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


def _on(town: Town, *command: str, **options: Any) -> list[Ran]:
    return run(town.write(), sorted(town.gateways), command, **options)


def test_one_word_is_a_line_for_the_shell_and_several_are_a_program(town: Town) -> None:
    assert {each.output for each in _on(town, "echo a b | tr a-z A-Z; echo $((1+1))")} == {"A B\n2"}
    assert {each.output for each in _on(town, "echo", "a b | tr a-z A-Z", "$HOME", "*")} == {
        "a b | tr a-z A-Z $HOME *"
    }


def test_output_is_merged_where_it_is_equal(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _cli(capsys, town, "--yes", "--", "echo same; echo error >&2")
    assert code == 0
    assert out == "── gw-1, gw-2, gw-3 (3 gateways)\nsame\nerror\n"
    assert sorted(line.split()[0] for line in err.splitlines()) == ["1/3", "2/3", "3/3"]
    script = "mkdir {0} 2>/dev/null && echo first || echo later; exit 0"
    code, out, _ = _cli(capsys, town, "--yes", "--", script.format(town.folder / "x"))
    assert code == 0
    assert [line for line in out.splitlines() if line[:2] != "──"] == ["later", "first"]


def test_where_it_failed_is_said_and_the_rest_is_shown(
    town: Town, login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    login.gateway(town, "gw-4", ssh_port=1)
    script = f"mkdir {town.folder}/x 2>/dev/null || exit 7"
    code, out, err = _cli(capsys, town, "--yes", "--", script)
    assert code == 1
    assert ", exit code 7" in out
    assert "gw-4" not in out
    assert "refuses the connection" in err
    assert "error: it failed on 3 of 4 gateways: " in err
    code, out, _ = _cli(capsys, town, "--yes", "--json", "--", script)
    document = json.loads(out)
    assert (code, document["ok"], document["error"]["code"]) == (1, False, "hosts-failed")
    assert [each["exit_code"] for each in document["gateways"]] == [7, 7, 7, None]
    assert document["gateways"][3]["error"]["code"] == "host-failed"


def test_the_log_says_who_ran_what_where(town: Town) -> None:
    assert [each.exit_code for each in _on(town, "false", "--password")] == [1, 1, 1]
    begin, *hosts, end = _log(town)
    assert begin["event"] == "begin"
    assert begin["command"] == ["false", "--password"]
    assert begin["hosts"] == ["gw-1", "gw-2", "gw-3"]
    assert begin["who"]
    assert begin["login"]
    assert begin["machine"]
    assert sorted(each["host"] for each in hosts) == begin["hosts"]
    assert {each["exit_code"] for each in hosts} == {1}
    assert (end["event"], end["succeeded"], end["failed"]) == ("end", 0, 3)
    assert not end["interrupted"]
    assert len({each["run"] for each in (begin, *hosts, end)}) == 1
    assert (town.folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_log_is_written_before_anything_runs(town: Town) -> None:
    seen = _on(town, f"cat {town.folder}/audit.jsonl")
    assert all('"event": "begin"' in each.output for each in seen)


def test_nothing_runs_where_the_log_cannot_be_written(town: Town, tmp_path: Path) -> None:
    city = town.write()
    (town.folder / "audit.jsonl").mkdir()
    with pytest.raises(StoreError):
        run(city, ["gw-1"], [f"touch {tmp_path}/ran"])
    assert not (tmp_path / "ran").exists()


def test_a_torn_line_costs_no_other(town: Town) -> None:
    town.write()
    path = town.folder / "audit.jsonl"
    path.write_text('{"event": "begin"}\n{"event": "ho')
    _on(town, "true")
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "ho'
    assert [json.loads(line)["event"] for line in lines[2:]] == ["begin", *["host"] * 3, "end"]


def test_more_than_one_is_asked_about(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _cli(capsys, town, "--", "true")
    assert code == 2
    assert "would run on 3 gateways" in err
    assert _log(town) == []
    code, out, _ = _cli(capsys, town, "--dry-run", "--json", "--", "reboot", "now")
    document = json.loads(out)
    assert (code, document["gateways"]) == (0, ["gw-1", "gw-2", "gw-3"])
    assert _log(town) == []
    code, _, _ = _cli(capsys, town, "--limit", "gw-2", "--", "true")
    assert code == 0
    assert _log(town)[0]["hosts"] == ["gw-2"]


@pytest.mark.parametrize(
    ("sites", "limits", "chosen"),
    [
        ([], [], ["gw-1", "gw-2", "gw-3"]),
        (["schiller-schule"], [], ["gw-2"]),
        ([], ["gw-[12]"], ["gw-1", "gw-2"]),
        ([], ["gw-*,!gw-2"], ["gw-1", "gw-3"]),
        ([], ["!gw-2"], ["gw-1", "gw-3"]),
        ([], ["gw-3", "gw-1"], ["gw-1", "gw-3"]),
    ],
)
def test_gateways_are_chosen(
    town: Town, sites: list[str], limits: list[str], chosen: list[str]
) -> None:
    assert choose(town.write(), sites, limits) == chosen


@pytest.mark.parametrize(
    ("sites", "limits"),
    [([], ["nothing"]), ([], ["gw-1", "gw-9"]), ([], ["!*"]), (["nowhere"], [])],
)
def test_what_fits_nothing_is_refused(town: Town, sites: list[str], limits: list[str]) -> None:
    with pytest.raises(UsageError):
        choose(town.write(), sites, limits)


def test_output_without_end_is_bounded_and_so_is_its_time(town: Town) -> None:
    began = time.monotonic()
    (ran,) = run(town.write(), ["gw-1"], ["exec yes"], timeout_s=3)
    assert time.monotonic() - began < 10
    assert ran.error is not None
    assert "did not finish within 3 s" in ran.error.message
    (ran,) = run(town.write(), ["gw-1"], ["head -c 3000000 /dev/zero | tr '\\0' x"])
    assert ran.good
    assert ran.omitted_bytes == 3_000_000 - MOST_OUTPUT_BYTES
    assert len(ran.output) <= MOST_OUTPUT_BYTES


def test_what_hosts_print_paints_nothing(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    script = r"printf '\033[31mred\033[0m\ta\r\n[bold]x[/]\302\233 \377\n'"
    code, out, _ = _cli(capsys, town, "--limit", "gw-1", "--", script)
    assert code == 0
    assert out.count("\n") == 3
    assert all(line == printable(line) for line in out.splitlines())
    assert "[bold]x[/]" in out


def test_a_host_that_hangs_holds_back_no_other(town: Town, login: Login) -> None:
    seen: list[tuple[str, float]] = []
    with Line(login.server.port, freeze_after=0) as line:
        login.gateway(town, "gw-0", ssh_port=line.port)
        began = time.monotonic()
        found = _on(
            town,
            "true",
            timeout_s=5,
            on_done=lambda ran: seen.append((ran.host, time.monotonic() - began)),
        )
    assert [each.good for each in found] == [False, True, True, True]
    assert seen[-1][0] == "gw-0"
    assert seen[-1][1] < 8
    assert seen[-2][1] < seen[-1][1]


def test_a_command_that_asks_hears_at_once_that_nobody_answers(town: Town) -> None:
    (ran,) = run(town.write(), ["gw-1"], ["read answer || echo nobody"], timeout_s=10)
    assert (ran.output, ran.exit_code) == ("nobody", 0)


def test_an_exit_code_of_124_is_the_commands_own(town: Town) -> None:
    (ran,) = run(town.write(), ["gw-1"], ["exit 124"])
    assert (ran.error, ran.exit_code) == (None, 124)


def test_a_command_ends_there_when_its_time_is_up_here(town: Town, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    (ran,) = run(town.write(), ["gw-1"], [f"echo $$ > {pid}; exec sleep 300"], timeout_s=2)
    assert ran.error is not None
    _until(lambda: not _runs(int(pid.read_text())))


def test_ctrl_c_ends_it_there_and_the_log_says_so(town: Town, tmp_path: Path) -> None:
    town.write()
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 300"
    command = [sys.executable, "-m", "fleet.cli", "fleet", "run", "--city", str(town.folder)]
    process = subprocess.Popen(
        [*command, "--limit", "gw-1", "--json", "--", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _until(pid.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    _until(lambda: not _runs(int(pid.read_text())))
    assert [each["event"] for each in _log(town)] == ["begin", "end"]
    assert _log(town)[-1]["interrupted"]


def test_what_stands_behind_the_dashes_is_for_the_host(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = _cli(capsys, town, "--limit", "gw-1", "--", "echo", "--json", "-h", "--yes")
    assert (code, out) == (0, "── gw-1\n--json -h --yes\n")
    code, out, err = _cli(capsys, town, "--limit", "nothing", "--", "echo", "--json")
    assert (code, out) == (2, "")
    assert "no gateway fits" in err


def test_a_log_that_breaks_meanwhile_stops_no_host(town: Town) -> None:
    """What runs is not cut off because its end cannot be written down; but it is said."""
    seen: list[Ran] = []

    def break_it(ran: Ran) -> None:
        seen.append(ran)
        if len(seen) == 1:
            (town.folder / "audit.jsonl").unlink()
            (town.folder / "audit.jsonl").mkdir()

    with pytest.raises(StoreError):
        _on(town, "true", on_done=break_it)
    assert len(seen) == 3
    assert all(each.good for each in seen)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
