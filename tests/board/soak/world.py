"""All that is around the board of a soak: real servers on loopback, each of which can misbehave.

The gateway is the real one, `netzpuls gateway run`, on the board's clock. Datagrams and web servers
are those of the network lab. The board's connection to the broker leads through a door.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho

from firmware.linkreport import ack
from firmware.linkreport.seal import Seal
from fleet.authority import Authority, ensure
from fleet.gateway.settings import Folder
from hil.gateway import GatewayProcess
from hil.lab import server
from hil.lab.loop import Loop
from hil.lab.namespace import Namespace
from hil.lab.server import HttpServer, Reply, UdpServer
from tests.board.site import ADDRESS, NAME, _free_port
from tests.fleet.gateway.scene import GATEWAY, City

CLOCK = Path(__file__).parent / "clock"
LOOPBACK = "127.0.0.1"
TARGET, TARGET_NAME = "203.0.113.82", "eins.example.org"
SERVICE, SERVICE_NAME = "203.0.113.83", "zwei.example.org"
RESOLVER, OFFERED = "10.1.0.53", "10.1.0.77"
_NAMES = {NAME: ADDRESS, TARGET_NAME: TARGET, SERVICE_NAME: SERVICE}
_WRONG = "203.0.113.66"
_CLOCK = struct.Struct("<IxxxxQ")
_NTP_EPOCH_S = 2208988800
_READY_S = 20.0
_CUT_BYTES = 700  # in the middle of a handshake


class _Here(Namespace):
    """The namespace that we are in anyway."""

    def __init__(self) -> None:
        """Nothing is made."""

    def socket(self, family: int, kind: int) -> socket.socket:
        return socket.socket(family, kind)


class Clock:
    """The board's clock as it tells it in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_CLOCK.pack(0, int(time.time() * 1000)))
        self._file = os.open(path, os.O_RDWR)

    def now_ms(self) -> int:
        """Return the true time in Unix milliseconds."""
        uptime_ms, start_ms = _CLOCK.unpack(os.pread(self._file, _CLOCK.size, 0))
        return int(start_ms + uptime_ms)

    def restart(self, off_ms: int) -> int:
        """The power was off for a while; return the Unix second of the next start."""
        start_ms = (self.now_ms() + off_ms) // 1000 * 1000
        os.pwrite(self._file, _CLOCK.pack(0, start_ms), 0)
        return start_ms // 1000

    def close(self) -> None:
        os.close(self._file)


class Door:
    """The way to the broker: leads there, leads elsewhere, or breaks off."""

    def __init__(self, to: int) -> None:
        self.port = _free_port()
        self.to = to
        self.most_bytes: int | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def shut(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server:
            self._server.close()
            self._server = None
        await self.drop()

    async def drop(self) -> None:
        for writer in self._clients:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        out: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError):
            back, out = await asyncio.open_connection(LOOPBACK, self.to)
            ways = [self._pump(reader, out), self._pump(back, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
        for each in (writer, out):
            if each:
                each.close()
        self._clients.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := await reader.read(1 << 16):
                passed += len(content)
                if self.most_bytes is not None and passed > self.most_bytes:
                    return
                writer.write(content)


class World:
    """Everything but the board.

    Attributes:
        dns: "well", "silent", "nxdomain" or "hijack".
        dhcp, ntp: whether they answer; `ntp_unheard` counts what NTP did not answer.
        made: how many reports the board has made.
        web, page: what the web servers of the internet and of the service answer.
    """

    def __init__(self, folder: Path, board: str) -> None:
        self.folder = folder
        self.board = board
        self.clock = Clock(folder / "clock")
        self.city = City(folder / "city")
        self.key = self.city.enrol(board)
        self.dns, self.dhcp, self.ntp = "well", True, True
        self.ntp_unheard = self.made = 0
        self.web: server.Answer = server.no_content
        self.page: server.Answer = server.page(SERVICE_NAME)
        self._broker_port = _free_port()
        self.city.prepare(folder / "gateway", port=self._broker_port)
        self._gateway = GatewayProcess(Folder(folder / "gateway"), folder / "gateway.log")
        self._loop = Loop()
        self.door = Door(self._broker_port)
        self._stranger: Authority = ensure(_made(folder / "stranger"), "stranger")
        self._ports = {name: _free_port() for name in ("web", "page", "tls", "stranger", "client")}
        self._ports |= {name: _free_port() for name in ("dns", "dhcp", "ntp")}
        self._servers: dict[str, HttpServer] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.clock.close)
            stack.enter_context(self._loop)
            for name, answer in (("dns", self._dns), ("dhcp", self._dhcp), ("ntp", self._ntp)):
                where = (LOOPBACK, self._ports[name])
                stack.callback(UdpServer(self._loop, _Here(), where, answer).close)
            self.listen("web")
            self.listen("page")
            self.serve_tls(self.city.ca)
            # In the broker's place, but not the city's.
            self._serve_tls("stranger", self._stranger, GATEWAY)
            stack.callback(lambda: [each.close() for each in self._servers.values()])
            stack.callback(self._gateway.stop)
            self.start_gateway()
            stack.callback(self._loop.run, self.door.shut())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def routes(self) -> list[tuple[str, int, int]]:
        """Return to which ports here a board's addresses and ports lead, as ROOT/routes has it."""
        port = self._ports
        return [
            ("10.1.0.2", 8883, self.door.port),
            (ADDRESS, 80, port["web"]),
            (ADDRESS, 123, port["ntp"]),
            (TARGET, 443, port["tls"]),
            (SERVICE, 80, port["page"]),
            (RESOLVER, 53, port["dns"]),
            ("255.255.255.255", 67, port["dhcp"]),
            ("10.1.0.1", 67, port["dhcp"]),
            ("0.0.0.0", 68, port["client"]),  # noqa: S104 - the board's own port
        ]

    # The web.

    def listen(self, name: str) -> None:
        """Start a web server that answers as the attribute `name` says just then."""

        def answer(path: str) -> Reply | None:
            found: Reply | None = getattr(self, name)(path)
            return found

        self._servers[name] = HttpServer(
            self._loop, _Here(), LOOPBACK, answer, port=self._ports[name]
        )

    def refuse(self, name: str) -> None:
        """Stop a web server."""
        self._servers.pop(name).close()

    def serve_tls(self, authority: Authority) -> None:
        """Let the target have a certificate of this authority."""
        self._serve_tls("tls", authority, TARGET_NAME)

    def intercept(self) -> None:
        """Let the target have a stranger's certificate."""
        self.serve_tls(self._stranger)

    def _serve_tls(self, name: str, authority: Authority, host: str) -> None:
        if name in self._servers:
            self.refuse(name)
        identity = authority.issue_gateway(GATEWAY, [host])
        path = self.folder / f"{name}.pem"
        path.write_bytes(identity.certificate_pem + identity.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        self._servers[name] = HttpServer(
            self._loop,
            _Here(),
            LOOPBACK,
            server.page(host),
            context=context,
            port=self._ports[name],
        )

    # Datagrams.

    def _dns(self, question: bytes) -> bytes | None:
        """Answer for the names that there are (RFC 1035)."""
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode())
            at += 1 + size
        address = _NAMES.get(".".join(labels))
        if self.dns == "silent":
            return None
        if self.dns == "nxdomain" or address is None:
            return question[:2] + b"\x81\x83" + question[4:]
        if self.dns == "hijack":
            address = _WRONG
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(address)
        return question[:2] + b"\x81\x80\x00\x01\x00\x01" + question[8:] + answer

    def _dhcp(self, question: bytes) -> bytes | None:
        """Lease addresses for a day: one to the driver's client, one to those that come new."""
        kind = {b"\x01": b"\x02", b"\x03": b"\x05"}.get(question[242:243])
        if not self.dhcp or kind is None:
            return None
        address = OFFERED if b"netzpuls" in question else "10.1.0.50"
        options = (
            (53, kind), (54, b"\x0a\x01\x00\x01"), (51, struct.pack(">I", 86400)),
            (1, b"\xff\xff\xff\x00"), (3, b"\x0a\x01\x00\x01"), (6, socket.inet_aton(RESOLVER)),
        )  # fmt: skip
        return (
            b"\x02\x01\x06\x00" + question[4:8] + bytes(8) + socket.inet_aton(address) + bytes(8)
            + question[28:240] + b"".join(bytes((c, len(t))) + t for c, t in options) + b"\xff"
        )  # fmt: skip

    def _ntp(self, question: bytes) -> bytes | None:
        """Tell the board's own time, or a wrong one (RFC 5905)."""
        if not self.ntp:
            self.ntp_unheard += 1
            return None
        now = int((self.clock.now_ms() / 1000 + _NTP_EPOCH_S) * (1 << 32))
        packed = now.to_bytes(8, "big")
        return b"\x24\x02\x00\xec" + bytes(12) + packed + question[40:48] + packed + packed

    # The gateway.

    def start_gateway(self) -> None:
        """Start broker and collector, and let the board in."""
        self._gateway.start({"PYTHONPATH": str(CLOCK), "NETZPULS_SOAK_CLOCK": str(self.clock.path)})
        self._gateway.wait_ready()
        self._loop.run(self.door.open())

    def kill_gateway(self) -> None:
        """Kill the broker with all connections, then the collector."""
        self._loop.run(self.door.shut())
        self._gateway.send("broker", signal.SIGKILL)
        self._gateway.stop()

    def pause_collector(self) -> None:
        self._gateway.send("collector", signal.SIGSTOP)

    def resume_collector(self) -> None:
        self._gateway.send("collector", signal.SIGCONT)

    def lead_astray(self) -> None:
        """Lead the board to somebody who is not the broker."""
        self.door.to = self._ports["stranger"]
        self._loop.run(self.door.drop())

    def cut(self) -> None:
        """Break each connection to the broker in its middle."""
        self.door.most_bytes = _CUT_BYTES

    def lead_right(self) -> None:
        """Let the board go to its broker again."""
        self.door.to, self.door.most_bytes = self._broker_port, None
        self._loop.run(self.door.drop())

    def forge(self) -> None:
        """Take the collector's place at the broker and send what no collector sends."""
        seal = Seal(self.key)
        good = ack.pack(1, 1, self.clock.now_ms() // 1000, seal)
        forged = [
            b"",
            b"\x01\x02",
            good[:-1] + bytes((good[-1] ^ 1,)),
            ack.pack(1, self.made + 1000, self.clock.now_ms() // 1000, seal),
            ack.pack(2, 1, self.clock.now_ms() // 1000, seal),
            os.urandom(900),
        ]
        folder = Folder(self.folder / "gateway")
        said = len(self._log())
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=f"{GATEWAY}-forger",
            clean_session=False,
            manual_ack=True,
        )
        context = ssl.create_default_context(cafile=str(folder.ca))
        context.check_hostname = False
        context.load_cert_chain(folder.certificate("collector"), folder.key("collector"))
        client.tls_set_context(context)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect(LOOPBACK, self._broker_port)
        client.loop_start()
        try:
            if not connected.wait(_READY_S):
                raise TimeoutError("the broker let no forger in")
            sent = [client.publish(f"netzpuls/v1/{self.board}/ack", each, qos=1) for each in forged]
            for each in sent:
                each.wait_for_publish(_READY_S)
        finally:
            client.disconnect()
            client.loop_stop()
        # The collector was put out, and comes back.
        until_s = time.monotonic() + _READY_S
        while "collecting" not in self._log()[said:]:
            if time.monotonic() > until_s:
                raise TimeoutError("the collector did not come back after the forger")
            time.sleep(0.05)

    def _log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    # What has come.

    def rows(self, query: str) -> list[tuple[int | bytes, ...]]:
        """Ask the gateway's database."""
        path = Folder(self.folder / "gateway").database
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()

    def refusals(self) -> list[tuple[int | bytes, ...]]:
        """Return reason and count of what the collector refused."""
        return self.rows("SELECT reason, count FROM refusal")

    def committed(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of each report in the order of the numbers."""
        yield from self.rows("SELECT seq, raw FROM report ORDER BY seq")  # type: ignore[misc]


def _made(path: Path) -> Path:
    path.mkdir()
    return path


portal = server.redirect("http://login.netzpuls.example/")
