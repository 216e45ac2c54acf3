"""Resolver and internet probes against servers on loopback that behave in every way."""

import asyncio
import errno
import json
import os
import socket
import struct
import unittest

from agent import web
from agent.config import parse
from agent.cycle import Evidence
from agent.link import Link
from agent.probes import internet, resolver
from linkreport import block
from linkreport.table import (
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    HTTP_SILENT,
    HTTP_UNEXPECTED,
    INTERNET_SLOW,
    NAME_NOT_FOUND,
    NETWORK_UNREACHABLE,
    OK,
    RESOLVER_FAILURE,
    RESOLVER_REFUSED,
    RESOLVER_SILENT,
    RESOLVER_SLOW,
    RESOLVER_WRONG_ADDRESS,
    UPSTREAM_SILENT,
)
from place import configuration
from port.null import NullPort
from test_probes import A_RECORD, POINTER, answer, record

DNS = ("10.1.0.1", 53)
REFERENCE = ("203.0.113.53", 53)
WEB = ("203.0.113.80", 80)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def bound(kind):
    """Return a socket on a free port of loopback, and the port."""
    while True:
        number = 20000 + int.from_bytes(os.urandom(2), "big") % 40000
        sock = socket.socket(socket.AF_INET, kind)
        try:
            sock.bind(socket.getaddrinfo("127.0.0.1", number)[0][-1])
        except OSError:
            sock.close()
            continue
        sock.setblocking(False)
        return sock, number


async def patiently(act):
    """Do what may not be possible yet."""
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        await asyncio.sleep(0.002)


class NetworkTest(unittest.TestCase):
    beside = None  # another server

    def setUp(self):
        self.port = NullPort()
        self.configure()

    def configure(self, **changes):
        changes.setdefault("deadline_ms", {"resolver": 400, "internet": 400})
        self.config = parse(json.dumps(configuration(**changes)).encode())

    def probe(self, module, serve=None, sock=None):
        """Run a probe beside a server."""

        async def run():
            evidence = Evidence(Link(self.port), self.config.wlan)
            evidence.resolver = DNS[0]
            tasks = [asyncio.create_task(each()) for each in (serve, self.beside) if each]
            try:
                return await module.probe(self.port, self.config, evidence)
            finally:
                for task in tasks:
                    task.cancel()

        try:
            return asyncio.run(run())
        finally:
            if sock:
                sock.close()


class ResolverTest(NetworkTest):
    def resolve(self, reply, localhost=b"\x81\x80", delay_s=0, before=()):
        """Run the probe; `reply` makes an answer from a question, None is silence."""
        sock, number = bound(socket.SOCK_DGRAM)
        self.port.socket.routes[DNS] = ("127.0.0.1", number)
        self.asked = []

        async def serve():
            while True:
                question, peer = await patiently(lambda: sock.recvfrom(512))
                own = b"localhost" in question
                self.asked.append("localhost" if own else "name")
                for datagram in before:
                    sock.sendto(datagram, peer)
                await asyncio.sleep(delay_s)
                if own:
                    said = answer(question, flags=localhost) if localhost else None
                else:
                    said = reply(question)
                if said:
                    sock.sendto(said, peer)

        return self.probe(resolver, serve, sock)

    def test_right(self):
        result = self.resolve(lambda question: answer(question, A_RECORD, 1))
        self.assertEqual(result.reason, OK)
        self.assertTrue(result.measures["resolver_ms"] < 200)
        self.assertEqual(self.asked, ["name"])

    def test_silent(self):
        result = self.resolve(lambda _: None, localhost=None)
        self.assertEqual(result, (RESOLVER_SILENT, {}))
        self.assertEqual(self.asked, ["name"] * 6 + ["localhost"] * 5)

    def test_alive_but_its_upstream_is_silent(self):
        for localhost in (b"\x81\x80", b"\x81\x83", b"\x81\x82"):
            result = self.resolve(lambda _: None, localhost)
            self.assertEqual(result, (UPSTREAM_SILENT, {}))

    def test_failure(self):
        def fails(question):
            return answer(question, flags=b"\x81\x82")

        self.assertEqual(self.resolve(fails).reason, UPSTREAM_SILENT)
        self.assertEqual(self.resolve(fails, b"\x81\x82").reason, RESOLVER_FAILURE)
        self.assertEqual(self.resolve(fails, None).reason, RESOLVER_FAILURE)
        odd = self.resolve(lambda question: answer(question, flags=b"\x81\x84"))
        self.assertEqual(odd.reason, RESOLVER_FAILURE)

    def test_no_such_name(self):
        result = self.resolve(lambda question: answer(question, flags=b"\x81\x83"))
        self.assertEqual(result.reason, NAME_NOT_FOUND)
        self.assertEqual(self.resolve(answer).reason, NAME_NOT_FOUND)

    def test_refused(self):
        def refuses(question):
            return answer(question, flags=b"\x81\x85")

        self.assertEqual(self.resolve(refuses, b"\x81\x85").reason, RESOLVER_REFUSED)
        self.assertEqual(self.resolve(refuses, None).reason, RESOLVER_REFUSED)
        self.assertEqual(self.resolve(refuses).reason, UPSTREAM_SILENT)

    def test_wrong_address(self):
        lie = record(POINTER, 1, bytes((10, 0, 0, 1)))
        result = self.resolve(lambda question: answer(question, lie, 1))
        self.assertEqual(result.reason, RESOLVER_WRONG_ADDRESS)

    def test_one_right_address_among_several_will_do(self):
        other = record(POINTER, 1, bytes((10, 0, 0, 1)))
        result = self.resolve(lambda question: answer(question, other + A_RECORD, 2))
        self.assertEqual(result.reason, OK)

    def test_slow(self):
        thresholds = dict(configuration()["thresholds"])
        thresholds["resolver_ms"] = 20
        self.configure(thresholds=thresholds, deadline_ms={"resolver": 2000})
        result = self.resolve(lambda question: answer(question, A_RECORD, 1), delay_s=0.05)
        self.assertEqual(result.reason, RESOLVER_SLOW)

    def test_lost_datagrams_cost_time_but_are_no_failure(self):
        lost = [None, None, None]

        def reply(question):
            return lost.pop() if lost else answer(question, A_RECORD, 1)

        self.configure(deadline_ms={"resolver": 1600})
        result = self.resolve(reply)
        self.assertEqual(result.reason, OK)
        self.assertEqual(len(self.asked), 4)
        self.assertTrue(result.measures["resolver_ms"] < 100)  # of the question answered

    def test_an_answer_after_the_next_question_counts_from_its_own_question(self):
        self.configure(deadline_ms={"resolver": 1600})
        result = self.resolve(lambda question: answer(question, A_RECORD, 1), delay_s=0.25)
        self.assertEqual(result.reason, OK)
        self.assertTrue(240 <= result.measures["resolver_ms"] < 500)
        self.assertTrue(len(self.asked) >= 1)

    def test_it_ends_at_its_deadline(self):
        start_ms = self.port.uptime_ms()
        self.resolve(lambda _: None, localhost=None)
        self.assertTrue(self.port.uptime_ms() - start_ms < 500)

    def reference(self, reply, leased=None):
        """Run the probe beside a reference resolver too; return the result and its block."""
        sock, number = bound(socket.SOCK_DGRAM)
        self.port.socket.routes[REFERENCE] = ("127.0.0.1", number)
        asked = dict(configuration()["resolver"], reference=REFERENCE[0])
        self.configure(resolver=asked)

        async def serve():
            while True:
                question, peer = await patiently(lambda: sock.recvfrom(512))
                said = reply(question)
                if said:
                    sock.sendto(said, peer)

        leased = leased or (lambda question: answer(question, A_RECORD, 1))
        self.beside = serve
        try:
            result = self.resolve(leased)
        finally:
            self.beside = None
            sock.close()
        told = struct.unpack(block.REFERENCE_FORMAT, result.measures[block.REFERENCE])
        return result.reason, told[0], told[1]

    def test_what_the_reference_says_is_evidence_and_no_reason(self):
        lie = record(POINTER, 1, bytes((10, 0, 0, 1)))
        for reply, told in (
            (lambda question: answer(question, A_RECORD, 1), 0),
            (lambda question: answer(question, flags=b"\x81\x83"), 3),
            (lambda question: answer(question, lie, 1), 254),
            (answer, 254),
            (lambda _: None, 255),
        ):
            reason, rcode, took_ms = self.reference(reply)
            self.assertEqual((reason, rcode), (OK, told))
            self.assertTrue(took_ms == 0xFFFF if told == 255 else took_ms < 200)

    def test_the_reference_answers_where_the_leased_one_does_not(self):
        start_ms = self.port.uptime_ms()
        seen = self.reference(lambda question: answer(question, A_RECORD, 1), lambda _: None)
        self.assertEqual(seen[:2], (UPSTREAM_SILENT, 0))
        self.assertTrue(self.port.uptime_ms() - start_ms < 600)

    def test_strange_datagrams_are_ignored(self):
        self.configure(deadline_ms={"resolver": 2000})
        strange = (b"", b"\x00", bytes(12), b"\xff" * 100, bytes(512))
        result = self.resolve(lambda question: answer(question, A_RECORD, 1), before=strange)
        self.assertEqual(result.reason, OK)

    def test_strange_datagrams_do_not_prolong_the_wait(self):
        start_ms = self.port.uptime_ms()
        self.assertEqual(self.resolve(lambda _: bytes(30), None).reason, RESOLVER_SILENT)
        self.assertTrue(self.port.uptime_ms() - start_ms < 1000)

    def test_nothing_listens(self):
        sock, number = bound(socket.SOCK_DGRAM)
        sock.close()
        self.port.socket.routes[DNS] = ("127.0.0.1", number)
        self.assertEqual(self.probe(resolver), (RESOLVER_SILENT, {}))


class InternetTest(NetworkTest):
    def get(self, pieces, delay_s=0):
        """Run the probe; the server sends the pieces and closes; None keeps silent."""
        sock, number = bound(socket.SOCK_STREAM)
        sock.listen(5)
        self.port.socket.routes[WEB] = ("127.0.0.1", number)
        self.request = b""

        async def serve():
            connection, _ = await patiently(sock.accept)
            try:
                connection.setblocking(False)
                while b"\r\n\r\n" not in self.request:
                    self.request += await patiently(lambda: connection.recv(512))
                await asyncio.sleep(delay_s)
                if pieces is None:
                    await asyncio.sleep(60)
                for piece in pieces:
                    connection.send(piece)
                    await asyncio.sleep(0.01)
            finally:
                connection.close()

        return self.probe(internet, serve, sock)

    def test_right(self):
        result = self.get([NO_CONTENT])
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures["http_status"], 204)
        self.assertTrue(0 <= result.measures["internet_connect_ms"] < 200)
        self.assertTrue(0 <= result.measures["internet_http_ms"] < 200)
        self.assertEqual(self.request, web.request("probe.example.org", "/generate_204"))

    def test_in_pieces(self):
        self.assertEqual(self.get([b"HTTP", b"/1.1 20", b"4\r\n"]).reason, OK)

    def test_a_portal_answers_instead(self):
        for status in (200, 302, 511):
            result = self.get([b"HTTP/1.1 %d Portal\r\n\r\n<html>" % status])
            self.assertEqual(result.reason, HTTP_UNEXPECTED)
            self.assertEqual(result.measures["http_status"], status)

    def test_something_else_answers(self):
        for line in (b"220 mail ESMTP\r\n", b"\x16\x03\x01\x02\x00\n", b"x" * 1000):
            result = self.get([line])
            self.assertEqual(result.reason, HTTP_UNEXPECTED)
            self.assertIsNone(result.measures["http_status"])

    def test_silent(self):
        result = self.get(None)
        self.assertEqual(result.reason, HTTP_SILENT)
        self.assertIn("internet_connect_ms", result.measures)
        self.assertEqual(self.get([]).reason, HTTP_SILENT)
        self.assertEqual(self.get([b"HTTP/1.1 204"], delay_s=1).reason, HTTP_SILENT)

    def test_slow(self):
        thresholds = dict(configuration()["thresholds"])
        thresholds["internet_ms"] = 20
        self.configure(thresholds=thresholds, deadline_ms={"internet": 2000})
        self.assertEqual(self.get([NO_CONTENT], delay_s=0.05).reason, INTERNET_SLOW)

    def nothing_came(self, result, reason):
        self.assertEqual(result.reason, reason)
        self.assertTrue(all(value is None for value in result.measures.values()))

    def test_refused(self):
        sock, number = bound(socket.SOCK_STREAM)
        sock.close()
        self.port.socket.routes[WEB] = ("127.0.0.1", number)
        self.nothing_came(self.probe(internet), CONNECT_REFUSED)

    def test_no_answer(self):
        # A queue of one that is full: further connections are not answered.
        sock, number = bound(socket.SOCK_STREAM)
        sock.listen(0)
        waiting = []
        try:
            for _ in range(4):
                each = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                each.setblocking(False)
                waiting.append(each)
                try:
                    each.connect(socket.getaddrinfo("127.0.0.1", number)[0][-1])
                except OSError as error:
                    self.assertEqual(error.errno, errno.EINPROGRESS)
            self.port.socket.routes[WEB] = ("127.0.0.1", number)
            self.nothing_came(self.probe(internet, sock=sock), CONNECT_TIMEOUT)
        finally:
            for each in waiting:
                each.close()

    def test_no_route(self):
        class Unreachable:
            def setblocking(self, flag):
                """Nothing to do."""

            def connect(self, where):
                raise OSError(101, "ENETUNREACH")

            def close(self):
                """Nothing to do."""

        self.port.socket.socket = lambda *_: Unreachable()
        self.nothing_came(self.probe(internet), NETWORK_UNREACHABLE)
