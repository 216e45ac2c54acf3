"""Portal, service, throughput and internet probes in clear, against servers on loopback."""

import asyncio
import json
import socket
import struct
import unittest

import agent.loan
from agent.config import parse
from agent.cycle import Evidence
from agent.link import Lease, Link
from agent.probes import internet, portal, service, throughput
from agent.web import request
from linkreport import block
from linkreport.table import (
    BEHIND_PORTAL,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    HTTP_SILENT,
    HTTP_UNEXPECTED,
    INTERNET,
    INTERNET_SLOW,
    OK,
    ONE_TARGET_FAILED,
    PORTAL_ERROR,
    PORTAL_MISSING,
    PORTAL_SILENT,
    PORTAL_UNEXPECTED,
    RESOLVER,
    SERVICE_CERTIFICATE_INVALID,
    SERVICE_ERROR,
    SERVICE_NAME_NOT_FOUND,
    SERVICE_SILENT,
    SERVICE_SLOW,
    SOME_SERVICES_FAILED,
    THROUGHPUT_LOW,
    TLS_INTERCEPTED,
    TLS_SILENT,
    UNTESTED,
)
from place import configuration
from port.null import NullPort
from test_network import bound, patiently
from test_probes import POINTER, answer, record

WEB = ("203.0.113.80", 80)
PAGE = ("10.1.0.2", 80)
DNS = ("10.1.0.1", 53)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: http://10.1.0.2/login\r\n\r\n"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + b"x" * 3000
PORTAL = {"host": "login.example.org", "address": PAGE[0], "port": 80, "path": "/", "tls": False}
SERVICE = {"host": "lernen.example.org", "port": 80, "path": "/", "tls": False, "status": 200}
LIMIT_MS = 300
SLACK_MS = 3000  # a busy machine is late; what hangs is later


class Servers(unittest.TestCase):
    """Runs a probe beside servers; what they got is in `asked`, by their name."""

    def setUp(self):
        # From source each loan takes milliseconds, and these visits have few.
        self.is_small, agent.loan._IS_SMALL = agent.loan._IS_SMALL, False
        self.port = NullPort()
        self.asked = {}
        self.servers = []
        self.evidence = None
        self.configure()

    def tearDown(self):
        agent.loan._IS_SMALL = self.is_small

    def configure(self, page=None, deadline_ms=LIMIT_MS, **changes):
        if page:
            changes["wlan"] = dict(configuration()["wlan"], portal=page)
        names = ("internet", "portal", "service", "throughput")
        changes["deadline_ms"] = dict.fromkeys(names, deadline_ms)
        self.config = parse(json.dumps(configuration(**changes)).encode())
        self.link = Link(self.port)
        self.begin()

    def begin(self):
        self.evidence = Evidence(self.link, self.config.wlan)
        self.evidence.resolver = DNS[0]
        self.evidence.lease = Lease()
        for layer in (RESOLVER, INTERNET):
            self.evidence.reasons[layer - 1] = OK

    def serve(self, place, said):
        """Add a server at a place that says something; None is silence, a list many pieces.

        An OSError refuses; a function is given the connection.
        """
        self.servers.append((place, said))

    def probe(self, module):
        async def run():
            socks, tasks = [], []
            for place, said in self.servers:
                sock, number = bound(socket.SOCK_STREAM)
                self.port.socket.routes[place] = ("127.0.0.1", number)
                if isinstance(said, OSError):
                    sock.close()
                    continue
                sock.listen(5)
                socks.append(sock)
                tasks.append(asyncio.create_task(self.accept(sock, place, said)))
            names, number = self.names()
            tasks.append(asyncio.create_task(self.resolve(names)))
            self.port.socket.routes[DNS] = ("127.0.0.1", number)
            try:
                return await module.probe(self.port, self.config, self.evidence)
            finally:
                for task in tasks:
                    task.cancel()
                for sock in socks + [names]:
                    sock.close()

        start_ms = self.port.uptime_ms()
        result = asyncio.run(run())
        self.took_ms = self.port.uptime_ms() - start_ms
        return result

    def names(self):
        return bound(socket.SOCK_DGRAM)

    async def resolve(self, sock):
        """Know every name under example.org and portal.example as the page's address."""
        address = record(POINTER, 1, bytes(int(part) for part in PAGE[0].split(".")))
        while True:
            question, peer = await patiently(lambda: sock.recvfrom(512))
            if b"\x07example\x03org" in question or b"\x06portal" in question:
                sock.sendto(answer(question, address, 1), peer)
            else:
                sock.sendto(answer(question, flags=b"\x81\x83"), peer)

    async def accept(self, sock, place, said):
        while True:
            connection, _ = await patiently(sock.accept)
            connection.setblocking(False)
            try:
                self.asked.setdefault(place, []).append(await question(connection))
                if said is None:
                    await asyncio.sleep(60)
                elif isinstance(said, bytes):
                    connection.send(said)
                else:
                    await said(connection)
            except OSError:
                continue  # the probe hung up
            finally:
                connection.close()

    def block(self, result, kind, form):
        content = result.measures[kind]
        size = struct.calcsize(form)
        return [struct.unpack(form, content[at : at + size]) for at in range(0, len(content), size)]


async def question(connection):
    """Return what a client asks."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        more = await patiently(lambda: connection.recv(512))
        if not more:
            break
        asked += more
    return asked


async def endless(connection):
    """Send headers without end."""
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await patiently(lambda: connection.send(b"X-Header: " + b"y" * 200 + b"\r\n"))
        await asyncio.sleep(0)  # filling all buffers would hold the board up


async def drips(connection):
    """Send a status line that never ends, byte by byte."""
    connection.send(b"HTTP/1.1 204")
    while True:
        await asyncio.sleep(0.01)
        connection.send(b" ")


class PortalTest(Servers):
    def test_none(self):
        self.serve(WEB, NO_CONTENT)
        result = self.probe(portal)
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures["http_status"], 204)
        self.assertNotIn(block.PORTAL, result.measures)

    def test_where_none_belongs(self):
        for said in (FOUND, HTML, b"HTTP/1.1 511 Login\r\n\r\n"):
            self.servers = []
            self.serve(WEB, said)
            self.assertEqual(self.probe(portal).reason, PORTAL_UNEXPECTED)

    def test_an_error_of_the_server_is_no_portal(self):
        for status in (404, 500, 503):
            self.servers = []
            self.serve(WEB, b"HTTP/1.1 %d Odd\r\n\r\n" % status)
            result = self.probe(portal)
            self.assertEqual((result.reason, result.measures["http_status"]), (OK, status))

    def test_where_nothing_answers_nothing_is_known(self):
        for said in (None, OSError(), b"", b"SSH-2.0\r\n", drips):
            self.servers = []
            self.serve(WEB, said)
            self.assertEqual(self.probe(portal), (UNTESTED, {}))
            self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)

    def page(self, web, page):
        """Probe where a portal belongs; return the reason and the block."""
        self.configure(PORTAL)
        self.servers, self.asked = [], {}
        self.serve(WEB, web)
        self.serve(PAGE, page)
        result = self.probe(portal)
        self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)
        [told] = self.block(result, block.PORTAL, block.PORTAL_FORMAT)
        return result.reason, told[0]

    def test_its_page_answers(self):
        for web in (FOUND, HTML, NO_CONTENT, None, OSError()):
            self.assertEqual(self.page(web, HTML), (OK, 200))
            self.assertEqual(self.asked[PAGE], [request("login.example.org", "/")])
        self.assertEqual(self.page(FOUND, FOUND), (OK, 302))  # and is not followed
        self.assertEqual(len(self.asked[PAGE]), 1)

    def test_its_page_answers_wrongly(self):
        for page in (b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 500 Oops\r\n\r\n"):
            for web in (FOUND, NO_CONTENT, None):
                self.assertEqual(self.page(web, page)[0], PORTAL_ERROR)
        self.assertEqual(self.page(FOUND, b"SSH-2.0\r\n"), (PORTAL_ERROR, 0xFFFF))

    def test_its_page_is_dead(self):
        for page in (None, OSError(), b"", drips):
            for web in (FOUND, NO_CONTENT, None):
                self.assertEqual(self.page(web, page), (PORTAL_SILENT, 0xFFFF), (page, web))

    def unreachable(self, web):
        """Probe where a portal belongs, at an address that nobody has."""
        self.configure(PORTAL)
        self.servers = []
        self.serve(WEB, web)
        with Full() as full:
            self.port.socket.routes[PAGE] = full.place
            return self.probe(portal).reason

    def test_its_host_is_gone(self):
        self.assertEqual(self.unreachable(FOUND), PORTAL_SILENT)
        self.assertEqual(self.unreachable(NO_CONTENT), PORTAL_MISSING)
        self.assertEqual(self.unreachable(None), UNTESTED)

    def api(self, said, web=NO_CONTENT, uri="http://api.portal.example/captive"):
        self.configure()
        self.servers, self.asked = [], {}
        self.evidence.lease.portal_api = uri
        self.serve(WEB, web)
        self.serve(PAGE, said)
        result = self.probe(portal)
        self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)
        if block.PORTAL not in result.measures:
            return result.reason, 255
        [told] = self.block(result, block.PORTAL, block.PORTAL_FORMAT)
        self.assertEqual(told[:2], (0xFFFF, 0xFFFF))
        return result.reason, told[2]

    def test_the_lease_s_api_is_heard(self):
        head = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
        self.assertEqual(self.api(head + b'{"captive": true}'), (PORTAL_UNEXPECTED, 1))
        asked = self.asked[PAGE][0]
        self.assertTrue(asked.startswith(b"GET /captive HTTP/1.0\r\nHost: api.portal.example\r\n"))
        self.assertEqual(self.api(head + b'{"captive": false}'), (OK, 0))
        self.assertEqual(self.api(head + b'{"captive": false}', FOUND), (PORTAL_UNEXPECTED, 0))

    def test_an_api_that_talks_nonsense_is_none(self):
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        for said in (
            head + b'{"captive": "true"}',
            head + b'{"captive": 1}',
            head + b"[true]",
            head + b'{"user-portal-url": "x"}',
            head + b'{"captive": true',
            head + b"[" * 900,
            head + b'{"captive": true, "x": "' + b"x" * 1100 + b'"}',
            head + b"\xff\xfe",
            b"HTTP/1.1 200 OK\r\n" + b'{"captive": true}',
            b'HTTP/1.1 404 Not Found\r\n\r\n{"captive": true}',
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n{",
            b"",
            None,
            OSError(),
            endless,
        ):
            self.assertEqual(self.api(said), (OK, 255), said)

    def test_an_api_at_an_odd_place_is_none(self):
        for uri in (
            "http://nowhere.example/",
            "ftp://api.portal.example/",
            "http://[::1]/",
            "x" * 300,
        ):
            self.assertEqual(self.api(HTML, uri=uri), (OK, 255), uri)


class Full:
    """A listener whose queue is full, so that nobody answers: `place` is where it is."""

    def __enter__(self):
        self._sock, number = bound(socket.SOCK_STREAM)
        self._sock.listen(0)
        self._waiting = []
        self.place = ("127.0.0.1", number)
        for _ in range(4):
            each = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            each.setblocking(False)
            self._waiting.append(each)
            try:
                each.connect(socket.getaddrinfo(*self.place)[0][-1])
            except OSError:
                continue
        return self

    def __exit__(self, *_):
        for each in self._waiting + [self._sock]:
            each.close()


class UriTest(unittest.TestCase):
    def test_uris(self):
        for uri, parts in (
            ("https://a.example/x?y=z", (True, "a.example", 443, "/x?y=z")),
            ("HTTP://a.example", (False, "a.example", 80, "/")),
            ("https://10.1.0.3:8443/c#top", (True, "10.1.0.3", 8443, "/c")),
            ("http://example?q", (False, "example", 80, "/?q")),
        ):
            self.assertEqual(portal.split(uri), parts)

    def test_what_a_board_cannot_use(self):
        for uri in (
            "",
            "https://",
            "https:///x",
            "a.example",
            "urn:ietf:params:capport:unrestricted",
            "https://user.example@a.example/",
            "https://a.example:0/",
            "https://a.example:65536/",
            "https://a.example:x/",
            "https://a.example:b:c/",
            "https://a..example/",
            "https://a.example b/",
            "https://a.example/\r\nX: y",
            "https://" + "a" * 64 + "/",
            "http://a.example/" + "x" * 300,
        ):
            self.assertIsNone(portal.split(uri), uri)


class BehindTest(Servers):
    def test_what_the_portal_probe_saw_is_not_asked_again(self):
        self.serve(WEB, NO_CONTENT)
        self.evidence.measures.update(self.probe(portal).measures)
        self.assertEqual(self.probe(internet).reason, OK)
        self.assertEqual(len(self.asked[WEB]), 1)

    def test_what_the_portal_probe_saw_may_be_slow(self):
        self.evidence.measures.update(
            {"internet_connect_ms": 600, "internet_http_ms": 600, "http_status": 204}
        )
        self.assertEqual(self.probe(internet).reason, INTERNET_SLOW)

    def test_an_expected_portal_is_no_failure_of_the_line(self):
        self.configure(PORTAL)
        self.serve(WEB, FOUND)
        self.assertEqual(self.probe(internet).reason, BEHIND_PORTAL)
        self.servers = []
        self.serve(WEB, None)
        self.assertEqual(self.probe(internet).reason, HTTP_SILENT)
        said = struct.pack(block.PORTAL_FORMAT, 200, 5, 1)
        self.evidence.measures[block.PORTAL] = said
        self.assertEqual(self.probe(internet).reason, BEHIND_PORTAL)
        self.servers = []
        self.serve(WEB, b"HTTP/1.1 503 Busy\r\n\r\n")
        self.evidence.measures.clear()
        self.assertEqual(self.probe(internet).reason, HTTP_UNEXPECTED)

    def test_a_portal_that_nobody_expects_is(self):
        self.serve(WEB, FOUND)
        self.assertEqual(self.probe(internet).reason, HTTP_UNEXPECTED)

    def test_a_status_line_that_never_ends(self):
        self.serve(WEB, drips)
        self.assertEqual(self.probe(internet).reason, HTTP_SILENT)
        self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)

    def test_headers_that_never_end_do_not_matter(self):
        self.serve(WEB, endless)
        self.assertEqual(self.probe(internet).measures["http_status"], 200)

    def test_one_reason_for_all(self):
        timeout, refused = CONNECT_TIMEOUT, CONNECT_REFUSED
        caught, old = TLS_INTERCEPTED, SERVICE_CERTIFICATE_INVALID
        for web, targets, expected in (
            (OK, (), OK),
            (timeout, (), timeout),
            (OK, (OK, OK), OK),
            (OK, (OK, timeout), ONE_TARGET_FAILED),
            (OK, (OK, caught), ONE_TARGET_FAILED),
            (timeout, (OK, OK), ONE_TARGET_FAILED),
            (timeout, (OK, refused), ONE_TARGET_FAILED),
            (timeout, (refused, refused), timeout),
            (OK, (refused, timeout), refused),
            (OK, (TLS_SILENT, TLS_SILENT), TLS_SILENT),
            (OK, (caught, caught), caught),
            (OK, (caught, refused), refused),
            (OK, (caught, old), ONE_TARGET_FAILED),
            (OK, (old, old), ONE_TARGET_FAILED),
            (OK, (UNTESTED, caught), caught),
            (OK, (UNTESTED, UNTESTED), OK),
            (timeout, (UNTESTED,), timeout),
            (OK, (UNTESTED, refused), ONE_TARGET_FAILED),
        ):
            self.assertEqual(internet.together(web, targets), expected, (web, targets))


class ServiceTest(Servers):
    def visit(self, *services, **changes):
        named = [dict(SERVICE, name=str(number), **each) for number, each in enumerate(services)]
        self.configure(services=named, **changes)
        result = self.probe(service)
        self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)
        return result

    def test_none_is_configured(self):
        self.assertEqual(self.visit(), (UNTESTED, {}))

    def test_one_answers(self):
        self.serve(PAGE, HTML)
        result = self.visit({})
        self.assertEqual(result.reason, OK)
        [(reason, took_ms, status, days)] = self.block(result, block.SERVICE, block.SERVICE_FORMAT)
        self.assertEqual((reason, status, days), (OK, 200, -32768))
        self.assertTrue(took_ms < 300)
        self.assertEqual(self.asked[PAGE], [request("lernen.example.org", "/")])

    def test_another_status_than_expected(self):
        self.serve(PAGE, FOUND)
        self.assertEqual(self.visit({}).reason, SERVICE_ERROR)
        self.assertEqual(self.visit({"status": 302}).reason, OK)
        self.assertEqual(len(self.asked[PAGE]), 2)

    def test_something_else_or_nothing_answers(self):
        for said, reason in (
            (b"SSH-2.0\r\n", SERVICE_ERROR),
            (None, SERVICE_SILENT),
            (OSError(), SERVICE_SILENT),
            (b"", SERVICE_SILENT),
            (drips, SERVICE_SILENT),
        ):
            self.servers = []
            self.serve(PAGE, said)
            self.assertEqual(self.visit({}).reason, reason)

    def test_slow(self):
        async def late(connection):
            await asyncio.sleep(0.05)
            connection.send(HTML[:50])

        self.serve(PAGE, late)
        thresholds = dict(configuration()["thresholds"], service_ms=20)
        self.assertEqual(self.visit({}, thresholds=thresholds).reason, SERVICE_SLOW)

    def test_its_name_is_not_known(self):
        result = self.visit({"host": "nowhere.test"})
        self.assertEqual(result.reason, SERVICE_NAME_NOT_FOUND)
        self.evidence.reasons[RESOLVER - 1] = 50
        self.assertEqual(self.probe(service).reason, UNTESTED)

    def test_several(self):
        self.serve(PAGE, HTML)
        self.serve((PAGE[0], 81), None)
        result = self.visit({}, {"port": 81}, {"host": PAGE[0]}, {"host": "nowhere.test"})
        self.assertEqual(result.reason, SOME_SERVICES_FAILED)
        told = self.block(result, block.SERVICE, block.SERVICE_FORMAT)
        expected = [OK, SERVICE_SILENT, OK, SERVICE_NAME_NOT_FOUND]
        self.assertEqual([each[0] for each in told], expected)

    def test_one_reason_for_all(self):
        for reasons, expected in (
            ((OK, OK), OK),
            ((OK, SERVICE_SLOW), SERVICE_SLOW),
            ((SERVICE_SLOW, SERVICE_ERROR), SOME_SERVICES_FAILED),
            ((SERVICE_ERROR, SERVICE_ERROR), SERVICE_ERROR),
            ((SERVICE_SILENT, SERVICE_ERROR), SERVICE_SILENT),
            ((UNTESTED, SERVICE_ERROR), SERVICE_ERROR),
            ((UNTESTED, UNTESTED), UNTESTED),
        ):
            self.assertEqual(service.together(reasons), expected, reasons)


class ThroughputTest(Servers):
    def download(self, said, *, every=1, size=200000, kbit_s=2000, deadline_ms=LIMIT_MS):
        thresholds = dict(configuration()["thresholds"], throughput_kbit_s=kbit_s)
        plan = {"host": "probe.example.org", "address": WEB[0], "port": 80, "path": "/256k"}
        self.configure(
            throughput=dict(plan, bytes=size, every=every),
            thresholds=thresholds,
            deadline_ms=deadline_ms,
        )
        self.servers = []
        self.serve(WEB, said)
        return self.probe(throughput)

    async def fast(self, connection):
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            await patiently(lambda: connection.send(bytes(4000)))

    async def slow(self, connection):
        """Send some 400 kbit/s."""
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.send(bytes(1000))
            await asyncio.sleep(0.02)

    def test_none_is_configured(self):
        self.assertEqual(self.probe(throughput), (OK, {}))

    def test_enough(self):
        result = self.download(self.fast, deadline_ms=3000)
        self.assertEqual(result.reason, OK)
        [(kbit_s, kib)] = self.block(result, block.THROUGHPUT, block.THROUGHPUT_FORMAT)
        self.assertTrue(kbit_s > 2000)
        self.assertTrue(195 <= kib < 198)  # it hangs up when it has what it wants

    def test_low(self):
        result = self.download(self.slow, deadline_ms=1000)
        self.assertEqual(result.reason, THROUGHPUT_LOW)
        [(kbit_s, _)] = self.block(result, block.THROUGHPUT, block.THROUGHPUT_FORMAT)
        self.assertTrue(200 < kbit_s < 450, kbit_s)
        self.assertTrue(self.took_ms < 1200)

    def test_what_cannot_be_had_says_nothing(self):
        for said in (None, OSError(), b"", FOUND, b"SSH-2.0\r\n", HTML):
            self.assertEqual(self.download(said), (OK, {}), said)
            self.assertTrue(self.took_ms < LIMIT_MS + SLACK_MS)

    def test_every_third_cycle(self):
        self.download(self.fast, every=3, deadline_ms=3000)
        self.link.cycles_to_download = 1
        measured = []
        for _ in range(6):
            self.begin()
            measured.append(block.THROUGHPUT in self.probe(throughput).measures)
        self.assertEqual(measured, [False, True, False, False, True, False])

    def test_a_little_before_the_deadline_is_no_rate(self):
        async def late(connection):
            await asyncio.sleep(0.7)
            connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000))
            await asyncio.sleep(1)

        result = self.download(late, deadline_ms=1000)
        self.assertEqual((result.reason, result.measures), (OK, {}))

    def test_the_first_one_comes_by_chance(self):
        first = set()
        for _ in range(20):
            self.download(OSError(), every=60000)
            first.add(self.link.cycles_to_download)
        self.assertTrue(len(first) > 10)
        self.assertTrue(max(first) < 60000)

    def test_never_while_the_line_is_busy_or_reports_wait(self):
        self.download(OSError(), deadline_ms=3000)
        self.servers = []
        self.serve(WEB, self.fast)
        for p95_us, waiting, measures in ((50001, 0, False), (1000, 9, False), (50000, 8, True)):
            self.begin()
            self.link.waiting = waiting
            path = struct.pack(block.PATH_FORMAT, 20, 1000, p95_us, 100)
            self.evidence.measures[block.PATH] = path
            self.assertEqual(block.THROUGHPUT in self.probe(throughput).measures, measures)
