"""`netzpuls board`: what is refused before a board is touched, and how the refusal is said."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import fleet.cli
from fleet.inventory import Board
from provisioning import registry
from tests.provisioning.bench import WLAN_KEY


@pytest.fixture
def terminal() -> Iterator[str]:
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    for descriptor in (master, slave):
        os.close(descriptor)


def _run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", *map(str, arguments)])
    assert isinstance(exited.value.code, int)
    return exited.value.code


def _flash(city: Path, **options: str | Path | None) -> list[str]:
    chosen: dict[str, str | Path | None] = {
        "city": city,
        "port": "/dev/netzpuls-nowhere",
        "site": "school-north",
        "room": "R101",
        "role": "classroom-sensor",
    } | options
    pairs = [(f"--{name}", str(value)) for name, value in chosen.items() if value is not None]
    return ["flash", *(part for pair in pairs for part in pair)]


def _tree(city: Path) -> dict[str, bytes]:
    return {str(p.relative_to(city)): p.read_bytes() for p in city.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("options", "code", "exit_code", "named"),
    [
        ({"port": None}, "usage", 2, "--port"),
        ({"site": "school-south"}, "usage", 2, "school-north"),
        ({"room": "R999"}, "usage", 2, "R101"),
        ({"role": "toaster"}, "usage", 2, "ap-monitor"),
        ({"site": "hall", "room": "1"}, "usage", 2, "802.1X"),
        ({"baud": "12"}, "usage", 2, "9600"),
        ({"micropython": None}, "image", 2, "ESP32_GENERIC"),
        ({"micropython": "/nowhere.bin"}, "image", 2, "/nowhere.bin"),
        ({}, "port-missing", 3, "/dev/netzpuls-nowhere"),
        ({"port": "/etc/hostname"}, "port-denied", 3, "/etc/hostname"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_refusals(
    city: Path,
    stand_in: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    options: dict[str, Any],
    code: str,
    exit_code: int,
    named: str,
    dry_run: bool,
) -> None:
    before = _tree(city)
    arguments = _flash(city, **({"micropython": stand_in} | options))
    arguments += ["--dry-run"] * dry_run
    assert _run(*arguments, "--json") == exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert named in error["message"] + error["hint"]
    assert error["hint"]
    assert _tree(city) == before

    assert _run(*arguments) == exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert "error: " in said.err
    assert "Traceback" not in said.err


def test_a_missing_wlan_key_names_the_line(
    city: Path, stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (city / "secrets" / "wlan.toml").unlink()
    assert _run(*_flash(city, micropython=stand_in), "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "wlan-key"
    assert 'school = "' in error["hint"]


def test_a_dry_run_shows_the_plan_and_touches_nothing(
    city: Path, stand_in: Path, terminal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _tree(city)
    arguments = [*_flash(city, micropython=stand_in, port=terminal), "--dry-run"]
    assert _run(*arguments, "--json") == 0
    said = capsys.readouterr().out
    plan = json.loads(said)["plan"]
    assert plan["image"]["stand_in"] is True
    assert [part["address"] for part in plan["write"]] == [0x1000, 0x200000]
    assert (plan["wlan"], plan["gateway"]) == ("school", "gw-north")
    assert WLAN_KEY not in said

    assert _run(*arguments) == 0
    said = capsys.readouterr().out
    assert "stand-in, for virtual boards only" in said
    assert plan["image"]["sha256"] in said
    assert "Nothing was written" in said
    assert _tree(city) == before


def _entry(site: str, room: str, revoked: datetime | None = None) -> Board:
    return Board(
        site=site,
        room=room,
        role="ap-monitor",
        key_id=2,
        chip="ESP32",
        mac="24:0a:c4:12:34:56",
        agent="0.1.0",
        enrolled=datetime(2026, 7, 1, tzinfo=UTC),
        certificate_expires=datetime(2036, 6, 28, tzinfo=UTC),
        revoked=revoked,
    )


def test_list(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("list", "--city", city) == 0
    assert "No boards yet" in capsys.readouterr().out

    gone = datetime(2026, 8, 1, tzinfo=UTC)
    boards = {
        "np-240ac4000002": _entry("market", "Fountain", gone),
        "np-240ac4000001": _entry("school-north", "R102"),
    }
    (city / "registry.toml").write_text(registry.render(boards))
    assert _run("list", "--city", city) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "np-240ac4000001" in lines[1]
    assert "R102" in lines[1]
    assert "np-240ac4000002 (revoked)" in lines[2]

    assert _run("list", "--city", city, "--site", "market", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    (board,) = document["boards"]
    assert board["board"] == "np-240ac4000002"
    assert board["revoked"] == "2026-08-01T00:00:00Z"

    assert _run("list", "--city", city, "--site", "nowhere") == 2


def test_list_leaves_columns_out_where_a_terminal_is_narrow(
    city: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (city / "registry.toml").write_text(
        registry.render({"np-240ac4000001": _entry("market", "Fountain")})
    )
    for columns, shown in ((80, False), (200, True)):
        console = Console(force_terminal=True, width=columns, color_system=None)
        monkeypatch.setattr("provisioning.cli_registry.result", console)
        assert _run("list", "--city", city) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert ("enrolled" in head) == shown
        assert max(len(head), len(row)) <= columns
        assert "2036-06-28" in row


def test_list_on_a_narrow_terminal_cuts_no_id(
    city: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    boards = {"np-240ac4000001": _entry("school-north", "R102")}
    (city / "registry.toml").write_text(registry.render(boards))
    assert _run("list", "--city", city) == 0
    assert "np-240ac4000001" in capsys.readouterr().out
