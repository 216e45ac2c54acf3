"""Bring the spool's reports to the collector over mutual TLS, and delete what it acknowledged.

/identity/ca.der, board.der, board.key.der   who we trust and who we are
netzpuls/v1/<board>/report, ack, status      where we talk; the will is "offline"
"""

import asyncio
import gc
import os

import linkreport.ack as wire
from micropython import const

from .deadline import TimeoutError, sleep_ms, within_ms  # noqa: A004 - see there
from .loan import borrow, give_back, use
from .mqtt import MqttError

_MAX_MESSAGE_BYTES = const(640)  # more in one piece a heap that is used for days may not have
_AHEAD = const(256)  # reports that may be sent before the collector says a word
_PING_AFTER_MS = 20000
_RESEND_MS = 5000
_RESEND_MOST_MS = const(300000)
_BACKOFF_MS = 1000
_BACKOFF_MOST_MS = const(30000)
_LINK_POLL_MS = const(200)


class Uplink:
    """The way of the reports.

    Args:
        identity: folder with the certificates.
        seal: checks the collector's acknowledgements.
        heard: called with an acknowledgement's time that cannot be an old one's; returns how far
            the collector's clock is ahead, in seconds, 0 if that cannot be told.

    Attributes:
        fresh: an event, set when a report was put into the spool.
        acked_at_ms: when the collector was last heard of in this boot, 0 for never.
        trouble: why the last connection ended, of term.TROUBLES, 0 after an acknowledgement.
        open_ms: when the oldest report went out that nobody has acknowledged, None for none.
        is_taken: the broker has that one.
        ahead_s: how far the collector's clock is ahead.
    """

    def __init__(self, port, config, *, link, spool, seal, faults, identity, heard):
        self.port = port
        self.config = config
        self.link = link
        self.spool = spool
        self._seal = seal
        self._faults = faults
        self._identity = identity
        self._heard = heard
        self._topic = "netzpuls/v1/%s/" % config.board
        self._context = None
        self._sent_seq = spool.last_seq  # an earlier boot may have sent all that was found
        self._cursor = spool.oldest_seq
        self._resend_ms = _RESEND_MS
        self._resend_at_ms = 0
        self._failures = 0
        self.acked_at_ms = 0
        self.trouble = 0
        self.open_ms = None
        self.is_taken = False
        self.ahead_s = 0
        self.fresh = asyncio.Event()

    async def run(self):
        """Keep the reports flowing; returns never."""
        if self._context is None:  # early, while the heap still has large pieces
            self._context = use("agent.hello", "trust", self._identity)
        while True:
            while not self.link.online and not self.port.lan_address():
                await sleep_ms(_LINK_POLL_MS)
            await self.link.quiet.wait()
            try:
                await self._connection()
            except (OSError, EOFError, MqttError, TimeoutError, ValueError) as error:
                # A broker out of reach is no fault of ours; the console may know all the same.
                self.trouble, text = use("agent.trouble", "told", error)
                print("netzpuls: uplink:", text)
            self._failures += 1
            most_ms = min(_BACKOFF_MOST_MS, _BACKOFF_MS << min(self._failures - 1, 10))
            await sleep_ms(most_ms // 2 + most_ms * os.urandom(1)[0] // 512)

    async def _connection(self):
        """Connect and serve until the connection breaks."""
        gc.collect()  # TLS wants large pieces
        try:
            session, ends = await borrow("agent.hello").connect(
                self, self._context, self._topic, self._message
            )
        finally:
            give_back("agent.hello", "agent.connection")
        try:
            self._failures = 0
            await self._serve(session)
        finally:
            for end in ends:
                end()

    async def _serve(self, session):
        spool = self.spool
        self._rewind()
        while True:
            session.check()
            self.fresh.clear()
            await self.link.quiet.wait()
            self._faults.tell()
            left_ms = self._resend_at_ms - self.port.uptime_ms()
            ahead = self._cursor - spool.oldest_seq
            if ahead > 0 and left_ms <= 0:
                # The collector is behind: tell it where we stand, then start over with the oldest.
                # Only the newest report says what the board no longer holds; without it a collector
                # that waits for a lost one would wait for ever.
                if spool.waiting > 1:
                    await self._send(session, spool.last_seq)
                self._resend_ms = min(self._resend_ms * 2, _RESEND_MOST_MS)
                self._rewind()
            elif ahead >= _AHEAD or not await self._send(session, self._cursor):
                # Wait for a new report or an acknowledgement, and see now and then who is there.
                ahead = self._cursor > spool.oldest_seq
                left_ms = self._resend_at_ms - self.port.uptime_ms()
                wait_ms = max(1, min(_PING_AFTER_MS, left_ms)) if ahead else _PING_AFTER_MS
                try:
                    await within_ms(self.fresh.wait(), wait_ms)
                except TimeoutError:
                    await session.ping()

    async def _send(self, session, seq):
        """Publish what fits into a message from a report on; return whether there was any."""
        message, cursor = self.spool.batch(seq, _MAX_MESSAGE_BYTES)
        is_any = bool(message)
        if is_any:
            now_ms = self.port.uptime_ms()
            if self._cursor == self.spool.oldest_seq:
                self._resend_at_ms = now_ms + self._resend_ms
            # Before the PUBACK: the collector's acknowledgement may be the faster one.
            self._sent_seq = max(self._sent_seq, cursor - 1)
            if self.open_ms is None:
                self.open_ms = now_ms
                self.is_taken = False
            publishing = session.publish(self._topic + "report", message)
            message = None  # what is sent is not held while the PUBACK is awaited
            await publishing
            self.is_taken = True
        self._cursor = max(self._cursor, cursor)
        return is_any

    def _rewind(self):
        self._cursor = self.spool.oldest_seq
        self._resend_at_ms = self.port.uptime_ms() + self._resend_ms

    def block(self):
        """Return the content of the uplink block, none if all is well and always was."""
        return use("agent.trouble", "block", self)

    def _message(self, topic, payload):
        """Take a message from the broker, whoever may have sent it."""
        if topic != (self._topic + "ack").encode():
            return
        try:
            key_id, seq, time_s = wire.unpack(payload, self._seal)
        except wire.AckError as error:
            self._faults.put_off(error)
            return
        if key_id != self.config.key_id or seq > self._sent_seq:
            self._faults.put_off(wire.AckError("an acknowledgement of what was never sent"))
            return
        self.acked_at_ms = self.port.uptime_ms()
        self.open_ms = None
        self.trouble = 0
        if seq < self.spool.oldest_seq:
            return
        self.spool.acknowledge(seq)
        self._cursor = max(self._cursor, self.spool.oldest_seq)
        self._resend_ms = _RESEND_MS
        self._resend_at_ms = self.port.uptime_ms() + self._resend_ms
        if seq >= self.spool.first_seq_of_boot:  # no recording of an older one can be that
            self.ahead_s = self._heard(time_s)
        self.fresh.set()
