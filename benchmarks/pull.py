"""A day's reports of 1,000 boards from one gateway, by `fleet collect`, beside `scp` of the same.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.fanout import new_key
from firmware.linkreport import report, seal, table
from fleet import inventory
from fleet.gateway import intake, settings, transfer
from fleet.gateway.database import Database, Reader
from fleet.gateway.settings import Folder
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


def _raws(key: bytes, start_s: int) -> Iterator[bytes]:
    keyed, link = seal.Seal(key), report.NO_TAG
    reasons = bytes((1, 1, 1, 1, 1, 0, 1, 0, 1))
    for seq in range(1, DAY_S // PERIOD_S + 1):
        values = report.Report(
            1, 0, 1, seq, max(1, seq - 3), 7, PERIOD_S, seq * 100 * PERIOD_S,
            start_s + seq * PERIOD_S, table.CLOCK_NTP, table.UP, 0, table.OK, 100, reasons,
            -61 - seq % 5, 6, bytes(range(6)), 812, 341, 2300 + seq % 700, 0, 1, 14, 21, 23,
            204, 61_000 + seq % 900, 1, 0, b"",
        )  # fmt: skip
        raw = report.pack(values, keyed, link)
        link = report.tag_of(raw)
        yield raw


def _fill(folder: Folder, city: Path, boards: int) -> int:
    """Put a day's reports into a gateway's database in the order in which they come."""
    folder.path.mkdir()
    folder.settings.write_text(settings.render(GATEWAY, listen="127.0.0.1", port=8883))
    keys = city / "secrets/keys"
    keys.mkdir(parents=True)
    start_s = int(time.time()) // PERIOD_S * PERIOD_S - DAY_S
    names = [f"np-240ac4{number:06x}" for number in range(boards)]
    series = []
    for number, name in enumerate(names):
        key = number.to_bytes(32, "big")
        (keys / f"{name}.1.key").write_text(key.hex() + "\n")
        series.append(_raws(key, start_s))
    database = Database(folder.database)
    database.open()
    database.close()
    seq = 0
    with contextlib.closing(sqlite3.connect(folder.database)) as connection:
        for seq, column in enumerate(zip(*series, strict=True), 1):
            received_s = start_s + seq * PERIOD_S
            connection.executemany(
                "INSERT INTO report (device, key_id, seq, received_s, raw) VALUES (?, 1, ?, ?, ?)",
                [(name, seq, received_s, raw) for name, raw in zip(names, column, strict=True)],
            )
        connection.executemany(
            "INSERT INTO progress VALUES (?, 1, ?, ?)", [(name, seq, start_s) for name in names]
        )
        connection.commit()
    return seq * boards


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
    from fleet.collect import Seals  # noqa: PLC0415 - here, so that memory is the command's own

    reader = Reader(folder.database)
    began = time.perf_counter()
    with (folder.path / "stream").open("wb") as stream:
        header = transfer.Header(reader.database, GATEWAY, 0, reader.last_row)
        transfer.write(stream, header, reader.rows(0, reader.last_row))
    wrote_s = time.perf_counter() - began
    reader.close()
    began = time.perf_counter()
    with (folder.path / "stream").open("rb") as stream:
        rows = [row for piece in transfer.read(stream)[1] for row in piece]
    read_s = time.perf_counter() - began
    seals = Seals(city / "secrets")
    began = time.perf_counter()
    for row in rows:
        intake.verify(row.device, row.raw, seals)
    verified_s = time.perf_counter() - began
    with (folder.path / "raw").open("wb") as stream:
        for row in rows:
            stream.write(row.raw)
    return {
        "gateway_writes_stream_s": round(wrote_s, 2),
        "stream_read_s": round(read_s, 2),
        "seals_verified_s": round(verified_s, 2),
    }


def measure(boards: int) -> dict[str, Any]:
    """Pull a day once, then again when nothing is new, then copy the same bytes."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        city, folder = root / "city", Folder(root / "gateway")
        identity = root / "identity"
        public = new_key(identity)
        reports = _fill(folder, city, boards)
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
            profile = _profile(folder, city)
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
    print(json.dumps(measure(parser.parse_args().boards)))
