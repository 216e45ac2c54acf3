"""Malformed input, and what must come of it on every interpreter: golden/hostile-v1.json.

One case a line, so that a small heap holds them: {"kind", "name", "hex", "comes"}; with "times"
the bytes are repeated, with "before" and "after" others stand around them, and with "or" this may
come, too. "refused" is the module's own error.
"""

import asyncio
import json
import sys
import unittest

_CORPUS = "/".join(__file__.split("/")[:-3]) + "/golden/hostile-v1.json"
_MARK = b"12345678"
_IDENTIFIER = 0x1234
_MAC = b"\x24\x0a\xc4\x12\x34\x56"
_REFUSALS = ("NotAnAnswerError", "MqttError", "ConfigError", "AckError")


class Stream:
    """What a broker sent before it closed."""

    def __init__(self, content):
        self.content = content

    def read(self, size):
        piece, self.content = self.content[:size], self.content[size:]
        return piece


def cases(kinds):
    """Yield the cases of some kinds."""
    with open(_CORPUS) as file:
        for line in file:
            if line[0] == "{":
                case = json.loads(line.rstrip().rstrip(","))
                if case["kind"] in kinds:
                    yield case


def seal():
    from linkreport.seal import Seal
    from place import REPORT_KEY

    return Seal(REPORT_KEY)


# One reader for each kind. It imports what it reads with, as a board does: not all at once.


def of_dhcp(raw):
    from agent.dhcp_message import parse

    found = parse(raw, _MAC)
    return [
        found.kind,
        found.address,
        found.server,
        found.lease_s,
        found.router,
        found.portal_api,
    ]


def of_dns(raw):
    from agent.dns import parse, query

    rcode, addresses = parse(raw, query(0xABCD, "probe.example.org"))
    return [rcode, list(addresses)]


def of_status(raw):
    from agent.http import status

    return status(raw)


def of_echo(raw):
    from agent.probes.gateway import answered

    return answered(raw, _IDENTIFIER)


def of_captive(raw):
    from agent.probes.portal import captive

    return captive(raw)


def of_uri(raw):
    from agent.probes.portal import split

    parts = split(raw.decode())
    return parts and list(parts)


def of_ntp(raw):
    from agent.ntp import parse

    return parse(raw, _MARK, 0)


def of_mqtt(raw):
    from agent.mqtt import read_packet

    try:
        kind, body = asyncio.run(read_packet(Stream(raw)))
    except EOFError:
        return "ended"
    return [kind, len(body)]


def of_publish(raw):
    from agent.mqtt import parse_publish

    topic, payload = parse_publish(raw[0], raw[1:])
    return [topic.hex(), payload.hex()]


def of_ack(raw):
    from linkreport.ack import unpack

    return list(unpack(raw, seal())[-3:])


def of_config(raw):
    from agent.config import parse

    parse(raw)
    return "taken"


def of_certificate(raw):
    from agent.certificate import not_after_s, not_before_s

    return [not_before_s(raw), not_after_s(raw)]


def of_words(raw):
    from agent.sensor import words

    try:
        return words(raw)
    except ValueError:
        return "refused"


def of_bme280(raw):
    from agent.sensor.bme280 import compensate

    return list(compensate(raw[:33], raw[33:]))


def of_segment(raw):
    """Return how many reports a spool finds on flash, and the number of the next."""
    from agent.spool import Spool
    from place import folder, remove, write
    from port.null import NullPort

    path = folder()
    try:
        write(path + "/00000001.seg", raw)
        spool = Spool(path, seal(), 1, NullPort())
        count, message, seq = 0, b"-", 1
        while message:
            message, seq = spool.batch(seq, 1)
            count += message != b""
        return [count, spool.next_seq]
    finally:
        remove(path)


class HostileTest(unittest.TestCase):
    def setUp(self):
        self.before = set(sys.modules)

    def tearDown(self):
        from agent.loan import give_back

        give_back(*[name for name in sys.modules if name not in self.before])

    def check(self, *kinds):
        count = 0
        for case in cases(kinds):
            raw = bytes.fromhex(case["hex"]) * case.get("times", 1)
            raw = bytes.fromhex(case.get("before", "")) + raw + bytes.fromhex(case.get("after", ""))
            name = "%s: %s" % (case["kind"], case["name"])
            try:
                came = globals()["of_" + case["kind"]](raw)
            except Exception as error:
                if type(error).__name__ not in _REFUSALS:
                    self.fail("%s: %r" % (name, error))
                came = "refused"
            if came != case.get("or"):
                self.assertEqual(came, case["comes"], name)
            count += 1
        self.assertTrue(count, "no case of %s" % (kinds,))

    def test_dhcp(self):
        self.check("dhcp")

    def test_dns(self):
        self.check("dns")

    def test_http(self):
        self.check("status")

    def test_echo(self):
        self.check("echo")

    def test_portal(self):
        self.check("captive", "uri")

    def test_ntp(self):
        self.check("ntp")

    def test_mqtt(self):
        self.check("mqtt", "publish", "ack")

    def test_configuration(self):
        self.check("config")

    def test_certificate(self):
        self.check("certificate")

    def test_sensor(self):
        self.check("words", "bme280")

    def test_spool(self):
        self.check("segment")
