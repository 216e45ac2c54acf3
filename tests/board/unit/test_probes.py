import asyncio
import json
import unittest

import port as ports
from agent.config import parse
from agent.cycle import Evidence
from agent.link import Link
from agent.probes import addressing, association, gateway, internet, radio, resolver
from linkreport.table import (
    ASSOCIATION_REJECTED,
    ASSOCIATION_TIMEOUT,
    BEACON_LOST,
    DEADLINE_PASSED,
    GATEWAY_LOSS,
    GATEWAY_SILENT,
    GATEWAY_SLOW,
    HANDSHAKE_TIMEOUT,
    LEASE_WITHOUT_GATEWAY,
    NETWORK_NOT_FOUND,
    NO_LEASE,
    OK,
    UNSUPPORTED,
    WEAK_SIGNAL,
    WRONG_KEY,
)
from place import configuration
from port.null import NullPort

OWN = b"\x02\x00\x00\x00\x00\x01"
FAR = b"\x02\x00\x00\x00\x00\x02"


class ProbeTest(unittest.TestCase):
    def setUp(self):
        self.port = NullPort()
        self.configure()

    def configure(self, **changes):
        changes.setdefault("period_s", 2)
        self.config = parse(json.dumps(configuration(**changes)).encode())

    def begin(self):
        self.link = Link(self.port)
        self.begin_cycle()

    def begin_cycle(self):
        self.evidence = Evidence(self.link, self.config.wlan)

    def probe(self, *modules):
        """Run probes one after the other on one board; return the last one's result."""

        async def run():
            self.begin()
            for module in modules:
                result = await module.probe(self.port, self.config, self.evidence)
            return result

        return asyncio.run(run())


class RadioTest(ProbeTest):
    def test_sees_the_own_network(self):
        self.port.networks.append((b"Nachbar", FAR, 1, -30, ports.PERSONAL))
        result = self.probe(radio)
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures, {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def test_takes_the_strongest(self):
        self.port.networks.insert(0, (b"Schule", FAR, 11, -70, ports.PERSONAL))
        self.assertEqual(self.probe(radio).measures["bssid"], OWN)

    def test_weak(self):
        self.port.networks = [(b"Schule", OWN, 6, -76, ports.PERSONAL)]
        self.assertEqual(self.probe(radio).reason, WEAK_SIGNAL)
        self.port.networks = [(b"Schule", OWN, 6, -75, ports.PERSONAL)]
        self.assertEqual(self.probe(radio).reason, OK)

    def test_not_there(self):
        self.port.networks = [(b"Schule2", OWN, 6, -55, ports.PERSONAL), (b"", FAR, 1, -60, 0)]
        self.assertEqual(self.probe(radio), (NETWORK_NOT_FOUND, {}))
        self.assertEqual(self.port.calls.count("scan"), 2)

    def test_one_missed_beacon_is_no_outage(self):
        scans = [[], self.port.networks]
        self.port.scan = lambda: scans.pop(0)
        self.assertEqual(self.probe(radio).reason, OK)

    def test_only_the_access_points_that_are_named(self):
        wlan = dict(configuration()["wlan"])
        wlan["bssids"] = ["02:00:00:00:00:02"]
        self.configure(wlan=wlan)
        self.assertEqual(self.probe(radio).reason, NETWORK_NOT_FOUND)
        self.port.networks.append((b"", FAR, 1, -60, ports.PERSONAL))  # hidden
        self.assertEqual(self.probe(radio).measures["bssid"], FAR)

    def test_does_not_scan_again_soon_while_associated(self):
        result = self.probe(radio, association, radio)
        self.assertEqual(self.port.calls.count("scan"), 1)
        self.assertEqual(result.measures, {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def test_does_not_scan_again_while_an_attempt_is_under_way(self):
        self.configure(deadline_ms={"association": 30})
        self.port.attempt_ms = 60000
        result = self.probe(radio, association, radio)
        self.assertEqual(self.port.calls.count("scan"), 1)
        self.assertEqual(result.measures, {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def test_scans_again_at_once_when_the_association_is_lost(self):
        async def run():
            self.begin()
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.port.lose(ports.BEACON_MISSED)
            self.port.networks = []
            return await radio.probe(self.port, self.config, self.evidence)

        self.assertEqual(asyncio.run(run()).reason, NETWORK_NOT_FOUND)

    def test_a_short_period_leaves_no_time_to_scan_again_while_associated(self):
        for period_s, scans in ((2, 1), (60, 2)):
            self.port.calls.clear()
            self.configure(period_s=period_s)
            asyncio.run(self.look_again(self.port.networks))
            self.assertEqual(self.port.calls.count("scan"), scans)

    async def look_again(self, networks):
        self.begin()
        for module in (radio, association):
            await module.probe(self.port, self.config, self.evidence)
        self.link.scanned_at_ms -= 60000
        self.port.networks = networks
        return await radio.probe(self.port, self.config, self.evidence)

    def test_an_association_is_seen_although_the_scan_missed_it(self):
        async def run():
            self.configure(period_s=60)
            self.begin()
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.link.scanned_at_ms -= 60000
            self.port.networks[0] = (b"", OWN, 6, -70, ports.PERSONAL)
            return await radio.probe(self.port, self.config, self.evidence)

        result = asyncio.run(run())
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures, {"rssi_dbm": -70, "channel": 6, "bssid": OWN})

    def roam(self, own_dbm, far_dbm):
        self.configure(period_s=60)

        async def run():
            self.begin()
            self.port.networks = [(b"Schule", OWN, 6, -55, ports.PERSONAL)]
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.link.scanned_at_ms -= 60000
            self.port.networks = [
                (b"Schule", OWN, 6, own_dbm, ports.PERSONAL),
                (b"Schule", FAR, 1, far_dbm, ports.PERSONAL),
            ]
            return await radio.probe(self.port, self.config, self.evidence)

        return asyncio.run(run()).measures["bssid"]

    def test_roams_only_from_a_weak_one_to_a_far_stronger_one(self):
        self.assertEqual(self.roam(-60, -30), OWN)
        self.assertEqual(self.roam(-80, -75), OWN)
        self.assertEqual(self.roam(-80, -60), FAR)
        self.assertFalse(self.link.holds())


class AssociationTest(ProbeTest):
    def test_associates_with_the_access_point_seen(self):
        self.port.attempt_ms = 40
        result = self.probe(radio, association)
        self.assertEqual(result.reason, OK)
        self.assertTrue(40 <= result.measures["association_ms"] < 400)
        self.assertEqual(self.port.asked_for, ("Schule", "geheim-1234", OWN))

    def test_an_association_that_stands_is_not_made_again(self):
        first = self.probe(radio, association)
        result = self.probe(radio, association, association)
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures, first.measures)
        self.assertEqual(self.port.calls.count("associate"), 2)

    def test_each_failure_has_its_reason(self):
        self.configure(deadline_ms={"association": 100})
        for outcome, reason in (
            (ports.KEY_REFUSED, WRONG_KEY),
            (ports.HANDSHAKE_EXPIRED, HANDSHAKE_TIMEOUT),
            (ports.BEACON_MISSED, BEACON_LOST),
            (ports.REJECTED, ASSOCIATION_REJECTED),
            (ports.NOT_FOUND, ASSOCIATION_TIMEOUT),
            (ports.IDLE, ASSOCIATION_TIMEOUT),
        ):
            self.port.outcome = outcome
            self.assertEqual(self.probe(radio, association), (reason, {}))
            self.assertFalse(self.link.requested)

    def test_tries_again_within_its_deadline(self):
        outcomes = [ports.REJECTED, ports.ASSOCIATED]
        associate = self.port.associate

        def begin(*arguments):
            self.port.outcome = outcomes.pop(0)
            associate(*arguments)

        self.port.associate = begin
        self.assertEqual(self.probe(radio, association).reason, OK)

    def test_ends_at_its_deadline(self):
        self.configure(deadline_ms={"association": 120})
        self.port.attempt_ms = 60000
        start_ms = self.port.uptime_ms()
        # An attempt may take longer than a short cycle has: the next cycle waits on.
        self.assertEqual(self.probe(radio, association).reason, DEADLINE_PASSED)
        self.assertTrue(120 <= self.port.uptime_ms() - start_ms < 1000)
        self.assertTrue(self.link.pends())

    def test_an_access_point_that_does_not_answer_is_given_up(self):
        async def run():
            self.begin()
            await radio.probe(self.port, self.config, self.evidence)
            await association.probe(self.port, self.config, self.evidence)
            self.link.requested_at_ms -= 10000
            return await association.probe(self.port, self.config, self.evidence)

        self.configure(deadline_ms={"association": 50})
        self.port.attempt_ms = 60000
        self.assertEqual(asyncio.run(run()).reason, ASSOCIATION_TIMEOUT)
        self.assertFalse(self.link.requested)

    def test_enterprise_security_is_unsupported_and_not_tried(self):
        self.port.networks = [(b"Schule", OWN, 6, -55, ports.ENTERPRISE)]
        self.assertEqual(self.probe(radio, association), (UNSUPPORTED, {}))
        self.assertNotIn("associate", self.port.calls)

    def test_an_attempt_under_way_is_not_started_anew(self):
        async def run():
            self.begin()
            await radio.probe(self.port, self.config, self.evidence)
            self.port.attempt_ms = 150
            task = asyncio.create_task(association.probe(self.port, self.config, self.evidence))
            await asyncio.sleep(0.03)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return await association.probe(self.port, self.config, self.evidence)

        result = asyncio.run(run())
        self.assertEqual(result.reason, OK)
        self.assertTrue(result.measures["association_ms"] >= 150)
        self.assertEqual(self.port.calls.count("associate"), 1)


class AddressingTest(ProbeTest):
    def test_a_lease(self):
        result = self.probe(radio, association, addressing)
        self.assertEqual(result.reason, OK)
        self.assertIn("addressing_ms", result.measures)
        self.assertEqual((self.evidence.gateway, self.evidence.resolver), ("10.1.0.1",) * 2)
        self.assertTrue(self.link.online)

    def test_no_lease(self):
        self.configure(deadline_ms={"addressing": 60})
        self.port.address = self.port.gateway = ""
        self.assertEqual(self.probe(radio, association, addressing), (NO_LEASE, {}))
        self.assertFalse(self.link.online)

    def test_a_lease_without_gateway(self):
        self.port.gateway = ""
        self.assertEqual(self.probe(radio, association, addressing).reason, LEASE_WITHOUT_GATEWAY)
        self.assertFalse(self.link.online)


class GatewayTest(ProbeTest):
    def ping(self):
        return self.probe(radio, association, addressing, gateway)

    def test_answers(self):
        result = self.ping()
        self.assertEqual(result.reason, OK)
        self.assertEqual(result.measures["gateway_loss_percent"], 0)
        self.assertTrue(0 < result.measures["gateway_rtt_us"] < 50000)

    def test_silent(self):
        self.port.socket.echo = False
        result = self.ping()
        self.assertEqual(result, (GATEWAY_SILENT, {"gateway_loss_percent": 100}))

    def test_loss(self):
        self.port.socket.echo = [True, False, True, False, True]
        result = self.ping()
        self.assertEqual(result.reason, GATEWAY_LOSS)
        self.assertEqual(result.measures["gateway_loss_percent"], 40)

    def test_loss_at_the_threshold_is_fine(self):
        self.port.socket.echo = [True, True, False, True, True]
        self.assertEqual(self.ping().reason, OK)

    def test_slow(self):
        self.port.ticks_us_since = lambda _: 100001
        self.assertEqual(self.ping().reason, GATEWAY_SLOW)

    def test_the_request_is_a_right_echo_request(self):
        packet = gateway.request(0x1234, 5)
        self.assertEqual(packet[:2], b"\x08\x00")
        self.assertEqual(packet[4:8], b"\x12\x34\x00\x05")
        self.assertEqual(gateway.checksum(packet), 0)

    def test_only_the_right_reply_counts(self):
        reply = bytearray(gateway.request(7, 1))
        reply[0] = 0
        reply[2:4] = b"\x00\x00"
        total = gateway.checksum(bytes(reply))
        reply[2], reply[3] = total >> 8, total & 255
        packet = b"\x45" + bytes(19) + bytes(reply)
        self.assertTrue(gateway.answers(packet, 7, 1))
        self.assertTrue(gateway.answers(b"\x46" + bytes(23) + bytes(reply), 7, 1))
        self.assertFalse(gateway.answers(packet, 7, 2))
        self.assertFalse(gateway.answers(packet, 8, 1))
        self.assertFalse(gateway.answers(packet[:-1], 7, 1))
        self.assertFalse(gateway.answers(b"\x65" + packet[1:], 7, 1))
        for size in range(28):
            self.assertFalse(gateway.answers(packet[:size], 7, 1))
        for at in range(20, len(packet)):
            altered = bytearray(packet)
            altered[at] ^= 1
            self.assertFalse(gateway.answers(bytes(altered), 7, 1))

    def test_checksum_of_odd_length(self):
        self.assertEqual(gateway.checksum(b"\x01\x02\x03"), 0xFFFF - 0x0102 - 0x0300)


def answer(question, records=b"", count=0, flags=b"\x81\x80", asked=1):
    header = question[:2] + flags + bytes((0, asked, 0, count, 0, 0, 0, 0))
    return header + (question[12:] if asked else b"") + records


def record(owner, kind, content, family=1):
    return owner + bytes((0, kind, 0, family, 0, 0, 0, 60, 0, len(content))) + content


POINTER = b"\xc0\x0c"
A_RECORD = record(POINTER, 1, bytes((203, 0, 113, 80)))


class DnsTest(unittest.TestCase):
    def setUp(self):
        self.question = resolver.query(0xABCD, "Probe.Example.org")

    def refused(self, message):
        with self.assertRaises(resolver.NotAnAnswerError):
            resolver.parse(message, self.question)

    def test_a_question(self):
        self.assertEqual(
            resolver.query(0xABCD, "localhost."),
            b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01",
        )

    def test_an_answer(self):
        message = answer(self.question, A_RECORD, 1)
        self.assertEqual(resolver.parse(message, self.question), (0, ("203.0.113.80",)))
        upper = message[:12] + b"\x05PROBE\x07EXAMPLE\x03ORG" + message[12 + 18 :]
        self.assertEqual(resolver.parse(upper, self.question), (0, ("203.0.113.80",)))

    def test_aliases_are_followed(self):
        alias = b"\x03www\x07example\x03net\x00"
        records = record(POINTER, 5, alias) + record(alias, 1, bytes((1, 2, 3, 4)))
        message = answer(self.question, records, 2)
        self.assertEqual(resolver.parse(message, self.question), (0, ("1.2.3.4",)))

    def test_compressed_aliases_too(self):
        at = 12 + 19 + 4 + 12  # the alias's own text in the first record
        records = record(POINTER, 5, b"\x03www" + b"\xc0\x12")
        records += record(bytes((0xC0, at)), 1, bytes((1, 2, 3, 4)))
        message = answer(self.question, records, 2)
        self.assertEqual(resolver.parse(message, self.question), (0, ("1.2.3.4",)))

    def test_addresses_of_others_do_not_count(self):
        stranger = record(b"\x04evil\x00", 1, bytes((6, 6, 6, 6)))
        message = answer(self.question, stranger + A_RECORD, 2)
        self.assertEqual(resolver.parse(message, self.question), (0, ("203.0.113.80",)))
        chaos = record(POINTER, 1, bytes((6, 6, 6, 6)), 3)
        self.assertEqual(resolver.parse(answer(self.question, chaos, 1), self.question), (0, ()))

    def test_return_codes(self):
        for rcode in (2, 3, 5):
            message = answer(self.question, flags=bytes((0x81, 0x80 | rcode)))
            self.assertEqual(resolver.parse(message, self.question), (rcode, ()))
        bare = answer(self.question, flags=b"\x81\x85", asked=0)
        self.assertEqual(resolver.parse(bare, self.question), (5, ()))

    def test_what_is_no_answer_to_the_question(self):
        good = answer(self.question, A_RECORD, 1)
        self.refused(b"\xab\xce" + good[2:])
        self.refused(good[:2] + b"\x01" + good[3:])  # a question
        self.refused(good[:2] + b"\xa9" + good[3:])  # another opcode
        self.refused(answer(self.question, asked=0))
        self.refused(good[:13] + b"x" + good[14:])  # another name
        for size in range(len(good)):
            self.refused(good[:size])

    def test_hostile_names_end(self):
        end = len(self.question)
        itself = bytes((0xC0 | end >> 8, end & 255))
        for owner in (itself, b"\xff\xff", b"\x40", b"\x80", b"\x3fabc", b"\xc0"):
            records = owner + bytes(10)
            self.refused(answer(self.question, records, 1))
        # Two names that point at each other.
        loop = b"\x01a" + bytes((0xC0, end + 4)) + b"\x01b" + bytes((0xC0, end))
        self.refused(answer(self.question, loop + bytes(10), 1))

    def test_a_record_longer_than_the_message(self):
        bad = A_RECORD[:10] + b"\xff\xff" + A_RECORD[12:]
        self.refused(answer(self.question, bad, 1))


class HttpTest(unittest.TestCase):
    def test_a_request(self):
        self.assertEqual(
            internet.request("probe.example.org", "/generate_204"),
            b"GET /generate_204 HTTP/1.1\r\nHost: probe.example.org\r\n"
            b"User-Agent: netzpuls\r\nConnection: close\r\n\r\n",
        )

    def test_status_lines(self):
        for line, code in (
            (b"HTTP/1.1 204 No Content\r\n", 204),
            (b"HTTP/1.0 302 Found\r\n", 302),
            (b"HTTP/1.1 204\r\n", 204),
            (b"HTTP/1.1 204", 204),
            (b"HTTP/1.1 2040 x", None),
            (b"HTTP/1.1 2 4 x", None),
            (b"HTTP/1.1 004 x", None),
            (b"HTTP/1.1 \xb2\xb3\xb4 x", None),
            (b"HTTP/2 204", None),
            (b"SSH-2.0-OpenSSH", None),
            (b"", None),
            (b"H", None),
        ):
            self.assertEqual(internet.status(line), code, line)
