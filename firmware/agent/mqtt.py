"""The part of MQTT 3.1.1 that a board needs: out with QoS 1, one message in flight; in with QoS 0.

QoS 0 is enough for acknowledgements: they are cumulative, and a resent report brings another.

Source: OASIS MQTT Version 3.1.1, chapters 2 and 3.
"""

import asyncio
import struct

from .deadline import TimeoutError, within_ms  # noqa: A004 - see there

CONNECT = 0x10
CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
SUBSCRIBE = 0x82
SUBACK = 0x90
PINGREQ = 0xC0
PINGRESP = 0xD0

MAX_PACKET_BYTES = 1024
ANSWER_MS = 10000
_REFUSALS = (
    "",
    "protocol version",
    "client id",
    "server unavailable",
    "user name or password",
    "not authorised",
)


class MqttError(Exception):
    """The broker broke MQTT, refused us (`is_refusal`), or fell silent (`is_silence`)."""

    is_refusal = False
    is_silence = False


def packet(kind, *parts):
    """Put a packet together from its parts."""
    size = sum(len(part) for part in parts)
    head = bytearray((kind,))
    while True:
        head.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
        if not size:
            return b"".join((head,) + parts)


def text(value):
    """Pack a string or bytes with its length before it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def connect(client_id, keepalive_s, will_topic, will_payload):
    """Pack CONNECT: clean session, retained will with QoS 1."""
    head = text("MQTT") + struct.pack(">BBH", 4, 0x02 | 0x04 | 0x08 | 0x20, keepalive_s)
    return packet(CONNECT, head, text(client_id), text(will_topic), text(will_payload))


def publish(topic, payload, packet_id, retain):
    """Pack PUBLISH with QoS 1."""
    head = text(topic) + struct.pack(">H", packet_id)
    return packet(PUBLISH | 0x02 | (1 if retain else 0), head, payload)


def subscribe(topic, packet_id):
    """Pack SUBSCRIBE with QoS 0."""
    return packet(SUBSCRIBE, struct.pack(">H", packet_id), text(topic), b"\x00")


def parse_publish(kind, body):
    """Read PUBLISH.

    Returns: (topic, payload).
    Raises:  MqttError: it is malformed, or not the QoS 0 that was asked for.
    """
    if kind & 0x06 or len(body) < 2:
        raise MqttError("malformed PUBLISH")
    end = 2 + struct.unpack(">H", body[:2])[0]
    if end > len(body):
        raise MqttError("malformed PUBLISH")
    return bytes(body[2:end]), bytes(body[end:])


async def read_packet(stream):
    """Read one packet.

    Returns: (first byte, body).
    Raises:  MqttError: a length that is malformed or more than we take.
    """
    kind = (await stream.readexactly(1))[0]
    size = 0
    for shift in (0, 7, 14, 21):
        digit = (await stream.readexactly(1))[0]
        size |= (digit & 0x7F) << shift
        if digit < 0x80:
            break
    else:
        raise MqttError("malformed length")
    if size > MAX_PACKET_BYTES:
        raise MqttError("a packet of %d bytes is too long" % size)
    return kind, await stream.readexactly(size) if size else b""


class Session:
    """One connection to a broker. `receive` must run beside everything else.

    Args:
        stream: reads and writes, as an asyncio stream of MicroPython does.
        on_message: called with (topic, payload) for each message.
    """

    def __init__(self, stream, on_message):
        self._stream = stream
        self._on_message = on_message
        self._answer = asyncio.Event()
        self._awaited = None
        self._answer_body = b""
        self._error = None
        self._packet_id = 0

    async def receive(self):
        """Take packets until the connection fails; `check` then raises why."""
        try:
            while True:
                self._take(*await read_packet(self._stream))
        except Exception as error:
            self._error = error
            self._answer.set()

    def _take(self, kind, body):
        if kind & 0xF0 == PUBLISH:
            self._on_message(*parse_publish(kind, body))
        elif kind == self._awaited:
            self._answer_body = body
            self._awaited = None
            self._answer.set()
        elif kind not in (PUBACK, PINGRESP):  # late answers do no harm
            raise MqttError("unexpected packet 0x%02x" % kind)

    def check(self):
        """Raise what broke the connection, if it is broken."""
        if self._error:
            raise self._error

    async def _ask(self, request, awaited):
        """Send a packet and await its answer; one task may do so at a time."""
        self.check()
        self._answer.clear()
        self._awaited = awaited
        self._stream.write(request)
        try:
            await within_ms(self._answered(), ANSWER_MS)
        except TimeoutError:
            error = MqttError("no answer from the broker")
            error.is_silence = True
            raise error
        self.check()
        return self._answer_body

    async def _answered(self):
        await self._stream.drain()
        await self._answer.wait()

    async def _ask_with_id(self, request, packet_id, awaited):
        body = await self._ask(request, awaited)
        if body[:2] != struct.pack(">H", packet_id):
            raise MqttError("an answer to another packet")
        return body

    def _next_id(self):
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id

    async def connect(self, client_id, keepalive_s, will_topic, will_payload):
        """Begin the session.

        Raises: MqttError: the broker refused.
        """
        body = await self._ask(connect(client_id, keepalive_s, will_topic, will_payload), CONNACK)
        if len(body) != 2 or body[1]:
            code = body[1] if len(body) == 2 else 0
            known = _REFUSALS[code] if code < len(_REFUSALS) else "code %d" % code
            error = MqttError("the broker refused us: %s" % (known or "malformed CONNACK"))
            error.is_refusal = True
            raise error

    async def subscribe(self, topic):
        """Subscribe with QoS 0.

        Raises: MqttError: the broker refused.
        """
        packet_id = self._next_id()
        body = await self._ask_with_id(subscribe(topic, packet_id), packet_id, SUBACK)
        if body[2:] != b"\x00":
            raise MqttError("the broker refused the subscription")

    async def publish(self, topic, payload, retain=False):
        """Publish with QoS 1 and await the PUBACK.

        Raises: MqttError, OSError: the connection broke; the broker may have it or not.
        """
        packet_id = self._next_id()
        request = publish(topic, payload, packet_id, retain)
        await self._ask_with_id(request, packet_id, PUBACK)

    async def ping(self):
        """See whether the broker is alive.

        Raises: MqttError, OSError: it is not.
        """
        await self._ask(packet(PINGREQ), PINGRESP)
