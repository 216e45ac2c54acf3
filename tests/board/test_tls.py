"""TLS of the probes on real MicroPython, against real servers of every kind."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from firmware.linkreport import block
from firmware.linkreport.table import (
    CONNECT_REFUSED,
    HTTP_SILENT,
    INTERNET,
    OK,
    ONE_TARGET_FAILED,
    PORTAL_ERROR,
    PORTAL_SILENT,
    PORTAL_UNEXPECTED,
    RESOLVER,
    SERVICE_CERTIFICATE_EXPIRING,
    SERVICE_CERTIFICATE_INVALID,
    SERVICE_ERROR,
    SERVICE_SILENT,
    SOME_SERVICES_FAILED,
    TLS_INTERCEPTED,
    TLS_SILENT,
    UNTESTED,
)
from hil import tool
from hil.site import Router
from tests.board.site import FIRMWARE, HERE, _place

HOST = "ziel.example.org"
NAMED = "203.0.113.91"
NO_DAYS = -32768
INTERPRETERS = ("micropython", "micropython32")
DAY = dt.timedelta(days=1)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
CAPTIVE = b"HTTP/1.0 200 OK\r\nContent-Type: application/captive+json\r\n\r\n{%s}"


class Ca:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.key, self.name, (-900, 900), ca=True)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, name: x509.Name, days: tuple[int, int], ca: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + DAY * days[0])
            # Half a day more, so that a whole number of days is left for the whole test.
            .not_valid_after(now + DAY * days[1] + DAY / 2)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if not ca:
            names = [x509.DNSName(str(name.rfc4514_string()).removeprefix("CN="))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, path: Path, host: str, days: tuple[int, int]) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        path.write_bytes(
            self._sign(key, name, days, ca=False).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class Server:
    """Serves each connection in a thread of its own, by a function."""

    def __init__(self, act: Callable[[socket.socket], None]) -> None:
        self._act = act
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(10)
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._act(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


def _https(context: ssl.SSLContext, answer: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)
            secure.sendall(answer)

    return act


def _http(answer: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    return act


def _silent(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


def _resets(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _stops(connection: socket.socket) -> None:
    """Begin a handshake message that never ends."""
    connection.recv(1000)
    connection.sendall(b"\x16\x03\x03\x20\x00\x02\x00\x1f\xfc")
    _silent(connection)


def _talks_on(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 100)


Seen = tuple[int, dict[str, Any], int]  # reason, measures, ms
Run = Callable[[list[dict[str, Any]]], list[Seen]]


@dataclass
class Net:
    """Ports by the name of the server; `folder` holds folders with the roots that are trusted."""

    ports: dict[str, int]
    folder: Path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Start the servers."""
    folder = tmp_path_factory.mktemp("tls")
    city, other, stranger = Ca("city"), Ca("other"), Ca("stranger")
    for name, roots in (("both", (other, city)), ("other", (other,)), ("none", ())):
        (folder / name).mkdir()
        if roots:
            (folder / name / "roots.der").write_bytes(b"".join(ca.der for ca in roots))
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def tls(name: str, ca: Ca, host: str, days: tuple[int, int], answer: bytes = page) -> Server:
        return Server(_https(ca.issue(folder / f"{name}.pem", host, days), answer))

    legacy = city.issue(folder / "legacy.pem", HOST, (-1, 30))
    legacy.maximum_version = ssl.TLSVersion.TLSv1_2
    servers = {
        "good": tls("good", city, HOST, (-1, 30)),
        "tls12": Server(_https(legacy, page)),
        "ending": tls("ending", city, HOST, (-1, 3)),
        "stranger": tls("stranger", stranger, HOST, (-1, 30)),
        "name": tls("name", city, "anders.example.org", (-1, 30)),
        "expired": tls("expired", city, HOST, (-30, -2)),
        "future": tls("future", city, HOST, (10, 30)),
        "strange-and-expired": tls("both", stranger, HOST, (-30, -2)),
        "error": tls("error", city, HOST, (-1, 30), b"HTTP/1.1 503 Busy\r\n\r\n"),
        "mute": tls("mute", city, HOST, (-1, 30), b""),
        "captive": tls("captive", city, HOST, (-1, 30), CAPTIVE % b'"captive": true'),
        "free": tls("free", city, HOST, (-1, 30), CAPTIVE % b'"captive": false'),
        "silent": Server(_silent),
        "closes": Server(lambda _: None),
        "resets": Server(_resets),
        "garbage": Server(_http(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)),
        "alert": Server(_http(b"\x15\x03\x03\x00\x02\x02\x28")),
        "stops": Server(_stops),
        "talks-on": Server(_talks_on),
        "204": Server(_http(NO_CONTENT)),
        "302": Server(_http(b"HTTP/1.1 302 Found\r\nLocation: http://10.1.0.1/\r\n\r\n")),
    }
    router = Router("10.1.0.1", {HOST: NAMED})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {name: each.port for name, each in servers.items()}
        ports |= {"refuses": closed.getsockname()[1], "dns": router.resolver_port}
        try:
            yield Net(ports, folder)
        finally:
            router.close()
            for each in servers.values():
                each.close()


def _case(net: Net, probe: str, **changes: Any) -> dict[str, Any]:
    """Make a case; `web`, `targets`, `page`, `services` and `api` name the servers."""
    ports = net.ports
    routes = [
        ("203.0.113.80", 80, ports[changes.get("web", "204")]),
        ("10.1.0.1", 53, ports["dns"]),
    ]
    config = _place().configuration()
    config["deadline_ms"] = dict.fromkeys(("internet", "portal", "service"), 1500)
    config["targets"] = []
    for number, name in enumerate(changes.get("targets", ())):
        address = f"203.0.113.{81 + number}"
        routes.append((address, 443, ports[name]))
        config["targets"].append({"host": HOST, "address": address, "port": 443})
    config["services"] = []
    for number, name in enumerate(changes.get("services", ()), 443):
        routes.append((NAMED, number, ports[name]))
        service = {"name": name, "host": HOST, "port": number, "path": "/", "tls": True}
        config["services"].append(service | {"status": 200})
    if "page" in changes:
        routes.append(("10.1.0.2", 443, ports[changes["page"]]))
        page = {"host": HOST, "address": "10.1.0.2", "port": 443, "path": "/", "tls": True}
        config["wlan"]["portal"] = page
    if "api" in changes:
        routes.append((NAMED, 8443, ports[changes["api"]]))
    return {
        "probe": probe,
        "config": config,
        "routes": routes,
        "identity": str(net.folder / changes.get("identity", "both")),
        "clock": changes.get("clock", True),
        "portal_api": f"https://{HOST}:8443/captive" if "api" in changes else "",
        "works": [RESOLVER, INTERNET],
    }


@pytest.fixture(scope="module", params=INTERPRETERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return what runs cases on MicroPython."""
    folder = tmp_path_factory.mktemp("run")

    def act(cases: list[dict[str, Any]]) -> list[Seen]:
        (folder / "cases.json").write_text(json.dumps(cases))
        command = [tool.find(request.param), HERE / "lib/probe.py", FIRMWARE, folder / "cases.json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return act


def _targets(measures: dict[str, Any]) -> list[tuple[int, ...]]:
    content = bytes(measures[str(block.TARGET)])
    return list(struct.iter_unpack(block.TARGET_FORMAT, content))


def test_every_kind_of_target(net: Net, run: Run) -> None:
    expected = {
        "good": OK,
        "tls12": OK,
        "ending": OK,
        "stranger": TLS_INTERCEPTED,
        "name": TLS_INTERCEPTED,
        "strange-and-expired": TLS_INTERCEPTED,
        "expired": SERVICE_CERTIFICATE_INVALID,
        "future": SERVICE_CERTIFICATE_INVALID,
        "silent": TLS_SILENT,
        "closes": TLS_SILENT,
        "resets": TLS_SILENT,
        "garbage": TLS_SILENT,
        "alert": TLS_SILENT,
        "stops": TLS_SILENT,
        "talks-on": TLS_SILENT,
        "refuses": CONNECT_REFUSED,
    }
    days = {"good": 30, "tls12": 30, "ending": 3}
    results = run([_case(net, "internet", targets=["good", name]) for name in expected])
    for (name, reason), (together, measures, took_ms) in zip(
        expected.items(), results, strict=True
    ):
        good, seen = _targets(measures)
        assert good[0] == OK, name
        assert good[3] == 30, name
        assert 0 < good[2] < 1500, name
        assert (seen[0], seen[3]) == (reason, days.get(name, NO_DAYS)), name
        assert together == (OK if reason == OK else ONE_TARGET_FAILED), name
        assert took_ms < 1700, name


def test_what_targets_tell_together(net: Net, run: Run) -> None:
    cases = [
        ({"targets": ["stranger", "name"]}, TLS_INTERCEPTED),
        ({"targets": ["stranger"]}, TLS_INTERCEPTED),
        ({"targets": ["silent", "garbage"]}, TLS_SILENT),
        ({"targets": ["silent"]}, ONE_TARGET_FAILED),
        ({"targets": ["stranger", "silent"]}, TLS_SILENT),
        ({"targets": ["expired", "stranger"]}, ONE_TARGET_FAILED),
        ({"targets": ["refuses", "refuses"]}, CONNECT_REFUSED),
        ({"targets": ["good", "good"], "web": "refuses"}, ONE_TARGET_FAILED),
        ({"targets": ["silent", "good"], "web": "refuses"}, ONE_TARGET_FAILED),
        ({"targets": ["stranger", "stranger"], "web": "silent"}, HTTP_SILENT),
        # A clock that is not known proves nothing by dates, but a stranger's signature does.
        ({"targets": ["expired", "future"], "clock": False}, OK),
        ({"targets": ["strange-and-expired", "stranger"], "clock": False}, TLS_INTERCEPTED),
        # Other roots, and none at all: then nobody can be unmasked.
        ({"targets": ["good", "good"], "identity": "other"}, TLS_INTERCEPTED),
        ({"targets": ["stranger", "expired"], "identity": "none"}, OK),
    ]
    results = run([_case(net, "internet", **changes) for changes, _ in cases])
    for (changes, expected), (reason, _, took_ms) in zip(cases, results, strict=True):
        assert reason == expected, changes
        assert took_ms < 1700, changes


def test_services(net: Net, run: Run) -> None:
    cases: list[tuple[list[str], int, list[tuple[int, int, int]] | None]] = [
        (["good"], OK, [(OK, 200, 30)]),
        (["ending"], SERVICE_CERTIFICATE_EXPIRING, [(SERVICE_CERTIFICATE_EXPIRING, 200, 3)]),
        (["error"], SERVICE_ERROR, [(SERVICE_ERROR, 503, 30)]),
        (["mute"], SERVICE_SILENT, [(SERVICE_SILENT, 0xFFFF, 30)]),
        (["silent"], SERVICE_SILENT, [(SERVICE_SILENT, 0xFFFF, NO_DAYS)]),
        (["refuses"], SERVICE_SILENT, [(SERVICE_SILENT, 0xFFFF, NO_DAYS)]),
        (["stranger"], SERVICE_CERTIFICATE_INVALID, None),
        (["expired"], SERVICE_CERTIFICATE_INVALID, None),
        (["name"], SERVICE_CERTIFICATE_INVALID, None),
        (["good", "error", "good", "resets"], SOME_SERVICES_FAILED, None),
        (["error", "resets"], SERVICE_ERROR, None),
        (["good", "ending"], SERVICE_CERTIFICATE_EXPIRING, None),
    ]
    results = run([_case(net, "service", services=names) for names, _, _ in cases])
    for (names, reason, told), (seen, measures, took_ms) in zip(cases, results, strict=True):
        assert seen == reason, names
        assert took_ms < 1700, names
        content = bytes(measures[str(block.SERVICE)])
        entries = list(struct.iter_unpack(block.SERVICE_FORMAT, content))
        assert len(entries) == len(names)
        if told:
            assert [(e[0], e[2], e[3]) for e in entries] == told, names


def test_services_without_a_clock(net: Net, run: Run) -> None:
    names = ["future", "good", "stranger", "expired"]
    [(reason, measures, _)] = run([_case(net, "service", services=names, clock=False)])
    entries = struct.iter_unpack(block.SERVICE_FORMAT, bytes(measures[str(block.SERVICE)]))
    assert [(e[0], e[3]) for e in entries] == [
        (UNTESTED, NO_DAYS),
        (OK, NO_DAYS),
        (SERVICE_CERTIFICATE_INVALID, NO_DAYS),
        (UNTESTED, NO_DAYS),
    ]
    assert reason == SOME_SERVICES_FAILED


def test_the_portal_s_page_and_its_api(net: Net, run: Run) -> None:
    there = {"web": "302"}
    cases: list[tuple[dict[str, Any], int, tuple[int, int] | None]] = [
        ({"page": "good"}, OK, (200, 255)),
        (there | {"page": "good"}, OK, (200, 255)),
        (there | {"page": "good", "api": "captive"}, OK, (200, 1)),
        (there | {"page": "stranger"}, PORTAL_ERROR, (0xFFFF, 255)),
        (there | {"page": "error"}, PORTAL_ERROR, (503, 255)),
        (there | {"page": "silent"}, PORTAL_SILENT, (0xFFFF, 255)),
        (there | {"page": "mute"}, PORTAL_SILENT, (0xFFFF, 255)),
        (there | {"page": "future", "clock": False}, UNTESTED, (0xFFFF, 255)),
        (there, PORTAL_UNEXPECTED, None),
        ({"api": "captive"}, PORTAL_UNEXPECTED, (0xFFFF, 1)),
        ({"api": "free"}, OK, (0xFFFF, 0)),
        ({"api": "free", "identity": "other"}, OK, None),  # who says so is not to be trusted
        ({"api": "good"}, OK, None),  # it is no JSON
        ({"api": "silent"}, OK, None),
        ({"api": "refuses"}, OK, None),
        ({"api": "captive", "web": "silent"}, PORTAL_UNEXPECTED, (0xFFFF, 1)),
    ]
    results = run([_case(net, "portal", **changes) for changes, _, _ in cases])
    for (changes, expected, told), (reason, measures, took_ms) in zip(cases, results, strict=True):
        assert reason == expected, changes
        assert took_ms < 1700, changes
        content = measures.get(str(block.PORTAL))
        if told is None:
            assert content is None, changes
        else:
            status, _, captive = struct.unpack(block.PORTAL_FORMAT, bytes(content))
            assert (status, captive) == told, changes
