"""Boards among servers that are there to harm them, on 32-bit MicroPython in a small heap.

Each board meets one broker and one internet that misbehave in their own way. It must go on
measuring every second, lose and delete nothing, and survive nothing but forged messages.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware.linkreport import ack
from firmware.linkreport.seal import Seal
from hil import tool
from tests.board.site import ADDRESS, GATEWAY, Site, compiled

KEY = bytes(range(32))
HEAP_KIB = 96
SECONDS = 7
LEAST_REPORTS = 4  # of one a second
MOST_OUTPUT = 1 << 24
Act = Callable[[socket.socket, str], None]
HELLO = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\x40\x02\x00\x02"


def silent(sock: socket.socket, _: str) -> None:
    while sock.recv(4096):
        pass


def closing(sock: socket.socket, _: str) -> None:
    sock.recv(1)


def flooding(piece: bytes) -> Act:
    def act(sock: socket.socket, _: str) -> None:
        while True:
            sock.sendall(piece * 100)

    return act


def dripping(content: bytes) -> Act:
    def act(sock: socket.socket, _: str) -> None:
        for byte in content:
            sock.sendall(bytes((byte,)))
            time.sleep(0.05)
        silent(sock, "")

    return act


def forging(sock: socket.socket, board: str) -> None:
    """Greet well, then send acknowledgements of everything that somebody else has signed."""
    sock.sendall(HELLO)
    topic = f"netzpuls/v1/{board}/ack".encode()
    raw = ack.pack(1, 1000, int(time.time()), Seal(bytes(32)))
    body = len(topic).to_bytes(2, "big") + topic + raw
    for _ in range(300):
        sock.sendall(bytes((0x30, len(body))) + body)
        time.sleep(0.02)


def answering_wrongly(sock: socket.socket, _: str) -> None:
    sock.sendall(HELLO + b"\x40\x02\x12\x34" * 20 + b"\xf0\x00")
    silent(sock, "")


# What the broker does after TLS, and the internet's servers do at once.
CASES: dict[str, tuple[Act, Act]] = {
    "silent": (silent, silent),
    "closing": (closing, closing),
    "endless": (flooding(b"\x30\x00"), flooding(b"HTTP/1.1 200 OK ")),
    "too long": (flooding(b"\x30\xff\xff\xff\x7f"), flooding(b"HTTP/1.1 200 OK\r\nX: y\r\n")),
    "dripping": (dripping(b"\x20\xff\x07" + bytes(1000)), dripping(b"HTTP/1.1 204 No\r\n" * 50)),
    "forging": (forging, flooding(b"\x16\x03\x03\xff\xff" + bytes(500))),
    "wrong": (answering_wrongly, flooding(b"\x15\x03\x03\x00\x02\x02\x28")),
}


class Server:
    """A TCP server that does to each connection what its act says, over TLS where it has one."""

    def __init__(self, act: Act, board: str, context: ssl.SSLContext | None = None) -> None:
        self._act = act
        self._board = board
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(SECONDS)
            if self._context:
                with self._context.wrap_socket(sock, server_side=True) as secured:
                    self._act(secured, self._board)
            else:
                self._act(sock, self._board)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


class Nonsense:
    """A UDP server that answers each question with datagrams that are no answer to it."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, peer = self._sock.recvfrom(2048)
                if peer is None:  # shut down
                    return
                for size in range(0, len(question) + 20, 3):
                    self._sock.sendto((question + bytes(20))[:size], peer)
                self._sock.sendto(question[:2] + b"\x81\x80" + b"\xff" * 400, peer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Let a board run in each case, all at once: they mostly wait."""
    code = compiled(tmp_path_factory.mktemp("code"))
    with Site(tmp_path_factory.mktemp("site")) as site, contextlib.ExitStack() as stack:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.folder / "gateway.pem", site.folder / "gateway.key")
        nonsense = stack.enter_context(contextlib.closing(Nonsense()))
        boards = {}
        for number, (name, (broker_act, internet_act)) in enumerate(CASES.items()):
            board = f"np-{number:012x}"
            broker, internet = [
                stack.enter_context(contextlib.closing(Server(act, board, tls)))
                for act, tls in ((broker_act, context), (internet_act, None))
            ]
            root = furnish(site, board)
            routes = [
                ("10.1.0.2", 8883, broker.port),
                ("10.1.0.1", 53, nonsense.port if number % 2 else site_resolver(root)),
                *((ADDRESS, each, internet.port) for each in (80, 443)),
            ]
            document = [[address, at, "127.0.0.1", to] for address, at, to in routes]
            (root / "routes.json").write_text(json.dumps(document))
            boards[name] = site.start_board(
                tool.find("micropython32"), code, root, SECONDS, heap_kib=HEAP_KIB
            )
        yield {name: board.communicate(timeout=60)[0] for name, board in boards.items()}


def furnish(site: Site, board: str) -> Path:
    place = {"host": GATEWAY, "address": ADDRESS, "port": 443}
    service = {"name": "A", "host": ADDRESS, "port": 443, "path": "/", "tls": True, "status": 200}
    page = {"host": GATEWAY, "address": ADDRESS, "port": 80, "path": "/big"}
    root = site.furnish(
        board,
        KEY,
        period_s=1,
        ntp=ADDRESS,
        targets=[place],
        services=[service, {**service, "port": 80, "tls": False}],
        throughput={**page, "bytes": 65536, "every": 1},
    )
    (root / "identity" / "roots.der").write_bytes((root / "identity" / "ca.der").read_bytes())
    return root


def site_resolver(root: Path) -> int:
    """Return the port of the site's own resolver, which works."""
    routes = json.loads((root / "routes.json").read_text())
    port: int = next(route[3] for route in routes if route[1] == 53)
    return port


@pytest.mark.parametrize("name", CASES)
def test_a_board_goes_on(name: str, outputs: dict[str, str]) -> None:
    output = outputs[name]
    assert len(output) < MOST_OUTPUT
    last = output.strip().splitlines()[-1]
    assert last.startswith("STOPPED "), output[-2000:]
    stopped = json.loads(last.removeprefix("STOPPED "))
    assert stopped["made"] >= LEAST_REPORTS, output[-2000:]
    assert stopped["spooled"] == stopped["made"], "nobody signed an acknowledgement"
    survived = re.findall(r"netzpuls: survived (\w+)", output)
    assert set(survived) <= {"AckError"}, output[-2000:]
    assert bool(survived) == (name == "forging")
    assert '"reason": "probe-failed"' not in output
    assert '"layer": "device"' not in output, output[-2000:]
