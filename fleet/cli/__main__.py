"""`python -m fleet.cli` is the command `netzpuls`."""

from fleet.cli import main

main()
