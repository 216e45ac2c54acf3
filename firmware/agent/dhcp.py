"""DHCP, as a client speaks it: what stock MicroPython's driver does not tell.

On loan (`agent.loan`) to the addressing probe. UDP port 68 must be free: the driver's own client
stands still while the board has a static address (`port.fix`).

Source: RFC 2131 (the exchange), RFC 2132 (options), RFC 3396 (long options), RFC 8910 (portal).
"""

import os
import struct
from collections import namedtuple

from micropython import const

from .connection import receive, resolve
from .deadline import sleep_ms

DISCOVER = 1
OFFER = 2
REQUEST = 3
ACK = 5
NAK = 6
RELEASE = 7

FOREVER_S = 0xFFFFFFFF

_SERVER_PORT = const(67)
_CLIENT_PORT = const(68)
_HEADER = ">BBBBIHH4s4s4s4s16s64s128sI"
_HEADER_BYTES = struct.calcsize(_HEADER)
_SNAME_AT = const(44)
_FILE_AT = const(108)
_COOKIE_AT = const(236)
_COOKIE = const(0x63825363)
_LEAST_BYTES = const(300)  # of BOOTP; some relays drop what is shorter
# RFC 2131, 2: more than an IP packet of 576 bytes no server may send to who did not ask for it.
_MOST_BYTES = const(576)
_BROADCAST = const(0x8000)
_PAD, _MASK, _ROUTER, _RESOLVER, _WANTED, _LEASE_TIME = 0, 1, 3, 6, 50, 51
_OVERLOAD, _KIND, _SERVER, _PARAMETERS, _CLIENT, _PORTAL, _END = 52, 53, 54, 55, 61, 114, 255
_ASKED = bytes((_PARAMETERS, 5, _MASK, _ROUTER, _RESOLVER, _LEASE_TIME, _PORTAL))
# Option: (bytes that its length is a multiple of, whether it may be longer than that).
_SIZES = {
    _MASK: (4, False),
    _ROUTER: (4, True),
    _RESOLVER: (4, True),
    _LEASE_TIME: (4, False),
    _OVERLOAD: (1, False),
    _KIND: (1, False),
    _SERVER: (4, False),
    _PORTAL: (1, True),
}
_NOWHERE = bytes(4)
_OTHER_NETWORK = b"\xa9\xfe\x00\x01"  # link-local: no server has it to give
_EXCHANGES = const(32)  # messages that one client may send
_ANSWERS = const(8)
# Sent so often that three lost of ten do not look like silence.
_DISCOVER_TRIES = const(7)
_REQUEST_TRIES = const(4)
_ALIVE_TRIES = const(3)
WAITS = _DISCOVER_TRIES + 2 * _REQUEST_TRIES + _ALIVE_TRIES

# What a server said. Addresses are text, "" for what is missing.
Answer = namedtuple(
    "Answer",
    ("kind", "xid", "address", "server", "lease_s", "mask", "router", "resolver", "portal_api"),
)


class NotAnAnswerError(ValueError):
    """A datagram that is no answer of a DHCP server to this client."""


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
        self._id = bytes((_CLIENT, len(identifier))) + identifier
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
            now_ms = port.uptime_ms()
            number = len(self._sent_ms)
            self._sent_ms.append(now_ms)
            asked = _ASKED + self._id + options
            message = pack(kind, xid or self._xid + number, self._mac, asked, address)
            until_ms = now_ms + self.wait_ms
            try:
                self._sock.sendto(message, self._everyone)
            except OSError:  # no route, no buffer: as if it were lost on the way
                await sleep_ms(0)
            while port.uptime_ms() < until_ms and len(found) < _ANSWERS:
                try:
                    answer = parse(
                        await receive(port, self._sock, _MOST_BYTES, until_ms), self._mac
                    )
                except (NotAnAnswerError, OSError):
                    continue
                number = answer.xid - self._xid
                if answer.kind not in wanted or not 0 <= number < len(self._sent_ms):
                    continue
                if answer.server not in self.servers and len(self.servers) < _ANSWERS:
                    self.servers.append(answer.server)
                if not found:
                    now_ms = port.uptime_ms()
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
    header = struct.pack(
        _HEADER, 1, 1, 6, 0, xid, 0, flags, address, none, none, none, mac, b"", b"", _COOKIE
    )
    message = header + bytes((_KIND, 1, kind)) + options + bytes((_END,))
    return message + bytes(max(0, _LEAST_BYTES - len(message)))


def parse(message, mac):
    """Read what a server says to this client.

    Returns: an Answer.
    Raises:  NotAnAnswerError: whatever else it is.
    """
    if len(message) < _HEADER_BYTES or message[:3] != b"\x02\x01\x06":
        raise NotAnAnswerError("no answer")
    if message[28:34] != mac or message[_COOKIE_AT:_HEADER_BYTES] != b"\x63\x82\x53\x63":
        raise NotAnAnswerError("not for us")
    found = {}
    _read(message, _HEADER_BYTES, len(message), found)
    overload = found.get(_OVERLOAD, b"\0")
    overload = overload[0] if len(overload) == 1 else 255
    if overload > 3:
        raise NotAnAnswerError("a strange overload")
    if overload & 1:
        _read(message, _FILE_AT, _COOKIE_AT, found)
    if overload & 2:
        _read(message, _SNAME_AT, _FILE_AT, found)
    for code, (size, may_repeat) in _SIZES.items():
        content = found.get(code)
        if content is not None and (
            not content or len(content) % size or not (may_repeat or len(content) == size)
        ):
            raise NotAnAnswerError("option %d has a wrong length" % code)
    kind = found.get(_KIND, b"\0")[0]
    if kind not in (OFFER, ACK, NAK) or found.get(_SERVER, _NOWHERE) == _NOWHERE:
        raise NotAnAnswerError("not what a server says")
    address = message[16:20]
    if kind != NAK and (address[0] in (0, 127) or address[0] >= 224):
        raise NotAnAnswerError("no address that a host can have")
    return Answer(
        kind,
        struct.unpack(">I", message[4:8])[0],
        text(address),
        text(found[_SERVER]),
        struct.unpack(">I", found.get(_LEASE_TIME, _NOWHERE))[0],
        text(found.get(_MASK, _NOWHERE)),
        text(found.get(_ROUTER, _NOWHERE)[:4]),
        text(found.get(_RESOLVER, _NOWHERE)[:4]),
        _uri(found.get(_PORTAL, b"")),
    )


def _read(message, at, end, found):
    """Read options up to the one that ends them; those of one code are one (RFC 3396)."""
    while True:
        if at >= end:
            raise NotAnAnswerError("options without an end")
        code = message[at]
        at += 1
        if code == _END:
            return
        if code == _PAD:
            continue
        if at >= end or at + 1 + message[at] > end:
            raise NotAnAnswerError("an option is cut short")
        if code in _SIZES:
            found[code] = found.get(code, b"") + bytes(message[at + 1 : at + 1 + message[at]])
        at += 1 + message[at]


def _uri(content):
    """Return a URI of printable ASCII; what holds anything else is none."""
    content = content.rstrip(b"\0")  # some servers end texts as C does
    return content.decode() if all(33 <= byte <= 126 for byte in content) else ""


def _option(code, content):
    return bytes((code, len(content))) + content


def packed(address):
    """Return the four bytes of an address."""
    return bytes(int(part) for part in address.split("."))


def text(address):
    """Return an address as text, "" for none."""
    return "" if address == _NOWHERE else "%d.%d.%d.%d" % tuple(address)
