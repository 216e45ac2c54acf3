"""The shared tests on real MicroPython, 64 and 32 bits, from source and compiled as flashed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil import tool
from tests.board.site import FIRMWARE, HERE, compiled

RUNNER = HERE / "lib" / "run.py"
Run = subprocess.Popen[str]
MODULES = sorted(path.stem for path in (HERE / "unit").glob("test_*.py"))


RUNS = [(i, b) for i in ("micropython", "micropython32") for b in ("source", "compiled")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Run]]:
    """Start all runs at once: they mostly wait."""
    builds = {
        "source": FIRMWARE,
        "compiled": compiled(tmp_path_factory.mktemp("firmware"), with_names=True),
    }
    started = {}
    try:
        for interpreter, build in RUNS:
            command = [tool.find(interpreter), RUNNER, builds[build], HERE / "unit", *MODULES]
            started[interpreter, build] = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        yield started
    finally:
        for run in started.values():
            run.kill()
            run.communicate()


# All four run at once, so that on two busy cores each takes minutes.
@pytest.mark.timeout(420)
@pytest.mark.parametrize(("interpreter", "build"), RUNS)
def test_shared_tests(interpreter: str, build: str, runs: dict[tuple[str, str], Run]) -> None:
    run = runs[interpreter, build]
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 0, output[-8000:]
    assert "skipped 0, failed 0" in output


def test_the_runner_tells_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(
        "import unittest\n\n\nclass BadTest(unittest.TestCase):\n"
        "    def test_bad(self):\n        self.assertEqual(1, 2)\n"
    )
    command = [tool.find("micropython"), RUNNER, FIRMWARE, tmp_path, "test_bad"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "ran 1, skipped 0, failed 1" in done.stdout
