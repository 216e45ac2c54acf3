"""The root command: exit codes, errors as text and as one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

import fleet.cli
from fleet.text import printable

if TYPE_CHECKING:
    from pathlib import Path


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(list(arguments))
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.mark.parametrize("noun", list(fleet.cli.NOUNS))
def test_every_noun_has_a_help_text(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(noun, "--help") == 0
    assert "Usage: netzpuls" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["fleet", "nonsense"], ["--nonsense"]])
def test_wrong_usage_is_2_with_a_hint(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err
    assert "hint: " in said.err


@pytest.mark.parametrize("arguments", [[], ["fleet"]])
def test_a_command_without_its_verb_is_answered_with_help(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Usage: netzpuls")


def test_a_mistyped_noun_is_answered_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run("flet") == 2
    said = capsys.readouterr().err
    assert all(noun in said for noun in fleet.cli.NOUNS)


def test_a_missing_inventory_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("board", "list", "--city", str(tmp_path), "--json") == 2
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["error"]["code"] == "configuration"
    assert "--city" in document["error"]["hint"]


@pytest.mark.parametrize(
    ("raised", "code", "name"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("x"), 1, "defect"),
        (EOFError(), 1, "defect"),
    ],
)
def test_no_traceback_reaches_a_user(
    raised: BaseException,
    code: int,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command("break")
    @click.option("--json", "as_json", is_flag=True)
    def breaking(*, as_json: bool) -> None:
        raise raised

    fleet.cli.breaking = breaking  # type: ignore[attr-defined]
    monkeypatch.setitem(fleet.cli.NOUNS, "break", ("fleet.cli:breaking", "breaks"))
    assert _run("break") == code
    assert "Traceback" not in capsys.readouterr().err
    assert _run("break", "--json") == code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == name


def test_the_command_is_installed_and_a_lost_reader_is_no_traceback() -> None:
    script = f"{sys.executable} -m fleet.cli --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def _shell(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m fleet.cli board list --city {tmp_path} --json"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {script}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_error_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    done = _shell("| true", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")


def test_an_error_that_has_no_room_is_told_on_stderr(tmp_path: Path) -> None:
    done = _shell("> /dev/full", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no inventory.toml")


def test_a_closed_stdout_is_no_traceback(tmp_path: Path) -> None:
    done = _shell(">&-", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")


def test_what_a_peer_says_of_itself_is_made_safe_to_show() -> None:
    assert printable("Schule\x1b[2J\u202e") == "Schule\\x1b[2J\\u202e"
    assert printable(b"\xff\x00ok") == "\\xff\\x00ok"
    assert len(printable("x" * 1000)) == 200
