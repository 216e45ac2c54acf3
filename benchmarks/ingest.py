"""Reports a second through real broker, verification, commit and acknowledgement.

A few boards, each on its own TLS connection, send reports that were sealed before, with no more
on the way than the firmware allows itself. The clock runs from the first byte sent to the last
signed acknowledgement received. Boards, broker and collector share this machine's cores.

The stages' shares are CPU time: broker and supervisor from /proc; verification and commit from
the same messages fed to the collector's own code alone; the rest of the collector is MQTT and TLS.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware.linkreport import ack, report, seal, table
from fleet import authority
from fleet.gateway import intake, keyring, settings
from fleet.gateway.database import Database
from fleet.gateway.settings import Folder

GATEWAY = "gw-bench"
BOARDS = 4
REPORTS = 60_000
SINGLE_REPORTS = 12_000
# As firmware/agent/uplink.py sends them.
MESSAGE_BYTES = 2048
AHEAD_REPORTS = 256
DEADLINE_S = 120

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Board:
    """One board: its key and its sealed reports."""

    name: str
    key: bytes
    raws: list[bytes] = field(default_factory=list)

    def make(self, count: int) -> None:
        """Seal the reports of `count` periods."""
        keyed = seal.Seal(self.key)
        link = report.NO_TAG
        reasons = bytes((1, 1, 1, 1, 1, 0, 1, 0, 1))
        for seq in range(1, count + 1):
            values = report.Report(
                1, 0, 1, seq, max(1, seq - AHEAD_REPORTS), 7, 60, seq * 6000,
                1_790_000_000 + seq * 60, table.CLOCK_NTP, table.UP, 0, table.OK, 100, reasons,
                -61 - seq % 5, 6, bytes(range(6)), 812, 341, 2300 + seq % 700, 0, 1, 14, 21, 23,
                204, 61_000 + seq % 900, 1, 0, b"",
            )  # fmt: skip
            self.raws.append(report.pack(values, keyed, link))
            link = report.tag_of(self.raws[-1])


class Sender(threading.Thread):
    """Sends one board's reports over MQTT, written by hand to leave the cores to the gateway."""

    def __init__(self, board: Board, per_message: int, port: int, folder: Folder) -> None:
        super().__init__(daemon=True)
        self.board = board
        self.per_message = per_message
        self.error: BaseException | None = None
        self._seal = seal.Seal(board.key)
        context = ssl.create_default_context(cafile=str(folder.ca))
        context.load_cert_chain(folder.path / f"{board.name}.pem")
        plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname=GATEWAY)
        self._socket.sendall(_packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x3c" + _text(board.name)))
        self._socket.sendall(
            _packet(0x82, b"\x00\x01" + _text(f"netzpuls/v1/{board.name}/ack") + b"\x01")
        )
        self._pending = b""
        self._acked = -1
        while self._acked < 0:  # until CONNACK and SUBACK are here
            self._take()

    def run(self) -> None:
        """Send everything and wait until it is acknowledged."""
        try:
            topic = _text(f"netzpuls/v1/{self.board.name}/report")
            sent, mid, count = 0, 0, len(self.board.raws)
            while self._acked < count:
                window = min(count, self._acked + AHEAD_REPORTS) - sent
                if window >= min(self.per_message, count - sent) > 0:
                    mid = mid % 65535 + 1
                    body = b"".join(self.board.raws[sent : sent + self.per_message])
                    packet = _packet(0x32, topic + struct.pack(">H", mid) + body)
                    self._socket.sendall(packet)
                    sent = min(count, sent + self.per_message)
                    if (
                        not self._socket.pending()
                        and not select.select([self._socket], [], [], 0)[0]
                    ):
                        continue
                self._take()
        except BaseException as error:
            self.error = error

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _take(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError(f"the broker closed the connection of {self.board.name}")
        self._pending += data
        while len(self._pending) >= 2 and len(self._pending) >= 2 + self._pending[1]:
            kind, end = self._pending[0] >> 4, 2 + self._pending[1]
            packet, self._pending = self._pending[2:end], self._pending[end:]
            if kind == 9:
                self._acked = 0
            elif kind == 3:
                start = 2 + packet[1]
                mid, raw = packet[start : start + 2], packet[start + 2 :]
                self._socket.sendall(b"\x40\x02" + mid)
                self._acked = max(self._acked, ack.unpack(raw, self._seal)[1])


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _packet(kind: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)[0], left % 128
        length += bytes((digit | (0x80 if left else 0),))
        if not left:
            return bytes((kind,)) + length + body


def _make_folder(path: Path, port: int, boards: list[Board]) -> Folder:
    folder = Folder(path / "gateway")
    folder.tls.mkdir(parents=True)
    folder.settings.write_text(settings.render(GATEWAY, listen="127.0.0.1", port=port))
    folder.boards.write_text(keyring.render({board.name: {1: board.key} for board in boards}))
    ca = authority.ensure(path, "bench")
    folder.ca.write_bytes(ca.certificate_pem)
    pairs = {"gateway": ca.issue_gateway(GATEWAY), "collector": ca.issue_collector(GATEWAY)}
    for name, identity in pairs.items():
        (folder.tls / f"{name}.pem").write_bytes(identity.certificate_pem)
        (folder.tls / f"{name}.key").write_bytes(identity.key_pem)
    for board in boards:
        identity = ca.issue_board(board.name)
        pair = identity.certificate_pem + identity.key_pem
        (folder.path / f"{board.name}.pem").write_bytes(pair)
    return folder


@contextmanager
def _running(folder: Folder) -> Iterator[dict[str, int]]:
    """Run the gateway; give its process ids."""
    command = [Path(sys.executable).parent / "netzpuls", "gateway", "run", "--dir", folder.path]
    with (folder.path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while " ready " not in (folder.path / "log").read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder.path / "log").read_text())
                time.sleep(0.05)
            yield json.loads(folder.state.read_text())["pids"]
        finally:
            process.terminate()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _through_gateway(root: Path, boards: list[Board], per_message: int) -> dict[str, Any]:
    with closing(socket.create_server(("127.0.0.1", 0))) as trial:
        port = trial.getsockname()[1]
    folder = _make_folder(root, port, boards)
    total = sum(len(board.raws) for board in boards)
    with _running(folder) as pids:
        senders = [Sender(board, per_message, port, folder) for board in boards]
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        begin = time.perf_counter()
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(DEADLINE_S)
        took_s = time.perf_counter() - begin
        cpu_us = {n: (_cpu_s(pid) - before[n]) * 1e6 / total for n, pid in pids.items()}
        for sender in senders:
            if sender.error or sender.is_alive():
                raise RuntimeError(f"{sender.board.name}: {sender.error or 'not finished'}")
            sender.close()
    alone = _stages(root, boards, per_message, folder)
    mqtt_us = cpu_us["collector"] - sum(alone.values())
    return {
        "reports_per_s": round(total / took_s),
        "reports_per_message": per_message,
        "cpu_us_per_report": {
            "broker": round(cpu_us["broker"], 1),
            "collector_mqtt_tls": round(mqtt_us, 1),
            **{f"collector_{name}": round(us, 1) for name, us in alone.items()},
            "supervisor_log": round(cpu_us["supervisor"], 1),
        },
    }


def _stages(root: Path, boards: list[Board], per_message: int, folder: Folder) -> dict[str, float]:
    """Verify and commit the same messages without a network; CPU µs per report."""
    ring = keyring.load(folder.boards)
    limit = settings.Limits().message_bytes
    total = sum(len(board.raws) for board in boards)
    begin = time.process_time()
    verified = [
        item
        for board in boards
        for at in range(0, len(board.raws), per_message)
        for item in intake.examine(
            f"netzpuls/v1/{board.name}/report",
            b"".join(board.raws[at : at + per_message]),
            ring,
            limit,
        ).reports
    ]
    verify_us = (time.process_time() - begin) * 1e6 / total
    with closing(Database(root / "alone.db")) as database:
        database.open()
        begin = time.process_time()
        for at in range(0, total, AHEAD_REPORTS):
            database.commit(verified[at : at + AHEAD_REPORTS], [], 1_790_000_000)
        commit_us = (time.process_time() - begin) * 1e6 / total
    return {"verify": verify_us, "commit": commit_us}


def _codec(raws: list[bytes], key: bytes) -> dict[str, float]:
    keyed = seal.Seal(key)
    begin = time.process_time()
    for raw in raws:
        report.unpack(raw)
    unpack_us = (time.process_time() - begin) * 1e6 / len(raws)
    begin = time.process_time()
    for raw in raws:
        report.sealed(raw, keyed)
    check_us = (time.process_time() - begin) * 1e6 / len(raws)
    return {"unpack_us": round(unpack_us, 2), "check_seal_us": round(check_us, 2)}


def measure() -> dict[str, Any]:
    """Send batches as after an outage, and reports one by one as on a good day."""
    results = {}
    codec: dict[str, float] = {}
    for name, count in (("batched", REPORTS), ("single", SINGLE_REPORTS)):
        boards = [Board(f"np-240ac4{n:06x}", bytes([n]) * 32) for n in range(1, BOARDS + 1)]
        for board in boards:
            board.make(count // BOARDS)
        codec = codec or _codec(boards[0].raws, boards[0].key)
        largest = MESSAGE_BYTES // len(boards[0].raws[0]) if name == "batched" else 1
        with tempfile.TemporaryDirectory() as root:
            results[name] = _through_gateway(Path(root), boards, largest)
    return {
        "ingest_reports_per_s": results["batched"]["reports_per_s"],
        "boards": BOARDS,
        **results,
        "codec": codec,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
