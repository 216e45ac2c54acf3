"""The agent itself: measures, keeps and brings the reports, feeds the watchdog."""

import asyncio

from linkreport.block import SENSOR
from linkreport.seal import Seal
from linkreport.table import DEVICE, OK, SAFE_MODE
from micropython import const

from .clock import Clock
from .cycle import PROBES, Schedule, measure
from .deadline import sleep_ms
from .fault import Faults
from .link import Link
from .loan import borrow, give_back
from .spool import Spool
from .uplink import Uplink

_FEED_MS = 1000
_STUCK_AFTER_MS = const(120000)
_TO_REPORT = PROBES[:3]  # radio, association and addressing, which is all that a report needs
_BACKOFF_MOST_MS = const(60000)
_UNHURRIED_MS = const(15000)
# Safe mode lasts so long, and longer while the collector is silent.
_SAFE_MS = const(10 * 60 * 1000)
_SAFE_UNHEARD_MS = const(60 * 60 * 1000)


class Agent:
    """A board with a good configuration and identity.

    Args:
        key: the report key.
        floor_s: a moment that is past for sure, in Unix seconds.
        root: where the files are; "" on a board.
        boot: count of boots.
        safe: boots have failed: measure only what a report needs, and try in full later.
    """

    def __init__(self, port, config, *, key, floor_s, root, boot, safe=False):
        self.port = port
        self.boot = boot
        self.safe = safe
        self.config = config
        keys = [wlan.key for wlan in (config.wlan,) + config.watch]
        self.faults = Faults(keys, root + "/fault.txt")
        self.seal = Seal(key)
        self.spool = Spool(root + "/spool", self.seal, config.key_id, port)
        self.clock = Clock(port, floor_s, self.spool.last_time_s)
        self.link = Link(port)
        self.link.identity = root + "/identity"
        self.uplink = Uplink(
            port,
            config,
            link=self.link,
            spool=self.spool,
            seal=self.seal,
            faults=self.faults,
            identity=self.link.identity,
            heard=self.clock.hear_ack,
        )
        self.told_version = False
        self._sensors = []  # what agent.sensor keeps from one cycle to the next
        self._alive_until_ms = 0
        port.wire(config)
        if config.lan:
            try:
                port.lan_start(config.lan)
            except (OSError, ValueError) as error:  # the WLAN is a way, too
                self.faults.note(error)

    async def serve(self):
        """Run all tasks for ever; feed the watchdog while measuring goes on."""
        self._lives()
        runs = [self._measure, self.uplink.run]
        if self.config.led is not None:
            runs.append(self._shine)
        tasks = [asyncio.create_task(self._survive(run)) for run in runs]
        try:
            while True:
                for number, run in enumerate(runs):
                    if tasks[number].done():  # not even surviving was survived
                        tasks[number] = asyncio.create_task(self._survive(run))
                if self.port.uptime_ms() < self._alive_until_ms:
                    self.port.feed()
                await sleep_ms(_FEED_MS)
        finally:
            for task in tasks:
                task.cancel()

    async def _survive(self, task):
        """Run a task again and again, whatever it raises."""
        backoff_ms = _FEED_MS
        while True:
            start_ms = self.port.uptime_ms()
            try:
                await task()
            except Exception as error:
                self.faults.note(error)
                self.port.spare_heap()
            if self.port.uptime_ms() - start_ms > _BACKOFF_MOST_MS:
                backoff_ms = _FEED_MS
            await sleep_ms(backoff_ms)
            backoff_ms = min(backoff_ms * 2, _BACKOFF_MOST_MS)

    def _lives(self):
        config = self.config
        longest_ms = config.period_s * 1000 + config.deadline_ms["cycle"] + _STUCK_AFTER_MS
        self._alive_until_ms = self.port.uptime_ms() + longest_ms

    async def _measure(self):
        schedule = Schedule(self.config.period_s * 1000, self.port.uptime_ms())
        while True:
            await sleep_ms(schedule.wait_ms(self.port.uptime_ms()))
            await self.cycle()
            self._lives()
            self._settle()

    def _settle(self):
        """A cycle ended well: remember that, and leave safe mode when it is time.

        Its boot counts as failed until a cycle in full has ended well.
        """
        port = self.port
        if not self.safe:
            try:
                if port.recall("boots_failed"):
                    port.remember("boots_failed", 0)
            except OSError:  # a flash that is worn out; the spool says so
                return
        elif port.uptime_ms() >= (_SAFE_MS if self.uplink.acked_at_ms else _SAFE_UNHEARD_MS):
            self.safe = False

    async def cycle(self):
        """Measure once and put the report into the spool."""
        link = self.link
        link.waiting = self.spool.waiting
        link.quiet.clear()
        link.day = self.clock.now()[0] // 86400
        try:
            if self.config.watch and not self.safe:
                evidence = await self._watch()
            else:
                probes = _TO_REPORT if self.safe else PROBES
                evidence = await measure(self.port, self.config, link, self.faults, probes)
        finally:
            link.quiet.set()
        if self.safe and evidence.reasons[DEVICE - 1] == OK:
            evidence.reasons[DEVICE - 1] = SAFE_MODE
        if evidence.online():
            try:
                await self.clock.ask_ntp(self.config.ntp, evidence.resolver)
            except Exception as error:  # no time, no memory: neither costs the report
                self.faults.note(error)
        if self.config.sensors and not self.safe:
            await self._sense(evidence.measures)
        self._keep(evidence)

    def _keep(self, evidence):
        """Put the report of a cycle into the spool."""
        self.faults.tell()
        self.spool.make_room()
        heap_free_bytes = self.port.heap_free_bytes()
        try:
            raw, told = borrow("agent.statement").seal(self, evidence, heap_free_bytes)
        finally:
            give_back("agent.statement", "linkreport.body", "linkreport.verdict")
        self.spool.append(raw)
        self.told_version = True
        self.uplink.fresh.set()
        failure = None
        try:
            borrow("agent.console").show(*told)
        except MemoryError as error:  # the report is made, and a line may be missing
            failure = error
        finally:
            give_back("agent.console", "linkreport.term")
        if failure:
            self.faults.note(failure)

    async def _watch(self):
        """Measure all networks of a monitor."""
        try:
            module = borrow("agent.watch")
            return await module.watch(self.port, self.config, self.link, self.faults)
        finally:
            module = None  # this frame would hold it
            give_back("agent.watch", "linkreport.verdict")

    async def _sense(self, measures):
        """Add what the sensors measure; whatever goes wrong with them stops no report."""
        try:
            sensor = borrow("agent.sensor")
            measures[SENSOR] = await sensor.read(self.port, self.config, self._sensors, self.faults)
        except Exception as error:
            self.faults.put_off(error)
        finally:
            sensor = None  # this frame would hold it
            give_back("agent.sensor")

    async def _shine(self):
        from .led import run

        await run(self)

    async def drain(self):
        """Upload what the spool holds, without measuring more than that needs; returns never."""
        deadline_ms = self.config.deadline_ms
        for name in deadline_ms:  # no report is due: what is short for a period is none for this
            deadline_ms[name] = max(deadline_ms[name], _UNHURRIED_MS)
        while not self.link.online and not self.port.lan_address():
            await measure(self.port, self.config, self.link, self.faults, _TO_REPORT)
        await self.uplink.run()
