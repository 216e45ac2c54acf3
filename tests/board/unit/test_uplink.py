import asyncio
import json
import struct
import sys
import unittest

import agent.uplink
import linkreport.ack as ack_wire
import linkreport.report as wire
from agent.config import parse
from agent.fault import Faults
from agent.link import Link
from agent.mqtt import MqttError
from agent.spool import Spool
from agent.trouble import told
from agent.uplink import Uplink
from linkreport.block import UPLINK_FORMAT
from linkreport.seal import Seal
from linkreport.term import TROUBLES
from medium import FakeFiles, make
from place import BOARD, REPORT_KEY, configuration
from port.null import NullPort

SEAL = Seal(REPORT_KEY)
ACK = b"netzpuls/v1/" + BOARD.encode() + b"/ack"
REPORT = "netzpuls/v1/" + BOARD + "/report"
NOW_S = 1790000000


class FakeSession:
    """A broker behind which a collector sits that a test is."""

    def __init__(self):
        self.sent = []
        self.pings = 0
        self.on_sent = None

    def check(self):
        """Never broken."""

    async def publish(self, topic, payload, retain=False):
        self.sent.append((topic, [wire.unpack(raw).seq for raw in wire.split(payload)]))
        if self.on_sent:
            self.on_sent()
        await asyncio.sleep(0)

    async def ping(self):
        self.pings += 1
        await asyncio.sleep(0.01)

    @property
    def seqs(self):
        return [seq for _, seqs in self.sent for seq in seqs]


class Scene:
    def setUp(self):
        self.port = NullPort()
        self.spool = Spool(FakeFiles(), SEAL, 1, self.port)
        self.faults = Faults()
        self.heard = []
        self.ahead_s = 0
        self.session = FakeSession()

    def begin(self):
        self.link = Link(self.port)
        self.uplink = Uplink(
            self.port,
            parse(json.dumps(configuration()).encode()),
            link=self.link,
            spool=self.spool,
            seal=SEAL,
            faults=self.faults,
            identity="/nowhere",
            heard=self.hear,
        )

    def hear(self, time_s):
        self.heard.append(time_s)
        return self.ahead_s

    def serve(self, count, act=None):
        """Serve until so many reports were sent and a little longer; `act` after half of them."""

        async def sent(task, least):
            for _ in range(1000):
                if task.done() or len(self.session.seqs) >= least:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

        async def run():
            self.begin()
            task = asyncio.create_task(self.uplink._serve(self.session))
            if act:
                await sent(task, count // 2)
                act()
            await sent(task, count)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return

        asyncio.run(run())

    def ack(self, seq, key_id=1, seal=SEAL, topic=ACK, time_s=NOW_S):
        self.uplink._message(topic, ack_wire.pack(key_id, seq, time_s, seal))


class UplinkTest(Scene, unittest.TestCase):
    def test_sends_all_in_order_in_bounded_messages(self):
        for _ in range(50):
            make(self.spool)
        self.serve(50)
        self.assertEqual(self.session.seqs, list(range(1, 51)))
        self.assertTrue(all(topic == REPORT for topic, _ in self.session.sent))
        self.assertTrue(all(len(seqs) <= 6 for _, seqs in self.session.sent))

    def test_a_new_report_is_sent_at_once(self):
        make(self.spool)

        def act():
            make(self.spool)
            self.uplink.fresh.set()

        self.serve(2, act)
        self.assertEqual(self.session.seqs, [1, 2])

    def test_keeps_off_the_air_while_measuring(self):
        def act():
            self.link.quiet.clear()
            make(self.spool)
            self.uplink.fresh.set()

        self.serve(0, act)
        self.assertEqual(self.session.seqs, [])

    def test_an_acknowledgement_deletes(self):
        for _ in range(5):
            make(self.spool)
        self.serve(5, lambda: self.ack(3))
        self.assertEqual((self.spool.oldest_seq, self.spool.waiting), (4, 2))
        self.assertEqual(self.session.seqs, [1, 2, 3, 4, 5])
        self.assertEqual(self.faults.count, 0)

    def test_nothing_but_a_right_acknowledgement_deletes(self):
        for _ in range(5):
            make(self.spool)

        def act():
            good = ack_wire.pack(1, 3, NOW_S, SEAL)
            self.ack(6)  # never made
            self.ack(0xFFFFFFFF)
            self.ack(3, key_id=2)
            self.ack(3, seal=Seal(bytes(32)))
            self.ack(3, topic=b"netzpuls/v1/np-000000000000/ack")
            for raw in (b"", good[:-1], good + b"x", b"\x02" + good[1:], bytes(27)):
                self.uplink._message(ACK, raw)

        self.serve(5, act)
        self.assertEqual(self.spool.waiting, 5)
        self.assertEqual(self.heard, [])
        self.assertEqual(self.faults.count, 9)

    def test_what_was_never_sent_is_not_deleted(self):
        for _ in range(5):
            make(self.spool)
        self.begin()
        make(self.spool)
        # An earlier boot may have sent the five it found; the sixth it cannot have sent.
        self.ack(6)
        self.assertEqual(self.spool.waiting, 6)
        self.ack(5)
        self.assertEqual(self.spool.waiting, 1)

    def test_an_old_acknowledgement_changes_nothing(self):
        for _ in range(5):
            make(self.spool)
        self.begin()
        self.ack(4)
        self.ack(2)
        self.ack(4)
        self.assertEqual(self.spool.oldest_seq, 5)

    def test_the_time_of_an_acknowledgement_that_may_be_a_recording_is_not_taken(self):
        for _ in range(3):
            make(self.spool)
        self.spool = Spool(self.spool.files, SEAL, 1, self.port)

        def act():
            make(self.spool)
            self.uplink.fresh.set()

        self.serve(4, act)
        self.ack(3, time_s=111)
        self.assertEqual(self.heard, [])
        self.ack(4, time_s=222)
        self.assertEqual(self.heard, [222])

    def test_without_an_acknowledgement_all_is_sent_again_the_newest_first(self):
        before, agent.uplink._RESEND_MS = agent.uplink._RESEND_MS, 60
        try:
            for _ in range(3):
                make(self.spool)
            self.serve(7)
        finally:
            agent.uplink._RESEND_MS = before
        self.assertEqual(self.session.seqs[:7], [1, 2, 3, 3, 1, 2, 3])

    def test_does_not_run_far_ahead_of_the_collector(self):
        for _ in range(300):
            make(self.spool)
        self.serve(256)
        self.assertTrue(256 <= len(self.session.seqs) < 256 + 20)

    def test_goes_on_when_the_collector_follows(self):
        for _ in range(300):
            make(self.spool)
        self.session.on_sent = lambda: self.ack(max(self.session.seqs))
        self.serve(300)
        self.assertEqual(self.session.seqs, list(range(1, 301)))
        self.assertEqual(self.spool.waiting, 0)

    def test_sees_that_the_broker_is_gone(self):
        before, agent.uplink._PING_AFTER_MS = agent.uplink._PING_AFTER_MS, 20

        async def gone():
            raise MqttError("no answer from the broker")

        self.session.ping = gone
        try:
            with self.assertRaises(MqttError):
                self.serve(1)
        finally:
            agent.uplink._PING_AFTER_MS = before

    def tries_of_a_broker_that_refuses(self):
        """Let the uplink run where nothing listens; return the names of what the port was asked."""
        self.port.socket.routes["10.1.0.2", 8883] = ("127.0.0.1", 9)

        async def run():
            self.begin()
            self.uplink._context = True
            task = asyncio.create_task(self.uplink.run())
            await asyncio.sleep(0.1)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return self.port.calls

        return asyncio.run(run())

    def test_too_little_memory_to_connect_leaves_nothing_that_keeps_the_next_attempt_from_it(self):
        self.port.lan = "10.1.0.80"
        self.port.lan_start("wt32-eth01")
        borrow = agent.uplink.borrow

        def half(name):  # what a module that was cut short leaves
            borrow(name)
            borrow("agent.connection")
            raise MemoryError

        agent.uplink.borrow = half
        try:
            with self.assertRaises(MemoryError):  # which an Agent survives
                self.tries_of_a_broker_that_refuses()
        finally:
            agent.uplink.borrow = borrow
        for name in ("agent.hello", "agent.connection"):
            self.assertEqual(name in sys.modules, sys.implementation.name != "micropython")
        self.assertEqual(self.tries_of_a_broker_that_refuses(), ["bind_lan"])

    def test_a_lan_is_taken_and_waits_for_no_wlan(self):
        self.port.lan = "10.1.0.80"
        self.port.lan_start("wt32-eth01")
        self.assertEqual(self.tries_of_a_broker_that_refuses(), ["bind_lan"])

    def test_a_lan_without_an_address_is_no_way(self):
        self.port.lan_start("wt32-eth01")
        self.assertEqual(self.tries_of_a_broker_that_refuses(), [])

    def test_fails_softly_and_waits_ever_longer(self):
        """Nothing listens; the uplink tries, and tries again, until it is stopped."""
        tries = []

        async def refuse():
            tries.append(self.port.uptime_ms())
            raise OSError(111, "refused")

        async def run():
            self.begin()
            self.uplink._connection = refuse
            self.uplink._context = True
            self.link.online = True
            task = asyncio.create_task(self.uplink.run())
            while len(tries) < 5:
                await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return

        before, agent.uplink._BACKOFF_MS = agent.uplink._BACKOFF_MS, 32
        try:
            asyncio.run(run())
        finally:
            agent.uplink._BACKOFF_MS = before
        gaps = [later - earlier for earlier, later in zip(tries, tries[1:])]
        for gap, least in zip(gaps, (16, 32, 64, 128)):
            self.assertTrue(gap >= least, gaps)
        self.assertEqual(self.faults.count, 0)


class BlockTest(Scene, unittest.TestCase):
    """What the reports say of their own way."""

    def told(self):
        content = self.uplink.block()
        return struct.unpack(UPLINK_FORMAT, content) if content else None

    def name(self):
        return TROUBLES[self.told()[0]]

    def test_nothing_is_told_while_all_is_well(self):
        self.begin()
        self.assertEqual(self.told(), None)
        make(self.spool)
        self.uplink._sent_seq = 1
        self.ack(1)
        self.assertEqual(self.told(), None)

    def test_what_was_lost_is_told_for_good(self):
        self.begin()
        self.spool.lost = 7
        self.assertEqual(self.told(), (0, 0xFFFFFFFF, 7, 0))

    def publish(self, answers=True):
        """Send a report to a broker that answers or hangs; let most of a period pass."""
        make(self.spool)
        self.session = FakeSession()

        async def run():
            task = asyncio.create_task(self.uplink._serve(self.session))
            while not self.session.sent:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return

        async def hang(topic, payload, retain=False):
            self.session.sent.append((topic, []))
            await asyncio.sleep(60)

        if not answers:
            self.session.publish = hang
        asyncio.run(run())
        self.assertEqual(self.told(), None)  # an acknowledgement may be on its way
        self.later(45_000)

    def later(self, ms):
        uptime_ms = self.port.uptime_ms
        self.port.uptime_ms = lambda: uptime_ms() + ms

    def test_a_collector_that_is_silent_for_most_of_a_period_is_told(self):
        self.begin()
        self.link.online = True
        self.publish()
        self.assertEqual(self.name(), "unacknowledged")
        self.ack(self.spool.last_seq)
        self.assertEqual(self.told(), None)
        self.later(200_000)
        self.assertEqual(self.told(), None)  # nothing is on its way

    def test_a_broker_that_hangs_is_told(self):
        self.begin()
        self.link.online = True
        self.publish(answers=False)
        self.assertEqual(self.name(), "broker-silent")

    def test_an_outage_of_the_network_is_not_the_collector_s_silence(self):
        self.begin()
        self.link.online = True
        self.publish()
        self.link.online = False
        self.assertEqual(self.told(), None)
        self.link.online = True
        self.assertEqual(self.told(), None)  # nothing went out since

    def test_a_silent_collector_is_told_over_the_lan_too(self):
        self.begin()
        self.port.lan = "10.1.0.9"
        self.port.lan_name = "wt32-eth01"
        self.publish()
        self.assertEqual(self.name(), "unacknowledged")

    def test_a_collector_with_another_time_is_told(self):
        self.begin()
        for _ in range(3):
            make(self.spool)
        self.uplink._sent_seq = 3
        for ahead_s, is_told in ((-3600, True), (9, False), (11, True)):
            self.ahead_s = ahead_s
            self.ack(self.spool.oldest_seq)
            self.assertEqual(self.told() and self.told()[3], ahead_s if is_told else None)
        self.assertEqual(self.name(), "collector-clock-wrong")

    def test_each_trouble_has_its_name_until_the_next_acknowledgement(self):
        refusal = MqttError("the broker refused us")
        refusal.is_refusal = True
        silence = MqttError("no answer from the broker")
        silence.is_silence = True
        cases = (
            (OSError(110, "no answer"), "broker-silent"),
            (asyncio.TimeoutError(), "broker-silent"),
            (OSError(111, "refused"), "broker-refused"),
            (refusal, "broker-refused"),
            (silence, "broker-silent"),
            (OSError(-0x2700, "tls"), "broker-untrusted"),
            (OSError(-0x7780, "tls"), "certificate-refused"),
            (MqttError("malformed"), "session-failed"),
            (EOFError(), "session-failed"),
        )
        for error, name in cases:
            self.assertEqual(TROUBLES[told(error)[0]], name)
        self.begin()
        make(self.spool)
        self.uplink.trouble = told(OSError(111, "refused"))[0]
        self.assertEqual(self.name(), "broker-refused")
        self.uplink._sent_seq = 1
        self.ack(1)
        self.assertEqual(self.told(), None)
