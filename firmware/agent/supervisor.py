"""Keeps the agent going: self-test, tasks, watchdog, safe mode, and the way out to the REPL.

    NETZPULS SELFTEST {…}   one line a boot
    NETZPULS REPORT {…}     one line a report

Over mpremote: `from agent.supervisor import drain; drain()` uploads what the spool holds.
"""

import asyncio
import json
import sys

import linkreport.report as wire
from linkreport.seal import Seal
from linkreport.table import LAYERS, STATES, reason_name
from port import load as load_port

from . import VERSION
from .clock import Clock, not_before_s
from .config import ConfigError
from .config import load as load_config
from .cycle import Schedule, measure, report
from .deadline import sleep_ms
from .fault import Faults
from .link import Link
from .probes import addressing, association, radio
from .spool import Files, Spool
from .uplink import Uplink

_FEED_MS = 1000
_STUCK_AFTER_MS = 120000
_SAFE_MODE_TELL_S = 60
_BACKOFF_MOST_MS = 60000
_RESET_CAUSES = ("unknown", "power-on", "hard", "watchdog", "deep-sleep", "soft")


class IdentityError(ValueError):
    """The files in /identity cannot be used."""


class Agent:
    """A board with a good configuration and identity.

    Args:
        root: where the files are; "" on a board.

    Raises:
        ConfigError, IdentityError: see there.
        OSError: the flash cannot be read.
    """

    def __init__(self, port, root="", boot=0):
        self.port = port
        self.boot = boot
        self.config = load_config(root + "/config.json")
        key, certificate = load_identity(root + "/identity")
        self.faults = Faults((self.config.wlan.key,))
        seal = Seal(key)
        self._seal = seal
        self.spool = Spool(Files(root + "/spool"), seal, self.config.key_id, port)
        self.clock = Clock(port, max(not_before_s(certificate), self.spool.last_time_s))
        self.link = Link(port)
        self.uplink = Uplink(
            port,
            self.config,
            link=self.link,
            spool=self.spool,
            seal=seal,
            faults=self.faults,
            identity=root + "/identity",
            heard=self.clock.hear_ack,
        )
        self._told_version = False
        self._alive_until_ms = 0

    async def serve(self):
        """Run all tasks for ever; feed the watchdog while measuring goes on."""
        self._lives()
        tasks = [
            asyncio.create_task(self._survive(self._measure)),
            asyncio.create_task(self._survive(self.uplink.run)),
        ]
        try:
            while True:
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
        self.spool.make_room()
        values = report(
            self.port,
            self.config,
            evidence,
            now=self.clock.now(),
            boot=self.boot,
            error_count=self.faults.count,
            spool=self.spool,
            extensions=self._extensions(),
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

    def _extensions(self):
        blocks = b""
        text = self.faults.take()
        if text:
            blocks += wire.extension(wire.EXTENSION_ERROR, text.encode())
        if not self._told_version:
            about = "%s %s" % (VERSION, sys.implementation.name)
            about += " " + ".".join(str(n) for n in sys.implementation.version[:3])
            blocks += wire.extension(wire.EXTENSION_AGENT, about.encode())
        return blocks


def load_identity(folder):
    """Read the report key and the board's certificate, and see that the rest is there.

    Returns: (report key, certificate as DER).
    Raises:  IdentityError: a file is missing or is not what it should be.
    """
    found = {}
    for name in ("ca.der", "board.der", "board.key.der", "report.key"):
        try:
            with open(folder + "/" + name, "rb") as file:
                found[name] = file.read()
        except OSError as error:
            raise IdentityError("%s/%s cannot be read: %s" % (folder, name, error))
        if name.endswith(".der") and found[name][:1] != b"\x30":
            raise IdentityError("%s/%s is not DER" % (folder, name))
    if len(found["report.key"]) != 32:
        raise IdentityError("%s/report.key must have 32 bytes" % folder)
    return found["report.key"], found["board.der"]


def selftest(port, boot, agent, problem):
    """Print the board's self-test, one line; `problem` is what keeps the agent from starting."""
    found, broken = 0, ""
    try:
        found = len(port.scan())
    except OSError as error:
        broken = "the radio does not work: %s" % error
    cause = port.reset_cause()
    about = problem_texts(problem)
    document = {
        "ok": agent is not None and not broken,
        "board": agent.config.board if agent else None,
        "agent": VERSION,
        "config": about[0],
        "identity": about[1],
        "flash_free_bytes": port.flash_free_bytes(),
        "heap_free_bytes": port.heap_free_bytes(),
        "radio": broken or found,
        "boot": boot,
        "reset_cause": _RESET_CAUSES[cause] if cause < len(_RESET_CAUSES) else "unknown",
    }
    print("NETZPULS SELFTEST", json.dumps(document))


def problem_texts(problem):
    """Return what the self-test says of configuration and identity."""
    if problem is None:
        return "ok", "ok"
    if isinstance(problem, ConfigError):
        return str(problem), "not checked"
    return "ok", str(problem)


def run(port=None, root=""):
    """Run the agent until Ctrl-C, which leaves to the REPL with the watchdog fed."""
    port = port or load_port()
    try:
        _run(port, root)
    except KeyboardInterrupt:
        _release(port)


def _run(port, root):
    boot, agent, problem = 0, None, None
    try:
        boot = port.boot()
        agent = Agent(port, root, boot)
    except Exception as error:  # whatever it is: no boot loop
        problem = error
    selftest(port, boot, agent, problem)
    if agent is None:
        _safe_mode(problem)
        return
    port.watch()
    asyncio.run(agent.serve())


def _safe_mode(problem):
    """Wait for a technician; without the watchdog, so the board does not restart in vain."""
    import time

    while True:
        print("netzpuls: safe mode:", problem)
        print("netzpuls: nothing is measured; press Ctrl-C for the REPL, mend it, restart")
        for _ in range(_SAFE_MODE_TELL_S):
            time.sleep(1)


def _release(port):
    """Leave the board to a technician; a second Ctrl-C must not get between."""
    released = False
    while not released:
        try:
            port.release()
            print("netzpuls: stopped; restarts by itself in 30 minutes, or now with Ctrl-D")
            released = True
        except KeyboardInterrupt:
            continue


def drain(timeout_s=60, port=None, root=""):
    """Upload what the spool holds, making no report; print one line of JSON."""
    agent = Agent(port or load_port(), root)
    if hasattr(asyncio, "new_event_loop"):
        asyncio.new_event_loop()  # forget the tasks that Ctrl-C stopped
    asyncio.run(_drain(agent, timeout_s * 1000))
    spool = agent.spool
    document = {"made": spool.last_seq, "spooled": spool.waiting, "lost": spool.lost}
    print(json.dumps(document))


async def _drain(agent, timeout_ms):
    task = asyncio.create_task(_upload(agent))
    until_ms = agent.port.uptime_ms() + timeout_ms
    while agent.spool.waiting and not task.done() and agent.port.uptime_ms() < until_ms:
        await sleep_ms(50)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    except Exception as error:
        agent.faults.note(error)


async def _upload(agent):
    probes = (("radio", radio), ("association", association), ("addressing", addressing))
    while not agent.link.online:
        await measure(agent.port, agent.config, agent.link, agent.faults, probes)
    await agent.uplink.run()
