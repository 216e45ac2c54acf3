import asyncio
import json
import sys
import unittest

import agent.cycle
import linkreport.report as wire
from agent.config import parse
from agent.cycle import PROBES, Schedule, measure
from agent.fault import Faults
from agent.link import Link
from agent.loan import borrow, give_back
from agent.probes import Result
from agent.statement import extensions, report
from linkreport import block
from linkreport.table import (
    ADDRESSING,
    ASSOCIATION,
    CLOCK_NTP,
    DEADLINE_PASSED,
    DEVICE,
    DOWN,
    FLASH_FAILED,
    GATEWAY,
    INTERNET,
    INTERNET_SLOW,
    KICKED,
    MEMORY_LOW,
    NETWORK_NOT_FOUND,
    NO_OFFER,
    OK,
    PROBE_FAILED,
    RADIO,
    RADIO_FAILED,
    RESOLVER,
    THROUGHPUT_LOW,
    UNTESTED,
)
from place import WLAN_KEY, configuration
from port.null import NullPort


class FakeProbe:
    """A probe module that does what a test says."""

    def __init__(self, layer, needs, act=None, measures=None):
        self.LAYER = layer
        self.NEEDS = needs
        self._act = act
        self._measures = measures or {}
        self.lease = None
        self.ran = False

    async def probe(self, port, config, evidence):
        self.ran = True
        if self.lease:
            evidence.gateway, evidence.resolver = self.lease
        if isinstance(self._act, list):
            return Result(self._act.pop(0), self._measures)
        if isinstance(self._act, int):
            return Result(self._act, self._measures)
        if self._act:
            raise self._act
        await asyncio.sleep(60)
        return Result(OK, {})


class FakeSpool:
    next_seq = 7
    oldest_seq = 3
    waiting = 4
    error = None


class CycleTest(unittest.TestCase):
    lease = ("10.1.0.1", "10.1.0.53")

    def setUp(self):
        self.port = NullPort()
        self.faults = Faults((WLAN_KEY,))
        self.config = parse(json.dumps(configuration(period_s=1)).encode())

    def measure(self, *acts):
        """Run fake probes for the layers radio, association, addressing and so on."""
        layers = (RADIO, ASSOCIATION, ADDRESSING, GATEWAY, RESOLVER, INTERNET, INTERNET)
        needs = (0, RADIO, ASSOCIATION, ADDRESSING, ADDRESSING, ADDRESSING, INTERNET)
        names = [name for name in PROBES if name not in ("portal", "service")]
        self.probes = [FakeProbe(*each) for each in zip(layers, needs, acts)]
        self.probes[ADDRESSING - 1].lease = self.lease
        lent = {"agent.probes." + name: probe for name, probe in zip(names, self.probes)}
        self.given_back = []

        async def run():
            link = Link(self.port)
            return await measure(self.port, self.config, link, self.faults, names[: len(acts)])

        before = agent.cycle.borrow, agent.cycle.give_back
        agent.cycle.borrow, agent.cycle.give_back = self.lend(lent), self.take_back
        try:
            return asyncio.run(run())
        finally:
            agent.cycle.borrow, agent.cycle.give_back = before

    def take_back(self, *names):
        self.given_back += names

    def lend(self, lent):
        def borrow(name):
            if isinstance(lent[name]._act, type):
                raise lent[name]._act
            return lent[name]

        return borrow

    def test_all_well(self):
        evidence = self.measure(OK, OK, OK, OK, OK, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 1, 1, 1, 0, 1, 0, 1)))
        self.assertTrue(evidence.online())

    def test_what_needs_a_failed_layer_is_not_tested(self):
        evidence = self.measure(NETWORK_NOT_FOUND, OK, OK, OK, OK, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((10, 0, 0, 0, 0, 0, 0, 0, 1)))
        self.assertFalse(any(probe.ran for probe in self.probes[1:]))

    def test_an_address_is_used_although_the_server_that_gave_it_fails(self):
        evidence = self.measure(OK, OK, NO_OFFER, 40, OK, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 32, 40, 1, 0, 1, 0, 1)))
        self.lease = None
        evidence = self.measure(OK, OK, NO_OFFER, 40, OK, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 32, 0, 0, 0, 0, 0, 1)))

    def test_an_association_that_ends_within_the_cycle_is_to_blame_for_what_follows(self):
        def thrown_out():
            self.port.lose(3)
            return "", "", ""

        self.port.lease = thrown_out

        async def run():
            link = Link(self.port)
            return await measure(self.port, self.config, link, self.faults, PROBES[:3])

        evidence = asyncio.run(run())
        self.assertEqual(bytes(evidence.reasons[:3]), bytes((OK, KICKED, UNTESTED)))
        self.assertFalse(evidence.link.requested)

    def test_gateway_resolver_and_internet_are_asked_each_on_its_own(self):
        evidence = self.measure(OK, OK, OK, 40, 50, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 1, 40, 50, 0, 1, 0, 1)))

    def test_a_router_that_ignores_pings_but_resolves_is_there(self):
        self.lease = ("10.1.0.1", "10.1.0.1")
        evidence = self.measure(OK, OK, OK, 40, 54, 70)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 1, 1, 54, 0, 70, 0, 1)))
        evidence = self.measure(OK, OK, OK, 40, 50, 70)
        self.assertEqual(evidence.reasons[GATEWAY - 1], 40)

    def test_another_host_that_resolves_says_nothing_of_the_router(self):
        self.lease = ("10.1.0.1", "10.1.0.53")
        evidence = self.measure(OK, OK, OK, 40, 54, 70)
        self.assertEqual(evidence.reasons[GATEWAY - 1], 40)

    def test_a_resolver_that_waited_for_the_line_is_not_blamed(self):
        evidence = self.measure(OK, OK, OK, OK, [54, OK], OK)
        self.assertEqual(evidence.reasons[RESOLVER - 1], OK)

    def test_a_resolver_that_fails_again_is_blamed(self):
        evidence = self.measure(OK, OK, OK, OK, [54, 50], OK)
        self.assertEqual(evidence.reasons[RESOLVER - 1], 50)

    def test_without_the_internet_the_resolver_is_asked_once(self):
        evidence = self.measure(OK, OK, OK, OK, [54], 70)
        self.assertEqual(evidence.reasons[RESOLVER - 1], 54)

    def test_a_resolver_that_failed_is_asked_again_when_the_internet_answers(self):
        for answers, reason in (([54, OK], OK), ([50, 50], 50)):
            evidence = self.measure(OK, OK, OK, OK, answers, OK)
            self.assertEqual((evidence.reasons[RESOLVER - 1], answers), (reason, []))
        self.measure(OK, OK, OK, OK, [54], 70)

    def test_a_second_probe_of_a_layer_can_only_take_something_off_an_ok(self):
        for first, second, reason in (
            (OK, THROUGHPUT_LOW, THROUGHPUT_LOW),
            (OK, OK, OK),
            (OK, DEADLINE_PASSED, OK),
            (OK, ValueError(), OK),
            (INTERNET_SLOW, THROUGHPUT_LOW, INTERNET_SLOW),
            (70, OK, 70),
        ):
            evidence = self.measure(OK, OK, OK, OK, OK, first, second)
            self.assertEqual(evidence.reasons[INTERNET - 1], reason)

    def test_all_probes_are_given_back(self):
        self.measure(OK, OK, OK, OK, OK, ValueError())
        probes = [name for name in self.given_back if name.startswith("agent.probes.")]
        self.assertEqual(
            probes[:3] + probes[-1:],
            ["agent.probes." + n for n in ("radio", "association", "addressing", "internet")],
        )
        self.assertEqual(len(probes), 6)
        # So is what they loaded themselves.
        for name in ("agent.dhcp", "agent.dns", "agent.web", "agent.http", "agent.stream"):
            self.assertEqual(self.given_back.count(name), 6)

    def test_a_probe_that_broke_is_given_back_before_its_exception_is_told(self):
        given_back = []
        self.faults.note = lambda _: given_back.append(len(self.given_back))
        self.measure(ValueError(), OK, OK)
        self.assertEqual(given_back, [len(self.given_back) // 3])  # of three probes one

    def test_a_probe_that_cannot_be_loaded_stops_nothing(self):
        evidence = self.measure(OK, OK, OK, ImportError, MemoryError, OK)
        self.assertEqual(bytes(evidence.reasons), bytes((1, 1, 1, 0, 0, 0, 1, 0, MEMORY_LOW)))
        self.assertEqual(self.faults.count, 3)  # the resolver was to be asked again

    def test_an_exception_in_a_probe_stops_nothing_and_is_told(self):
        evidence = self.measure(OK, OK, OK, ZeroDivisionError("with " + WLAN_KEY), OK, OK)
        self.assertEqual(evidence.reasons[GATEWAY - 1], PROBE_FAILED)
        self.assertTrue(evidence.online())
        self.assertEqual(self.faults.count, 1)
        text = self.faults.take()
        self.assertIn("ZeroDivisionError", text)
        self.assertIn("test_cycle", text)
        self.assertIn("with ***", text)
        self.assertNotIn(WLAN_KEY, text)
        self.assertEqual(self.faults.take(), "")

    def test_a_memory_error_is_an_exception_like_others(self):
        evidence = self.measure(OK, OK, OK, OK, MemoryError(), OK)
        self.assertEqual(evidence.reasons[RESOLVER - 1], PROBE_FAILED)

    def test_a_broken_radio_is_the_device_s(self):
        evidence = self.measure(OSError("WiFi Internal Error"), OK, OK, OK, OK, OK)
        self.assertEqual(evidence.reasons[RADIO - 1], PROBE_FAILED)
        self.assertEqual(evidence.reasons[DEVICE - 1], RADIO_FAILED)

    def test_the_cycle_ends_at_its_deadline(self):
        start_ms = self.port.uptime_ms()
        evidence = self.measure(OK, OK, OK, None, None, None)
        self.assertTrue(self.port.uptime_ms() - start_ms < 1300)
        reasons = bytes(evidence.reasons)
        self.assertEqual(reasons[:3], bytes((OK, OK, OK)))
        self.assertEqual(reasons[3], DEADLINE_PASSED)
        self.assertEqual(reasons[INTERNET - 1], DEADLINE_PASSED)
        self.assertFalse(self.probes[5].ran)

    def test_a_probe_that_hangs_leaves_time_for_the_next(self):
        self.config = parse(
            json.dumps(configuration(period_s=2, deadline_ms={"gateway": 1})).encode()
        )
        evidence = self.measure(OK, OK, OK, None, OK, OK)
        self.assertEqual(evidence.reasons[GATEWAY - 1], DEADLINE_PASSED)
        self.assertEqual(evidence.reasons[RESOLVER - 1], OK)
        self.assertTrue(evidence.online())

    def values(self, evidence, **changes):
        settings = {
            "now": (1790000000, CLOCK_NTP),
            "boot": 2,
            "heap_free_bytes": 50000,
            "error_count": 0,
            "spool": FakeSpool(),
        }
        settings.update(changes)
        return wire.Report(*report(self.port, self.config, evidence, **settings))

    def test_a_report_of_nothing_measured(self):
        values = self.values(self.measure(NETWORK_NOT_FOUND, OK, OK, OK, OK, OK))
        self.assertEqual((values.seq, values.oldest_seq, values.spool_reports), (7, 3, 4))
        self.assertEqual((values.state, values.layer, values.reason), (DOWN, RADIO, 10))
        self.assertEqual((values.rssi_dbm, values.channel, values.bssid), (0, 0xFF, bytes(6)))
        self.assertEqual(values.gateway_rtt_us, wire.NO_U32)
        self.assertEqual(values.resolver_ms, wire.NO_U16)
        self.assertEqual(values.time_s, 1790000000)

    def test_values_are_cut_to_their_fields(self):
        evidence = self.measure(OK, OK, OK, OK, OK, OK)
        evidence.measures = {
            "rssi_dbm": -200,
            "association_ms": 70000,
            "gateway_rtt_us": 1 << 40,
            "http_status": -1,
        }
        values = self.values(evidence)
        self.assertEqual(values.rssi_dbm, -127)
        self.assertEqual(values.association_ms, 0xFFFE)
        self.assertEqual(values.gateway_rtt_us, 0xFFFFFFFE)
        self.assertEqual(values.http_status, 0)

    def test_low_memory_is_told(self):
        evidence = self.measure(OK, OK, OK, OK, OK, OK)
        values = self.values(evidence, heap_free_bytes=9999)
        self.assertEqual((values.layer, values.reason), (DEVICE, MEMORY_LOW))
        self.assertEqual(values.heap_free_bytes, 9999)

    def test_a_flash_that_fails_is_told_and_comes_before_low_memory(self):
        class WornSpool(FakeSpool):
            error = OSError(5, "flash")

        evidence = self.measure(OK, OK, OK, OK, OK, OK)
        values = self.values(evidence, spool=WornSpool(), heap_free_bytes=9999)
        self.assertEqual((values.layer, values.reason), (DEVICE, FLASH_FAILED))

    def test_lists_of_access_points_are_told_in_an_order_that_lasts(self):
        parts = [bytes((n,)) * 9 for n in (7, 3, 9)]
        told = extensions({block.OWN: b"".join(parts), block.LEASE: b"ba"})
        self.assertEqual(
            dict(wire.extensions(told)),
            {block.OWN: b"".join(sorted(parts)), block.LEASE: b"ba"},
        )

    def test_layers_without_a_probe_are_untested(self):
        evidence = self.measure(OK, OK, OK, OK, OK, OK)
        self.assertEqual(evidence.reasons[5], UNTESTED)
        self.assertEqual(evidence.reasons[7], UNTESTED)

    def test_the_probes_follow_each_other_as_a_client_meets_the_layers(self):
        before = 0
        for name in PROBES:
            module = borrow("agent.probes." + name)
            self.assertTrue(before < module.LAYER or name == "throughput")
            self.assertTrue(module.NEEDS < module.LAYER or name == "throughput")
            before = module.LAYER
            give_back("agent.probes." + name)


class ExtensionTest(unittest.TestCase):
    def test_blocks_stand_in_the_order_of_their_importance(self):
        measures = {block.FOREIGN: b"f" * 6, block.OWN: b"o" * 9, "channel": 1, block.PATH: b""}
        packed = wire.extensions(extensions(measures))
        self.assertEqual(packed, [(block.OWN, b"o" * 9), (block.FOREIGN, b"f" * 6)])

    def test_what_has_no_room_is_cut_or_left_out(self):
        measures = {
            block.SERVICE: b"s" * 100,
            block.THROUGHPUT: b"t" * 76,
            block.AIR: b"a" * 11,
            block.ERROR: b"e" * 20,
            block.FOREIGN: b"f" * 60,
        }
        for size, error, foreign in ((76, 1, 0), (75, 2, 0), (60, 17, 0), (40, 20, 12)):
            measures[block.THROUGHPUT] = b"t" * size
            measures[block.AIR] = b""
            kinds = dict(wire.extensions(extensions(measures)))
            self.assertEqual(len(kinds[block.ERROR]), error)
            self.assertEqual(len(kinds.get(block.FOREIGN, b"")), foreign)
        measures[block.AIR] = b"a" * 80
        self.assertNotIn(block.AIR, dict(wire.extensions(extensions(measures))))
        self.assertTrue(len(extensions(measures)) <= 183)

    def test_lists_are_cut_between_their_entries(self):
        measures = {block.OWN: b"o" * 9 * 28}
        kinds = dict(wire.extensions(extensions(measures)))
        self.assertEqual(len(kinds[block.OWN]), 9 * 20)


class LoanTest(unittest.TestCase):
    def test_a_loaned_module_is_forgotten_where_memory_is_scarce(self):
        name = "agent.probes.radio"
        module = borrow(name)
        self.assertTrue(module is sys.modules[name])
        give_back(name)
        kept = sys.implementation.name != "micropython"
        self.assertEqual(name in sys.modules, kept)
        self.assertEqual(hasattr(sys.modules["agent.probes"], "radio"), kept)
        give_back(name)
        self.assertEqual(borrow(name).LAYER, RADIO)

    def test_what_has_ended_is_not_held_by_what_awaited_it(self):
        async def ended():
            return 5

        box = [ended()]
        self.assertEqual(asyncio.run(agent.cycle.emptied(box)), 5)
        self.assertEqual(box, [])


class ScheduleTest(unittest.TestCase):
    def test_does_not_drift(self):
        schedule = Schedule(1000, 5000)
        waits = [schedule.wait_ms(now_ms) for now_ms in (5000, 5730, 6100, 7999)]
        self.assertEqual(waits, [0, 270, 900, 1])

    def test_late_cycles_are_left_out(self):
        schedule = Schedule(1000, 0)
        self.assertEqual(schedule.wait_ms(0), 0)
        self.assertEqual(schedule.wait_ms(3200), 800)
        self.assertEqual(schedule.wait_ms(4100), 900)
        self.assertEqual(schedule.wait_ms(6000), 0)
        self.assertEqual(schedule.wait_ms(6001), 999)
