"""What one cycle costs a board: time, processor, heap and bytes, on 32-bit MicroPython.

The compiled agent measures what its configuration can name: DHCP, gateway, resolver, web server,
two TLS targets, two services (one of them over TLS), a download of 256 KiB, NTP. Its servers are
real and stand on loopback, so the times are those of the code, not of a network; its processor
is this machine's. Heap is what lives after a collection at every wait; mbedTLS lies outside of it.

Bytes are counted on the sockets by relays between board and servers, payload with TLS records.
`with_headers` adds IPv4, UDP and TCP: for each datagram 28 bytes, for each TCP segment that the
kernel counted 40. What port/null does not send is added in known sizes: 20 echoes of 36 bytes,
and for a download the acknowledgement of every other segment of 1460 bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hil import tool
from hil.site import _Datagrams
from tests.board.site import ADDRESS, HERE, NAME, Collector, Site, compiled

_KEY = bytes(range(32))
_HEAP_KIB = 256  # more than enough: what lives does not depend on it
_CYCLES = {"time": 9, "heap": 4}
_DAY_S, _PERIOD_S, _PING_S, _DOWNLOAD_EVERY, _NTP_A_DAY = 86400, 60, 20, 60, 4
_DOWNLOAD_BYTES = 262144
_HOSTS = {"eins.example.org": "203.0.113.82", "zwei.example.org": "203.0.113.83"}
_IP_UDP, _IP_TCP, _SEGMENT = 28, 40, 1460
_OFFERED = "10.1.0.77"
_ECHOES_BYTES = 20 * 36
_NTP_EPOCH_S = 2208988800
# struct tcp_info: segments out and in, since Linux 4.2
_SEGMENTS_AT = 136


class Traffic:
    """What went over the relays, by purpose and direction as the board sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, purpose: str, **counts: int) -> None:
        """Count bytes or packets."""
        with self._lock:
            for name, count in counts.items():
                self._counts[purpose, name] += count

    def take(self) -> Counter[tuple[str, str]]:
        """Return the counts since the last time."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken


class Relay:
    """A TCP port that leads to another one and counts."""

    def __init__(self, traffic: Traffic, purpose: str, number: int) -> None:
        self._traffic = traffic
        self._purpose = purpose
        self._to = number
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                board = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                for sock in (board, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for way in ((board, server, "sent"), (server, board, "received")):
                    threading.Thread(target=self._pump, args=(board, *way), daemon=True).start()

    def _pump(
        self, board: socket.socket, source: socket.socket, sink: socket.socket, name: str
    ) -> None:
        out, came = _segments(board)
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                self._traffic.add(self._purpose, **{name: len(content)})
                sink.sendall(content)
                if name == "sent":
                    out, came = self._count(board, out, came)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if name == "sent":
            time.sleep(0.05)  # the last segments of the other way
            self._count(board, out, came)

    def _count(self, board: socket.socket, out: int, came: int) -> tuple[int, int]:
        now_out, now_came = _segments(board)
        self._traffic.add(
            self._purpose, packets_sent=now_came - came, packets_received=now_out - out
        )
        return now_out, now_came

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


def _segments(sock: socket.socket) -> tuple[int, int]:
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    out, came = struct.unpack_from("II", raw, _SEGMENTS_AT)
    return out, came


class _Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        empty = self.path == "/generate_204"
        body = bytes(_DOWNLOAD_BYTES if self.path == "/256k" else 0 if empty else 500)
        self.send_response(204 if empty else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # a board leaves when it has seen enough
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _web(context: ssl.SSLContext | None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a bare handshake
    if context:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


def _ntp(question: bytes) -> bytes:
    now = struct.pack(">II", int(time.time()) + _NTP_EPOCH_S, 0)
    return b"\x24\x02" + bytes(22) + question[40:48] + bytes(8) + now


def _dhcp(question: bytes) -> bytes | None:
    """Lease addresses for ever: one to the driver's own client, one to those that come new."""
    answers = {b"\x01": b"\x02", b"\x03": b"\x05"}  # OFFER and ACK
    kind = answers.get(question[242:243])
    if kind is None:
        return None
    address = _OFFERED if b"netzpuls" in question else "10.1.0.50"
    return (
        b"\x02\x01\x06\x00" + question[4:8] + bytes(8) + socket.inet_aton(address) + bytes(8)
        + question[28:240] + b"\x35\x01" + kind + b"\x36\x04\x0a\x01\x00\x01"
        + b"\x33\x04\xff\xff\xff\xff" + b"\x01\x04\xff\xff\xff\x00"
        + b"\x03\x04\x0a\x01\x00\x01" + b"\x06\x04\x0a\x01\x00\x01" + b"\xff"
    )  # fmt: skip


class Bench:
    """Broker, collector and servers, with relays before them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.traffic = Traffic()
        identity = site.ca.issue_gateway("gw-web", _HOSTS)
        (site.folder / "web.pem").write_bytes(identity.certificate_pem + identity.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.folder / "web.pem")
        self._webs = [_web(None), _web(context)]
        site._router.names.update(_HOSTS)  # noqa: SLF001 - the site's DNS is ours to fill
        dns = site._router.resolver_port  # noqa: SLF001
        self._datagrams = [
            self._counted("dns", lambda question: _forwarded(question, dns)),
            self._counted("ntp", _ntp),
            self._counted("dhcp", _dhcp),
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.bind(("127.0.0.1", 0))
            client = trial.getsockname()[1]
        plain, tls = [web.server_address[1] for web in self._webs]
        ways = {
            "uplink": ("10.1.0.2", 8883, site.port),
            "http": (ADDRESS, 80, plain),
            "throughput": ("203.0.113.84", 80, plain),
            "targets": ("203.0.113.82", 443, tls),
            "services": ("203.0.113.83", 443, tls),
            "services_plain": ("203.0.113.83", 80, plain),
        }
        self.routes: list[tuple[str, int, str, int]] = [
            (ADDRESS, 123, "127.0.0.1", self._datagrams[1].port),
            ("10.1.0.1", 53, "127.0.0.1", self._datagrams[0].port),
            ("203.0.113.53", 53, "127.0.0.1", self._datagrams[0].port),
            ("255.255.255.255", 67, "127.0.0.1", self._datagrams[2].port),
            ("10.1.0.1", 67, "127.0.0.1", self._datagrams[2].port),
            ("0.0.0.0", 68, "127.0.0.1", client),  # noqa: S104 - the board's own port
        ]
        self._relays = []
        for purpose, (address, number, to) in ways.items():
            relay = Relay(self.traffic, purpose.removesuffix("_plain"), to)
            self._relays.append(relay)
            self.routes.append((address, number, "127.0.0.1", relay.port))

    def _counted(self, purpose: str, answer: Any) -> _Datagrams:
        def counting(question: bytes) -> bytes | None:
            reply: bytes | None = answer(question)
            self.traffic.add(
                purpose,
                sent=len(question),
                received=len(reply or b""),
                packets_sent=1,
                packets_received=int(reply is not None),
            )
            return reply

        return _Datagrams(purpose, counting)

    def close(self) -> None:
        """Stop all servers."""
        for relay in self._relays:
            relay.close()
        for web in self._webs:
            web.shutdown()
            web.server_close()
        for each in self._datagrams:
            each.close()

    def furnish(self, board: str) -> Path:
        """Make the file system of a board that is to measure all there is."""
        target = {"host": "eins.example.org", "address": "203.0.113.82", "port": 443}
        service = {"name": "Eins", "host": "zwei.example.org", "path": "/", "status": 200}
        root = self.site.furnish(
            board,
            _KEY,
            period_s=_PERIOD_S,
            ntp=ADDRESS,
            resolver={"name": NAME, "address": ADDRESS, "reference": "203.0.113.53"},
            targets=[target, target],
            services=[
                {**service, "port": 443, "tls": True},
                {**service, "name": "Zwei", "port": 80, "tls": False},
            ],
            throughput={
                "host": NAME, "address": "203.0.113.84", "port": 80, "path": "/256k",
                "bytes": _DOWNLOAD_BYTES, "every": 1,
            },
        )  # fmt: skip
        (root / "identity" / "roots.der").write_bytes(self.site.ca.certificate_der)
        (root / "routes.json").write_text(json.dumps(self.routes))
        return root


def _forwarded(question: bytes, number: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question, ("127.0.0.1", number))
        return sock.recv(2048)


def _cycles(
    bench: Bench, code: Path, mode: str
) -> Iterator[tuple[str, dict[str, Any], Counter[tuple[str, str]]]]:
    """Run a new board; give what it tells of each cycle, and the traffic since the last."""
    board = f"np-{list(_CYCLES).index(mode):012x}"
    root = bench.furnish(board)
    bench.traffic.take()
    collector = Collector(bench.site, f"collector-{mode}", {board: _KEY})
    command = [str(tool.find("micropython32")), "-X", f"heapsize={_HEAP_KIB}k", "-m", "measured"]
    command += [str(root), str(_CYCLES[mode]), mode]
    environment = {**os.environ, "MICROPYPATH": ":.frozen"}
    output = []
    try:
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=code,
        ) as running:
            for line in running.stdout or ():
                output.append(line)
                what, _, document = line.partition(" ")
                if what in ("CYCLE", "IDLE"):
                    yield what, json.loads(document), bench.traffic.take()
    finally:
        collector.close()
    if running.returncode or any("survived" in line for line in output):
        sys.exit(f"error: the board did not measure well\n{''.join(output[-20:])}")


def measure() -> dict[str, Any]:
    """Run a board for its times and bytes, and another one for its heap."""
    with tempfile.TemporaryDirectory(prefix="netzpuls-") as folder:
        code = compiled(Path(folder) / "code", script=HERE / "lib" / "measured.py")
        (Path(folder) / "site").mkdir()
        with Site(Path(folder) / "site") as site, contextlib.closing(Bench(site)) as bench:
            timed = list(_cycles(bench, code, "time"))
            weighed = [told for what, told, _ in _cycles(bench, code, "heap") if what == "CYCLE"]
    # What measures takes memory, too, but no board has that.
    measuring_bytes = weighed[0]["own_bytes"] - _bare_bytes()
    cycles = [told for what, told, _ in timed if what == "CYCLE"]
    later = cycles[1:]  # the first one associates, asks NTP and connects to the broker
    return {
        "cycles": len(later),
        "cycle_ms": _median(later, "cycle_ms"),
        "first_cycle_ms": cycles[0]["cycle_ms"],
        "probe_ms": {
            name: _median([cycle["probe_ms"] for cycle in later], name)
            for name in cycles[0]["probe_ms"]
        },
        "cpu_ms_per_cycle": round(_median(later, "cycle_cpu_us") / 1000, 1),
        "cpu_ms_per_upload": round(_median(later, "upload_cpu_us") / 1000, 1),
        "heap_high_water_bytes": {
            "first_cycle": weighed[0]["live_bytes"] - measuring_bytes,
            "cycle": max(cycle["live_bytes"] for cycle in weighed[1:]) - measuring_bytes,
            "probe": {
                name: max(cycle["probe_live_bytes"][name] for cycle in weighed) - measuring_bytes
                for name in weighed[0]["probe_live_bytes"]
            },
        },
        "report_bytes": {"first": cycles[0]["report_bytes"], "later": later[-1]["report_bytes"]},
        "bytes_per_day": _day(timed),
    }


def _bare_bytes() -> int:
    """Return what lives in the heap of an interpreter that does nothing."""
    command = [tool.find("micropython32"), "-c", "import gc; gc.collect(); print(gc.mem_alloc())"]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def _median(documents: list[dict[str, Any]], name: str) -> int:
    return round(statistics.median(document[name] for document in documents))


def _day(timed: list[tuple[str, dict[str, Any], Counter[tuple[str, str]]]]) -> dict[str, Any]:
    """Add up a day of one connection to the broker and a cycle a minute."""
    (_, _, first), *rest, (_, idle, idling) = timed
    later = [traffic for _, _, traffic in rest]
    times = {purpose: _DAY_S // _PERIOD_S for purpose, _ in first + later[0]}
    times["throughput"] //= _DOWNLOAD_EVERY
    times["ntp"] = _NTP_A_DAY
    pings = _DAY_S // _PING_S - _DAY_S // _PERIOD_S  # every third is a report instead
    days: dict[str, dict[str, int]] = {}
    for purpose, count in sorted(times.items()):
        header = _IP_UDP if purpose in ("dhcp", "dns", "ntp") else _IP_TCP
        day = {}
        for way in ("sent", "received"):
            for name in (way, f"packets_{way}"):
                samples = [first] if purpose == "ntp" else later
                day[name] = round(
                    statistics.median(each[purpose, name] for each in samples) * count
                )
                if purpose == "uplink":
                    once = first[purpose, name] - day[name] // count
                    day[name] += once + idling[purpose, name] * pings // idle["pings"]
            if purpose == "throughput" and way == "sent":
                day[f"packets_{way}"] = count * (_DOWNLOAD_BYTES // _SEGMENT // 2)
            day[f"{way}_with_headers"] = day[way] + day.pop(f"packets_{way}") * header
        days[purpose] = day
    echoes = _ECHOES_BYTES * _DAY_S // _PERIOD_S
    days["icmp"] = {"sent_with_headers": echoes, "received_with_headers": echoes}
    total = {
        name: sum(day.get(name, 0) for day in days.values())
        for name in ("sent_with_headers", "received_with_headers")
    }
    return {"total": total, "broker_pings": pings, **days}


if __name__ == "__main__":
    print(json.dumps(measure()))
