import asyncio
import unittest

from agent.hello import hello
from agent.mqtt import (
    KEPT_BYTES,
    MAX_PACKET_BYTES,
    MqttError,
    Session,
    packet,
    parse_publish,
    read_packet,
)

# What a board says first, and what a broker answers: CONNACK, SUBACK, PUBACK.
HELLO = (
    b"\x10\x23\x00\x04MQTT\x04\x2e\x00\x3c\x00\x04np-1\x00\x08a/status\x00\x07offline"
    b"\x82\x0a\x00\x01\x00\x05a/ack\x00"
    b"\x33\x12\x00\x08a/status\x00\x02online"
)
WELCOME = (b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\x40\x02\x00\x02")


class FakeSocket:
    """A socket on which a broker answers each packet with the next of a test's answers.

    Args:
        incoming: what is there at first; None for a connection that has ended.
        most_bytes: so many go through at once, and before a longer piece it is busy once.
    """

    def __init__(self, incoming=b"", answers=(), most_bytes=2048):
        self.incoming = incoming
        self.answers = list(answers)
        self.most_bytes = most_bytes
        self.is_busy = False
        self.written = b""

    def read(self, size):
        if self.incoming is None:
            return b""
        size = min(size, self.most_bytes)
        piece, self.incoming = self.incoming[:size], self.incoming[size:]
        return piece or None

    def write(self, content):
        self.is_busy = not self.is_busy and self.most_bytes < len(content)
        if self.is_busy:
            return None
        piece = content[: self.most_bytes]
        self.written += piece
        if len(piece) == len(content) and self.answers:
            self.incoming += self.answers.pop(0)
        return len(piece)


def read(raw):
    return asyncio.run(read_packet(FakeSocket(raw)))


class PacketTest(unittest.TestCase):
    def test_lengths(self):
        for size, head in (
            (0, b"\x30\x00"),
            (127, b"\x30\x7f"),
            (128, b"\x30\x80\x01"),
            (16383, b"\x30\xff\x7f"),
            (16384, b"\x30\x80\x80\x01"),
        ):
            self.assertEqual(packet(0x30, bytes(size))[: len(head)], head)
        self.assertEqual(read(packet(0x30, bytes(200))), (0x30, bytes(200)))

    def test_of_a_long_packet_only_the_beginning_is_kept(self):
        for size in (KEPT_BYTES - 1, KEPT_BYTES, KEPT_BYTES + 1, MAX_PACKET_BYTES):
            body = bytes(KEPT_BYTES - 1) + b"\x01" + bytes(MAX_PACKET_BYTES)
            stream = FakeSocket(packet(0x30, body[:size]) + packet(0xD0, b"next"))
            self.assertEqual(asyncio.run(read_packet(stream)), (0x30, body[:size][:KEPT_BYTES]))
            self.assertEqual(asyncio.run(read_packet(stream)), (0xD0, b"next"))

    def test_hostile_lengths(self):
        for raw in (b"\x30\xff\xff\xff\xff\x01", b"\x30\x81\x08", b"\x30\xff\xff\xff\x7f"):
            with self.assertRaises(MqttError):
                read(raw)
        with self.assertRaises(MqttError):
            read(packet(0x30, bytes(MAX_PACKET_BYTES + 1)))

    def test_incoming_publish(self):
        self.assertEqual(parse_publish(0x30, b"\x00\x03a/bxy"), (b"a/b", b"xy"))
        self.assertEqual(parse_publish(0x31, b"\x00\x00"), (b"", b""))
        for kind, body in (
            (0x32, b"\x00\x03a/b\x00\x01xy"),
            (0x34, b"\x00\x03a/b"),
            (0x30, b""),
            (0x30, b"\x00"),
            (0x30, b"\x00\x04a/b"),
            (0x30, b"\xff\xffa"),
        ):
            with self.assertRaises(MqttError):
                parse_publish(kind, body)


class SessionTest(unittest.TestCase):
    def talk(self, act=None, *answers, incoming=b"", most_bytes=2048):
        """Say hello to a broker that gives these answers, then `act`; return what was written."""
        sock = FakeSocket(incoming, answers, most_bytes)
        self.messages = []
        self.ended = asyncio.Event()

        async def run():
            session = Session(sock, lambda *message: self.messages.append(message), self.ended)
            task = asyncio.create_task(session.receive())
            try:
                await hello(session, "np-1", "a/")
                if act:
                    await act(session)
            finally:
                task.cancel()

        asyncio.run(run())
        return sock.written

    def refused(self, *answers, act=None):
        with self.assertRaises(MqttError) as caught:
            self.talk(act, *answers)
        return str(caught.exception)

    def test_says_hello(self):
        for most_bytes in (10, 2048):
            self.assertEqual(self.talk(None, *WELCOME, most_bytes=most_bytes), HELLO)
        self.assertFalse(self.ended.is_set())

    def test_refusals_are_told(self):
        self.assertIn("not authorised", self.refused(b"\x20\x02\x00\x05"))
        self.assertIn("code 200", self.refused(b"\x20\x02\x00\xc8"))
        self.assertIn("malformed", self.refused(b"\x20\x00"))

    def test_an_unexpected_packet_breaks_the_session(self):
        for raw in (b"\x90\x03\x00\x01\x00", b"\x00\x00", b"\xf0\x00", b"\xc0\x00"):
            self.assertIn("unexpected", self.refused(raw))
            self.assertTrue(self.ended.is_set())

    def test_an_end_of_the_stream_is_raised_to_who_waits(self):
        with self.assertRaises(EOFError):
            self.talk(incoming=None)
        self.assertTrue(self.ended.is_set())

    def test_silence_is_an_error(self):
        import agent.mqtt

        before, agent.mqtt.ANSWER_MS = agent.mqtt.ANSWER_MS, 50
        try:
            self.assertIn("no answer", self.refused(b""))
        finally:
            agent.mqtt.ANSWER_MS = before

    def test_publishes_and_awaits_the_acknowledgement(self):
        async def act(session):
            await session.publish("a/report", bytes(200))
            await session.ping()

        for most_bytes in (50, 2048):
            answers = WELCOME + (b"\x40\x02\x00\x03", b"\xd0\x00")
            written = self.talk(act, *answers, most_bytes=most_bytes)
            packets = b"\x32\xd4\x01\x00\x08a/report\x00\x03" + bytes(200) + b"\xc0\x00"
            self.assertEqual(written, HELLO + packets)

    def test_a_wrong_packet_id_is_an_error(self):
        async def act(session):
            await session.publish("a/report", b"x")

        for answer in (b"\x40\x02\x00\x09", b"\x40\x01\x00", b"\x40\x00"):
            self.assertIn("another packet", self.refused(*WELCOME + (answer,), act=act))

    def test_a_refused_subscription_is_an_error(self):
        answer = b"\x90\x03\x00\x01\x80"
        self.assertIn("refused the subscription", self.refused(WELCOME[0], answer))

    def test_messages_arrive(self):
        async def act(session):
            await asyncio.sleep(0.05)

        self.talk(act, WELCOME[0] + b"\x30\x07\x00\x03a/bxy", *WELCOME[1:])
        self.assertEqual(self.messages, [(b"a/b", b"xy")])

    def test_a_flood_of_messages_lets_others_have_their_turn(self):
        async def act(session):
            self.assertTrue(len(self.messages) < 100)

        self.talk(act, *WELCOME[:2] + (WELCOME[2] + b"\x30\x07\x00\x03a/bxy" * 100,))

    def test_late_answers_do_no_harm(self):
        async def act(session):
            await asyncio.sleep(0.05)
            session.check()

        self.talk(act, *WELCOME[:2] + (WELCOME[2] + b"\x40\x02\x00\x05\xd0\x00",))
