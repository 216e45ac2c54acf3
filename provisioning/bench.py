"""The bench at the desk: a WLAN and a gateway with which a board is tested before it is enrolled.

    [bench]
    wlan = "bench"                  # of [wlan]; its key is in secrets/wlan.toml like any
    broker_host = "192.168.7.1"     # where `netzpuls gateway bench` runs, in that WLAN

`provisioning.trial` takes a board over it. The gateway knows the boards that are under way, by keys
made for the bench alone (`firmware/linkreport/bench.py`): what it is told counts nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware.linkreport import bench as wire
from fleet import file
from fleet.gateway import keyring
from fleet.gateway.database import DatabaseError, Reader
from fleet.gateway.settings import Folder
from fleet.inventory import BENCH, SECRETS_FOLDER, Inventory, Tested, Wlan
from provisioning import configuration, journal
from provisioning.configuration import Recipient
from provisioning.errors import BenchDownError
from provisioning.journal import Pending

# What people are told of a self-test that a board has passed.
TESTED: Mapping[Tested, str] = {"alone": "alone", "bench": "at the bench"}

_PROBES_MS = {"radio": 8000, "association": 12_000, "addressing": 8000, "cycle": 29_000}
_PERIOD_S = 3600  # longer than all that
_READY_S = 10.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Bench:
    """A city's bench, ready.

    Attributes:
        folder: the gateway's.
        key: the WLAN's, "" for an open one.
        ntp: whom boards ask for the time; "": the collector tells it.
    """

    city: Path
    folder: Folder
    wlan_id: str
    wlan: Wlan
    key: str = field(repr=False)
    broker_host: str
    broker_port: int
    ntp: str

    @property
    def gateway(self) -> str:
        """Where boards find the gateway, as people write it."""
        return f"{self.broker_host}:{self.broker_port}"

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"wlan": self.wlan_id, "gateway": self.gateway}

    def secrets(self, pending: Pending) -> tuple[str, ...]:
        """Return what a board knows at the bench and must not be shown."""
        return (self.key, wire.key(pending.report_key).hex())

    def admit(self) -> None:
        """Tell the gateway the bench's keys of all boards that are under way.

        Raises: BenchDownError: its folder cannot be written.
        """
        folder = self.city / SECRETS_FOLDER / journal.FOLDER
        try:
            with file.locked(folder):
                keys = {
                    each.board: {each.key_id: wire.key(each.report_key)}
                    for each in journal.boards(self.city)
                }
                file.write(self.folder.boards, keyring.render(keys), file.PRIVATE)
        except OSError as error:
            raise BenchDownError(
                f"cannot tell the bench's gateway its boards in {self.folder.path}: "
                f"{error.strerror or error}",
                hint="make room, or the folder writable, and run the same command again",
            ) from None

    def holds(self, board: str, key_id: int, seq: int) -> bool:
        """Tell whether the gateway's collector has committed a report.

        Raises: BenchDownError: what it has cannot be read.
        """
        if not self.folder.database.is_file():
            return False
        try:
            with contextlib.closing(Reader(self.folder.database)) as reader:
                return reader.holds(board, key_id, seq)
        except DatabaseError as error:
            raise BenchDownError(error.message, hint=error.hint) from None


def of(city: Inventory) -> Bench | None:
    """Return the bench of a city, None if the inventory has none.

    Raises:
        UsageError: boards cannot join its WLAN.
        WlanKeyError: the WLAN's key is not there, or cannot be one.
        BenchDownError: its gateway does not run.
    """
    if city.bench is None:
        return None
    place = city.bench
    key = configuration.keys(city, [place.wlan], "the bench")[place.wlan]
    folder = Folder(city.folder / place.data_dir)
    _check_running(folder)
    ntp = city.measurement.ntp if place.ntp is None else place.ntp
    return Bench(
        city.folder, folder, place.wlan, city.wlans[place.wlan], key,
        place.broker_host, place.broker_port, ntp,
    )  # fmt: skip


def _check_running(folder: Folder) -> None:
    """Wait a moment for a gateway that is just starting, or whose collector is."""
    until = time.monotonic() + _READY_S
    while not _is_ready(folder):
        if time.monotonic() >= until:
            raise BenchDownError(
                f"the bench's gateway in {folder.path} takes no reports; no board was touched",
                hint="see what netzpuls gateway bench says, and run the command again",
            )
        time.sleep(_POLL_S)


def _is_ready(folder: Folder) -> bool:
    """Tell whether a gateway takes reports.

    Raises: BenchDownError: there is none.
    """
    try:
        state = json.loads(folder.state.read_text())
        is_ready, process = state["ready"] is True, int(state["pids"]["supervisor"])
        with contextlib.suppress(PermissionError):  # somebody else's process is one, too
            os.kill(process, 0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        raise BenchDownError(
            f"the bench's gateway does not run in {folder.path}; no board was touched",
            hint="start it in another terminal: netzpuls gateway bench; or test without: "
            "--no-bench",
        ) from None
    return is_ready


def content(city: Inventory, to: Recipient, bench: Bench | None) -> bytes:
    """Return the config.json that a board is tested with; without a bench it joins nothing.

    Raises: ConfigurationError: the board would refuse it.
    """
    full = configuration.configuration(city, to)
    kept = ("version", "board", "key_id", "resolver", "internet", "thresholds", "hash_key")
    hardware = ("sensors", "i2c", "light", "led")
    made = {name: full[name] for name in (*kept, *hardware) if name in full}
    made |= {"role": "classroom-sensor", "period_s": _PERIOD_S, "deadline_ms": _PROBES_MS}
    made |= {"wlan": full["wlan"], "uplink": full["uplink"]}
    if bench:
        made["wlan"] = configuration.network(bench.wlan, bench.key)
        made["uplink"] = {
            "host": bench.broker_host,
            "port": bench.broker_port,
            "server_name": BENCH,
        }
        made["ntp"] = bench.ntp
    encoded = configuration.encode(made)
    configuration.check(encoded)
    return encoded
