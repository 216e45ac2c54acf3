"""Reads what a DHCP server says. On loan to `agent.dhcp`, for a moment each time.

Source: RFC 2131 (messages), RFC 2132 (options), RFC 3396 (long options), RFC 8910 (portal).
"""

import struct
from collections import namedtuple

from micropython import const

_OFFER = const(2)  # as agent.dhcp has them
_ACK = const(5)
_NAK = const(6)
_HEADER_BYTES = const(240)
_SNAME_AT = const(44)
_FILE_AT = const(108)
_COOKIE_AT = const(236)
_PAD = const(0)
_MASK = const(1)
_ROUTER = const(3)
_RESOLVER = const(6)
_LEASE_TIME = const(51)
_OVERLOAD = const(52)
_KIND = const(53)
_SERVER = const(54)
_PORTAL = const(114)
_END = const(255)
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

# What a server said. Addresses are text, "" for what is missing.
Answer = namedtuple(
    "Answer",
    ("kind", "xid", "address", "server", "lease_s", "mask", "router", "resolver", "portal_api"),
)


class NotAnAnswerError(ValueError):
    """A datagram that is no answer of a DHCP server to this client."""


def parse(message, mac):
    """Read what a server says to this client, in bytes or a memoryview of them.

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
    if kind not in (_OFFER, _ACK, _NAK) or found.get(_SERVER, _NOWHERE) == _NOWHERE:
        raise NotAnAnswerError("not what a server says")
    address = message[16:20]
    if kind != _NAK and (address[0] in (0, 127) or address[0] >= 224):
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


def text(address):
    """Return an address as text, "" for none."""
    return "" if address == _NOWHERE else "%d.%d.%d.%d" % tuple(address)
