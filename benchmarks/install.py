"""Seconds to make a bare Debian 12 into a gateway, and for the second run, which changes nothing.

A real Debian with systemd in a container of this machine (`hil.host`), reached over SSH; its apt
has the packages at hand, so nothing waits for a mirror. `steps_s` says where the time goes,
`ssh_true` what OpenSSH takes to do nothing there. Needs root.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fleet.install import wheelhouse
from fleet.install.wheelhouse import Target
from hil.host.bed import Bed, Host, refusal
from tests.hil.host.hall import Hall, write_city

RUNS = 3


def measure(runs: int = RUNS) -> dict[str, Any]:
    """Install on bare hosts, one after the other, each twice."""
    house = wheelhouse.make(wheelhouse.default_folder(), [Target("3.11", "amd64")])
    steps: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {"first": [], "second": [], "ssh_true": []}
    with tempfile.TemporaryDirectory(prefix="netzpuls-bench-") as name:
        folder = Path(name)
        with Bed(folder / "bed") as bed:
            for run in range(runs):
                host = bed.host(f"gw-{run}")
                hall = Hall(bed, write_city(folder / f"city{run}", bed, host), house)
                for which in ("first", "second"):
                    began_s = time.monotonic()
                    told = hall.install(host)
                    times[which].append(time.monotonic() - began_s)
                    for each in told["done"]:
                        steps.setdefault(each["step"], []).append(each["duration_s"])
                times["ssh_true"].append(_ssh(bed, host))
    return {
        "runs": runs,
        "median_s": {name: round(statistics.median(each), 3) for name, each in times.items()},
        "steps_s": {name: round(statistics.median(each), 3) for name, each in steps.items()},
    }


def _ssh(bed: Bed, host: Host) -> float:
    """Return how long OpenSSH's client takes for a command that does nothing."""
    known = bed.folder / "known_hosts"
    known.write_text(f"{host.address} {host.host_key}\n")
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}"]
    command += ["-i", str(bed.key_file), f"root@{host.address}", "true"]
    began_s = time.monotonic()
    with bed.hall.inside():
        subprocess.run(command, check=True)
    return time.monotonic() - began_s


if __name__ == "__main__":
    if reason := refusal():
        print(json.dumps({"not_measured": reason}))
    else:
        print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)))
