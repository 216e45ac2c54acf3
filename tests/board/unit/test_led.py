import asyncio
import json
import unittest

from agent.agent import Agent
from agent.config import parse
from agent.led import run, trouble
from place import configuration, folder, furnish, remove
from port.null import NullPort


class FakeLink:
    held = True

    def holds(self):
        return self.held


class FakeSpool:
    first_seq_of_boot = 8
    next_seq = 8
    oldest_seq = 8
    waiting = 0


class FakeAgent:
    safe = False

    def __init__(self):
        self.port = NullPort()
        self.link = FakeLink()
        self.spool = FakeSpool()


class LedTest(unittest.TestCase):
    def setUp(self):
        self.agent = FakeAgent()
        self.port, self.link, self.spool = self.agent.port, self.agent.link, self.agent.spool
        self.marks = []
        self.port.led = lambda on: self.marks.append((self.port.uptime_ms(), on))

    def watch(self, duration_ms, act=None, at_ms=0):
        """Let it shine for a while and something happen; return how long it was on, each time."""

        async def go():
            task = asyncio.create_task(run(self.agent))
            await asyncio.sleep(at_ms / 1000)
            if act:
                act()
            await asyncio.sleep((duration_ms - at_ms) / 1000)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return

        asyncio.run(go())
        marks = self.marks + [(self.port.uptime_ms(), 0)]
        return [end - start for (start, on), (end, _) in zip(marks, marks[1:]) if on]

    def test_flashes_after_the_self_test_and_is_on_until_the_first_report(self):
        durations = self.watch(1500)
        self.assertEqual(len(durations), 4)
        self.assertTrue(all(60 <= each < 250 for each in durations[:3]), durations)
        self.assertTrue(durations[3] > 800, durations)

    def test_is_dark_when_all_is_well(self):
        self.spool.next_seq = 9
        self.watch(1200)
        self.assertEqual(self.marks[-1][1], 0)
        self.assertEqual(len([1 for _, on in self.marks if on]), 4)

    def test_flashes_once_when_reports_are_acknowledged(self):
        self.spool.next_seq = 9

        def acknowledge():
            self.spool.oldest_seq = 9

        durations = self.watch(1800, acknowledge, 1200)
        self.assertEqual(len(durations), 5)
        self.assertTrue(60 <= durations[4] < 250, durations)

    def test_without_an_association_it_flashes_long(self):
        self.spool.next_seq = 9
        self.link.held = False
        durations = self.watch(3200)
        self.assertTrue(all(each > 350 for each in durations[4:6]), durations)
        self.assertTrue(5 <= len(durations) <= 6, durations)

    def test_what_is_wrong(self):
        self.assertEqual(trouble(self.agent), 0)
        self.spool.waiting = 1
        self.assertEqual(trouble(self.agent), 0)
        self.spool.waiting = 2
        self.assertEqual(trouble(self.agent), 2)
        self.link.held = False
        self.assertEqual(trouble(self.agent), 1)
        self.agent.safe = True
        self.assertEqual(trouble(self.agent), 3)


class ServeTest(unittest.TestCase):
    def serve(self, **changes):
        """Serve for a moment; return the port."""
        port = NullPort()
        port.networks = []
        root = folder()
        try:
            furnish(root, **changes)
            config = parse(json.dumps(configuration(period_s=1, **changes)).encode())
            agent = Agent(port, config, key=bytes(32), floor_s=0, root=root, boot=1)

            async def go():
                task = asyncio.create_task(agent.serve())
                await asyncio.sleep(0.7)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    return

            asyncio.run(go())
        finally:
            remove(root)
        return port

    def test_a_board_with_an_led_uses_it(self):
        self.assertIn(1, self.serve(led=2).leds)

    def test_a_board_without_does_not(self):
        self.assertEqual(self.serve().leds, [])
