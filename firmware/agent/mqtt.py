"""The part of MQTT 3.1.1 that a board needs: out with QoS 1, one message in flight; in with QoS 0.

QoS 0 is enough for acknowledgements: they are cumulative, and a resent report brings another.

Source: OASIS MQTT Version 3.1.1, chapters 2 and 3.
"""

import asyncio

from micropython import const

from .deadline import TimeoutError, sleep_ms, within_ms  # noqa: A004 - see there

_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_PINGREQ = const(0xC0)
_PINGRESP = const(0xD0)

_POLL_MS = const(20)
MAX_PACKET_BYTES = const(1024)
KEPT_BYTES = const(256)  # an acknowledgement is shorter, and a heap in use has no long pieces
ANSWER_MS = 10000


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
    return len(raw).to_bytes(2, "big") + raw


def parse_publish(kind, body):
    """Read PUBLISH.

    Returns: (topic, payload).
    Raises:  MqttError: it is malformed, or not the QoS 0 that was asked for.
    """
    if not kind & 0x06 and len(body) >= 2:
        end = 2 + (body[0] << 8 | body[1])
        if end <= len(body):
            return body[2:end], body[end:]
    raise MqttError("malformed PUBLISH")


async def read_packet(sock):
    """Read one packet.

    Returns: (first byte, body; of one that is long its beginning).
    Raises:  MqttError, EOFError: a length that is malformed or more than we take; the end.
    """
    kind = (await _read(sock, 1))[0]
    size = shift = 0
    digit = 0x80
    while digit & 0x80:
        if shift > 21:
            raise MqttError("malformed length")
        digit = (await _read(sock, 1))[0]
        size |= (digit & 0x7F) << shift
        shift += 7
    if size > MAX_PACKET_BYTES:
        raise MqttError("a packet of %d bytes is too long" % size)
    body = await _read(sock, min(size, KEPT_BYTES))
    while size > KEPT_BYTES:
        size -= KEPT_BYTES
        await _read(sock, min(size, KEPT_BYTES))
    return kind, body


async def _read(sock, size):
    content = b""
    while len(content) < size:
        more = sock.read(size - len(content))
        if more == b"":
            raise EOFError
        content += more or b""
        await sleep_ms(0 if more else _POLL_MS)  # whatever comes, others have their turn
    return content


class Session:
    """One connection to a broker. `receive` must run beside everything else.

    Args:
        sock: reads and writes without blocking, as MicroPython's sockets do. It is polled: the
            streams of asyncio, which would wait for it, take more than a kilobyte of heap.
        on_message: called with (topic, payload) for each message.
        ended: an event, set when the connection has failed.
    """

    def __init__(self, sock, on_message, ended):
        self._sock = sock
        self._on_message = on_message
        self._ended = ended
        self._answer = asyncio.Event()
        self._awaited = None
        self._body = b""
        self._error = None
        self._packet_id = 0

    async def receive(self):
        """Take packets until the connection fails; `check` then raises why."""
        try:
            while True:
                kind, body = await read_packet(self._sock)
                if kind & 0xF0 == _PUBLISH:
                    self._on_message(*parse_publish(kind, body))
                elif kind == self._awaited:
                    self._body = body
                    self._awaited = None
                    self._answer.set()
                elif kind not in (_PUBACK, _PINGRESP):  # late answers do no harm
                    raise MqttError("unexpected packet 0x%02x" % kind)  # noqa: TRY301 - for `check`
        except Exception as error:
            self._error = error
            self._answer.set()
            self._ended.set()

    def check(self):
        """Raise what broke the connection, if it is broken."""
        if self._error:
            raise self._error

    async def ask(self, request, awaited, packet_id=b""):
        """Send a packet and return its answer's body, which begins with the packet's id.

        One task may ask at a time.

        Raises: MqttError, OSError: the connection broke; the broker may have it or not.
        """
        self.check()
        self._answer.clear()
        self._awaited = awaited
        answered = self._answered(request)
        request = None  # once it is sent nobody holds it
        try:
            await within_ms(answered, ANSWER_MS)
        except TimeoutError:
            error = MqttError("no answer from the broker")
            error.is_silence = True
            raise error
        self.check()
        if not self._body.startswith(packet_id):
            raise MqttError("an answer to another packet")
        return self._body

    async def _answered(self, request):
        while request:
            size = self._sock.write(request)
            if size:
                request = request[size:]
            else:
                await sleep_ms(_POLL_MS)
        await self._answer.wait()

    def next_id(self):
        """Return the id of the next packet."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id.to_bytes(2, "big")

    async def publish(self, topic, payload, retain=False):
        """Publish with QoS 1 and await the PUBACK.

        Raises: see `ask`.
        """
        packet_id = self.next_id()
        kind = _PUBLISH | 0x02 | (1 if retain else 0)
        asking = self.ask(packet(kind, text(topic), packet_id, payload), _PUBACK, packet_id)
        payload = None  # see `ask`
        await asking

    async def ping(self):
        """See whether the broker is alive.

        Raises: see `ask`.
        """
        await self.ask(packet(_PINGREQ), _PINGRESP)
