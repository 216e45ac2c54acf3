"""Bring the spool's reports to the collector over mutual TLS, and delete what it acknowledged.

/identity/ca.der, board.der, board.key.der   who we trust and who we are
netzpuls/v1/<board>/report, ack, status      where we talk; the will is "offline"
"""

import asyncio
import errno
import gc
import os
import struct

import linkreport.ack as wire
from linkreport.block import UPLINK_FORMAT
from micropython import const

from .connection import connect
from .deadline import TimeoutError, sleep_ms, within_ms  # noqa: A004 - see there
from .mqtt import MqttError, Session

_MAX_MESSAGE_BYTES = const(2048)
_AHEAD = const(256)  # reports that may be sent before the collector says a word
_CONNECT_MS = const(10000)
_HELLO_MS = const(20000)
_KEEPALIVE_S = const(60)
_PING_AFTER_MS = 20000
_RESEND_MS = 5000
_RESEND_MOST_MS = const(300000)
_BACKOFF_MS = 1000
_BACKOFF_MOST_MS = const(30000)
_LINK_POLL_MS = const(200)
_TLS_FAILURES = {
    -0x2700: "the broker's certificate is not to be trusted",
    -0x7780: "the broker refused our certificate",
}
# What the uplink block says: the numbers of term.TROUBLES.
_SILENT = const(1)
_REFUSED = const(2)
_UNTRUSTED = const(3)
_OURS_REFUSED = const(4)
_FAILED = const(5)
_UNACKNOWLEDGED = const(6)
_CLOCK_WRONG = const(7)
_CLOCK_OFF_S = const(10)  # an acknowledgement may be on its way for a while
_NO_U32 = const(0xFFFFFFFF)


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
    """

    def __init__(self, port, config, *, link, spool, seal, faults, identity, heard):
        self._port = port
        self._config = config
        self._link = link
        self._spool = spool
        self._seal = seal
        self._faults = faults
        self._identity = identity
        self._heard = heard
        self._topic = "netzpuls/v1/%s/" % config.board
        self._ack_topic = (self._topic + "ack").encode()
        self._context = None
        self._sent_seq = spool.last_seq  # an earlier boot may have sent all that was found
        self._cursor = spool.oldest_seq
        self._resend_ms = _RESEND_MS
        self._resend_at_ms = 0
        self._failures = 0
        self.acked_at_ms = 0
        self._trouble = 0
        self._open_ms = None  # when the oldest went out that nobody has acknowledged
        self._is_taken = False  # the broker has it
        self._ahead_s = 0
        self.fresh = asyncio.Event()

    async def run(self):
        """Keep the reports flowing; returns never."""
        self._tls()  # early, while the heap still has large pieces
        while True:
            while not self._link.online and not self._port.lan_address():
                await sleep_ms(_LINK_POLL_MS)
            await self._link.quiet.wait()
            try:
                await self._connection()
            except (OSError, EOFError, MqttError, TimeoutError, ValueError) as error:
                # A broker out of reach is no fault of ours; the console may know all the same.
                print("netzpuls: uplink:", _told(error))
                self._trouble = _trouble(error)
            self._failures += 1
            most_ms = min(_BACKOFF_MOST_MS, _BACKOFF_MS << min(self._failures - 1, 10))
            await sleep_ms(most_ms // 2 + most_ms * os.urandom(1)[0] // 512)

    def _tls(self):
        if self._context is None:
            import tls

            context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
            context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]
            context.load_verify_locations(_read(self._identity + "/ca.der"))
            context.load_cert_chain(
                _read(self._identity + "/board.der"), _read(self._identity + "/board.key.der")
            )
            self._context = context
        return self._context

    async def _connection(self):
        """Connect and serve until the connection breaks."""
        gc.collect()  # TLS wants large pieces
        uplink = self._config.uplink
        port = self._port
        bind = port.bind_lan if port.lan_address() else None
        sock = raw = await connect(port, uplink.host, uplink.port, _CONNECT_MS, bind)
        try:
            # Without a name the certificate's would not be checked.
            sock = self._tls().wrap_socket(
                sock, server_hostname=uplink.server_name, do_handshake_on_connect=False
            )
            stream = asyncio.StreamReader(sock)
            session = Session(stream, self._message)
            receiver = asyncio.create_task(self._receive(session))
            try:
                await within_ms(self._hello(session), _HELLO_MS)
                self._failures = 0
                await self._serve(session)
            finally:
                receiver.cancel()
        finally:
            sock.close()
            raw.close()  # after a handshake that failed TLS no longer knows it

    async def _receive(self, session):
        await session.receive()
        self.fresh.set()  # it ends only when the connection does

    async def _hello(self, session):
        status = self._topic + "status"
        await session.connect(self._config.board, _KEEPALIVE_S, status, "offline")
        await session.subscribe(self._topic + "ack")
        await session.publish(status, b"online", retain=True)

    async def _serve(self, session):
        self._rewind()
        while True:
            session.check()
            self.fresh.clear()
            await self._link.quiet.wait()
            now_ms = self._port.uptime_ms()
            if self._cursor > self._spool.oldest_seq and now_ms >= self._resend_at_ms:
                await self._resend(session)
            elif not await self._send(session):
                await self._idle(session)

    async def _send(self, session):
        """Publish the next batch; return whether there was one."""
        if self._cursor - self._spool.oldest_seq >= _AHEAD:
            return False
        message, cursor = self._spool.batch(self._cursor, _MAX_MESSAGE_BYTES)
        if message:
            await self._publish(session, message, cursor)
        self._cursor = max(self._cursor, cursor)
        return bool(message)

    async def _resend(self, session):
        """The collector is behind: tell it where we stand, then start over with the oldest.

        Only the newest report says what the board no longer holds; without it a collector
        that waits for a lost one would wait for ever.
        """
        if self._spool.waiting > 1:
            message, cursor = self._spool.batch(self._spool.last_seq, _MAX_MESSAGE_BYTES)
            await self._publish(session, message, cursor)
        self._resend_ms = min(self._resend_ms * 2, _RESEND_MOST_MS)
        self._rewind()

    async def _publish(self, session, message, cursor):
        if self._cursor == self._spool.oldest_seq:
            self._resend_at_ms = self._port.uptime_ms() + self._resend_ms
        # Before the PUBACK: the collector's acknowledgement may be the faster one.
        self._sent_seq = max(self._sent_seq, cursor - 1)
        if self._open_ms is None:
            self._open_ms = self._port.uptime_ms()
            self._is_taken = False
        await session.publish(self._topic + "report", message)
        self._is_taken = True

    def _rewind(self):
        self._cursor = self._spool.oldest_seq
        self._resend_at_ms = self._port.uptime_ms() + self._resend_ms

    async def _idle(self, session):
        """Wait for a new report or an acknowledgement, and see now and then who is there."""
        wait_ms = _PING_AFTER_MS
        if self._cursor > self._spool.oldest_seq:
            wait_ms = max(1, min(wait_ms, self._resend_at_ms - self._port.uptime_ms()))
        try:
            await within_ms(self.fresh.wait(), wait_ms)
        except TimeoutError:
            await session.ping()

    def block(self):
        """Return the content of the uplink block, none if all is well and always was."""
        trouble = self._trouble
        silent_ms = self._port.uptime_ms() - self.acked_at_ms
        if not trouble and abs(self._ahead_s) > _CLOCK_OFF_S:
            trouble = _CLOCK_WRONG
        if not self._link.online and not self._port.lan_address():
            self._open_ms = None  # what is on its way now may be lost: sent again, it counts anew
        open_ms = 0 if self._open_ms is None else self._port.uptime_ms() - self._open_ms
        # Answers take a second or so; the report before this one went out a period ago.
        if not trouble and open_ms > 500 * self._config.period_s:
            trouble = _UNACKNOWLEDGED if self._is_taken else _SILENT
        if not trouble and not self._spool.lost:
            return b""
        silent_s = silent_ms // 1000 if self.acked_at_ms else _NO_U32
        lost = min(self._spool.lost, _NO_U32)
        return struct.pack(UPLINK_FORMAT, trouble, silent_s, lost, self._ahead_s)

    def _message(self, topic, payload):
        """Take a message from the broker, whoever may have sent it."""
        if topic != self._ack_topic:
            return
        try:
            key_id, seq, time_s = wire.unpack(payload, self._seal)
        except wire.AckError as error:
            self._faults.note(error)
            return
        if key_id != self._config.key_id or seq > self._sent_seq:
            self._faults.note(wire.AckError("an acknowledgement of what was never sent"))
            return
        self.acked_at_ms = self._port.uptime_ms()
        self._open_ms = None
        self._trouble = 0
        if seq < self._spool.oldest_seq:
            return
        self._spool.acknowledge(seq)
        self._cursor = max(self._cursor, self._spool.oldest_seq)
        self._resend_ms = _RESEND_MS
        self._resend_at_ms = self._port.uptime_ms() + self._resend_ms
        if seq >= self._spool.first_seq_of_boot:  # no recording of an older one can be that
            self._ahead_s = self._heard(time_s)
        self.fresh.set()


def _trouble(error):
    """Return the number of what happened."""
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, OSError):
        if error.errno in _TLS_FAILURES:
            return _UNTRUSTED if error.errno == -0x2700 else _OURS_REFUSED
        if error.errno == errno.ECONNREFUSED:
            return _REFUSED
        return _SILENT if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH) else _FAILED
    if isinstance(error, MqttError):
        return _REFUSED if error.is_refusal else _SILENT if error.is_silence else _FAILED
    return _FAILED


def _told(error):
    """Return what happened, in one line; mbedTLS knows only numbers."""
    if isinstance(error, OSError) and error.errno in _TLS_FAILURES:
        return _TLS_FAILURES[error.errno]
    return "%s %s" % (type(error).__name__, " ".join(str(error).split()))


def _read(path):
    with open(path, "rb") as file:
        return file.read()
