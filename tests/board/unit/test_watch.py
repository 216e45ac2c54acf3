"""A monitor's cycle: several WLANs in turn, its own last."""

import asyncio
import json
import struct
import unittest

import agent.cycle
import port as ports
from agent.config import parse
from agent.fault import Faults
from agent.link import Link
from agent.loan import borrow
from agent.probes import Result
from agent.watch import watch
from linkreport import block
from linkreport.table import (
    ASSOCIATION,
    CONNECT_TIMEOUT,
    DEGRADED,
    DOWN,
    GATEWAY,
    INTERNET,
    NETWORK_NOT_FOUND,
    OK,
    OTHER_NETWORK_FAILED,
    RADIO,
    SERVICE,
    UNTESTED,
    UP,
    WEAK_SIGNAL,
    WRONG_KEY,
)
from place import configuration
from port.null import NullPort

OWN = b"\x02\x00\x00\x00\x00\x01"
GUEST = b"\x02\x00\x00\x00\x00\x02"
REAL = ("radio", "association", "addressing")


class FakeUpper:
    """A probe of an upper layer that finds what a test says of each SSID."""

    NEEDS = ASSOCIATION

    def __init__(self, layer, found, asked):
        self.LAYER = layer
        self._found = found
        self._asked = asked

    async def probe(self, port, config, evidence):
        self._asked.append((self.LAYER, evidence.wlan.ssid, port.asked_for[0]))
        return Result(self._found.get(evidence.wlan.ssid, OK), {"http_status": 204})


class WatchTest(unittest.TestCase):
    def setUp(self):
        self.port = NullPort()
        self.port.networks.append((b"Gast", GUEST, 11, -65, ports.OPEN))
        self.found = {}
        self.asked = []
        guest = {"ssid": "Gast", "key": "", "security": "open", "bssids": []}
        self.config = parse(
            json.dumps(configuration(role="ap-monitor", watch=[guest], period_s=10)).encode()
        )

    def cycles(self, count=1):
        fakes = {
            "agent.probes.gateway": FakeUpper(GATEWAY, {}, self.asked),
            "agent.probes.internet": FakeUpper(INTERNET, self.found, self.asked),
        }
        none = FakeUpper(SERVICE, {"Schule": UNTESTED, "Gast": UNTESTED}, [])

        def lend(name):
            if name.split(".")[-1] in REAL:
                return borrow(name)
            return fakes.get(name, none)

        async def run():
            self.link = Link(self.port)
            for _ in range(count):
                evidence = await watch(self.port, self.config, self.link, Faults())
            return evidence

        before = agent.cycle.borrow
        agent.cycle.borrow = lend
        try:
            return asyncio.run(run())
        finally:
            agent.cycle.borrow = before

    def told(self, evidence):
        return struct.unpack(block.WATCH_FORMAT, evidence.measures[block.WATCH])

    def test_both_networks_are_measured_and_the_own_one_last(self):
        evidence = self.cycles()
        self.assertEqual(self.told(evidence), (1, UP, 0, OK, -65))
        self.assertEqual([asked[1] for asked in self.asked], ["Gast", "Gast", "Schule", "Schule"])
        self.assertTrue(all(asked[1] == asked[2] for asked in self.asked))
        self.assertEqual(self.port.asked_for, ("Schule", "geheim-1234", OWN))
        self.assertTrue(self.link.online and self.link.holds())
        self.assertEqual((evidence.measures["bssid"], evidence.measures["channel"]), (OWN, 6))
        self.assertEqual(evidence.reasons[SERVICE - 1], UNTESTED)

    def test_the_next_cycle_leaves_and_comes_back(self):
        self.port.scan_ms = 500
        evidence = self.cycles(2)
        self.assertEqual([asked[1] for asked in self.asked[::2]], ["Gast", "Schule"] * 2)
        self.assertTrue(self.link.holds())
        self.assertEqual(evidence.reasons[ASSOCIATION - 1], OK)  # leaving is no loss

    def test_one_scan_serves_all_and_tells_all_access_points(self):
        self.port.scan_ms = 2000
        evidence = self.cycles()
        self.assertEqual(self.port.calls.count("scan"), 1)
        own = evidence.measures[block.OWN]
        self.assertEqual((own[:6], own[9:15], len(own)), (OWN, GUEST, 18))
        self.assertEqual(evidence.measures[block.AIR][:2], bytes((2, 0)))

    def test_another_network_that_fails_is_the_service_s_while_the_own_one_is_fine(self):
        self.found["Gast"] = CONNECT_TIMEOUT
        evidence = self.cycles()
        self.assertEqual(self.told(evidence), (1, DOWN, INTERNET, CONNECT_TIMEOUT, -65))
        self.assertEqual(evidence.reasons[SERVICE - 1], OTHER_NETWORK_FAILED)

    def test_a_failure_of_the_own_network_stands_alone(self):
        self.found.update({"Gast": CONNECT_TIMEOUT, "Schule": CONNECT_TIMEOUT})
        evidence = self.cycles()
        self.assertEqual(evidence.reasons[INTERNET - 1], CONNECT_TIMEOUT)
        self.assertEqual(evidence.reasons[SERVICE - 1], UNTESTED)

    def test_another_network_that_is_not_there(self):
        del self.port.networks[1]
        evidence = self.cycles()
        self.assertEqual(self.told(evidence), (1, DOWN, RADIO, NETWORK_NOT_FOUND, -128))
        self.assertTrue(self.link.holds())

    def test_another_network_that_lets_nobody_in(self):
        associate = self.port.associate

        def begin(ssid, key, bssid):
            self.port.outcome = ports.FAILED if ssid == "Gast" else ports.ASSOCIATED
            self.port.status = 202
            associate(ssid, key, bssid)

        self.port.associate = begin
        evidence = self.cycles()
        self.assertEqual(self.told(evidence)[1:4], (DOWN, ASSOCIATION, WRONG_KEY))
        self.assertTrue(self.link.holds())

    def test_another_network_that_is_weak(self):
        self.port.networks[1] = (b"Gast", GUEST, 11, -80, ports.OPEN)
        self.port.rssi_dbm = lambda: None
        evidence = self.cycles()
        self.assertEqual(self.told(evidence), (1, DEGRADED, RADIO, WEAK_SIGNAL, -80))
        self.assertEqual(evidence.reasons[SERVICE - 1], OTHER_NETWORK_FAILED)

    def test_the_own_network_is_not_there(self):
        del self.port.networks[0]
        self.port.rssi_dbm = lambda: -65
        evidence = self.cycles()
        self.assertEqual(evidence.reasons[RADIO - 1], NETWORK_NOT_FOUND)
        self.assertEqual(self.told(evidence)[1], UP)
        self.assertFalse(self.link.online)

    def test_the_time_is_shared(self):
        alone = parse(json.dumps(configuration(period_s=10)).encode()).deadline_ms
        shared = self.config.deadline_ms
        self.assertEqual(shared["cycle"], alone["cycle"])
        self.assertEqual(shared["association"], alone["association"] // 2)
