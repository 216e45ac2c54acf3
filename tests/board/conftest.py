"""Board code is imported as the board sees it: `agent`, `linkreport`, `port`."""

import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent

sys.path[:0] = [str(HERE.parents[1] / "firmware"), str(HERE / "unit")]

# What the compiler of MicroPython knows, CPython must be told.
micropython = ModuleType("micropython")
micropython.const = lambda value: value  # type: ignore[attr-defined]
sys.modules["micropython"] = micropython
