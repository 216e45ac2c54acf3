"""Board code is imported as the board sees it: `agent`, `linkreport`, `port`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent

sys.path[:0] = [str(HERE.parents[1] / "firmware"), str(HERE / "unit")]
