"""What the desk asks of a board before it is enrolled: do sensors, WLAN, time and gateway work?

    from agent.bench import prove; prove('{"version": 1, …}', {"join": 45000, …}, 1790000000)
    NETZPULS BENCH {"step": "join", "ok": true, "ms": 2310, "rssi_dbm": -52, …}

The desk says it over the REPL, after the agent was stopped, and starts the board anew behind it.
Nothing stays on the board: the configuration is the bench's and is never written, the report goes
into no spool and uses no number of it, and its key is the bench's own (`linkreport.bench`).
"""

import asyncio
import json

from linkreport.table import ADDRESSING, ASSOCIATION, CLOCK_NTP, RADIO
from micropython import const

from .clock import Clock
from .cycle import PROBES, Evidence, measure
from .deadline import TimeoutError, emptied, within_ms  # noqa: A004 - see there
from .link import Link
from .loan import borrow, give_back, use

_JOIN = PROBES[:3]
_TRIES = const(2)
_AGAIN_MS = const(2000)


class _NotPassedError(Exception):
    """A step that was not passed; `told` is what the desk hears of it."""

    def __init__(self, told):
        super().__init__()
        self.told = told


class _Bench:
    """One board at the bench: what the agent's parts ask of an agent, a spool and an uplink."""

    def __init__(self, port, config, key, clock, seq):
        from linkreport.seal import Seal

        self.port = port
        self.config = config
        self.clock = clock
        self.seal = Seal(use("linkreport.bench", "key", key))
        self.link = Link(port)
        self.next_seq = self.oldest_seq = seq
        self.waiting = 0
        self.error = None
        self.fresh = asyncio.Event()
        self.acked = asyncio.Event()
        self.acked_s = 0
        self.evidence = Evidence(self.link, config.wlan)
        self.ends = ()
        self.is_taken = False
        self.said = ""
        self.topic = "netzpuls/v1/%s/" % config.board

    def note(self, error):
        """Take what the agent's parts say is wrong."""
        self.said = " ".join((self.said, str(error) or type(error).__name__)).strip()

    async def sensors(self):
        """Ask each sensor once."""
        state = []
        sensor = borrow("agent.sensor")
        await sensor.read(self.port, self.config, state, self)
        if state[sensor.FAILED]:
            raise _NotPassedError({"said": self.said})
        return {}

    async def join(self):
        """Find the bench's WLAN, join it, get a lease."""
        for _ in range(_TRIES):
            self.evidence = await measure(self.port, self.config, self.link, self, _JOIN)
            if self.evidence.works(ADDRESSING):
                told = ("rssi_dbm", "channel", "association_ms", "addressing_ms")
                return {name: self.evidence.measures.get(name) for name in told}
        for layer in (RADIO, ASSOCIATION, ADDRESSING):
            if not self.evidence.works(layer):
                break
        reason = self.evidence.reasons[layer - 1]
        raise _NotPassedError({"layer": layer, "reason": reason, "said": self.said})

    async def time(self):
        """Ask the time server."""
        await self.clock.ask_ntp(self.config.ntp, self.evidence.resolver)
        time_s, quality = self.clock.now()
        if quality != CLOCK_NTP:
            raise _NotPassedError({})
        return {"time_s": time_s}

    async def gateway(self):
        """Connect to the gateway's broker: TCP, TLS both ways, MQTT."""
        context = use("agent.hello", "trust", self.link.identity)
        try:
            self.session, self.ends = await borrow("agent.hello").connect(
                self, context, self.topic, self._message
            )
        finally:
            give_back("agent.hello", "agent.connection")
        return {}

    async def report(self):
        """Send one report until the collector acknowledges it."""
        raw = self._report()
        while not self.acked.is_set():
            self.session.check()
            await self.session.publish(self.topic + "report", raw)
            self.is_taken = True
            try:
                await within_ms(self.acked.wait(), _AGAIN_MS)
            except TimeoutError:
                continue
        return {"time_s": self.acked_s}

    def _report(self):
        from linkreport.report import NO_TAG, pack

        values = borrow("agent.statement").report(
            self.port,
            self.config,
            self.evidence,
            now=self.clock.now(),
            boot=0,
            heap_free_bytes=self.port.heap_free_bytes(),
            error_count=0,
            spool=self,
        )
        return pack(values, self.seal, NO_TAG)

    def _message(self, topic, payload):
        """Take a message from the broker, whoever may have sent it."""
        wire = borrow("linkreport.ack")
        try:
            key_id, seq, time_s = wire.unpack(payload, self.seal)
        except wire.AckError as error:
            self.note(error)
            return
        if key_id == self.config.key_id and seq == self.next_seq:
            self.acked_s = time_s
            self.acked.set()

    def close(self):
        """Leave gateway and WLAN."""
        for end in self.ends:
            end()
        self.link.drop()


def prove(config, most_ms, seq, root=""):
    """Go through the steps and print a line on each, until one is not passed.

    Args:
        config: text of a config.json that names the bench's WLAN and gateway.
        most_ms: how long each step may take; a step that is not named is left out.
        seq: number of the report; higher than any before.
        root: where the files are; "" on a board.
    """
    from port import load

    port = load()
    # A second Ctrl-C may have come before the agent had let go of watchdog and tasks.
    use("agent.rescue", "release", port)
    port.spare_heap()
    try:
        config = borrow("agent.config").parse(config)
        key, certificate = borrow("agent.setup").load_identity(root + "/identity")
        floor_s = borrow("agent.certificate").not_before_s(certificate)
    finally:
        give_back("agent.setup", "agent.config", "agent.certificate")
    port.wire(config)
    bench = _Bench(port, config, key, Clock(port, floor_s), seq)
    bench.link.identity = root + "/identity"
    bench.link.drop()  # whatever the agent was at
    try:
        asyncio.run(_steps(bench, most_ms))
    finally:
        # What is measured from now on at the desk is no school's: it gets no time. And these
        # starts are no failures.
        port.remember("clock_set", 0)
        port.remember("boots_failed", 0)


async def _steps(bench, most_ms):
    try:
        for name, step in (
            ("sensors", bench.sensors),
            ("join", bench.join),
            ("time", bench.time),
            ("gateway", bench.gateway),
            ("report", bench.report),
        ):
            if name in most_ms and not await _passes(bench, name, step, most_ms[name]):
                return
    finally:
        bench.close()


async def _passes(bench, name, step, most_ms):
    """Go through one step and print its line; return whether it was passed."""
    bench.said = ""
    told = {"step": name, "ok": False}
    start_ms = bench.port.uptime_ms()
    try:
        told.update(await within_ms(emptied([step()]), most_ms))
        told["ok"] = True
    except _NotPassedError as error:
        told.update(error.told)
    except TimeoutError:
        told["late"] = True
    except Exception as error:
        told["trouble"], told["said"] = use("agent.trouble", "told", error)
    told["ms"] = bench.port.uptime_ms() - start_ms
    if name == "report":
        told["taken"] = bench.is_taken
    print("NETZPULS BENCH", json.dumps(told))
    return told["ok"]
