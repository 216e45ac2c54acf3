"""The NTP client, and the clock that asks it, against servers on loopback."""

import asyncio
import socket
import struct
import unittest

from agent.clock import Clock
from agent.ntp import ask, parse
from linkreport.table import CLOCK_NONE, CLOCK_NTP
from port.null import NullPort
from test_network import bound, patiently
from test_probes import A_RECORD, answer

FLOOR_S = 1780000000
NOW_S = 1790000000
EPOCH_S = 2208988800
DNS = ("10.1.0.1", 53)
SERVER = ("203.0.113.80", 123)
MARK = b"12345678"


def packet(mark, time_s=NOW_S, fraction=0, *, first=0x24, stratum=2):
    sent = struct.pack(">II", (time_s + EPOCH_S) & 0xFFFFFFFF, fraction)
    return bytes((first, stratum)) + bytes(22) + mark + bytes(8) + sent


class ParseTest(unittest.TestCase):
    def test_a_time(self):
        self.assertEqual(parse(packet(MARK), MARK, 0), NOW_S)
        self.assertEqual(parse(packet(MARK) + bytes(20), MARK, 0), NOW_S)

    def test_it_is_rounded_after_the_way_back(self):
        half = 1 << 31
        self.assertEqual(parse(packet(MARK, fraction=half - 10000000), MARK, 0), NOW_S)
        self.assertEqual(parse(packet(MARK, fraction=half), MARK, 0), NOW_S + 1)
        self.assertEqual(parse(packet(MARK, fraction=half // 2), MARK, 250), NOW_S + 1)
        self.assertEqual(parse(packet(MARK), MARK, 499), NOW_S)

    def test_after_2036_the_seconds_start_anew(self):
        for time_s in (2085978495, 2085978497, 4000000000):
            self.assertEqual(parse(packet(MARK, time_s), MARK, 0), time_s)

    def test_what_is_no_answer(self):
        good = packet(MARK)
        for size in range(len(good)):
            self.assertIsNone(parse(good[:size], MARK, 0))
        for odd in (
            packet(b"87654321"),  # to another question
            packet(MARK, first=0xE4),  # the server's clock is not set
            packet(MARK, first=0x23),  # a question
            packet(MARK, first=0x25),  # broadcast
            packet(MARK, stratum=0),  # kiss of death
            packet(MARK, stratum=16),
            packet(MARK, -EPOCH_S),
        ):
            self.assertIsNone(parse(odd, MARK, 0))


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.port = NullPort()
        self.port.set_time_s(0)
        self.asked = 0

    def serve(self, act, replies):
        """Run `act` beside a server whose replies are made by functions, None for silence."""
        sock, number = bound(socket.SOCK_DGRAM)
        self.port.socket.routes[SERVER] = ("127.0.0.1", number)

        async def server():
            while True:
                question, peer = await patiently(lambda: sock.recvfrom(100))
                self.asked += 1
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                if reply:
                    sock.sendto(reply(question[40:48]), peer)

        async def run():
            task = asyncio.create_task(server())
            try:
                return await act()
            finally:
                task.cancel()

        try:
            return asyncio.run(run())
        finally:
            sock.close()

    def test_a_lost_packet_is_asked_again(self):
        time_s = self.serve(lambda: ask(self.port, SERVER[0], ""), [None, packet])
        self.assertEqual((time_s, self.asked), (NOW_S, 2))

    def test_silence_and_nonsense_end(self):
        start_ms = self.port.uptime_ms()
        nonsense = [lambda _: packet(bytes(8)), lambda _: b"", lambda _: b"x" * 96]
        self.assertIsNone(self.serve(lambda: ask(self.port, SERVER[0], ""), nonsense))
        self.assertTrue(self.port.uptime_ms() - start_ms < 4000)
        self.assertEqual(self.asked, 3)

    def test_nobody_listens(self):
        sock, number = bound(socket.SOCK_DGRAM)
        sock.close()
        self.port.socket.routes[SERVER] = ("127.0.0.1", number)
        self.assertIsNone(asyncio.run(ask(self.port, SERVER[0], "")))

    def test_a_name_is_asked_from_the_resolver(self):
        sock, number = bound(socket.SOCK_DGRAM)
        self.port.socket.routes[DNS] = ("127.0.0.1", number)

        async def resolver():
            question, peer = await patiently(lambda: sock.recvfrom(512))
            sock.sendto(answer(question, A_RECORD, 1), peer)

        async def act():
            task = asyncio.create_task(resolver())
            try:
                return await ask(self.port, "probe.example.org", DNS[0])
            finally:
                task.cancel()

        try:
            self.assertEqual(self.serve(act, [packet]), NOW_S)
        finally:
            sock.close()
        self.assertIsNone(asyncio.run(ask(self.port, "probe.example.org", "")))

    def near(self, value, expected):
        self.assertLessEqual(abs(value - expected), 2)

    def test_the_clock_is_set_and_not_asked_again_soon(self):
        clock = Clock(self.port, FLOOR_S)

        async def twice():
            await clock.ask_ntp(SERVER[0], "")
            await clock.ask_ntp(SERVER[0], "")

        self.serve(twice, [packet])
        self.near(clock.now()[0], NOW_S)
        self.assertEqual((clock.now()[1], self.asked), (CLOCK_NTP, 1))
        self.assertEqual(self.port.recall("clock_set"), 1)

    def test_an_acknowledgement_never_moves_a_clock_set_by_ntp(self):
        clock = Clock(self.port, FLOOR_S)
        self.serve(lambda: clock.ask_ntp(SERVER[0], ""), [packet])
        for time_s in (0, FLOOR_S, NOW_S - 100, NOW_S + 100, 0xFFFFFFFF):
            clock.hear_ack(time_s)
            self.near(clock.now()[0], NOW_S)

    def test_an_absurd_time_changes_nothing(self):
        clock = Clock(self.port, FLOOR_S)
        for time_s in (946684800, FLOOR_S - 1):
            clock._ntp_due_ms = 0
            told = packet(MARK, time_s)
            replies = [lambda mark, told=told: told[:24] + mark + told[32:]]
            self.serve(lambda: clock.ask_ntp(SERVER[0], ""), replies)
            self.assertEqual(clock.now(), (0, CLOCK_NONE))
        self.assertEqual(self.asked, 2)

    def test_without_a_server_nothing_is_asked(self):
        clock = Clock(self.port, FLOOR_S)
        self.serve(lambda: clock.ask_ntp("", DNS[0]), [packet])
        self.assertEqual(self.asked, 0)
