import asyncio
import unittest

from agent.mqtt import (
    MAX_PACKET_BYTES,
    MqttError,
    Session,
    connect,
    packet,
    parse_publish,
    publish,
    read_packet,
    subscribe,
)

CONNACK_OK = b"\x20\x02\x00\x00"


class FakeStream:
    """A stream that gives what a test says and keeps what was written."""

    def __init__(self, incoming=b""):
        self.incoming = incoming
        self.ended = incoming is None
        self.written = b""

    async def readexactly(self, size):
        if self.ended:
            raise EOFError
        while len(self.incoming) < size:
            await asyncio.sleep(0.005)
        piece, self.incoming = self.incoming[:size], self.incoming[size:]
        return piece

    def write(self, content):
        self.written += content

    async def drain(self):
        await asyncio.sleep(0)


def read(raw):
    return asyncio.run(read_packet(FakeStream(raw)))


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
        self.assertEqual(read(packet(0x30, bytes(300))), (0x30, bytes(300)))

    def test_hostile_lengths(self):
        for raw in (b"\x30\xff\xff\xff\xff\x01", b"\x30\x81\x08", b"\x30\xff\xff\xff\x7f"):
            with self.assertRaises(MqttError):
                read(raw)
        self.assertEqual(len(read(packet(0x30, bytes(MAX_PACKET_BYTES)))[1]), MAX_PACKET_BYTES)

    def test_connect(self):
        self.assertEqual(
            connect("np-1", 60, "a/status", "offline"),
            b"\x10\x23\x00\x04MQTT\x04\x2e\x00\x3c\x00\x04np-1\x00\x08a/status\x00\x07offline",
        )

    def test_publish_and_subscribe(self):
        self.assertEqual(publish("a/b", b"xy", 7, False), b"\x32\x09\x00\x03a/b\x00\x07xy")
        self.assertEqual(publish("a/b", b"xy", 7, True)[0], 0x33)
        self.assertEqual(subscribe("a/b", 1), b"\x82\x08\x00\x01\x00\x03a/b\x00")

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
    def talk(self, incoming, act):
        """Let a session talk to a broker that says what it says; return the stream."""
        stream = FakeStream(incoming)
        self.messages = []

        async def run():
            session = Session(stream, lambda *message: self.messages.append(message))
            task = asyncio.create_task(session.receive())
            try:
                await act(session, stream)
            finally:
                task.cancel()

        asyncio.run(run())
        return stream

    def refused(self, incoming, act):
        with self.assertRaises(MqttError) as caught:
            self.talk(incoming, act)
        return str(caught.exception)

    async def _connect(self, session, stream):
        await session.connect("np-1", 60, "s", "offline")

    def test_connects(self):
        stream = self.talk(CONNACK_OK, self._connect)
        self.assertEqual(stream.written, connect("np-1", 60, "s", "offline"))

    def test_refusals_are_told(self):
        self.assertIn("not authorised", self.refused(b"\x20\x02\x00\x05", self._connect))
        self.assertIn("code 200", self.refused(b"\x20\x02\x00\xc8", self._connect))
        self.assertIn("malformed", self.refused(b"\x20\x00", self._connect))

    def test_an_unexpected_packet_breaks_the_session(self):
        for raw in (b"\x90\x03\x00\x01\x00", b"\x00\x00", b"\xf0\x00", b"\xc0\x00"):
            self.assertIn("unexpected", self.refused(raw, self._connect))

    def test_an_end_of_the_stream_is_raised_to_who_waits(self):
        with self.assertRaises(EOFError):
            self.talk(None, self._connect)

    def test_silence_is_an_error(self):
        import agent.mqtt

        before, agent.mqtt.ANSWER_MS = agent.mqtt.ANSWER_MS, 50
        try:
            self.assertIn("no answer", self.refused(b"", self._connect))
        finally:
            agent.mqtt.ANSWER_MS = before

    def test_publishes_and_awaits_the_acknowledgement(self):
        async def act(session, stream):
            await self._connect(session, stream)
            await session.subscribe("a/ack")
            await session.publish("a/report", b"x")
            await session.ping()

        answers = b"\x90\x03\x00\x01\x00" + b"\x40\x02\x00\x02" + b"\xd0\x00"
        stream = self.talk(CONNACK_OK, self._scripted(act, answers))
        self.assertIn(publish("a/report", b"x", 2, False), stream.written)

    def _scripted(self, act, answers):
        """Give one answer after each request, as a broker does."""

        async def run(session, stream):
            pieces = [answers[0:5], answers[5:9], answers[9:11]]
            write = stream.write

            def answering(content):
                write(content)
                if content[0] != 0x10:
                    stream.incoming += pieces.pop(0)

            stream.write = answering
            await act(session, stream)

        return run

    def test_a_wrong_packet_id_is_an_error(self):
        async def act(session, stream):
            await self._connect(session, stream)
            stream.write = lambda _: setattr(stream, "incoming", b"\x40\x02\x00\x09")
            await session.publish("a/report", b"x")

        self.assertIn("another packet", self.refused(CONNACK_OK, act))

    def test_a_refused_subscription_is_an_error(self):
        async def act(session, stream):
            await self._connect(session, stream)
            stream.write = lambda _: setattr(stream, "incoming", b"\x90\x03\x00\x01\x80")
            await session.subscribe("a/ack")

        self.assertIn("refused the subscription", self.refused(CONNACK_OK, act))

    def test_messages_arrive(self):
        async def act(session, stream):
            await self._connect(session, stream)
            await asyncio.sleep(0.05)

        self.talk(CONNACK_OK + b"\x30\x07\x00\x03a/bxy", act)
        self.assertEqual(self.messages, [(b"a/b", b"xy")])

    def test_late_answers_do_no_harm(self):
        async def act(session, stream):
            await self._connect(session, stream)
            await asyncio.sleep(0.05)
            session.check()

        self.talk(CONNACK_OK + b"\x40\x02\x00\x05\xd0\x00", act)
