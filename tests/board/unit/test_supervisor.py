import asyncio
import gc
import json
import os
import struct
import unittest

import agent.agent
import agent.fault
import agent.loan
import agent.rescue
import agent.selftest
import agent.spool
import linkreport.report as wire
from agent.agent import Agent
from agent.fault import Faults
from agent.segment import Files
from agent.selftest import selftest
from agent.setup import SetupError, load_identity
from agent.supervisor import SAFE_AFTER, run, start
from linkreport import block
from linkreport.seal import Seal
from linkreport.table import (
    DEVICE,
    DOWN,
    FLASH_FAILED,
    INTERNET,
    MEMORY_LOW,
    OK,
    RESOLVER,
    SAFE_MODE,
    UNTESTED,
)
from place import BOARD, REPORT_KEY, WLAN_KEY, folder, furnish, remove, write
from port.null import NullPort


class Console:
    """Collects what the modules under test print."""

    def __init__(self, name):
        self._module = agent.loan.borrow(name)
        self.lines = []

    def __enter__(self):
        self._module.print = lambda *words: self.lines.append(" ".join(str(w) for w in words))
        return self

    def __exit__(self, *_):
        del self._module.print
        return False

    def document(self, mark):
        """Return the JSON after a mark; there must be one such line."""
        found = [line for line in self.lines if line.startswith(mark)]
        if len(found) != 1:
            raise AssertionError(self.lines)
        return json.loads(found[0][len(mark) :])


class SupervisorTest(unittest.TestCase):
    def setUp(self):
        # What a test puts in place of a part must not be thrown out with it.
        self.is_small, agent.loan._IS_SMALL = agent.loan._IS_SMALL, False
        self.root = folder()
        self.port = NullPort()
        # Nothing listens there, which shows at once.
        self.port.socket.routes = {
            ("10.1.0.1", 53): ("127.0.0.1", 9),
            ("203.0.113.80", 80): ("127.0.0.1", 9),
        }

    def tearDown(self):
        agent.loan._IS_SMALL = self.is_small
        remove(self.root)

    def reports(self, board):
        return wire.split(board.spool.batch(0, 100000)[0])

    def cycles(self, count, **changes):
        furnish(self.root, **changes)

        async def go():
            board = start(self.port, self.root, 3)
            for _ in range(count):
                await board.cycle()
            return board

        return asyncio.run(go())

    def test_a_cycle_puts_a_report_into_the_spool_and_says_so(self):
        with Console("agent.console") as console:
            board = self.cycles(1)
        report = wire.unpack(self.reports(board)[0])
        self.assertEqual((report.seq, report.boot, report.period_s), (1, 3, 60))
        self.assertEqual((report.state, report.layer), (DOWN, RESOLVER))
        line = console.document("NETZPULS REPORT ")
        self.assertEqual(line["seq"], 1)
        self.assertEqual((line["state"], line["layer"]), ("down", "resolver"))

    def test_the_first_report_of_a_boot_tells_the_version(self):
        with Console("agent.console"):
            board = self.cycles(2)
        first, second = [wire.unpack(raw) for raw in self.reports(board)]
        kinds = wire.extensions(first.extensions)
        self.assertEqual(kinds[0][0], block.AGENT)
        self.assertIn(agent.VERSION.encode(), kinds[0][1])
        self.assertNotIn(block.AGENT, dict(wire.extensions(second.extensions)))

    def test_an_error_is_told_in_the_next_report(self):
        with Console("agent.console"):
            board = self.cycles(0)
            board.faults.note(ValueError("odd"))
            asyncio.run(board.cycle())
        report = wire.unpack(self.reports(board)[0])
        kinds = dict(wire.extensions(report.extensions))
        self.assertIn(b"ValueError", kinds[block.ERROR])
        self.assertEqual(report.error_count, 1)

    def test_neither_the_time_nor_the_console_s_line_costs_a_report(self):
        def lend(name):
            if name == "agent.console":
                raise MemoryError
            return agent.loan.borrow(name)

        async def no_room(host, resolver):
            raise MemoryError

        with Console("agent.console"), Console("agent.fault"):
            board = self.cycles(0)
            board.clock.ask_ntp = no_room
            evidence_online(board)
            before, agent.agent.borrow = agent.agent.borrow, lend
            try:
                asyncio.run(board.cycle())
            finally:
                agent.agent.borrow = before
        self.assertEqual(len(self.reports(board)), 1)
        self.assertEqual(board.faults.count, 2)

    def test_the_lan_is_started(self):
        with Console("agent.console"):
            self.cycles(0, lan="wt32-eth01")
        self.assertEqual(self.port.lan_name, "wt32-eth01")

    def test_a_lan_that_cannot_be_started_is_told_and_stops_nothing(self):
        def broken(name):
            raise ValueError("no Ethernet of a board %s is known" % name)

        self.port.lan_start = broken
        with Console("agent.console"):
            board = self.cycles(1, lan="toaster")
        report = wire.unpack(self.reports(board)[0])
        told = dict(wire.extensions(report.extensions))[block.ERROR]
        self.assertIn(b"board toaster", told)

    def test_a_monitor_tells_of_all_its_networks(self):
        self.port.networks.append((b"Gast", b"\x02" * 6, 11, -65, 0))
        guest = {"ssid": "Gast", "key": "", "security": "open", "bssids": []}
        with Console("agent.console"):
            board = self.cycles(2, role="ap-monitor", watch=[guest])
        for raw in self.reports(board):
            blocks = dict(wire.extensions(wire.unpack(raw).extensions))
            number, state, layer, _, rssi_dbm = struct.unpack(
                block.WATCH_FORMAT, blocks[block.WATCH]
            )
            self.assertEqual((number, state, layer, rssi_dbm), (1, DOWN, RESOLVER, -65))
        self.assertTrue(board.link.online)

    def test_ntp_is_asked_only_when_online(self):
        asked = []

        async def ask_ntp(host, resolver):
            asked.append((host, resolver))

        with Console("agent.console"):
            board = self.cycles(0, ntp="ntp.example.org")
            board.clock.ask_ntp = ask_ntp
            asyncio.run(board.cycle())
            self.assertEqual(asked, [])
            evidence_online(board)
            asyncio.run(board.cycle())
        self.assertEqual(asked, [("ntp.example.org", "10.1.0.1")])

    def serve(self, cycle, enough):
        """Serve with another cycle until there was enough of it; return the board."""
        furnish(self.root, period_s=1)

        async def go():
            board = start(self.port, self.root)
            board.cycle = cycle
            board.uplink.run = asyncio.Event().wait
            task = asyncio.create_task(board.serve())
            for _ in range(500):
                await asyncio.sleep(0.02)
                if enough(board):
                    break
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return board

        before, agent.agent._FEED_MS = agent.agent._FEED_MS, 20
        try:
            return asyncio.run(go())
        finally:
            agent.agent._FEED_MS = before

    def test_tasks_are_survived_and_the_watchdog_is_fed(self):
        async def broken():
            raise RuntimeError("broken")

        board = self.serve(broken, lambda board: board.faults.count == 3)
        self.assertEqual(board.faults.count, 3)
        self.assertTrue("feed" in self.port.calls)

    def test_the_watchdog_is_not_fed_when_measuring_hangs(self):
        fed = []

        async def hang():
            await asyncio.sleep(60)

        def enough(board):
            board._alive_until_ms = 0
            fed.append(self.port.calls.count("feed"))
            return len(fed) == 10

        self.serve(hang, enough)
        self.assertEqual(fed[-1], fed[1])

    def test_self_test_of_a_good_board(self):
        with Console("agent.selftest") as console:
            board = self.cycles(0)
            selftest(self.port, 3, board, None)
        document = console.document("NETZPULS SELFTEST ")
        self.assertEqual(document["ok"], True)
        self.assertEqual(document["board"], BOARD)
        self.assertEqual((document["config"], document["identity"]), ("ok", "ok"))
        self.assertEqual((document["radio"], document["boot"]), (1, 3))
        self.assertEqual(document["reset_cause"], "power-on")

    def test_self_test_of_a_radio_that_is_broken_or_hears_more_than_there_is_memory_for(self):
        board = self.cycles(0)
        for error in (OSError("WiFi Internal Error"), MemoryError("memory allocation failed")):

            def broken(error=error):
                raise error

            self.port.scan = broken
            with Console("agent.selftest") as console:
                selftest(self.port, 3, board, None)
            document = console.document("NETZPULS SELFTEST ")
            self.assertEqual(document["ok"], False)
            self.assertIn(str(error), document["radio"])

    def safe_mode(self):
        """Run a board that cannot start until a technician presses Ctrl-C."""

        def ctrl_c(port, problem):
            raise KeyboardInterrupt

        before, agent.rescue.wait = agent.rescue.wait, ctrl_c
        try:
            with Console("agent.selftest") as console, Console("agent.rescue") as said:
                run(self.port, self.root)
        finally:
            agent.rescue.wait = before
        console.lines += said.lines
        self.assertNotIn("watch", self.port.calls)
        self.assertIn("release", self.port.calls)
        document = console.document("NETZPULS SELFTEST ")
        self.assertEqual(document["ok"], False)
        self.assertNotIn(WLAN_KEY, " ".join(console.lines))
        return document

    def test_a_bad_configuration_leads_to_safe_mode(self):
        furnish(self.root, period_s="often")
        self.assertIn("period_s must be", self.safe_mode()["config"])

    def test_no_configuration_leads_to_safe_mode(self):
        self.assertIn("cannot be read", self.safe_mode()["config"])

    def test_a_bad_identity_leads_to_safe_mode(self):
        furnish(self.root)
        write(self.root + "/identity/report.key", b"short")
        document = self.safe_mode()
        self.assertEqual(document["config"], "ok")
        self.assertIn("report.key must have 32 bytes", document["identity"])

    def test_identity_is_checked(self):
        furnish(self.root)
        place = self.root + "/identity"
        self.assertEqual(load_identity(place)[0], REPORT_KEY)
        for name in ("ca.der", "board.der", "board.key.der"):
            write(place + "/" + name, b"-----BEGIN CERTIFICATE-----")
            with self.assertRaises(SetupError) as caught:
                load_identity(place)
            self.assertIn(name + " is not DER", str(caught.exception))
            os.remove(place + "/" + name)
            with self.assertRaises(SetupError):
                load_identity(place)
            write(place + "/" + name, b"\x30\x00")

    def test_whatever_else_is_wrong_leads_to_safe_mode_too(self):
        def broken(name):
            raise RuntimeError("flash")

        furnish(self.root)
        self.port.recall = broken
        document = self.safe_mode()
        self.assertIn("cannot start: RuntimeError flash", document["config"])

    def test_cycles_leave_nothing_behind_in_memory(self):
        if not hasattr(gc, "mem_alloc"):
            self.skipTest("only MicroPython counts its heap; test_on_micropython.py runs this")
        used = []

        async def go(lines):
            board = start(self.port, self.root)
            for number in range(24):
                await board.cycle()
                board.spool.acknowledge(number)
                lines.clear()
                self.port.calls.clear()
                gc.collect()
                used.append(gc.mem_alloc())

        furnish(self.root)
        agent.loan._IS_SMALL = self.is_small
        with Console("agent.console") as console:
            asyncio.run(go(console.lines))
        # Something the collector takes for a pointer may keep a little for a while.
        self.assertLessEqual(min(used[16:]) - min(used[4:10]), 256)

    def test_another_boards_files_lead_to_safe_mode(self):
        furnish(self.root)
        self.port.chip = "np-000000000001"
        document = self.safe_mode()
        self.assertIn("this is np-000000000001, not " + BOARD, document["config"])
        self.assertEqual(document["board"], "np-000000000001")

    def test_the_scan_of_the_self_test_serves_the_first_cycle(self):
        with Console("agent.selftest"), Console("agent.console"):
            board = self.cycles(0)
            selftest(self.port, 1, board, None)
            asyncio.run(board.cycle())
        self.assertEqual(self.port.calls.count("scan"), 1)

    def test_a_lease_that_takes_longer_than_a_period_keeps_no_report_on_the_board(self):
        furnish(self.root, period_s=1)
        dhcp, lease, asked_ms = self.port.dhcp, self.port.lease, []

        def ask():
            asked_ms.append(self.port.uptime_ms())
            dhcp()

        def answer():
            is_there = self.port.fixed or self.port.uptime_ms() >= asked_ms[-1] + 600
            return lease() if is_there else ("", "", "")

        self.port.dhcp, self.port.lease = ask, answer

        async def go():
            board = start(self.port, self.root)
            board.uplink.run = asyncio.Event().wait
            task = asyncio.create_task(board.drain())
            for _ in range(500):
                await asyncio.sleep(0.02)
                if board.link.online:
                    break
            task.cancel()
            return board.link.online

        self.assertTrue(asyncio.run(go()))

    def test_a_task_that_dies_is_made_anew(self):
        runs = []

        async def idle():
            await asyncio.sleep(60)

        async def dies(task):
            runs.append(task)

        def enough(board):
            board._survive = dies
            return len(runs) >= 4

        before, Agent._survive = Agent._survive, lambda _, task: dies(task)
        try:
            self.serve(idle, enough)
        finally:
            Agent._survive = before
        self.assertTrue(len(runs) >= 4)

    def test_the_key_is_not_made_of_a_bad_configuration(self):
        furnish(self.root, key_id=0)
        with self.assertRaises(ValueError) as caught:
            start(self.port, self.root)
        self.assertEqual(caught.exception.part, "config")

    def boot(self, serve):
        """Boot with another way to serve; return the agents that served."""
        served = []

        async def serving(board):
            served.append(board)
            await serve(board)

        def bitten():
            self.port.calls.append("bitten")

        before, Agent.serve = Agent.serve, serving
        die, agent.rescue.die = agent.rescue.die, bitten
        try:
            with Console("agent.selftest"), Console("agent.fault"), Console("agent.console"):
                run(self.port, self.root)
        finally:
            Agent.serve, agent.rescue.die = before, die
        return served

    def test_what_ended_a_boot_is_told_by_the_next_without_secrets(self):
        further = {"ssid": "Gast", "key": "another-key", "security": "wpa2-psk", "bssids": []}
        furnish(self.root, watch=[further])

        async def dies(board):
            raise RuntimeError("no such key: %s, another-key" % WLAN_KEY)

        async def lives(board):
            await board.cycle()
            await board.cycle()

        self.boot(dies)
        self.assertIn("bitten", self.port.calls)
        board = self.boot(lives)[0]
        first, second = [wire.unpack(raw) for raw in self.reports(board)]
        told = dict(wire.extensions(first.extensions))[block.ERROR]
        self.assertIn(b"died: RuntimeError", told)
        self.assertIn(b"no such key: ***, ***", told)
        self.assertNotIn(block.ERROR, dict(wire.extensions(second.extensions)))
        self.assertEqual(os.listdir(self.root).count("fault.txt"), 0)

    def test_what_keeps_the_agent_from_starting_is_told_too_but_not_what_it_says(self):
        furnish(self.root)

        def broken():
            raise RuntimeError(WLAN_KEY)

        spare, self.port.spare_heap = self.port.spare_heap, broken
        wait, agent.rescue.wait = agent.rescue.wait, lambda *_: None
        try:
            self.boot(None)
        finally:
            agent.rescue.wait, self.port.spare_heap = wait, spare

        async def lives(board):
            await board.cycle()

        report = wire.unpack(self.reports(self.boot(lives)[0])[0])
        told = dict(wire.extensions(report.extensions))[block.ERROR]
        self.assertIn(b"died: RuntimeError", told)
        self.assertNotIn(WLAN_KEY.encode(), told)

    def test_boots_that_fail_lead_to_safe_mode_and_it_reports(self):
        furnish(self.root)
        self.port.attempt_ms = 0

        async def dies(board):
            raise RuntimeError("again")

        async def cycles(board):
            await board.cycle()

        for _ in range(SAFE_AFTER):
            self.assertEqual([board.safe for board in self.boot(dies)], [False])
        board = self.boot(cycles)[0]
        self.assertTrue(board.safe)
        report = wire.unpack(self.reports(board)[0])
        self.assertEqual((report.state, report.layer, report.reason), (0, DEVICE, SAFE_MODE))
        self.assertEqual(report.layer_reasons[:4], bytes((1, 1, UNTESTED, UNTESTED)))

    def test_a_boot_that_measures_has_not_failed(self):
        furnish(self.root)

        async def measures(board):
            await board.cycle()
            board._settle()

        for _ in range(SAFE_AFTER + 2):
            self.assertFalse(self.boot(measures)[0].safe)
        self.assertEqual(self.port.memory["boots_failed"], 0)

    def test_a_flash_that_takes_nothing_stops_neither_the_start_nor_a_report(self):
        furnish(self.root)

        def refuse(*where):
            raise OSError(5, "flash")

        self.port.boot = self.port.remember = refuse

        async def measures(board):
            board.spool.files = Files(board.spool.files)
            board.spool.files.write = refuse
            for _ in range(3):
                await board.cycle()
                board._settle()

        board = self.boot(measures)[0]
        reports = [wire.unpack(raw) for raw in self.reports(board)]
        self.assertEqual([report.seq for report in reports], [1, 2, 3])
        self.assertEqual(reports[2].layer_reasons[DEVICE - 1], FLASH_FAILED)

    def test_a_spool_without_memory_to_write_does_not_blame_the_flash(self):
        furnish(self.root)

        def refuse(name):
            raise MemoryError

        async def measures(board):
            lend, agent.spool.borrow = agent.spool.borrow, refuse
            try:
                await board.cycle()
                await board.cycle()
            finally:
                agent.spool.borrow = lend
            await board.cycle()

        board = self.boot(measures)[0]
        reports = [wire.unpack(raw) for raw in self.reports(board)]
        self.assertEqual([report.seq for report in reports], [1, 2, 3])
        devices = [report.layer_reasons[DEVICE - 1] for report in reports]
        self.assertEqual(devices, [MEMORY_LOW, MEMORY_LOW, OK])

    def test_safe_mode_ends_by_itself_and_one_more_failure_brings_it_back(self):
        furnish(self.root)
        self.port.memory["boots_failed"] = SAFE_AFTER

        async def waits(board):
            self.assertTrue(board.safe)
            board._settle()
            self.assertTrue(board.safe)
            start, self.port.uptime_ms = self.port.uptime_ms, lambda: 3_600_000
            board._settle()
            self.port.uptime_ms = start
            self.assertFalse(board.safe)
            raise RuntimeError("full, and dead")

        self.boot(waits)

        async def nothing(board):
            return

        self.assertTrue(self.boot(nothing)[0].safe)

    def test_safe_mode_ends_sooner_when_the_collector_is_heard(self):
        furnish(self.root)
        board = start(self.port, self.root, 1, safe=True)
        self.port.uptime_ms = lambda: 600_000
        board._settle()
        self.assertTrue(board.safe)
        board.uplink.acked_at_ms = 5
        board._settle()
        self.assertFalse(board.safe)

    def test_what_may_pass_is_tried_again_and_a_bad_configuration_is_not(self):
        slept, left = [], []

        def sleep(seconds):
            if len(slept) < 4:
                slept.append(seconds)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        class Time:
            pass

        Time.sleep = sleep
        before, agent.rescue.time = agent.rescue.time, Time
        try:
            with Console("agent.rescue"):
                for problem, watched in ((MemoryError(), True), (SetupError("config", "x"), False)):
                    slept.clear()
                    left[:] = [5000]
                    self.port.calls.clear()
                    with self.assertRaises(KeyboardInterrupt):
                        agent.rescue.wait(self.port, problem)
                    self.assertEqual("watch" in self.port.calls, watched)
        finally:
            agent.rescue.time = before
        self.assertEqual(self.port.leds[:4], [1, 0, 1, 0])
        self.assertEqual(slept[:4], [0.25] * 4)

    def test_ctrl_c_releases_the_watchdog_even_if_pressed_twice(self):
        furnish(self.root)
        presses = [KeyboardInterrupt, None]

        def release():
            self.port.calls.append("release")
            press = presses.pop(0)
            if press:
                raise press

        async def pressed(board):
            raise KeyboardInterrupt

        self.port.release = release
        lend = agent.supervisor.borrow
        lending = [KeyboardInterrupt]

        def borrow(name):
            if name == "agent.rescue" and lending:
                raise lending.pop()
            return lend(name)

        before, Agent.serve = Agent.serve, pressed
        agent.supervisor.borrow = borrow
        try:
            with Console("agent.selftest"), Console("agent.rescue"):
                run(self.port, self.root)
        finally:
            Agent.serve = before
            agent.supervisor.borrow = lend
        self.assertEqual(lending, [])
        self.assertEqual(self.port.calls.count("release"), 2)
        self.assertIn("watch", self.port.calls)
        # MicroPython's asyncio would hold the task, and with it the agent.
        self.assertTrue(getattr(getattr(asyncio, "core", None), "cur_task", None) is None)


def evidence_online(board):
    """Let the board's next cycle find the internet."""
    measure = agent.agent.measure

    async def measured(*arguments):
        evidence = await measure(*arguments)
        evidence.reasons[INTERNET - 1] = 1
        agent.agent.measure = measure
        return evidence

    agent.agent.measure = measured


class FaultTest(unittest.TestCase):
    def test_text_is_short_printable_and_without_secrets(self):
        with Console("agent.fault"):
            faults = Faults(("secret", ""))
            try:
                raise ValueError("a secret \x1b[31m" + "x" * 500)
            except ValueError as error:
                faults.note(error)
        text = faults.take()
        self.assertLessEqual(len(text), 120)
        self.assertIn("ValueError", text)
        self.assertIn("test_supervisor.py:", text)
        self.assertIn("a *** ?[31m", text)

    def test_what_was_put_off_is_counted_at_once_and_told_later(self):
        with Console("agent.fault") as console:
            faults = Faults()
            faults.put_off(ValueError("odd"))
            self.assertEqual((faults.count, faults.take(), console.lines), (1, "", []))
            faults.tell()
            faults.tell()
        self.assertIn("odd", faults.take())
        self.assertEqual(len(console.lines), 1)

    def test_without_memory_for_its_trace_an_exception_leaves_its_kind(self):
        def refuse(name):
            raise MemoryError

        root = folder()
        path = root + "/fault.txt"
        faults = Faults((), path)
        before, agent.fault.borrow = agent.fault.borrow, refuse
        try:
            with Console("agent.fault"):
                faults.note(ValueError("odd"))
            self.assertEqual(faults.take(), "MemoryError")
            faults.keep(ValueError("odd"))
        finally:
            agent.fault.borrow = before
        self.assertEqual(Faults((), path).take(), "died: ValueError")
        remove(root)

    def test_the_count_does_not_overflow(self):
        with Console("agent.fault"):
            faults = Faults()
            faults.count = 0xFFFE
            faults.note(ValueError())
        self.assertEqual(faults.count, 0xFFFE)
        self.assertEqual(len(Seal(REPORT_KEY).tag()), 16)
