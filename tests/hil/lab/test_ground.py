"""Where a lab cannot be: what it says, with which code, and that it touches nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet import file
from fleet import tool as fleet_tool
from hil import tool
from hil.lab.error import LabError
from hil.lab.ground import OWN, told
from tests.hil.lab.running import ROOT, STOP_S, RunningLab, lab_command, processes

pytestmark = pytest.mark.usefixtures("namespaces")

_MARK = ".netzpuls-network-lab"
# A file system of its own, in a mount namespace of its own.
_MOUNTED = 'mount -t tmpfs -o "$1" tmpfs "$2"; shift 2; exec "$@"'


def _call(
    *arguments: str,
    mounted: tuple[str, Path] | None = None,
    environment: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any], str]:
    command = [*lab_command(*arguments), "--json"]
    if mounted:
        options, at = mounted
        command = ["unshare", "-Urm", "sh", "-c", _MOUNTED, "sh", options, str(at), *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
        env=os.environ | (environment or {}),
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("size=8m", "needs 16 MiB"),
        ("size=100m,nr_inodes=6", "No space left on device"),
        ("size=100m,nr_inodes=30", "No space left on device"),
        ("ro", "Read-only file system"),
    ],
)
def test_a_disk_without_room_is_named(options: str, words: str, tmp_path: Path) -> None:
    code, document, _ = _call("up", "--dir", str(tmp_path / "lab"), mounted=(options, tmp_path))
    assert code in (2, 3), document
    assert document["error"]["code"] != "defect"
    assert words in document["error"]["message"]
    assert str(tmp_path / "lab") in document["error"]["message"]
    assert document["error"]["hint"]
    assert processes(tmp_path) == []


def test_what_is_not_a_lab_s_stays(tmp_path: Path) -> None:
    (tmp_path / _MARK).touch()
    (tmp_path / "board-101.log").write_text("of an earlier lab")
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "photos").mkdir()
    code, document, _ = _call("up", "--dir", str(tmp_path))
    assert code == 3
    assert "photos, thesis.txt" in document["error"]["message"]
    assert "move it away" in document["error"]["hint"]
    assert {path.name for path in tmp_path.iterdir()} == {
        _MARK, "board-101.log", "thesis.txt", "photos"
    }  # fmt: skip


def test_a_path_too_long_for_sockets_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    code, document, _ = _call("up", "--dir", str(folder))
    assert code == 3
    assert "at most 107 bytes" in document["error"]["message"]
    assert "--dir" in document["error"]["hint"]
    assert not folder.exists()


@pytest.mark.parametrize("missing", ["dnsmasq", "mosquitto", "micropython"])
def test_a_missing_program_is_named_before_anything_is_made(missing: str, tmp_path: Path) -> None:
    here = {"dnsmasq": tool.find("dnsmasq"), "micropython": tool.find("micropython")}
    here["mosquitto"] = fleet_tool.find(fleet_tool.MOSQUITTO)
    programs = tmp_path / "tools" / "bin"
    programs.mkdir(parents=True)
    for name in here.keys() - {missing}:
        wrapper = programs / name
        wrapper.write_text(f'#!/bin/sh\nexec "{here[name]}" "$@"\n')
        wrapper.chmod(0o755)
    environment = {"NETZPULS_TOOLS": str(programs.parent), "PATH": str(tmp_path)}
    code, document, _ = _call("up", "--dir", str(tmp_path / "lab"), environment=environment)
    assert (code, document["error"]["code"]) == (3, "tool-missing")
    assert f"{missing} is not on this machine" in document["error"]["message"]
    assert "make setup" in document["error"]["hint"]
    assert not (tmp_path / "lab").exists()


def test_a_lab_that_cannot_listen_is_not_called_absent(tmp_path: Path) -> None:
    with file.locked(tmp_path):
        code, document, _ = _call("status", "--dir", str(tmp_path))
    assert code == 3
    assert "takes no commands now" in document["error"]["message"]
    assert document["error"]["hint"]


@pytest.mark.parametrize("stage", ["starting the gateways", "flashing", "the boards boot"])
def test_it_can_be_interrupted_at_every_stage(stage: str, tmp_path: Path) -> None:
    said = _interrupted(stage, "up", "--dir", str(tmp_path / "lab"))
    assert said.endswith("error: interrupted\n")
    assert processes(tmp_path) == []


def test_the_matrix_can_be_interrupted(tmp_path: Path) -> None:
    _interrupted("boards are up", "matrix", "--fault", "dns-dead", "--dir", str(tmp_path / "lab"))
    assert processes(tmp_path) == []


def _interrupted(stage: str, *arguments: str) -> str:
    """Send SIGINT when a stage has begun; return what was said from then on."""
    process = subprocess.Popen(
        lab_command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=STOP_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    return said


def test_down_returns_when_the_next_one_may_come_and_a_lab_gives_no_other_name(
    tmp_path: Path,
) -> None:
    with RunningLab(tmp_path / "lab", "--sites", "1", "--hotspots", "1") as lab:
        code, document, _ = _call("up", "--dir", str(lab.folder))
        assert code == 3
        assert "another network lab is alive" in document["error"]["message"]
        names = [path for path in lab.folder.iterdir() if path.name != _MARK]
        assert [path for path in names if not any(path.match(own) for own in OWN)] == []
        code, _, _ = _call("down", "--dir", str(lab.folder))
        assert code == 0
        with file.locked(lab.folder, wait=False):
            pass
        assert lab.process.wait(STOP_S) == 0
        lab.process.communicate()
    assert processes(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("nowhere/page.md", "there is no such folder"),
        ("binary.md", "it is no text"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_matrix_is_made(
    page: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")
    folder = tmp_path / "lab"
    code, document, _ = _call("matrix", "--markdown", str(tmp_path / page), "--dir", str(folder))
    assert code == 2
    assert words in document["error"]["message"]
    assert "--markdown" in document["error"]["hint"]
    assert not folder.exists()


def test_what_the_system_refuses_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"/opt/missing/python"), told(tmp_path):
        raise PermissionError(13, "Permission denied", "/opt/missing/python")
