"""`netzpuls lab`: what a user sees, above all when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

NETZPULS = Path(sys.executable).with_name("netzpuls")
ROOT = Path(__file__).parents[3]


def lab(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, Any]:
    done = subprocess.run(
        [NETZPULS, "lab", *map(str, arguments), "--json"],
        capture_output=True,
        timeout=30,
        check=False,
        env=environment,
    )
    return done.returncode, json.loads(done.stdout)


def test_image_is_as_large_and_dense_as_the_official_one(tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    code, document = lab("image", path)
    content = path.read_bytes()
    assert (code, document["ok"], document["bytes"]) == (0, True, len(content))
    assert "NOT MicroPython" in document["text"]
    assert document["text"].encode() in content
    assert 1_650_000 < len(content) < 1_800_000
    assert 0.62 < len(zlib.compress(content, 9)) / len(content) < 0.66
    lab("image", tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == content
    lab("image", tmp_path / "other.bin", "--seed", "other")
    assert (tmp_path / "other.bin").read_bytes() != content


def test_image_that_cannot_be_written(tmp_path: Path) -> None:
    code, document = lab("image", tmp_path / "missing" / "image.bin")
    assert (code, document["error"]["code"]) == (2, "configuration")


@pytest.mark.parametrize(
    ("prepare", "options", "code", "error"),
    [
        ("link", (), 3, "port-unavailable"),
        ("control", (), 3, "port-unavailable"),
        ("flash", ("--flash", "flash.bin"), 3, "flash-file"),
        ("radio", ("--radio", "radio.json"), 2, "radio-model"),
        ("none", ("--radio", "missing.json"), 2, "radio-model"),
        ("none", ("--mac", "24:0a"), 2, "usage"),
        ("none", ("--rfc2217", "70000"), 2, "usage"),
        ("none", ("--micropython", "missing"), 3, "tool-missing"),
    ],
)
def test_what_stands_in_the_way_is_said_and_nothing_is_left(
    tmp_path: Path, prepare: str, options: tuple[str, ...], code: int, error: str
) -> None:
    files = {
        "link": ("np", b""),
        "control": ("np.control", b""),
        "flash": ("flash.bin", b"short"),
        "radio": ("radio.json", b"{}"),
    }
    if prepare in files:
        name, content = files[prepare]
        (tmp_path / name).write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    options = tuple(str(tmp_path / o) if "." in o and o != "24:0a" else o for o in options)
    options = tuple(str(tmp_path / o) if o == "missing" else o for o in options)
    got, document = lab("board", "--link", tmp_path / "np", *options)
    assert (got, document["error"]["code"]) == (code, error)
    assert document["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_tcp_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, document = lab("board", "--link", tmp_path / "np", "--rfc2217", port)
    assert (code, document["error"]["code"]) == (3, "port-unavailable")
    assert list(tmp_path.iterdir()) == []


def test_a_board_in_the_foreground_says_how_to_stop_it(tmp_path: Path) -> None:
    board = subprocess.Popen(
        [NETZPULS, "lab", "board", "--link", tmp_path / "np", "--instant"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert board.stdout is not None
    said = board.stdout.readline().decode()
    assert str(tmp_path / "np") in said
    assert "Ctrl-C" in said
    assert (tmp_path / "np").is_symlink()
    board.send_signal(signal.SIGINT)
    _, errors = board.communicate(timeout=10)
    assert board.returncode == 130
    assert errors.strip() == b""
    assert list(tmp_path.iterdir()) == []
