"""DHCP messages byte by byte, and the probe against a server that behaves in every way."""

import asyncio
import json
import socket
import struct
import unittest

import agent.loan
from agent import dhcp, dhcp_message
from agent.config import parse
from agent.cycle import Evidence
from agent.link import Link
from agent.probes import addressing, association, radio
from linkreport import block
from linkreport.table import (
    ADDRESS_CONFLICT,
    FOREIGN_DHCP_SERVER,
    LEASE_REFUSED,
    LEASE_SLOW,
    LEASE_WITHOUT_GATEWAY,
    NO_LEASE,
    NO_OFFER,
    OK,
    POOL_EXHAUSTED,
    UNTESTED,
)
from place import configuration
from port.null import NullPort
from test_network import bound, patiently

MAC = b"\x24\x0a\xc4\x12\x34\x56"
SERVER = "10.1.0.1"
OFFERED = "10.1.0.77"
PORTAL = b"https://portal.example/api"
NOWHERE = "0.0.0.0"  # noqa: S104 - in messages, not to bind to
COOKIE = b"\x63\x82\x53\x63"


def option(code, content):
    return bytes((code, len(content))) + content


def answer(kind, xid=7, address=OFFERED, server=SERVER, options=b"", **fields):
    """Make a server's message; `sname`, `file`, `mac`, `op`, `end` alter it."""
    header = struct.pack(
        ">BBBBIHH4s4s4s4s16s64s128s",
        fields.get("op", 2),
        *(1, 6, 0, xid, 0, 0),
        *(bytes(4), dhcp.packed(address), bytes(4), bytes(4)),
        *(fields.get("mac", MAC), fields.get("sname", b""), fields.get("file", b"")),
    )
    told = option(53, bytes((kind,))) + option(54, dhcp.packed(server)) + options
    return header + COOKIE + told + fields.get("end", b"\xff")


class MessageTest(unittest.TestCase):
    def refused(self, message, mac=MAC):
        with self.assertRaises(dhcp_message.NotAnAnswerError):
            dhcp_message.parse(message, mac)

    def test_a_question(self):
        message = dhcp.pack(dhcp.DISCOVER, 0x01020304, MAC, b"\x3d\x01\x00")
        self.assertEqual(len(message), 300)
        self.assertEqual(message[:12], b"\x01\x01\x06\x00\x01\x02\x03\x04\x00\x00\x80\x00")
        self.assertEqual(message[28:44], MAC + bytes(10))
        self.assertEqual(message[236:247], COOKIE + b"\x35\x01\x01\x3d\x01\x00\xff")
        # Who has an address gets the answer there.
        message = dhcp.pack(dhcp.REQUEST, 1, MAC, b"", b"\x0a\x01\x00\x02")
        self.assertEqual(message[10:16], b"\x00\x00\x0a\x01\x00\x02")

    def test_an_answer(self):
        options = option(51, b"\x00\x00\x0e\x10") + option(1, b"\xff\xff\xff\x00") + b"\x00"
        options += option(3, b"\x0a\x01\x00\x01\x0a\x01\x00\x02") + option(6, b"\x0a\x01\x00\x35")
        options += option(114, PORTAL + b"\0") + option(12, b"name")
        self.assertEqual(
            dhcp_message.parse(answer(dhcp.ACK, options=options), MAC),
            (
                dhcp.ACK,
                7,
                OFFERED,
                SERVER,
                3600,
                "255.255.255.0",
                "10.1.0.1",
                "10.1.0.53",
                PORTAL.decode(),
            ),
        )

    def test_what_is_missing_is_empty(self):
        found = dhcp_message.parse(answer(dhcp.OFFER), MAC)
        self.assertEqual(found[4:], (0, "", "", "", ""))
        self.assertEqual(dhcp_message.parse(answer(dhcp.NAK, address=NOWHERE), MAC).address, "")

    def test_options_may_lie_in_the_fields_for_names(self):
        router = option(3, b"\x0a\x01\x00\x09") + b"\xff"
        for overload, fields in ((1, {"file": router}), (2, {"sname": router})):
            told = option(52, bytes((overload,)))
            found = dhcp_message.parse(answer(dhcp.ACK, options=told, **fields), MAC)
            self.assertEqual(found.router, "10.1.0.9")
        both = {
            "file": option(114, b"http://a.example/") + b"\xff",
            "sname": option(114, b"b") + b"\xff",
        }
        found = dhcp_message.parse(answer(dhcp.ACK, options=option(52, b"\x03"), **both), MAC)
        self.assertEqual(found.portal_api, "http://a.example/b")
        self.assertEqual(dhcp_message.parse(answer(dhcp.ACK, file=router), MAC).router, "")
        self.refused(answer(dhcp.ACK, options=option(52, b"\x01")))  # without an end
        self.refused(answer(dhcp.ACK, options=option(52, b"\x04")))
        self.refused(answer(dhcp.ACK, options=option(52, b"\x01"), file=b"\x03\xff"))

    def test_long_options_come_in_pieces(self):
        options = option(114, b"http://portal.example") + option(114, b"/api")
        found = dhcp_message.parse(answer(dhcp.ACK, options=options), MAC)
        self.assertEqual(found.portal_api, "http://portal.example/api")

    def test_a_uri_with_anything_else_in_it_is_none(self):
        for uri in (b"x:/\r\nx", b"x:/\xff/", b"a b", b"\x00", b"a\x00b"):
            found = dhcp_message.parse(answer(dhcp.ACK, options=option(114, uri)), MAC)
            self.assertEqual(found.portal_api, "")

    def test_wrong_lengths(self):
        for code, content in (
            (1, b"\xff\xff\xff"),
            (1, b"\xff" * 8),
            (3, b""),
            (3, b"\x0a\x01\x00\x01\x0a"),
            (51, b"\x00\x00\x01"),
            (53, b"\x05"),  # twice
            (54, b"\x0a\x01\x00\x01"),
        ):
            self.refused(answer(dhcp.ACK, options=option(code, content)))

    def test_what_is_no_answer_to_this_client(self):
        good = answer(dhcp.ACK, options=option(3, b"\x0a\x01\x00\x01"))
        for size in range(len(good)):
            self.refused(good[:size])
        self.refused(good, b"\x24\x0a\xc4\x12\x34\x57")
        self.refused(answer(dhcp.ACK, op=1))
        self.refused(answer(dhcp.ACK, end=b""))
        self.refused(answer(dhcp.ACK, end=b"\x03\xff\x0a"))
        self.refused(answer(dhcp.DISCOVER))
        self.refused(good.replace(COOKIE, b"\x63\x82\x53\x64"))
        self.refused(good.replace(b"\x36\x04", b"\x37\x04"))  # no server
        for address in (NOWHERE, "127.0.0.1", "224.0.0.1", "255.255.255.255"):
            self.refused(answer(dhcp.OFFER, address=address))


class FakeServer:
    """A DHCP server of its own mind.

    Attributes:
        name: its address.
        drops: kinds of messages that it does not answer, as (kind, is a stranger's).
        nak: kinds that it refuses.
        offered: what it offers to strangers, None for an exhausted pool.
        also: other servers' names, which offer, too.
        asked: what came: (kind, is a stranger's, wanted address, ciaddr).
    """

    def __init__(self):
        self.drops = []
        self.nak = []
        self.offered = OFFERED
        self.own = "10.1.0.50"
        self.also = ()
        self.router = b"\x0a\x01\x00\x01"
        self.lease_s = 3600
        self.lost = 0
        self.delay_s = 0
        self.asked = []

    def reply(self, message):
        """Return the answers to a message."""
        options = {}
        at = 240
        while message[at] != 255:
            options[message[at]] = message[at + 2 : at + 2 + message[at + 1]]
            at += 2 + message[at + 1]
        kind = options[53][0]
        stranger = options[61] == b"\x00netzpuls" + MAC
        if not stranger and options[61] != b"\x01" + MAC:
            raise ValueError("an unknown client")
        wanted = dhcp_message.text(options[50]) if 50 in options else ""
        self.asked.append((kind, stranger, wanted, dhcp_message.text(message[12:16])))
        if self.lost:
            self.lost -= 1
            return []
        if (kind, stranger) in self.drops or kind == dhcp.RELEASE:
            return []
        xid = struct.unpack(">I", message[4:8])[0]
        if (kind, stranger) in self.nak or wanted.startswith("169.254."):
            return [answer(dhcp.NAK, xid, NOWHERE)]
        address = self.offered if stranger else self.own
        if kind == dhcp.DISCOVER and not address:
            return []
        told = option(51, struct.pack(">I", self.lease_s)) + option(114, PORTAL)
        told += option(1, b"\xff\xff\xff\x00")
        told += option(3, self.router) if self.router else b""
        if kind == dhcp.REQUEST:
            return [answer(dhcp.ACK, xid, address, options=told)]
        servers = (SERVER,) + tuple(self.also)
        return [answer(dhcp.OFFER, xid, address, server, told) for server in servers]


class AddressingTest(unittest.TestCase):
    def setUp(self):
        # From source each loan takes milliseconds, and these exchanges have few.
        self.is_small, agent.loan._IS_SMALL = agent.loan._IS_SMALL, False
        self.port = NullPort()
        self.port.socket.absent = [OFFERED]
        self.server = FakeServer()
        self.configure()

    def tearDown(self):
        agent.loan._IS_SMALL = self.is_small

    def configure(self, **changes):
        changes.setdefault("deadline_ms", {"addressing": 800})
        self.config = parse(json.dumps(configuration(**changes)).encode())

    def cycles(self, *between):
        """Run one cycle, then one after each of some changes; return the results."""
        sock, number = bound(socket.SOCK_DGRAM)
        spare, client = bound(socket.SOCK_DGRAM)
        spare.close()
        self.port.socket.routes["255.255.255.255", 67] = ("127.0.0.1", number)
        self.port.socket.routes[SERVER, 67] = ("127.0.0.1", number)
        self.port.socket.routes[NOWHERE, 68] = ("127.0.0.1", client)

        async def serve():
            while True:
                message, peer = await patiently(lambda: sock.recvfrom(1500))
                replies = self.server.reply(message)
                await asyncio.sleep(self.server.delay_s)
                for reply in (b"", b"\x02" * 300) + tuple(replies):
                    sock.sendto(reply, peer)

        async def run():
            server = asyncio.create_task(serve())
            self.link = Link(self.port)
            results = []
            try:
                for change in (None,) + between:
                    if change:
                        change()
                    self.evidence = Evidence(self.link, self.config.wlan)
                    for module in (radio, association, addressing):
                        result = await module.probe(self.port, self.config, self.evidence)
                    results.append(result)
                await asyncio.sleep(0.02)  # the release arrives
                return results
            finally:
                server.cancel()

        try:
            return asyncio.run(run())
        finally:
            sock.close()

    def again(self):
        """Leave everything as it is until the next cycle."""

    def told(self, result):
        return struct.unpack(block.LEASE_FORMAT, result.measures[block.LEASE])

    def test_a_lease_is_taken_over_and_a_new_client_asks(self):
        result = self.cycles()[0]
        self.assertEqual(result.reason, OK)
        self.assertIn("addressing_ms", result.measures)
        lease_s, server, servers, ms = self.told(result)
        self.assertEqual((lease_s, dhcp_message.text(server), servers), (3600, SERVER, 1))
        self.assertTrue(ms < 500)
        self.assertEqual(self.port.fixed, ("10.1.0.50", "255.255.255.0", SERVER, SERVER))
        self.assertEqual((self.evidence.lease.server, self.evidence.gateway), (SERVER, SERVER))
        self.assertEqual(self.evidence.lease.portal_api, PORTAL.decode())
        self.assertEqual(
            self.server.asked,
            [
                (dhcp.DISCOVER, False, "10.1.0.50", ""),
                (dhcp.REQUEST, False, "10.1.0.50", ""),
                (dhcp.DISCOVER, True, "", ""),
                (dhcp.REQUEST, True, OFFERED, ""),
                (dhcp.RELEASE, True, "", OFFERED),
            ],
        )

    def test_the_next_cycle_only_asks_as_a_new_client(self):
        results = self.cycles(self.again)
        self.assertEqual([result.reason for result in results], [OK, OK])
        self.assertEqual([asked[1] for asked in self.server.asked[5:]], [True, True, True])

    def test_a_server_that_gave_our_address_away_gives_another(self):
        self.server.own = "10.1.0.60"
        self.assertEqual(self.cycles()[0].reason, OK)
        self.assertEqual(self.port.fixed[0], "10.1.0.60")

    def test_the_lease_is_renewed_at_half_its_time(self):
        def half():
            self.link.lease.renew_ms = self.port.uptime_ms()

        results = self.cycles(half, self.again)
        self.assertEqual([result.reason for result in results], [OK] * 3)
        self.assertEqual(self.server.asked[5], (dhcp.REQUEST, False, "", "10.1.0.50"))
        self.assertTrue(self.link.lease.renew_ms > self.port.uptime_ms() + 1700000)
        self.assertEqual([asked[1] for asked in self.server.asked].count(False), 3)

    def test_a_renewal_that_is_refused(self):
        def half():
            self.link.lease.renew_ms = self.port.uptime_ms()
            self.server.nak = [(dhcp.REQUEST, False)]

        result = self.cycles(half)[1]
        self.assertEqual(result.reason, LEASE_REFUSED)
        self.assertEqual((self.port.fixed, self.link.lease), (None, None))
        self.assertFalse(self.link.online)
        self.assertEqual(self.evidence.gateway, "")

    def test_a_renewal_without_an_answer_keeps_the_lease_to_its_end(self):
        def half():
            self.link.lease.renew_ms = self.port.uptime_ms()
            self.server.drops = [(dhcp.REQUEST, False)]

        def end():
            self.link.lease.ends_ms = self.port.uptime_ms()
            self.port.address = ""

        kept, over = self.cycles(half, end)[1:]
        self.assertEqual(kept.reason, OK)
        self.assertEqual(over.reason, NO_LEASE)
        self.assertEqual(self.port.fixed, None)

    def test_no_offer(self):
        def dead():
            self.server.drops = [(1, True), (1, False), (3, True), (3, False)]

        result = self.cycles(dead)[1]
        self.assertEqual(result.reason, NO_OFFER)
        self.assertNotIn(block.LEASE, result.measures)
        self.assertTrue(self.link.online)  # with the address that is there
        self.assertEqual(self.evidence.gateway, SERVER)

    def test_an_exhausted_pool(self):
        def full():
            self.server.offered = None

        result = self.cycles(full)[1]
        self.assertEqual(result.reason, POOL_EXHAUSTED)
        lease_s, _, servers, ms = self.told(result)
        self.assertEqual((lease_s, servers, ms), (0xFFFFFFFF, 1, 0xFFFF))

    def test_an_offer_that_is_taken_back(self):
        self.server.nak = [(dhcp.REQUEST, True)]
        self.assertEqual(self.cycles()[0].reason, LEASE_REFUSED)
        self.assertEqual(self.port.fixed[0], "10.1.0.50")

    def test_an_offered_address_that_somebody_has(self):
        self.port.socket.absent = []
        self.assertEqual(self.cycles()[0].reason, ADDRESS_CONFLICT)
        self.assertNotIn((dhcp.REQUEST, True, OFFERED, ""), self.server.asked)

    def test_a_foreign_server(self):
        self.server.also = ("10.1.0.66",)
        result = self.cycles()[0]
        self.assertEqual((result.reason, self.told(result)[2]), (OK, 2))  # nothing to check it by
        self.configure(dhcp_servers=[SERVER])
        self.assertEqual(self.cycles()[0].reason, FOREIGN_DHCP_SERVER)
        self.configure(dhcp_servers=[SERVER, "10.1.0.66"])
        self.assertEqual(self.cycles()[0].reason, OK)

    def test_a_slow_server(self):
        self.server.delay_s = 0.015
        self.configure(thresholds=dict(configuration()["thresholds"], lease_ms=20))
        self.assertEqual(self.cycles()[0].reason, LEASE_SLOW)

    def test_a_lease_that_names_no_gateway(self):
        self.server.router = b""
        self.assertEqual(self.cycles()[0].reason, LEASE_WITHOUT_GATEWAY)

    def test_lost_messages_are_sent_again(self):
        self.server.lost = 3
        self.assertEqual(self.cycles()[0].reason, OK)
        self.assertEqual([asked[0] for asked in self.server.asked[:5]], [1, 1, 1, 1, 3])

    def test_a_network_that_drops_our_messages_is_no_outage(self):
        self.server.drops = [(1, True), (1, False), (3, True), (3, False)]
        results = self.cycles(self.again)
        self.assertEqual([result.reason for result in results], [OK, OK])
        self.assertNotIn(block.LEASE, results[1].measures)
        self.assertEqual(self.port.fixed, None)
        self.assertTrue(self.link.online)
        self.assertEqual(len(self.server.asked), 7)  # once, not again and again

    def test_a_port_that_the_ethernet_s_client_holds_is_no_verdict(self):
        resolve = self.port.socket.getaddrinfo

        def taken(address, number):
            if number == 68:
                raise OSError(112, "taken")
            return resolve(address, number)

        self.port.socket.getaddrinfo = taken
        results = self.cycles(self.again)
        self.assertEqual([result.reason for result in results], [UNTESTED, UNTESTED])
        self.assertNotIn(block.LEASE, results[1].measures)
        self.assertEqual((self.port.fixed, self.link.lease), (None, None))
        self.assertTrue(self.link.online)
        self.port.gateway = ""
        self.assertEqual(self.cycles()[0].reason, LEASE_WITHOUT_GATEWAY)
        self.port.address = ""
        self.assertEqual(self.cycles()[0].reason, NO_LEASE)

    def test_a_lease_too_short_for_the_cycles_stays_the_driver_s(self):
        self.server.lease_s = 180
        self.assertEqual(self.cycles()[0].reason, OK)
        self.assertEqual((self.port.fixed, self.link.lease), (None, None))

    def test_without_a_lease_the_inquiry_tells_why(self):
        self.port.address = self.port.gateway = ""
        for alter, reason in (
            ({"drops": [(1, True), (3, True)]}, NO_OFFER),
            ({"offered": None}, POOL_EXHAUSTED),
            ({"nak": [(3, True)]}, LEASE_REFUSED),
            ({}, NO_LEASE),
        ):
            self.server = FakeServer()
            for name, value in alter.items():
                setattr(self.server, name, value)
            self.port.calls.clear()
            self.assertEqual(self.cycles()[0].reason, reason)
            self.assertEqual(self.port.calls[-2:], ["fix", "dhcp"])
            self.assertFalse(self.link.online)
            self.assertEqual(self.evidence.gateway, "")
            self.assertTrue(all(asked[1] for asked in self.server.asked))

    def test_a_new_association_begins_with_the_driver_again(self):
        def lose():
            self.port.lose(3)

        self.cycles(lose)
        self.assertEqual([asked[1] for asked in self.server.asked].count(False), 4)

    def test_everything_ends_at_the_deadline(self):
        self.port.address = ""
        self.server.drops = [(1, True), (3, True)]
        self.configure(deadline_ms={"addressing": 300})
        start_ms = self.port.uptime_ms()
        self.assertEqual(self.cycles()[0].reason, NO_OFFER)
        self.assertTrue(self.port.uptime_ms() - start_ms < 500)
