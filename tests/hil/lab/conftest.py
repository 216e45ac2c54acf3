"""One lab for all tests here that only break and heal it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from hil import tool
from tests.hil.lab.running import RunningLab


@pytest.fixture(scope="session")
def namespaces() -> None:
    done = subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        pytest.skip(f"`unshare -Urnm true` fails here: {said}")
    tool.find("dnsmasq")


@pytest.fixture(scope="session")
def running_lab(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with RunningLab(
        tmp_path_factory.mktemp("lab") / "lab", "--sites", "4", "--hotspots", "1"
    ) as running:
        yield running


@pytest.fixture
def lab(running_lab: RunningLab) -> Iterator[RunningLab]:
    yield running_lab
    running_lab.heal()
