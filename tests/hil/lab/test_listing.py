"""The tables of the lab's commands on narrow terminals."""

from __future__ import annotations

import io
import os
import subprocess

import pytest
from rich.console import Console

from hil.lab.fault import catalogue
from hil.lab.listing import Listing
from tests.hil.lab.running import ROOT, lab_command

_TITLES = ("site", "room", "board", "role", "faults", "verdict", "reports")
_FAULTS = "dns-dead+internet-cut-behind-router, weak-signal"
_ROWS = (
    ("goethe-schule", "101", "np-240ac4200104", "classroom-sensor", _FAULTS, "down resolver", "14"),
    ("goethe-schule", "102", "np-240ac4200108", "ap-monitor", "", "up", "7"),
)


def _shown(width: int) -> list[str]:
    listing = Listing(
        _TITLES,
        right=("reports",),
        movable=("faults", "role", "verdict"),
    )
    for row in _ROWS:
        listing.add(*row)
    stream = io.StringIO()
    Console(file=stream, width=width).print(listing)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120, 200])
def test_no_word_is_broken_or_lost(width: int) -> None:
    lines = _shown(width)
    assert max(map(len, lines)) <= width
    words = [word.rstrip(";") for line in lines for word in line.split()]
    for row in _ROWS:
        for word in " ".join(row).split():
            assert word in words, (word, lines)


def test_what_fits_is_a_plain_table() -> None:
    assert len(_shown(200)) == 1 + len(_ROWS)
    assert tuple(_shown(200)[0].split()) == _TITLES


def test_what_does_not_fit_stands_beneath_its_own_row_by_name() -> None:
    titles, first, beneath, second = _shown(90)
    assert titles.split() == ["site", "room", "board", "role", "verdict", "reports"]
    assert (first.split()[1], first.split()[-1]) == ("101", "14")
    assert beneath.strip() == f"faults: {_FAULTS}"
    assert second.split()[1] == "102"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_of_faults_breaks_no_word(width: int) -> None:
    done = subprocess.run(
        lab_command("fault", "--list"),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env=os.environ | {"COLUMNS": str(width), "PYTHONUTF8": "1"},
    )
    assert max(map(len, done.stdout.splitlines())) <= width
    words = " ".join(done.stdout.split())
    for fault in catalogue():
        assert f" {fault.name} {fault.text} → {fault.expected}" in words
