"""`fleet check` on many gateways, beside OpenSSH's own client through `xargs -P32`.

Each gateway is an sshd of its own on loopback, and city hall's key is accepted by all. What runs
there answers at once: a stand-in prints a status as `netzpuls gateway status` does, for in a city
each gateway has processors of its own, and here all share those of the client. Curve25519 on both
sides, or the comparison would be one of key exchanges. Ways are taken in turn, medians are told.

    cold       each gateway is logged in on
    reused     the same check again over the connections that are there, as a schedule does
    command    `netzpuls fleet check` as a process, its own start included

CPU is the client's alone: user and system time of its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import check, inventory
from fleet.gateway.status import Status
from fleet.inventory import Inventory
from fleet.ssh import Pool
from hil.sshd import SshServer

HOSTS = (20, 200)
ROUNDS = 5
PARALLEL = 32
TIMEOUT_S = 60


class Bench:
    """Many sshd, a city whose gateways they are, and one key."""

    def __init__(self, root: Path, hosts: int, stack: contextlib.ExitStack) -> None:
        self.root = root
        self.identity = root / "identity"
        public = new_key(self.identity)
        self.reply = root / "netzpuls"
        self.servers = [
            stack.enter_context(SshServer(root / f"host-{number}", public))
            for number in range(hosts)
        ]
        self.known_hosts = root / "known_hosts"
        self.known_hosts.write_text(
            "".join(f"[{each.host}]:{each.port} {each.host_key}\n" for each in self.servers)
        )
        self._write_script()
        self.city = self._write_city()

    def _write_script(self) -> None:
        said = {
            "gateway": "GATEWAY", "version": "0.1.0", "time_ms": 0, "broker": True,
            "collector": True, "restarts": 0, "certificates": {}, "disk_free_bytes": 6,
            "disk_total_bytes": 9, "waiting": 0, "waiting_since_s": None, "unacknowledged": 0,
            "unacknowledged_since_s": None, "received_s": None, "boards": 8, "silent": {},
            "silent_count": 0,
        }  # fmt: skip
        line = Status.model_validate_json(json.dumps(said | {"gateway": "gw"})).model_dump_json()
        head, tail = line.split('"gw"')
        # --dir is a gateway's name; dash's own printf starts no process.
        self.reply.write_text(f"#!/bin/sh\nprintf '%s\"%s\"%s\\n' '{head}' \"$5\" '{tail}'\n")
        self.reply.chmod(0o755)

    def _write_city(self) -> Inventory:
        folder = self.root / "city"
        folder.mkdir()
        address = "203.0.113.80"
        gateways = {
            f"gw-{number}": {
                "host": each.host, "ssh_port": each.port, "user": each.user,
                "host_key": each.host_key, "identity_file": str(self.identity),
                "command": str(self.reply), "data_dir": f"gw-{number}", "broker_host": "10.1.0.2",
            }
            for number, each in enumerate(self.servers)
        }  # fmt: skip
        document = {
            "version": 1,
            "city": {"id": "bench", "name": "Bench"},
            "measurement": {
                "resolver": {"name": "probe.example", "address": address},
                "internet": {"host": "probe.example", "address": address},
            },
            "wlan": {"school": {"ssid": "Schule"}},
            "district": {"mitte": {"name": "Mitte"}},
            "gateway": gateways,
            "site": {
                name: {
                    "name": name, "district": "mitte", "gateway": name, "wlan": "school",
                    "rooms": ["1"],
                }
                for name in gateways
            },
        }  # fmt: skip
        (folder / "inventory.toml").write_text(tomli_w.dumps(document))
        return inventory.load(folder)

    def openssh(self) -> None:
        """Run the command everywhere with OpenSSH's client."""
        options = [
            *("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes"),
            *("-o", "KexAlgorithms=curve25519-sha256", "-i", str(self.identity)),
        ]
        lines = "".join(
            f"{each.port}\0{each.user}@{each.host}\0"
            f"exec timeout -k 2 60 {self.reply} gateway status --json --dir gw-{number}\0"
            for number, each in enumerate(self.servers)
        )
        done = subprocess.run(
            ["xargs", "-0", "-n3", f"-P{PARALLEL}", "ssh", *options, "-p"],
            input=lines.encode(), capture_output=True, check=True,
        )  # fmt: skip
        found = done.stdout.count(b'"status":1')
        if found != len(self.servers):
            raise RuntimeError(f"{found} of {len(self.servers)}: {done.stderr[-300:]!r}")

    def command(self) -> None:
        """Run `netzpuls fleet check` as a process."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "fleet.cli", "fleet", "check", "--part", "gateways"),
                *("--city", str(self.city.folder), "--parallel", str(PARALLEL)),
                *("-c", "clock_offset=~:", "-w", "clock_offset=~:", "-t", str(TIMEOUT_S)),
                *("-w", "gateways_outdated=~:", "--json"),
            ],
            capture_output=True, check=False,
        )  # fmt: skip
        document = json.loads(done.stdout)
        if done.returncode or document["metrics"]["gateways_unreachable"] != 0:
            raise RuntimeError(done.stdout[-500:].decode())

    def check(self, pool: Pool) -> None:
        """Check in this process."""
        answer = check.check(
            self.city, parts=["gateways"], timeout_s=TIMEOUT_S, parallel=PARALLEL, pool=pool
        )
        if len(answer.notes) != len(self.servers):
            raise RuntimeError(answer.worst_first[0].text)

    def cold(self) -> None:
        """Check over connections that are made for it."""
        with Pool() as pool:
            self.check(pool)


def new_key(path: Path) -> str:
    """Write a private key of our own and return its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    path.touch(0o600)
    path.write_bytes(private)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def _cpu_s() -> float:
    """Return the CPU time of this process and of children that ended: no sshd is among them."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    cpu, wall = _cpu_s(), time.perf_counter()
    work()
    return time.perf_counter() - wall, _cpu_s() - cpu


def _measure(hosts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        bench = Bench(Path(root), hosts, stack)
        kept = stack.enter_context(Pool())
        ways: dict[str, Callable[[], None]] = {
            "openssh": bench.openssh,
            "cold": bench.cold,
            "reused": lambda: bench.check(kept),
            "command": bench.command,
        }
        for work in ways.values():
            work()
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items():
                took[name].append(_timed(work))
    found = {
        name: {
            "wall_s": round(statistics.median(wall for wall, _ in times), 3),
            "client_cpu_s": round(statistics.median(cpu for _, cpu in times), 3),
        }
        for name, times in took.items()
    }
    # Each round's ratio by itself: what else the machine does then is the same for both.
    ratios = {
        f"{name}_to_openssh_wall": round(
            statistics.median(
                ours / theirs
                for (ours, _), (theirs, _) in zip(took[name], took["openssh"], strict=True)
            ),
            3,
        )
        for name in ("cold", "reused", "command")
    }
    return {**found, **ratios}


def measure() -> dict[str, Any]:
    """Check 20 and 200 gateways in all ways."""
    hosts = [int(each) for each in sys.argv[1:]] or HOSTS
    return {
        "parallel": PARALLEL,
        "rounds": ROUNDS,
        "load_before": round(os.getloadavg()[0], 1),
        **{f"{count}_hosts": _measure(count) for count in hosts},
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
