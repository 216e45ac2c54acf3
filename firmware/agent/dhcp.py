"""DHCP, as a client speaks it: what stock MicroPython's driver does not tell.

On loan (`agent.loan`) to the addressing probe; what reads answers (`agent.dhcp_message`) is on loan
to this. UDP port 68 must be free: the driver's own client stands still while the board has a static
address (`port.fix`).

Source: RFC 2131 (the exchange).
"""

import os
import struct

from micropython import const

from .connection import receive, resolve
from .deadline import sleep_ms
from .loan import use

DISCOVER = 1
OFFER = 2
REQUEST = 3
ACK = 5
NAK = 6
RELEASE = 7

FOREVER_S = 0xFFFFFFFF

_HEADER = ">BBBBIHH4s4s4s4s16s64s128sI"
_HEADER_BYTES = const(240)
_COOKIE = const(0x63825363)
_LEAST_BYTES = const(300)  # of BOOTP; some relays drop what is shorter
_BROADCAST = const(0x8000)
_SERVER_PORT = const(67)
_CLIENT_PORT = const(68)
# RFC 2131, 2: more than an IP packet of 576 bytes no server may send to who did not ask for it.
_MOST_BYTES = const(576)
_WANTED = const(50)
_KIND = const(53)
_SERVER = const(54)
_CLIENT = const(61)
_ASKED = b"\x37\x05\x01\x03\x06\x33\x72"  # for mask, router, resolver, lease time and portal
_NOWHERE = bytes(4)
_OTHER_NETWORK = b"\xa9\xfe\x00\x01"  # link-local: no server has it to give
_EXCHANGES = const(32)  # messages that one client may send
_ANSWERS = const(8)
# Sent so often that three lost of ten do not look like silence.
_DISCOVER_TRIES = const(7)
_REQUEST_TRIES = const(4)
_ALIVE_TRIES = const(3)
_WAITS = _DISCOVER_TRIES + 2 * _REQUEST_TRIES + _ALIVE_TRIES
PINGS = 2  # that whoever asks may send besides
_LONGEST_WAIT_MS = const(700)


def own_id(mac):
    """Return the client identifier of the driver's own client, whose lease we keep."""
    return b"\x01" + mac


def stranger_id(mac):
    """Return the identifier of a client that no server has seen as the driver's."""
    return b"\x00netzpuls" + mac


class Client:
    """One DHCP client: asks again and again, and remembers who answered.

    Args:
        identifier: option 61.
        wait_ms: how long to wait for an answer before asking again.

    Attributes:
        wait_ms: as given.
        servers: addresses of the servers that answered.
        ms: from the questions to the answers of the last exchange.
        alive: a server said no to what no server can give.
        refused: a server took back what it had offered, or what we had.

    Raises: OSError: port 68 is taken.
    """

    def __init__(self, port, mac, identifier, wait_ms):
        self._port = port
        self._mac = mac
        self._id = _option(_CLIENT, identifier)
        self.wait_ms = wait_ms
        self._xid = struct.unpack(">I", os.urandom(4))[0] & ~(_EXCHANGES - 1)
        self._sent_ms = []
        self.servers = []
        self.ms = 0
        self.alive = False
        self.refused = False
        self._everyone = resolve(port, "255.255.255.255", _SERVER_PORT)
        here = resolve(port, "0.0.0.0", _CLIENT_PORT)  # noqa: S104 - as RFC 2131 has it
        net = port.socket
        self._sock = net.socket(net.AF_INET, net.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.setsockopt(net.SOL_SOCKET, net.SO_REUSEADDR, 1)
            self._sock.setsockopt(net.SOL_SOCKET, net.SO_BROADCAST, 1)
            self._sock.bind(here)
        except BaseException:
            self._sock.close()
            raise

    def close(self):
        """Close the socket."""
        self._sock.close()

    async def offer(self, wanted, preferred, look_closer=False):
        """Ask for an offer.

        Args:
            wanted: an address that would be welcome, "" for any.
            preferred: servers whose offer is taken before others'.
            look_closer: without an offer, see whether there is a server at all.

        Returns: the offer, None for none.
        """
        welcome = _option(_WANTED, packed(wanted)) if wanted else b""
        answers = await self._ask(DISCOVER, welcome, (OFFER,), _DISCOVER_TRIES)
        if not answers and look_closer:
            # INIT-REBOOT into a network that is not this one: a server must say no.
            elsewhere = _option(_WANTED, _OTHER_NETWORK)
            answers = await self._ask(REQUEST, elsewhere, (NAK, OFFER), _ALIVE_TRIES)
            if answers and answers[0].kind == NAK:
                self.alive = True
                answers = await self._ask(DISCOVER, welcome, (OFFER,), _REQUEST_TRIES)
        for answer in answers:
            if answer.server in preferred:
                return answer
        return answers[0] if answers else None

    async def request(self, offer):
        """Take an offer; return the lease, None without one."""
        options = _option(_SERVER, packed(offer.server)) + _option(_WANTED, packed(offer.address))
        answers = await self._ask(REQUEST, options, (ACK, NAK), _REQUEST_TRIES, xid=offer.xid)
        return self._granted(answers, offer.address)

    async def renew(self, address):
        """Ask for more time with an address that we have; return the lease, None without one."""
        answers = await self._ask(REQUEST, b"", (ACK, NAK), _REQUEST_TRIES, address=packed(address))
        return self._granted(answers, address)

    def _granted(self, answers, address):
        for answer in answers:
            if answer.kind == ACK and answer.address == address:
                return answer
        self.refused = bool(answers)
        return None

    def release(self, lease):
        """Give a lease back; nobody answers that."""
        options = _option(_SERVER, packed(lease.server))
        message = pack(RELEASE, lease.xid, self._mac, self._id + options, packed(lease.address))
        try:
            self._sock.sendto(message, resolve(self._port, lease.server, _SERVER_PORT))
        except OSError:  # it ends by itself, too
            return

    async def _ask(self, kind, options, wanted, tries, *, xid=None, address=_NOWHERE):
        """Ask until there are answers of the kinds wanted; return them in their order."""
        port = self._port
        first_ms = len(self._sent_ms)
        found = []
        for _ in range(tries):
            number = len(self._sent_ms)
            asked = _ASKED + self._id + options
            message = pack(kind, xid or self._xid + number, self._mac, asked, address)
            now_ms = port.uptime_ms()
            self._sent_ms.append(now_ms)
            until_ms = now_ms + self.wait_ms
            try:
                self._sock.sendto(message, self._everyone)
            except OSError:  # no route, no buffer: as if it were lost on the way
                await sleep_ms(0)
            while port.uptime_ms() < until_ms and len(found) < _ANSWERS:
                message = b""  # what was sent need not live while the next one is read
                try:
                    message = await receive(port, self._sock, _MOST_BYTES, until_ms)
                    now_ms = port.uptime_ms()
                    if not message:
                        continue
                    answer = use("agent.dhcp_message", "parse", message, self._mac)
                except (ValueError, OSError):  # no answer to us
                    continue
                number = answer.xid - self._xid
                if answer.kind not in wanted or not 0 <= number < len(self._sent_ms):
                    continue
                if answer.server not in self.servers and len(self.servers) < _ANSWERS:
                    self.servers.append(answer.server)
                if not found:
                    asked_ms = self._sent_ms[max(number, first_ms)]
                    self.ms = now_ms - asked_ms + (self.ms if xid else 0)
                    # Others may offer, too.
                    until_ms = now_ms + (self.wait_ms // 2 if answer.kind == OFFER else 0)
                found.append(answer)
            if found:
                break
        return found


def pack(kind, xid, mac, options, address=_NOWHERE):
    """Pack a client's message; who has no address yet wants its answer as a broadcast."""
    flags = _BROADCAST if address == _NOWHERE else 0
    none = _NOWHERE
    options = bytes((_KIND, 1, kind)) + options + b"\xff"
    # One piece, for a heap in use has no second one of that length.
    message = bytearray(max(_LEAST_BYTES, _HEADER_BYTES + len(options)))
    struct.pack_into(
        _HEADER, message, 0,
        1, 1, 6, 0, xid, 0, flags, address, none, none, none, mac, b"", b"", _COOKIE,
    )  # fmt: skip
    message[_HEADER_BYTES : _HEADER_BYTES + len(options)] = options
    return message


def _option(code, content):
    return bytes((code, len(content))) + content


def packed(address):
    """Return the four bytes of an address."""
    return bytes(int(part) for part in address.split("."))


def foreign(servers, config):
    """Tell whether there is a server that is not on the inventory's list, if there is one."""
    return bool(config.dhcp_servers) and any(s not in config.dhcp_servers for s in servers)


def client(port, name, until_ms):
    """Return a Client whose longest exchange fits into the time that is left.

    `name` makes its identifier: `own_id` or `stranger_id`.

    Raises: OSError: port 68 is taken.
    """
    mac = port.mac()
    wait_ms = max(1, until_ms - port.uptime_ms()) // (_WAITS + PINGS)
    return Client(port, mac, name(mac), max(1, min(_LONGEST_WAIT_MS, wait_ms)))
