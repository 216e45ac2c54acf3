"""`python -m hil.board`: `netzpuls lab board`."""

from __future__ import annotations

import sys

from fleet.cli import main

main(["lab", "board", *sys.argv[1:]])
