"""A city, a gateway with a real mosquitto, and boards that speak as the firmware does."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from firmware.linkreport import ack, block, report, seal, table
from fleet import authority, inventory
from fleet.authority import Authority, Identity
from fleet.gateway import prepare
from fleet.gateway.settings import Folder

GATEWAY = "gw-mitte"
DEADLINE_S = 20
NETZPULS = Path(sys.executable).parent / "netzpuls"
MESSAGE_REPORTS = 16

INVENTORY = """
version = 1

[city]
id = "musterstadt"
name = "Musterstadt"

[measurement]
resolver = {name = "probe.example", address = "203.0.113.80"}
internet = {host = "probe.example", address = "203.0.113.80"}

[wlan.school]
ssid = "Schule"

[district.mitte]
name = "Mitte"

[gateway.gw-mitte]
host = "gw-mitte.example"
broker_host = "10.1.0.2"

[gateway.gw-nord]
host = "gw-nord.example"
broker_host = "10.2.0.2"

[site.goethe-schule]
name = "Goethe-Schule"
district = "mitte"
gateway = "gw-mitte"
wlan = "school"
rooms = ["101", "102"]
"""

_BOARD = """
[board.{id}]
site = "goethe-schule"
room = "101"
role = "classroom-sensor"
key_id = {key_id}
chip = "ESP32"
mac = "{mac}"
agent = "0.1.0"
enrolled = 2026-11-22T07:00:00Z
certificate_expires = 2036-11-22T07:00:00Z
"""


def board_id(number: int) -> str:
    return f"np-240ac4{number:06x}"


class City:
    """A city's folder with enrolled boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "inventory.toml").write_text(INVENTORY, encoding="utf-8")
        self.ca: Authority = authority.ensure(folder, "musterstadt")
        self.boards: dict[str, int] = {}
        self.revoked: set[str] = set()

    def enrol(self, board: str, key_id: int = 1) -> bytes:
        """Write a board's key and registry entry; return the key."""
        self.boards[board] = key_id
        key = bytes([key_id]) + os.urandom(31)
        keys = self.folder / "secrets/keys"
        keys.mkdir(exist_ok=True)
        (keys / f"{board}.{key_id}.key").write_text(key.hex() + "\n")
        self._write_registry()
        return key

    def revoke(self, board: str) -> None:
        self.revoked.add(board)
        self._write_registry()

    def prepare(self, folder: Path, *, port: int | None = None) -> prepare.Plan:
        plan = prepare.plan(
            inventory.load(self.folder),
            self.ca,
            GATEWAY,
            Folder(folder),
            listen="127.0.0.1",
            port=port,
        )
        prepare.apply(plan)
        return plan

    def _write_registry(self) -> None:
        text = "version = 1\n"
        for board, key_id in self.boards.items():
            mac = ":".join(board[at : at + 2] for at in range(3, 15, 2))
            text += _BOARD.format(id=board, key_id=key_id, mac=mac)
            text += "revoked = 2026-11-22T08:00:00Z\n" if board in self.revoked else ""
        (self.folder / "registry.toml").write_text(text, encoding="utf-8")


class RunningGateway:
    """`netzpuls gateway run` as a process of its own."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.folder = Folder(folder)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [NETZPULS, "gateway", "run", "--dir", folder, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join(DEADLINE_S)
            for stream in (self.process.stdout, self.process.stderr):
                if stream:
                    stream.close()

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.folder.state.read_text()))

    def ready(self) -> Self:
        self.said(" ready ")
        return self

    def said(self, *words: str, after: int = 0, count: int = 1) -> str:
        """Wait until a log line holds all these words; return it."""
        deadline = time.monotonic() + DEADLINE_S
        with self._news:
            while True:
                found = [s for s in self.lines[after:] if all(word in s for word in words)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    log = "\n".join(self.lines)
                    raise AssertionError(f"nothing said {words}; the log is:\n{log}")
                self._news.wait(min(left, 1))

    def kill(self, child: str) -> int:
        """SIGKILL a child; return how many log lines there were before."""
        pid = self.state["pids"][child]
        with self._news:
            before = len(self.lines)
        os.kill(pid, signal.SIGKILL)
        return before

    def rows(self, query: str = "SELECT device, key_id, seq FROM report ORDER BY row") -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.folder.database)) as connection:
            return connection.execute(query).fetchall()

    def _read(self) -> None:
        if self.process.stderr:
            for line in self.process.stderr:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()


class Sealer:
    """Makes a board's reports, chained as the firmware does."""

    def __init__(self, key: bytes, key_id: int = 1) -> None:
        self.seal = seal.Seal(key)
        self.key_id = key_id
        self.seq = 0
        self.link = report.NO_TAG

    def make(self, *, oldest_seq: int = 1, time_s: int = 1_790_000_000, text: str = "") -> bytes:
        self.seq += 1
        blocks = report.extension(block.ERROR, text.encode()) if text else b""
        values = report.Report(
            1, 0, self.key_id, self.seq, oldest_seq, 1, 60, self.seq * 6000,
            time_s + 60 * self.seq, table.CLOCK_NTP, table.UP, 0, table.OK, 100,
            bytes((1, 1, 1, 1, 1, 0, 1, 0, 1)), -61, 6, bytes(6), 812, 341, 2300, 0, 1,
            14, 21, 23, 204, 61_000, 1, 0, blocks,
        )  # fmt: skip
        raw: bytes = report.pack(values, self.seal, self.link)
        self.link = report.tag_of(raw)
        return raw


class Connection:
    """One MQTT connection with a client certificate, or without."""

    def __init__(
        self,
        port: int,
        ca: Path,
        identity: Identity | None,
        scratch: Path,
        *,
        server_name: str = GATEWAY,
        client_id: str = "anything",
    ) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.acks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=True
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.tls_set_context(_context(ca, identity, scratch, server_name))
        self._client.on_connect = lambda *a: self._connected(a[3])
        self._client.on_disconnect = lambda *a: self.events.put(("lost", a[3]))
        self._client.on_publish = lambda *a: self.events.put(("puback", a[2]))
        self._client.on_message = lambda _c, _d, message: self.acks.put(bytes(message.payload))
        self._subscriptions: list[str] = []
        self._client.connect_async("127.0.0.1", port)

    def start(self) -> None:
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        self._subscriptions.append(topic)
        if self._client.is_connected():
            self._client.subscribe(topic, 1)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain)

    def wait(self, event: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            name, value = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if name == event:
                return value

    def seen(self) -> list[str]:
        """Return the names of the events that came and nobody waited for."""
        names = []
        with contextlib.suppress(queue.Empty):
            while True:
                names.append(self.events.get_nowait()[0])
        return names

    def _connected(self, reason: Any) -> None:
        for topic in self._subscriptions:
            self._client.subscribe(topic, 1)
        self.events.put(("refused" if reason.is_failure else "connected", reason))


class Board:
    """A board with a spool: what the collector has not acknowledged, it sends again."""

    def __init__(self, connection: Connection, name: str, key: bytes, key_id: int = 1) -> None:
        self.name = name
        self.sealer = Sealer(key, key_id)
        self.connection = connection
        self.spool: dict[int, bytes] = {}
        self.acked = 0
        connection.subscribe(f"netzpuls/v1/{name}/ack")
        connection.start()
        connection.wait("connected")
        connection.publish(f"netzpuls/v1/{name}/status", b"online", retain=True)

    def make(self, count: int = 1, **values: Any) -> list[bytes]:
        """Measure `count` times; the reports go into the spool."""
        made = []
        for _ in range(count):
            oldest = min(self.spool, default=self.sealer.seq + 1)
            made.append(self.sealer.make(**({"oldest_seq": oldest} | values)))
            self.spool[self.sealer.seq] = made[-1]
        return made

    def send(self, payload: bytes) -> None:
        self.connection.publish(f"netzpuls/v1/{self.name}/report", payload)

    def take_acks(self, timeout_s: float) -> None:
        """Wait for one acknowledgement and take it, and those behind it."""
        with contextlib.suppress(queue.Empty):
            while True:
                raw = self.connection.acks.get(timeout=timeout_s)
                key_id, seq, time_s = ack.unpack(raw, self.sealer.seal)
                assert key_id == self.sealer.key_id
                assert abs(time_s - time.time()) < 60
                self.acked = max(self.acked, seq)
                self.spool = {s: raw for s, raw in self.spool.items() if s > self.acked}
                timeout_s = 0

    def drain(self, resend_s: float = 1.0) -> None:
        """Send until everything is acknowledged."""
        deadline = time.monotonic() + DEADLINE_S
        while self.spool:
            assert time.monotonic() < deadline, f"{len(self.spool)} reports not acknowledged"
            waiting = list(self.spool.values())
            for at in range(0, len(waiting), MESSAGE_REPORTS):
                self.send(b"".join(waiting[at : at + MESSAGE_REPORTS]))
            before = self.acked
            self.take_acks(resend_s)
            while self.acked > before and self.spool:
                before = self.acked
                self.take_acks(0.2)


class Scene:
    """City, folder and connections of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.city = City(root / "city")
        self.folder = root / "gateway"
        self.port = free_port()
        self._closing: list[Callable[[], None]] = []
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def prepare(self) -> None:
        self.city.prepare(self.folder, port=self.port)

    def connection(self, identity: Identity | None, **options: Any) -> Connection:
        made = Connection(self.port, self.city.folder / "ca.pem", identity, self.scratch, **options)
        self._closing.append(made.close)
        return made

    def board(self, number: int, key: bytes, *, key_id: int = 1) -> Board:
        name = board_id(number)
        return Board(self.connection(self.city.ca.issue_board(name)), name, key, key_id)

    def close(self) -> None:
        for close in self._closing:
            close()


def _context(
    ca: Path, identity: Identity | None, scratch: Path, server_name: str
) -> ssl.SSLContext:
    class Named(ssl.SSLContext):
        def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
            return super().wrap_socket(*args, **(options | {"server_hostname": server_name}))

    context = Named(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if identity:
        pair = scratch / f"{id(identity)}.pem"
        pair.write_bytes(identity.certificate_pem + identity.key_pem)
        context.load_cert_chain(pair)
    return context


def knock(
    scene: Scene,
    identity: Identity | None,
    *,
    server_name: str = GATEWAY,
    version: str = "",
) -> bytes:
    """Connect and say MQTT CONNECT by hand; return the answer.

    Raises: ssl.SSLError: either side does not accept the other.
    """
    context = _context(scene.city.folder / "ca.pem", identity, scene.scratch, server_name)
    if version:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # without it OpenSSL has no TLS 1.1 at all
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with (
        socket.create_connection(("127.0.0.1", scene.port), timeout=DEADLINE_S) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
        return secure.recv(16)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def served(scene: Scene) -> Iterator[RunningGateway]:
    scene.prepare()
    with RunningGateway(scene.folder) as gateway:
        yield gateway.ready()
