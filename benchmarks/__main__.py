"""Run every benchmark, one after the other, and print one JSON document.

Each runs in a process of its own, so that one's memory and threads do not touch the next.
Progress goes to stderr. Names as arguments run only those.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

BENCHMARKS = (
    "report_size",
    "heap",
    "spool",
    "cycle",
    "ingest",
    "first_report",
    "desk",
    "tray",
    "ledger",
    "point",
    "install",
    "fanout",
    "pull",
)


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all; return 1 if one of them failed."""
    document: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        }
    }
    failed = False
    for name in names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, check=False
        )
        if done.returncode == 0:
            document[name] = json.loads(done.stdout)
        else:
            failed = True
            document[name] = {"error": f"exit code {done.returncode}"}
    print(json.dumps(document, indent=2))
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
