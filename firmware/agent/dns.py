"""Ask a resolver for the IPv4 addresses of a name, with an end.

Source: RFC 1035 (messages, compression).
"""

import os
import struct

from micropython import const

from .connection import receive, resolve

NOERROR = 0
SERVFAIL = 2
NXDOMAIN = 3
REFUSED = 5

_DNS_PORT = const(53)
_TRIES = const(6)
_MAX_MESSAGE_BYTES = const(512)
_MAX_NAME_BYTES = const(255)
_A = const(1)
_CNAME = const(5)
_INTERNET = const(1)


class NotAnAnswerError(ValueError):
    """A datagram that is no answer to the question asked."""


async def ask(port, server, name, wait_ms, gap_ms):
    """Ask again after each gap, and take the answer to whichever question it belongs to.

    So a datagram that is lost costs a gap, and a resolver that is slow is not cut off before
    `wait_ms`, the end of it all.

    Returns: (rcode, addresses, ms from the question answered to its answer);
        (None, (), wait_ms) if no answer came.
    """
    until_ms = port.uptime_ms() + wait_ms
    first = struct.unpack(">H", os.urandom(2))[0]
    question = query(first, name)
    asked_ms = []
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        port.bind_wlan(sock)
        sock.connect(resolve(port, server, _DNS_PORT))
        now_ms = port.uptime_ms()
        while now_ms < until_ms:
            next_ms = until_ms
            if len(asked_ms) < _TRIES:
                sock.send(_numbered(first + len(asked_ms), question))
                asked_ms.append(now_ms)
                next_ms = min(until_ms, now_ms + gap_ms)
            while now_ms < next_ms:
                message = await receive(port, sock, _MAX_MESSAGE_BYTES, next_ms)
                now_ms = port.uptime_ms()
                if len(message) < 2:
                    continue
                number = struct.unpack(">H", message[:2])[0] - first & 0xFFFF
                if number >= len(asked_ms):
                    continue
                try:
                    rcode, addresses = parse(message, _numbered(first + number, question))
                except NotAnAnswerError:  # not for us: go on waiting
                    continue
                return rcode, addresses, now_ms - asked_ms[number]
    except OSError:  # no route, or its port is closed: no answer either
        return None, (), wait_ms
    finally:
        sock.close()
    return None, (), wait_ms


def _numbered(number, question):
    return struct.pack(">H", number & 0xFFFF) + question[2:]


async def find(port, server, host, wait_ms):
    """Return an address of a host, "" if it has none; a literal address is its own."""
    if literal(host):
        return host
    if not server:
        return ""
    _, addresses, _ = await ask(port, server, host, wait_ms, max(1, wait_ms // 4))
    return addresses[0] if addresses else ""


def literal(host):
    """Tell whether a host is an IPv4 address."""
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)


def query(identifier, name):
    """Pack a question for the IPv4 addresses of a name."""
    labels = b"".join(
        bytes((len(label),)) + label.encode() for label in name.rstrip(".").split(".")
    )
    header = struct.pack(">HHHHHH", identifier, 0x0100, 1, 0, 0, 0)
    return header + labels + b"\x00" + struct.pack(">HH", _A, _INTERNET)


def parse(message, question):
    """Read an answer.

    Returns: (rcode, addresses): the addresses of the name asked for, aliases followed.
    Raises:  NotAnAnswerError: whatever else it is.
    """
    if len(message) < 12 or message[:2] != question[:2] or message[2] & 0xF8 != 0x80:
        raise NotAnAnswerError("another id, or no answer")
    rcode = message[3] & 15
    asked, answers = struct.unpack(">HH", message[4:8])
    if asked == 0 and rcode != NOERROR:  # some servers do not repeat what they refuse
        return rcode, ()
    end = len(question)
    if asked != 1 or message[12:end].lower() != question[12:].lower():
        raise NotAnAnswerError("another question")
    wanted, _ = _name(message, 12)
    addresses = []
    at = end
    for _ in range(answers):
        owner, at = _name(message, at)
        if at + 10 > len(message):
            raise NotAnAnswerError("cut short")
        kind, family, _, size = struct.unpack(">HHIH", message[at : at + 10])
        at += 10
        if at + size > len(message):
            raise NotAnAnswerError("cut short")
        if owner == wanted and family == _INTERNET:
            if kind == _A and size == 4:
                addresses.append("%d.%d.%d.%d" % tuple(message[at : at + 4]))
            elif kind == _CNAME:
                wanted, _ = _name(message, at)
        at += size
    return rcode, tuple(addresses)


def _name(message, at):
    """Return a name in lower case and where it ends; each pointer must lead further back."""
    labels = []
    end = None
    limit = at
    left = _MAX_NAME_BYTES  # pointers can fold a name of 12 KB into a datagram
    while True:
        if at >= len(message):
            raise NotAnAnswerError("a name is cut short")
        size = message[at]
        if size == 0:
            return b".".join(labels), (at + 1 if end is None else end)
        if size & 0xC0 == 0xC0:
            if at + 1 >= len(message):
                raise NotAnAnswerError("a name is cut short")
            if end is None:
                end = at + 2
            at = (size & 0x3F) << 8 | message[at + 1]
            if at >= limit:
                raise NotAnAnswerError("a name points forward")
            limit = at
        elif size & 0xC0 or at + 1 + size > len(message):
            raise NotAnAnswerError("a label is cut short")
        elif size >= left:
            raise NotAnAnswerError("a name is too long")
        else:
            left -= size + 1
            labels.append(bytes(message[at + 1 : at + 1 + size]).lower())
            at += 1 + size
