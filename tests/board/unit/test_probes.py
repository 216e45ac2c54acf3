import asyncio
import errno
import json
import struct
import unittest

import port as ports
from agent import dns, http, web
from agent.config import parse
from agent.cycle import Evidence
from agent.link import Link
from agent.probes import addressing, association, gateway, radio
from linkreport import block
from linkreport.table import (
    ACCESS_POINT_FULL,
    ACCESS_POINT_MISSING,
    ASSOCIATION_LOST,
    ASSOCIATION_REJECTED,
    ASSOCIATION_TIMEOUT,
    BEACON_LOST,
    CHANNEL_CROWDED,
    DEADLINE_PASSED,
    GATEWAY_LOSS,
    GATEWAY_SILENT,
    GATEWAY_SLOW,
    HANDSHAKE_TIMEOUT,
    KICKED,
    LEASE_WITHOUT_GATEWAY,
    NETWORK_NOT_FOUND,
    NO_LEASE,
    OK,
    RADIO,
    SECURITY_MISMATCH,
    UNSUPPORTED,
    UNTESTED,
    WEAK_SIGNAL,
    WRONG_KEY,
)
from place import WLAN_KEY, configuration
from port.null import NullEcho, NullPort

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
        self.assertEqual(self.core(result), {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def core(self, result):
        """Return the measures without the blocks."""
        return {name: value for name, value in result.measures.items() if isinstance(name, str)}

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
        result = self.probe(radio)
        self.assertEqual((result.reason, self.core(result)), (NETWORK_NOT_FOUND, {}))
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
        self.port.scan_ms = 500
        result = self.probe(radio, association, radio)
        self.assertEqual(self.port.calls.count("scan"), 1)
        self.assertEqual(self.core(result), {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def test_does_not_scan_again_while_an_attempt_is_under_way(self):
        self.configure(deadline_ms={"association": 30})
        self.port.attempt_ms = 60000
        self.port.scan_ms = 500
        result = self.probe(radio, association, radio)
        self.assertEqual(self.port.calls.count("scan"), 1)
        self.assertEqual(self.core(result), {"rssi_dbm": -55, "channel": 6, "bssid": OWN})

    def test_scans_again_at_once_when_the_association_is_lost(self):
        async def run():
            self.begin()
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.port.lose(200)
            self.port.networks = []
            return await radio.probe(self.port, self.config, self.evidence)

        self.assertEqual(asyncio.run(run()).reason, NETWORK_NOT_FOUND)

    def test_a_short_period_leaves_no_time_to_scan_again_while_associated(self):
        self.port.scan_ms = 2200
        for period_s, scans in ((2, 1), (60, 2)):
            self.port.calls.clear()
            self.configure(period_s=period_s)
            asyncio.run(self.look_again(self.port.networks))
            self.assertEqual(self.port.calls.count("scan"), scans)

    async def look_again(self, networks, ago_ms=60000):
        self.begin()
        for module in (radio, association):
            await module.probe(self.port, self.config, self.evidence)
        self.link.scanned_at_ms -= ago_ms
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
        self.assertEqual(self.core(result), {"rssi_dbm": -70, "channel": 6, "bssid": OWN})

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

    def test_a_quick_scan_is_made_often(self):
        self.port.scan_ms = 50
        for ago_ms, scans in ((100, 1), (1100, 2)):
            self.port.calls.clear()
            asyncio.run(self.look_again(self.port.networks, ago_ms))
            self.assertEqual(self.port.calls.count("scan"), scans)

    def test_what_is_in_the_air_is_told(self):
        self.port.networks += [
            (b"Schule", FAR, 1, -70, ports.ENTERPRISE),
            (b"Nachbar", b"\x06" * 6, 5, -60, ports.PERSONAL),
            (b"Nachbar", b"\x07" * 6, 8, -82, ports.OPEN),
            (b"Nachbar", b"\x08" * 6, 36, -40, ports.OPEN),
        ]
        self.port.networks += [(b"", b"\x09" * 6, 14, -90, ports.OPEN)] * 16
        measures = self.probe(radio).measures
        own, foreign, near, strongest_dbm, channels = struct.unpack(
            block.AIR_FORMAT, measures[block.AIR]
        )
        self.assertEqual((own, foreign, near, strongest_dbm), (2, 19, 1, -60))
        self.assertEqual(channels, bytes((0, 0, 0x10, 0x01, 0, 0, 0x0F)))
        self.assertEqual(
            measures[block.OWN],
            OWN + bytes((201, 6, ports.PERSONAL)) + FAR + bytes((186, 1, ports.ENTERPRISE)),
        )

    def hashes(self, **changes):
        self.configure(**changes)
        self.port.networks = [
            (b"Nachbar", FAR, 11, -70, ports.OPEN),
            (b"Schule", OWN, 6, -55, ports.PERSONAL),
        ]

        async def run():
            self.begin()
            self.link.day = self.day
            return await radio.probe(self.port, self.config, self.evidence)

        return asyncio.run(run()).measures[block.FOREIGN]

    def test_foreign_networks_are_told_as_hashes_that_change_with_the_day(self):
        self.day = 20717
        told = self.hashes(hash_key="00112233445566778899aabbccddeeff")
        self.assertEqual(told[4:], bytes((11, 186)))
        # From CPython's hmac.new(key, bytes.fromhex("000050ed020000000002"), "sha256").
        self.assertEqual(told[:4], b"\xec\x0d\x2d\x8f")
        self.assertEqual(self.hashes(hash_key="00112233445566778899aabbccddeeff"), told)
        self.day += 1
        self.assertNotEqual(self.hashes(hash_key="00112233445566778899aabbccddeeff"), told)

    def test_without_a_key_or_a_day_foreign_networks_are_not_told(self):
        self.day = 20717
        self.assertEqual(self.hashes(), b"")
        self.day = 0
        self.assertEqual(self.hashes(hash_key="00112233445566778899aabbccddeeff"), b"")

    def test_a_crowded_channel(self):
        self.port.networks += [(b"N%d" % n, bytes(6), 4 + n % 5, -81, ports.OPEN) for n in range(7)]
        self.assertEqual(self.probe(radio).reason, OK)
        self.port.networks.append((b"far", bytes(6), 6, -82, ports.OPEN))
        self.port.networks.append((b"beside", bytes(6), 9, -40, ports.OPEN))
        self.port.networks.append((b"Schule", FAR, 6, -70, ports.PERSONAL))
        self.assertEqual(self.probe(radio).reason, OK)
        self.port.networks.append((b"near", bytes(6), 8, -81, ports.OPEN))
        self.assertEqual(self.probe(radio).reason, CHANNEL_CROWDED)

    def two_access_points(self, far_dbm, then):
        """Scan two named access points, then see something else; return each reason."""
        wlan = dict(configuration()["wlan"])
        wlan["bssids"] = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
        self.configure(wlan=wlan)
        self.port.networks.append((b"Schule", FAR, 1, far_dbm, ports.PERSONAL))
        scans = [list(self.port.networks)] + then
        self.port.scan = lambda: scans.pop(0)

        async def run():
            self.begin()
            reasons = []
            while scans:
                if reasons:
                    self.link.scanned_at_ms -= 60000
                reasons.append((await radio.probe(self.port, self.config, self.evidence)).reason)
            return reasons

        return asyncio.run(run())

    def test_an_access_point_that_falls_silent_is_missing(self):
        alone, both = self.port.networks[:1], self.port.networks[:]
        both.append((b"Schule", FAR, 1, -70, ports.PERSONAL))
        reasons = self.two_access_points(-70, [alone, alone, alone, both])
        self.assertEqual(reasons, [OK, ACCESS_POINT_MISSING, ACCESS_POINT_MISSING, OK])

    def test_one_missed_beacon_makes_no_access_point_missing(self):
        alone, both = self.port.networks[:1], self.port.networks[:]
        both.append((b"Schule", FAR, 1, -70, ports.PERSONAL))
        self.assertEqual(self.two_access_points(-70, [alone, both]), [OK, OK])

    def test_an_access_point_that_was_hardly_heard_is_not_missed(self):
        self.assertEqual(self.two_access_points(-81, [self.port.networks[:1]]), [OK, OK])

    def test_another_protection_than_it_should_have(self):
        for security, wlan_key in ((ports.OPEN, WLAN_KEY), (ports.PERSONAL, "")):
            wlan = dict(configuration()["wlan"], key=wlan_key)
            if not wlan_key:
                wlan["security"] = "open"
            self.configure(wlan=wlan)
            self.port.networks = [(b"Schule", OWN, 6, -55, security)]
            result = self.probe(radio)
            self.assertEqual(result.reason, SECURITY_MISMATCH)
            self.assertEqual(result.measures["bssid"], OWN)
            self.assertNotIn("associate", self.port.calls)

    def test_a_stronger_one_with_another_protection_is_not_chosen(self):
        self.port.networks.append((b"Schule", FAR, 1, -30, ports.OPEN))
        result = self.probe(radio)
        self.assertEqual((result.reason, result.measures["bssid"]), (OK, OWN))


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
        ms = first.measures["association_ms"]
        self.assertTrue(ms <= result.measures["association_ms"] <= ms + 1000)  # of one attempt
        self.assertNotIn(block.ASSOCIATION, result.measures)
        self.assertEqual(self.port.calls.count("associate"), 2)

    def test_each_failure_has_its_reason(self):
        self.configure(deadline_ms={"association": 100})
        self.port.outcome = ports.FAILED
        for status, reason in (
            (202, WRONG_KEY),
            (15, HANDSHAKE_TIMEOUT),
            (204, HANDSHAKE_TIMEOUT),
            (200, BEACON_LOST),
            (203, ASSOCIATION_REJECTED),
            (1, ASSOCIATION_REJECTED),
            (201, ASSOCIATION_TIMEOUT),
            (5, ACCESS_POINT_FULL),
            (17, ACCESS_POINT_FULL),
            (3, KICKED),
            (7, KICKED),
        ):
            self.port.status = status
            result = self.probe(radio, association)
            self.assertEqual(result.reason, reason)
            self.assertEqual(
                struct.unpack(block.ASSOCIATION_FORMAT, result.measures[block.ASSOCIATION]),
                (status, 0, 1),
            )
            self.assertFalse(self.link.requested)

    def test_an_access_point_that_is_silent_to_the_end(self):
        self.configure(deadline_ms={"association": 50})
        self.port.outcome = ports.IDLE
        self.assertEqual(self.probe(radio, association).reason, ASSOCIATION_TIMEOUT)
        self.port.driver_status = lambda: 8
        self.assertEqual(self.probe(radio, association).reason, KICKED)

    def test_a_protection_that_only_the_driver_sees_is_the_radio_s(self):
        self.port.outcome, self.port.status = ports.FAILED, 210
        self.assertEqual(self.probe(radio, association).reason, ASSOCIATION_REJECTED)
        self.assertEqual(self.evidence.reasons[RADIO - 1], SECURITY_MISMATCH)

    def lose(self, status):
        """Associate, lose it, associate again; return that and one more."""

        async def run():
            self.begin()
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.port.lose(status)
            found = []
            for _ in range(2):
                self.begin_cycle()
                for module in (radio, association):
                    result = await module.probe(self.port, self.config, self.evidence)
                found.append(result)
            return found

        return asyncio.run(run())

    def test_an_association_that_broke_and_could_be_made_anew(self):
        again, later = self.lose(3)
        self.assertEqual(again.reason, ASSOCIATION_LOST)
        told = struct.unpack(block.ASSOCIATION_FORMAT, again.measures[block.ASSOCIATION])
        self.assertEqual(told, (3, 1, 1))
        self.assertEqual(later.reason, OK)
        self.assertNotIn(block.ASSOCIATION, later.measures)

    def test_an_association_after_an_outage_that_was_told_is_not_lost(self):
        async def run():
            self.begin()
            networks = self.port.networks
            for module in (radio, association):
                await module.probe(self.port, self.config, self.evidence)
            self.port.lose(200)
            self.port.networks = []
            await radio.probe(self.port, self.config, self.evidence)
            self.port.networks = networks
            for module in (radio, association):
                result = await module.probe(self.port, self.config, self.evidence)
            return result

        self.assertEqual(asyncio.run(run()).reason, OK)

    def test_tries_again_within_its_deadline(self):
        outcomes = [ports.FAILED, ports.ASSOCIATED]
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
        self.assertEqual(result.reason, UNTESTED)  # port 68 is taken: no server can be asked
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

    def test_silent_at_a_gateway_that_cannot_be_reached(self):
        class Unreachable(NullEcho):
            def sendto(self, packet, target):
                raise OSError(errno.EHOSTUNREACH, "no route")

            def recv(self, size):
                raise OSError(errno.EHOSTUNREACH, "no route")

        self.port.socket.socket = lambda *_: Unreachable(self.port.socket)
        start_ms = self.port.uptime_ms()
        self.assertEqual(self.ping().reason, GATEWAY_SILENT)
        self.assertTrue(self.port.uptime_ms() - start_ms < 1000)

    def test_loss(self):
        self.port.socket.echo = [True, False, False, False] + [True] * 16
        result = self.ping()
        self.assertEqual(result.measures["gateway_loss_percent"], 15)
        self.assertEqual(result.reason, OK)  # the threshold is 20
        self.port.socket.echo = [True, False] * 10
        result = self.ping()
        self.assertEqual(result.reason, GATEWAY_LOSS)
        self.assertEqual(result.measures["gateway_loss_percent"], 50)
        jitter_us = struct.unpack(block.PATH_FORMAT, result.measures[block.PATH])[3]
        self.assertEqual(jitter_us, 0xFFFFFFFF)  # no two neighbours came back

    def test_loss_at_the_threshold_is_fine(self):
        self.port.socket.echo = [False] * 4 + [True] * 16
        self.assertEqual(self.ping().reason, OK)

    def test_slow(self):
        self.port.ticks_us_since = lambda _: 100001
        self.assertEqual(self.ping().reason, GATEWAY_SLOW)

    def test_spread_and_jitter(self):
        times = [1000, 3000] * 9 + [1000, 50000]
        self.port.ticks_us_since = lambda _: times.pop(0)
        self.configure(period_s=60)
        measures = self.ping().measures
        # In the order of sending: 17 differences of 2 ms, and one each of 2 and 49 ms.
        path = struct.unpack(block.PATH_FORMAT, measures[block.PATH])
        self.assertEqual(path, (20, 1000, 3000, (18 * 2000 + 49000) // 19))
        self.assertEqual(measures["gateway_rtt_us"], 3000)

    def far(self, **changes):
        """Ping a gateway that takes 300 ms, with 30 ms of jitter, so that echoes overtake."""
        port = self.port

        class Far(NullEcho):
            def __init__(self, network):
                super().__init__(network)
                self.due_ms = []

            def sendto(self, packet, target):
                self.due_ms.append(port.uptime_ms() + 300 + 30 * (len(self.due_ms) % 2))
                return super().sendto(packet, target)

            def recv(self, size):
                for at, due_ms in enumerate(self.due_ms):
                    if due_ms <= port.uptime_ms():
                        del self.due_ms[at]
                        return self._packets.pop(at)
                raise OSError(errno.EAGAIN, "nothing there")

        port.socket.socket = lambda *_: Far(port.socket)
        self.configure(**changes)
        return self.ping()

    def test_a_far_gateway_is_slow_and_loses_nothing(self):
        for changes in ({"period_s": 60}, {"period_s": 5}):
            result = self.far(**changes)
            self.assertEqual(result.measures["gateway_loss_percent"], 0)
            self.assertEqual(result.reason, GATEWAY_SLOW)
            _, least_us, p95_us, _ = struct.unpack(block.PATH_FORMAT, result.measures[block.PATH])
            self.assertTrue(299000 <= least_us < 330000 <= p95_us < 400000, (least_us, p95_us))

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
        self.assertEqual(gateway.answered(packet, 7), 1)
        self.assertEqual(gateway.answered(b"\x46" + bytes(23) + bytes(reply), 7), 1)
        self.assertEqual(gateway.answered(packet, 8), 0)
        self.assertEqual(gateway.answered(packet[:-1], 7), 0)
        self.assertEqual(gateway.answered(b"\x65" + packet[1:], 7), 0)
        for size in range(28):
            self.assertEqual(gateway.answered(packet[:size], 7), 0)
        for at in range(20, len(packet)):
            altered = bytearray(packet)
            altered[at] ^= 1
            self.assertEqual(gateway.answered(bytes(altered), 7), 0)

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
        self.question = dns.query(0xABCD, "Probe.Example.org")

    def refused(self, message):
        with self.assertRaises(dns.NotAnAnswerError):
            dns.parse(message, self.question)

    def test_a_question(self):
        self.assertEqual(
            dns.query(0xABCD, "localhost."),
            b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01",
        )

    def test_an_answer(self):
        message = answer(self.question, A_RECORD, 1)
        self.assertEqual(dns.parse(message, self.question), (0, ("203.0.113.80",)))
        upper = message[:12] + b"\x05PROBE\x07EXAMPLE\x03ORG" + message[12 + 18 :]
        self.assertEqual(dns.parse(upper, self.question), (0, ("203.0.113.80",)))

    def test_aliases_are_followed(self):
        alias = b"\x03www\x07example\x03net\x00"
        records = record(POINTER, 5, alias) + record(alias, 1, bytes((1, 2, 3, 4)))
        message = answer(self.question, records, 2)
        self.assertEqual(dns.parse(message, self.question), (0, ("1.2.3.4",)))

    def test_compressed_aliases_too(self):
        at = 12 + 19 + 4 + 12  # the alias's own text in the first record
        records = record(POINTER, 5, b"\x03www" + b"\xc0\x12")
        records += record(bytes((0xC0, at)), 1, bytes((1, 2, 3, 4)))
        message = answer(self.question, records, 2)
        self.assertEqual(dns.parse(message, self.question), (0, ("1.2.3.4",)))

    def test_addresses_of_others_do_not_count(self):
        stranger = record(b"\x04evil\x00", 1, bytes((6, 6, 6, 6)))
        message = answer(self.question, stranger + A_RECORD, 2)
        self.assertEqual(dns.parse(message, self.question), (0, ("203.0.113.80",)))
        chaos = record(POINTER, 1, bytes((6, 6, 6, 6)), 3)
        self.assertEqual(dns.parse(answer(self.question, chaos, 1), self.question), (0, ()))

    def test_return_codes(self):
        for rcode in (2, 3, 5):
            message = answer(self.question, flags=bytes((0x81, 0x80 | rcode)))
            self.assertEqual(dns.parse(message, self.question), (rcode, ()))
        bare = answer(self.question, flags=b"\x81\x85", asked=0)
        self.assertEqual(dns.parse(bare, self.question), (5, ()))

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
            web.request("probe.example.org", "/generate_204"),
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
            self.assertEqual(http.status(line), code, line)
