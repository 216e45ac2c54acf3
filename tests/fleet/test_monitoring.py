"""What docs/monitoring.md says, tried as users of Icinga and Checkmk would."""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.check import METRICS, PARTS, Figure, Status
from fleet.cli import plugin
from tests.fleet.town import Town, fill_store

DOCS = Path(__file__).parents[2] / "docs"
ROOT = DOCS.parent

# Checkmk's manual, "Local checks": state, name, metrics or a dash, text.
LOCAL = re.compile(
    r'(?P<state>[0-3P]) (?P<name>"[^"]+"|[^ "]+) (?P<metrics>-|[^ ]+) (?P<text>.*)', re.ASCII
)
_NUMBER = r"-?[0-9]+(\.[0-9]+)?"
METRIC = re.compile(
    rf"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>{_NUMBER})"
    rf"(;(({_NUMBER}:)?{_NUMBER})?(;(({_NUMBER}:)?{_NUMBER})?(;({_NUMBER})?(;({_NUMBER})?)?)?)?)?",
    re.ASCII,
)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    town = Town(tmp_path / "city", ["goethe-schule", "schiller-schule"])
    now_s = int(time.time())
    city = town.write()
    fill_store(city, [(board, board.series(now_s - 1200, 20)) for board in town.boards[:2]])
    return town


def _local(line: str) -> dict[str, str]:
    match = LOCAL.fullmatch(line)
    assert match, line
    if match["metrics"] != "-":
        for each in match["metrics"].split("|"):
            assert METRIC.fullmatch(each), each
    return match.groupdict()


def test_the_local_check_of_the_manual_is_one(town: Town) -> None:
    done = subprocess.run(
        [DOCS / "monitoring/checkmk-local"],
        env={
            **os.environ,
            "NETZPULS": str(Path(sys.executable).parent / "netzpuls"),
            "PYTHONPATH": str(ROOT),
            "CITY": str(town.folder),
            "RUN_AS": "",
            "SITES": "goethe-schule schiller-schule nowhere",
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    lines = [_local(line) for line in done.stdout.splitlines()]
    assert [each["name"] for each in lines] == [
        *('"Netzpuls goethe-schule"', '"Netzpuls schiller-schule"', '"Netzpuls nowhere"'),
    ]
    # Nobody answers there: no SSH server listens.
    assert [each["state"] for each in lines] == ["2", "2", "3"]
    assert lines[0]["text"].startswith("CRITICAL - gateway gw-1 (127.0.0.1)")
    assert r"\n" in lines[0]["text"]
    assert "gateways_unreachable=1;;0;0|" in lines[0]["metrics"]
    assert "no site 'nowhere'" in lines[2]["text"]


def test_an_answer_for_checkmk_is_one_line_whatever_it_says() -> None:
    figures = [Figure("disk_free", 9.5, "%", "10:", "5:", 0, 100), Figure("q", 3, "s", "@1:2", "4")]
    line = plugin.answer(
        Status.WARNING, "a|b\nc\x1b", figures, ["first", "second"], service=plugin.service(["x"])
    )
    assert _local(line) == {
        "state": "1",
        "name": '"Netzpuls x"',
        "metrics": "disk_free=9.5;;;0;100|q=3;;4",
        "text": r"WARNING - a/b\nc\x1b\nfirst\nsecond",
    }
    assert _local(plugin.answer(Status.UNKNOWN, "no", service="Netzpuls"))["metrics"] == "-"


def test_icinga_takes_the_configuration_of_the_manual(tmp_path: Path) -> None:
    icinga = shutil.which("icinga2")
    if not icinga:
        pytest.skip("needs icinga2: sudo apt install icinga2-bin")
    text = (DOCS / "monitoring/icinga.conf").read_text()
    main = tmp_path / "icinga2.conf"
    constants = {"PluginDir": "/usr/lib/nagios/plugins", "NodeName": "here", "ZoneName": "here"}
    main.write_text(
        "include <itl>\ninclude <plugins>\n"
        + "".join(f'const {name} = "{value}"\n' for name, value in constants.items())
        + text
    )
    # It would drop to a user who may not look in here.
    places = {
        "RunAsUser": getpass.getuser(),
        "RunAsGroup": grp.getgrgid(os.getegid()).gr_name,
    }
    for name in ("DataDir", "LogDir", "InitRunDir", "CacheDir"):
        places[name] = str(tmp_path / name)
        (tmp_path / name).mkdir()

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(icinga, "daemon", "-C", "-c", str(main)),
                *(f"-D{name}={value}" for name, value in places.items()),
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = check()
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout.lower(), done.stdout
    assert "Instantiated 3 Services" in done.stdout
    main.write_text(main.read_text().replace('"netzpuls"\n', '"no-such-command"\n', 1))
    assert check().returncode != 0


def test_the_manual_names_every_metric_with_its_thresholds_and_every_part() -> None:
    text = (DOCS / "monitoring.md").read_text()
    for name, kind in METRICS.items():
        limits = [f"`{each}`" if each else "" for each in (kind.warning, kind.critical)]
        unit = "days" if name.endswith("_days") else kind.unit
        row = f"| `{name}` | {unit} | {limits[0]} | {limits[1]} |".replace("|  |", "| |")
        assert row.replace("|  |", "| |") in text, row
    for part in PARTS:
        assert part in (DOCS / "monitoring/icinga.conf").read_text()
