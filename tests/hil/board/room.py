"""A room in network namespaces: two networks of a router, a guest, and a board's own namespace.

wl0, eth0 and the guest's 10.1.0.111 are on the router's br0, 10.1.0.1/24; wl1 leads to its
far, 10.2.0.1/24. The router is 203.0.113.80, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from hil import tool

ROUTER_MAC = "02:00:00:00:00:01"
_SETUP = """
ip link set lo up
ip link add br0 address 02:00:00:00:00:01 type bridge
ip address add 10.1.0.1/24 dev br0
ip address add 203.0.113.80/32 dev br0
ip link set br0 up
ip link add near type veth peer name wl0 netns {board}
ip link add wall type veth peer name eth0 netns {board}
ip link add far type veth peer name wl1 netns {board}
ip link set near master br0 up
ip link set wall master br0 up
ip address add 10.2.0.1/24 dev far
ip link set far up
ip link add desk type veth peer name eth0 netns {guest}
ip link set desk master br0 up
"""
_GUEST = """
ip address add 10.1.0.111/24 dev eth0
ip link set eth0 up
"""
# Tells what a connection of the board meets with, line by line.
_SERVER = """
import socket
listener = socket.create_server(("", 8883))
print("ready", flush=True)
peer, where = listener.accept()
print("from", where[0], flush=True)
try:
    while data := peer.recv(100):
        print(data.decode(), flush=True)
        peer.sendall(data.upper())
    print("closed", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""

# A DHCP server for what dnsmasq does not do: leases of seconds, refusals.
_DHCP = """
import socket, struct, sys
lease_s, naks = map(int, sys.argv[1:])
server = socket.inet_aton("10.1.0.1")
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"br0")
udp.bind(("", 67))
print("ready", flush=True)
while True:
    data, where = udp.recvfrom(1500)
    kind = data[data.index(b"\\x35\\x01", 240) + 2]
    print({1: "discover", 3: "request"}.get(kind, kind), "from", where[0], flush=True)
    if kind == 3 and naks:
        naks -= 1
        kind = 4
    answer = b"\\x02" + data[1:16] + socket.inet_aton("10.1.0.77") + server + data[24:240]
    answer += b"\\x35\\x01" + bytes(({1: 2, 3: 5, 4: 6}[kind],)) + b"\\x36\\x04" + server
    answer += b"\\x33\\x04" + struct.pack(">I", lease_s) + b"\\x01\\x04\\xff\\xff\\xff\\x00\\xff"
    to = "255.255.255.255" if where[0] == "0.0.0.0" else where[0]
    udp.sendto(answer, (to, 68))
"""


class Talker:
    """A process whose lines are waited for."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.text = ""

    def read(self, wait_s: float) -> bool:
        """Take in what comes in time."""
        assert self.process.stdout is not None
        number = self.process.stdout.fileno()
        if not select.select([number], [], [], wait_s)[0]:
            return False
        piece = os.read(number, 65536).decode()
        self.text += piece
        return bool(piece)

    def wait_for(self, words: str, wait_s: float = 10) -> None:
        """Wait until it has said something; forget what came before."""
        deadline = time.monotonic() + wait_s
        while words not in self.text:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {words!r} in: {self.text}"
            assert self.read(left_s), f"no {words!r} in: {self.text}"
        self.text = self.text.partition(words)[2]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Room:
    """The namespaces, until its end; everything in it ends with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            hold = ["sh", "-c", "echo ready; exec cat"]
            router = self._talk("unshare", "-Urn", *hold)
            router.wait_for("ready")
            self._router = self._enter(router.process.pid)
            board = self._talk(*self._router, "unshare", "-n", *hold)
            board.wait_for("ready")
            self.board = (
                *("nsenter", f"--user=/proc/{router.process.pid}/ns/user"),
                *(f"--net=/proc/{board.process.pid}/ns/net", "--preserve-credentials"),
            )
            guest = self._talk(*self._router, "unshare", "-n", *hold)
            guest.wait_for("ready")
            pids = {"board": board.process.pid, "guest": guest.process.pid}
            for line in _SETUP.format(**pids).strip().splitlines():
                self.run(*line.split())
            for line in _GUEST.strip().splitlines():
                _output(*self._enter(guest.process.pid), *line.split())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _talk(self, *command: str | Path) -> Talker:
        talker = Talker(command)
        self._stack.callback(talker.stop)
        return talker

    @staticmethod
    def _enter(pid: int) -> tuple[str, ...]:
        return ("nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials")

    def run(self, *command: str) -> str:
        """Run a program on the router."""
        return _output(*self._router, *command)

    def on_board(self, *command: str) -> str:
        """Run a program in the board's namespace."""
        return _output(*self.board, *command)

    @contextlib.contextmanager
    def dnsmasq(
        self, interface: str = "br0", net: str = "10.1.0", **options: Any
    ) -> Iterator[Talker]:
        """Serve addresses from .100 on, and names.

        In its debug mode dnsmasq keeps its user: a user namespace has no other to change to.
        """
        lease = options.pop("lease", "2m")
        settings = {
            "conf-file": "/dev/null",
            "pid-file": "",
            "interface": interface,
            "dhcp-leasefile": f"{self._folder}/{interface}.leases",
            "dhcp-range": f"{net}.100,{net}.150,255.255.255.0,{lease}",
            "address": "/probe.example.org/203.0.113.80",
        } | options
        talker = Talker(
            (
                *(*self._router, tool.find("dnsmasq"), "--no-daemon", "--no-resolv"),
                *("--no-hosts", "--no-ping", "--bind-interfaces", "--except-interface=lo"),
                *("--dhcp-authoritative", "--log-dhcp", "--log-facility=-"),
                *(f"--{name}={value}" for name, value in settings.items()),
            )
        )
        try:
            talker.wait_for("DHCP, IP range")
            yield talker
        finally:
            talker.stop()

    @contextlib.contextmanager
    def server(self) -> Iterator[Talker]:
        """Accept one connection on port 8883 and echo it in capitals."""
        talker = Talker((*self._router, sys.executable, "-c", _SERVER))
        try:
            talker.wait_for("ready")
            yield talker
        finally:
            talker.stop()

    @contextlib.contextmanager
    def scripted_dhcp(self, lease_s: int = 60, naks: int = 0) -> Iterator[Talker]:
        """Serve 10.1.0.77 for some seconds, after refusing it some times."""
        command = (sys.executable, "-c", _DHCP, str(lease_s), str(naks))
        talker = Talker((*self._router, *command))
        try:
            talker.wait_for("ready")
            yield talker
        finally:
            talker.stop()

    def leases(self, interface: str = "br0") -> str:
        """Return dnsmasq's own list of leases."""
        return (self._folder / f"{interface}.leases").read_text(encoding="ascii")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def point(ssid: str = "school", interface: str = "wl0", **changes: Any) -> dict[str, Any]:
    """Return an access point whose network is behind an interface."""
    number = int(interface[-1])
    return {
        "ssid": ssid,
        "bssid": f"a4:2b:b0:00:00:0{number}",
        "channel": 6,
        "rssi_dbm": -58,
        "network": {"interface": interface},
    } | changes
