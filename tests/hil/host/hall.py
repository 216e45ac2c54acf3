"""City hall beside the hosts of a bed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w

from fleet import file
from fleet.install.wheelhouse import Wheelhouse
from hil.host.bed import Bed, Host


def write_city(folder: Path, bed: Bed, *hosts: Host) -> Path:
    folder.mkdir(exist_ok=True)
    gateways = {
        host.name: {
            "host": host.address,
            "host_key": host.host_key,
            "identity_file": str(bed.key_file),
            "broker_host": host.address,
        }
        for host in hosts
    }
    document = {
        "version": 1,
        "city": {"id": "musterstadt", "name": "Musterstadt"},
        "measurement": {
            "resolver": {"name": "probe.example", "address": "203.0.113.80"},
            "internet": {"host": "probe.example", "address": "203.0.113.80"},
        },
        "wlan": {"school": {"ssid": "Schule", "security": "open"}},
        "district": {"mitte": {"name": "Mitte"}},
        "gateway": gateways,
        "site": {
            f"schule-{name}": {
                "name": f"Schule {name}",
                "kind": "school",
                "district": "mitte",
                "gateway": name,
                "wlan": "school",
                "rooms": ["101"],
            }
            for name in gateways
        },
    }
    file.write(folder / "inventory.toml", tomli_w.dumps(document))
    return folder


class Hall:
    """City hall: runs netzpuls where hosts can be reached."""

    def __init__(self, bed: Bed, city: Path, house: Wheelhouse) -> None:
        self.bed = bed
        self.city = city
        self.house = house

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fleet.cli", *arguments, "--city", str(self.city)]
        with self.bed.hall.inside():
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=500)
        assert "Traceback" not in err
        return process.returncode, json.loads(out)

    def gateway(self, verb: str, *arguments: str, house: Wheelhouse | None = None) -> Any:
        packages = ()
        if verb in ("install", "upgrade"):
            packages = ("--wheelhouse", str((house or self.house).folder))
        return self.run("gateway", verb, *arguments, *packages)

    def install(self, host: Host) -> dict[str, Any]:
        code, told = self.gateway("install", host.name)
        assert code == 0, told
        return dict(told["gateways"][0])
