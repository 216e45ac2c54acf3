"""Resolver: does the lease's DNS server answer, and rightly?

Source: RFC 1035 (messages, compression), RFC 6761 6.3 (`localhost`).
"""

import os
import struct

from linkreport.table import (
    ADDRESSING,
    NAME_NOT_FOUND,
    OK,
    RESOLVER,
    RESOLVER_FAILURE,
    RESOLVER_REFUSED,
    RESOLVER_SILENT,
    RESOLVER_SLOW,
    RESOLVER_WRONG_ADDRESS,
    UPSTREAM_SILENT,
)
from micropython import const

from ..connection import receive, resolve
from . import Result

LAYER = RESOLVER
NEEDS = ADDRESSING

_DNS_PORT = const(53)
_TRIES = const(2)
_MAX_MESSAGE_BYTES = const(512)
_A = const(1)
_CNAME = const(5)
_INTERNET = const(1)
_NOERROR = const(0)
_SERVFAIL = const(2)
_NXDOMAIN = const(3)
_REFUSED = const(5)


class NotAnAnswerError(ValueError):
    """A datagram that is no answer to the question asked."""


async def probe(port, config, evidence):
    """Ask for the known name; if that fails, see whether the resolver itself is alive."""
    if not evidence.resolver:
        return Result(RESOLVER_SILENT, {})
    # Thirds: two tries for the name, one for `localhost`; the fourth part is reserve.
    wait_ms = config.deadline_ms["resolver"] // (_TRIES + 2)
    start_ms = port.uptime_ms()
    rcode, addresses = await ask(port, evidence.resolver, config.resolver.name, _TRIES, wait_ms)
    elapsed_ms = port.uptime_ms() - start_ms
    if rcode is None:
        alive, _ = await ask(port, evidence.resolver, "localhost.", 1, wait_ms)
        return Result(RESOLVER_SILENT if alive is None else UPSTREAM_SILENT, {})
    measures = {"resolver_ms": elapsed_ms}
    if rcode == _SERVFAIL:
        own, _ = await ask(port, evidence.resolver, "localhost.", 1, wait_ms)
        fails = own is None or own == _SERVFAIL
        return Result(RESOLVER_FAILURE if fails else UPSTREAM_SILENT, measures)
    if rcode == _REFUSED:
        return Result(RESOLVER_REFUSED, measures)
    if rcode == _NXDOMAIN or (rcode == _NOERROR and not addresses):
        return Result(NAME_NOT_FOUND, measures)
    if rcode != _NOERROR:
        return Result(RESOLVER_FAILURE, measures)
    if config.resolver.address not in addresses:
        return Result(RESOLVER_WRONG_ADDRESS, measures)
    slow = elapsed_ms > config.thresholds.resolver_ms
    return Result(RESOLVER_SLOW if slow else OK, measures)


async def ask(port, server, name, tries, wait_ms):
    """Ask a resolver for the IPv4 addresses of a name.

    Returns: (rcode, addresses); (None, ()) if no answer came.
    """
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect(resolve(port, server, _DNS_PORT))
        for _ in range(tries):
            question = query(struct.unpack(">H", os.urandom(2))[0], name)
            answer = await _exchange(port, sock, question, port.uptime_ms() + wait_ms)
            if answer:
                return answer
    except OSError:  # no route, or its port is closed: no answer either
        return None, ()
    finally:
        sock.close()
    return None, ()


async def _exchange(port, sock, question, until_ms):
    sock.send(question)
    while port.uptime_ms() < until_ms:
        message = await receive(port, sock, _MAX_MESSAGE_BYTES, until_ms)
        try:
            return parse(message, question)
        except NotAnAnswerError:  # late, or not for us: go on waiting
            continue
    return None


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
    if asked == 0 and rcode != _NOERROR:  # some servers do not repeat what they refuse
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
        else:
            labels.append(bytes(message[at + 1 : at + 1 + size]).lower())
            at += 1 + size
