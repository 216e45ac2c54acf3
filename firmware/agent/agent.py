"""The agent itself: measures, keeps and brings the reports, feeds the watchdog."""

import asyncio
import json
import sys

import linkreport.report as wire
from linkreport.block import AGENT, ERROR, SENSOR
from linkreport.seal import Seal
from linkreport.term import LAYERS, STATES, reason_name
from micropython import const

from . import VERSION
from .clock import Clock, not_before_s
from .cycle import Schedule, measure, report
from .deadline import sleep_ms
from .fault import Faults
from .link import Link
from .loan import borrow, give_back
from .spool import Files, Spool
from .uplink import Uplink

_FEED_MS = 1000
_STUCK_AFTER_MS = const(120000)
_BACKOFF_MOST_MS = const(60000)


class Agent:
    """A board with a good configuration and identity.

    Args:
        key, certificate: the report key, and the board's certificate as DER.
        root: where the files are; "" on a board.
        boot: count of boots.

    Raises: OSError: the flash cannot be read.
    """

    def __init__(self, port, config, *, key, certificate, root, boot):
        self.port = port
        self.boot = boot
        self.config = config
        self.faults = Faults((config.wlan.key,))
        seal = Seal(key)
        self._seal = seal
        self.spool = Spool(Files(root + "/spool"), seal, config.key_id, port)
        self.clock = Clock(port, not_before_s(certificate), self.spool.last_time_s)
        self.link = Link(port)
        self.uplink = Uplink(
            port,
            config,
            link=self.link,
            spool=self.spool,
            seal=seal,
            faults=self.faults,
            identity=root + "/identity",
            heard=self.clock.hear_ack,
        )
        self._told_version = False
        self._sensors = []  # what agent.sensor keeps from one cycle to the next
        self._alive_until_ms = 0
        port.wire(config)

    async def serve(self):
        """Run all tasks for ever; feed the watchdog while measuring goes on."""
        self._lives()
        runs = (self._measure, self.uplink.run)
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

    async def cycle(self):
        """Measure once and put the report into the spool."""
        link = self.link
        link.quiet.clear()
        try:
            evidence = await measure(self.port, self.config, link, self.faults)
        finally:
            link.quiet.set()
        if evidence.online():
            self.clock.ask_ntp()
        if self.config.sensors:
            await self._sense(evidence.measures)
        self.spool.make_room()
        self._tell(evidence.measures)
        values = report(
            self.port,
            self.config,
            evidence,
            now=self.clock.now(),
            boot=self.boot,
            error_count=self.faults.count,
            spool=self.spool,
        )
        self.spool.append(wire.pack(values, self._seal, self.spool.tag))
        self._told_version = True
        self.uplink.fresh.set()
        line = {
            "seq": values.seq,
            "state": STATES[values.state],
            "layer": LAYERS[values.layer],
            "reason": reason_name(values.reason),
        }
        print("NETZPULS REPORT", json.dumps(line))

    async def _sense(self, measures):
        """Add what the sensors measure; whatever goes wrong with them stops no report."""
        try:
            sensor = borrow("agent.sensor")
            measures[SENSOR] = await sensor.read(self.port, self.config, self._sensors, self.faults)
        except Exception as error:
            self.faults.note(error)
        finally:
            give_back("agent.sensor")

    def _tell(self, measures):
        """Add what the agent itself has to say."""
        text = self.faults.take()
        if text:
            measures[ERROR] = text.encode()
        if not self._told_version:
            about = "%s %s" % (VERSION, sys.implementation.name)
            about += " " + ".".join(str(n) for n in sys.implementation.version[:3])
            measures[AGENT] = about.encode()

    async def drain(self):
        """Upload what the spool holds, without measuring more than that needs; returns never."""
        probes = ("radio", "association", "addressing")
        while not self.link.online:
            await measure(self.port, self.config, self.link, self.faults, probes)
        await self.uplink.run()
