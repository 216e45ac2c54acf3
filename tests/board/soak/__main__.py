"""A board's week: python -m tests.board.soak [--days 7] [--heap-kib N] [--seed 1] …, see --help."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.board.soak.board import SoakError
from tests.board.soak.plan import AWAY
from tests.board.soak.soak import HEAP_KIB, Soak

_DAY_CYCLES = 1440
_LARGE_KIB = 256


def main() -> int:
    """Run a soak; return 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(prog="soak", description="A board's week in some minutes.")
    parser.add_argument("--days", type=float, default=7, help="of the board's clock")
    parser.add_argument("--cycles", type=int, help="instead of days")
    parser.add_argument("--heap-kib", type=int, default=HEAP_KIB, help="the board's heap")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other faults")
    parser.add_argument("--away", type=float, default=AWAY, help="part of it without a collector")
    parser.add_argument(
        "--peaks", action="store_true", help="also tell what takes how much of a heap of 256 KiB"
    )
    arguments = parser.parse_args()
    heap_kib = _LARGE_KIB if arguments.peaks else arguments.heap_kib
    cycles = arguments.cycles or round(arguments.days * _DAY_CYCLES)
    with tempfile.TemporaryDirectory(prefix="netzpuls-soak-") as folder:
        try:
            soak = Soak(
                Path(folder), cycles, heap_kib, arguments.seed,
                finds_peaks=arguments.peaks, away_part=arguments.away,
            )  # fmt: skip
            document = soak.run()
        except SoakError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("error: interrupted\n")
            return 130
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    for failure in document["failures"]:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if document["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
