"""A day's reports of 1,000 boards from one gateway, by `fleet collect`, beside `scp` of the same.

Each report is of a minute in which the board scanned; `--plain` leaves that out.

Both go through a relay that counts bytes, on loopback, with one sshd. `scp` copies two files: the
reports as they are, and the stream in which the collection brings them. A collection does more
than copying: it verifies each report's seal and puts it into the ledger; `profile` tells how much.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import select
import shlex
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from benchmarks.fanout import new_key
from firmware.linkreport import block, report, table
from fleet import batch, collect, inventory
from fleet.batch import CORE
from fleet.gateway import settings, transfer
from fleet.gateway.database import Database, Reader
from fleet.gateway.settings import Folder
from fleet.seal import Seal
from fleet.store import Store
from hil.sshd import SshServer

BOARDS = 1000
DAY_S = 86_400
PERIOD_S = 60
GATEWAY = "gw-bench"
_PIECE = 1 << 18


def _forward(port: int, listener: socket.socket, count: Any) -> None:
    """Pass on what comes, both ways, and count it; one connection after the other."""
    while True:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                while _pass_on(near, far, count):
                    pass


def _pass_on(near: socket.socket, far: socket.socket, count: Any) -> bool:
    for source in select.select([near, far], [], [])[0]:
        data = source.recv(_PIECE)
        if not data:
            return False
        (far if source is near else near).sendall(data)
        count.value += len(data)
    return True


@contextlib.contextmanager
def _relay(port: int) -> Iterator[tuple[int, Any]]:
    count: Any = multiprocessing.Value("q", 0, lock=False)  # one process writes
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.Process(
            target=_forward, args=(port, listener, count), daemon=True
        )
        process.start()
        try:
            yield listener.getsockname()[1], count
        finally:
            process.terminate()


def _day(number: int, key: bytes, start_s: int, *, scans: bool) -> list[bytes]:
    """Return a day's reports of one board, sealed one after the other as a board does."""
    seq = np.arange(1, DAY_S // PERIOD_S + 1)
    chance = np.random.default_rng(number)
    core = np.zeros(len(seq), CORE)
    said = {
        "version": report.VERSION, "key_id": 1, "seq": seq, "oldest_seq": np.maximum(1, seq - 3),
        "boot": 7, "period_s": PERIOD_S, "uptime_cs": seq * 100 * PERIOD_S,
        "time_s": start_s + seq * PERIOD_S, "clock": table.CLOCK_NTP, "state": table.UP,
        "reason": table.OK, "confidence_percent": 100, "layer_reasons": (1, 1, 1, 1, 1, 0, 1, 0, 1),
        "rssi_dbm": -61 - seq % 5, "channel": 6, "bssid": _bssid(number), "association_ms": 812,
        "addressing_ms": 341, "gateway_rtt_us": 2300 + seq % 700, "reset_cause": 1,
        "resolver_ms": 14, "internet_connect_ms": 21, "internet_http_ms": 23, "http_status": 204,
        "heap_free_bytes": 61_000 + seq % 900, "spool_reports": 1,
    }  # fmt: skip
    blocks = np.zeros((len(seq), 0), np.uint8)
    if scans:  # what was in the air: two own access points, and of others how many and how strong
        form = np.dtype([("a", "u1", 2), ("air", "u1", 4), ("rest", "u1", 7), ("b", "u1", 2)])
        own = np.dtype([("bssid", "u1", 6), ("rssi_dbm", "i1"), ("rest", "u1", 2)])
        given = np.zeros(len(seq), [("head", form), ("own", own, 2)])
        given["head"]["a"], given["head"]["b"] = (block.AIR, 11), (block.OWN, 2 * own.itemsize)
        given["head"]["air"] = (2, 9, 3, 256 - 71)
        given["head"]["air"][:, 1:] -= chance.integers(0, 3, (len(seq), 3), np.uint8)
        given["head"]["rest"] = chance.integers(0, 4, (len(seq), 7))
        for nth, rssi_dbm in ((0, -61 - seq % 5), (1, chance.integers(-90, -84, len(seq)))):
            given["own"]["bssid"][:, nth] = _bssid(number + nth)
            given["own"]["rssi_dbm"][:, nth] = rssi_dbm
            given["own"]["rest"][:, nth] = (6, 2)
        blocks = given.view(np.uint8).reshape(len(seq), -1)
    for name, value in said.items():
        core[name] = value
    core["body_bytes"] = report.CORE_BYTES + blocks.shape[1]
    bodies = np.hstack([core.view(np.uint8).reshape(len(seq), -1), blocks]).tobytes()
    keyed, link, size, raws = Seal(key), report.NO_TAG, len(bodies) // len(seq), []
    for at in range(0, len(bodies), size):
        raw = bodies[at : at + size] + link
        link = keyed.tag_of(raw + link)
        raws.append(raw + link)
    return raws


def _bssid(number: int) -> tuple[int, ...]:
    return (2, 0, 0, 0, number >> 8 & 255, number & 255)


def _fill(folder: Folder, city: Path, boards: int, scans: bool) -> None:
    """Put a day's reports into a gateway's database in the order in which they come."""
    folder.path.mkdir()
    folder.settings.write_text(settings.render(GATEWAY, listen="127.0.0.1", port=8883))
    keys = city / "secrets/keys"
    keys.mkdir(parents=True)
    start_s = int(time.time()) // PERIOD_S * PERIOD_S - DAY_S
    names = [f"np-240ac4{number:06x}" for number in range(boards)]
    days = []
    for number, name in enumerate(names):
        key = number.to_bytes(32, "big")
        (keys / f"{name}.1.key").write_text(key.hex() + "\n")
        days.append(_day(number, key, start_s, scans=scans))
    database = Database(folder.database)
    database.open()
    database.close()
    seq = 0
    with contextlib.closing(sqlite3.connect(folder.database)) as connection:
        connection.execute("PRAGMA cache_size = -500000")
        for seq, minute in enumerate(zip(*days, strict=True), 1):
            received_s = start_s + seq * PERIOD_S
            connection.executemany(
                "INSERT INTO report (device, key_id, seq, received_s, raw) VALUES (?, 1, ?, ?, ?)",
                [(name, seq, received_s, raw) for name, raw in zip(names, minute, strict=True)],
            )
        connection.executemany(
            "INSERT INTO progress VALUES (?, 1, ?, ?)", [(name, seq, start_s) for name in names]
        )
        connection.commit()


def _write_city(folder: Path, server: SshServer, port: int, identity: Path, data: Path) -> None:
    address = "203.0.113.80"
    document = {
        "version": 1,
        "city": {"id": "bench", "name": "Bench"},
        "measurement": {
            "resolver": {"name": "probe.example", "address": address},
            "internet": {"host": "probe.example", "address": address},
        },
        "wlan": {"school": {"ssid": "Schule"}},
        "district": {"mitte": {"name": "Mitte"}},
        "gateway": {
            GATEWAY: {
                "host": server.host, "ssh_port": port, "user": server.user,
                "host_key": server.host_key, "identity_file": str(identity),
                "data_dir": str(data), "broker_host": "10.1.0.2",
            }
        },
        "site": {
            "school": {
                "name": "School", "district": "mitte", "gateway": GATEWAY, "wlan": "school",
                "rooms": ["1"],
            }
        },
    }  # fmt: skip
    (folder / "inventory.toml").write_text(tomli_w.dumps(document))
    inventory.load(folder)


def _collect(city: Path) -> tuple[float, float, int, dict[str, Any]]:
    """Return seconds, the client's CPU seconds, its peak memory in bytes, and what it said."""
    command = [sys.executable, "-m", "fleet.cli", "fleet", "collect", "--city", str(city), "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None  # noqa: S101 - for the type checker
    said = process.stdout.read()
    _, code, used = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(code)
    (result,) = json.loads(said)["gateways"]
    return took_s, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, result


def _scp(port: int, server: SshServer, identity: Path, source: Path, target: Path) -> float:
    known_hosts = target.with_name("known_hosts")
    known_hosts.write_text(f"[{server.host}]:{port} {server.host_key}\n")
    began = time.perf_counter()
    subprocess.run(
        [
            *("scp", "-q", "-F", "none", "-P", str(port), "-i", str(identity)),
            *("-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "KexAlgorithms=curve25519-sha256", "-o", "BatchMode=yes"),
            f"{server.user}@{server.host}:{shlex.quote(str(source))}", str(target),
        ],
        check=True,
    )  # fmt: skip
    return time.perf_counter() - began


def _profile(folder: Folder, city: Path) -> dict[str, float]:
    """Do the parts of a collection by themselves, without SSH; seconds each."""
    found = {}

    def took(name: str, since_s: float) -> float:
        found[f"{name}_s"] = round(time.perf_counter() - since_s, 2)
        return time.perf_counter()

    reader = Reader(folder.database)
    now_s = time.perf_counter()
    with (folder.path / "stream").open("wb") as stream:
        header = transfer.Header(reader.database, GATEWAY, 0, reader.last_row)
        transfer.write(stream, header, reader.rows(0, reader.last_row))
    reader.close()
    now_s = took("gateway_writes_stream", now_s)
    with (folder.path / "stream").open("rb") as stream:
        rows = [row for chunk in transfer.read(stream)[1] for row in chunk]
    now_s = took("stream_read", now_s)
    with (folder.path / "raw").open("wb") as stream:
        stream.writelines(row.raw for row in rows)
    seals = collect.Seals(city / "secrets")
    parts = range(0, len(rows), collect.PIECE_ROWS)
    now_s = time.perf_counter()
    pieces = [
        batch.examine(GATEWAY, rows[at : at + collect.PIECE_ROWS], seals).piece for at in parts
    ]
    now_s = took("verified", now_s)
    with Store(folder.path).writing() as writer:
        for piece in pieces:
            writer.take(piece)
        now_s = took("stored", now_s)
    took("store_tidied", now_s)
    return found


def _apart(work: Callable[..., Any], *arguments: object) -> Any:
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()


def measure(boards: int = BOARDS, *, scans: bool = True) -> dict[str, Any]:
    """Pull a day once, then again when nothing is new, then copy the same bytes."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        city, folder = root / "city", Folder(root / "gateway")
        identity = root / "identity"
        public = new_key(identity)
        # A child's peak of memory is no less than its parent's: what is big is done by others.
        _apart(_fill, folder, city, boards, scans)
        reports = boards * (DAY_S // PERIOD_S)
        environment = {"PYTHONPATH": os.getcwd()}  # noqa: PTH109 - what runs there is this checkout
        with (
            SshServer(root / "server", public, environment=environment) as server,
            _relay(server.port) as (port, count),
        ):
            _write_city(city, server, port, identity, folder.path)
            took_s, cpu_s, peak_bytes, result = _collect(city)
            if result["new"] != reports:
                raise RuntimeError(str(result))
            wire_bytes = count.value
            again_s, _, _, again = _collect(city)
            if again["rows"]:
                raise RuntimeError(str(again))
            again_bytes = count.value - wire_bytes
            profile = _apart(_profile, folder, city)
            copies = {}
            for kind in ("raw", "stream"):
                before, size = count.value, (folder.path / kind).stat().st_size
                copied_s = _scp(port, server, identity, folder.path / kind, root / "copy")
                copies[f"scp_{kind}"] = {
                    "seconds": round(copied_s, 2),
                    "bytes_per_report": round(size / reports, 1),
                    "wire_bytes_per_report": round((count.value - before) / reports, 1),
                }
    copied_s = copies["scp_raw"]["seconds"]
    return {
        "boards": boards,
        "reports": reports,
        "collect": {
            "seconds": round(took_s, 2),
            "client_cpu_s": round(cpu_s, 2),
            "peak_memory_mb": round(peak_bytes / 1e6),
            "reports_per_s": round(reports / took_s),
            "wire_bytes_per_report": round(wire_bytes / reports, 1),
        },
        "nothing_new": {"seconds": round(again_s, 2), "wire_bytes": again_bytes},
        **copies,
        "collect_to_scp_raw_seconds": round(took_s / copied_s, 1),
        "collect_to_scp_raw_wire_bytes": round(
            wire_bytes / reports / copies["scp_raw"]["wire_bytes_per_report"], 3
        ),
        "profile": profile,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--plain", action="store_true", help="reports without a scan")
    given = parser.parse_args()
    print(json.dumps(measure(given.boards, scans=not given.plain)))
