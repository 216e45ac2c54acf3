"""socket: the real one; a name is asked from the resolver that the lease names, as lwIP does.

On a board without interfaces of its own addresses lead where the radio model says: getaddrinfo
asks the board process for the loopback port that stands for an address, and raw ICMP sockets are
a stand-in, which carries real ICMP packets too.
"""

import errno
import io
import random
import select
from socket import *
from socket import getaddrinfo as _real_getaddrinfo
from socket import socket as _real_socket

from . import channel

IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP = 0, 1, 6, 17
TCP_NODELAY = 1

_ORIGINS = 16  # remembered: which address a socket address stands for
_DNS_TRIES = 4
_DNS_PORT = 53
_GET_FILENO = 10
_origin = {}
_is_wired = channel.call("is-wired")


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    if not _is_address(host):
        host = _resolve(host)
    found = _endpoint(host, int(port))
    return [(AF_INET, type or SOCK_STREAM, proto, host, found)]


def socket(af=AF_INET, type=SOCK_STREAM, proto=0):
    if type == SOCK_RAW:
        if proto != IPPROTO_ICMP:
            raise OSError(errno.EPROTONOSUPPORT if hasattr(errno, "EPROTONOSUPPORT") else 93)
        if not _is_wired:
            return _Icmp()
    return _real_socket(af, type, proto)


def _endpoint(address, port):
    if _is_wired:
        return _real_getaddrinfo(address, port)[0][-1]
    to = channel.call("route", address=address, port=port)
    found = _real_getaddrinfo(to[0], to[1])[0][-1]
    if len(_origin) >= _ORIGINS:
        _origin.clear()
    _origin[bytes(found)] = address
    return found


def _is_address(host):
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)


def _resolve(name):
    """Ask the resolver of the lease, as lwIP does; OSError(-202) when nothing answers."""
    resolver = channel.call("resolver")
    if resolver == "0.0.0.0":
        raise OSError(-202)
    number = random.getrandbits(16).to_bytes(2, "big")
    query = number + b"\x01\x00\x00\x01" + bytes(6)
    for label in name.encode().split(b"."):
        if not 0 < len(label) < 64:
            raise OSError(-2)
        query += bytes((len(label),)) + label
    query += b"\x00\x00\x01\x00\x01"
    server = _endpoint(resolver, _DNS_PORT)
    udp = _real_socket(AF_INET, SOCK_DGRAM)
    poller = select.poll()
    poller.register(udp, select.POLLIN)
    try:
        for turn in range(_DNS_TRIES):
            udp.sendto(query, server)
            if poller.poll((turn + 1) * 1000):
                reply = udp.recvfrom(512)[0]
                if reply[:2] == number:
                    return _answer(reply)
    except OSError as error:
        if error.errno in (-2, -202):
            raise
    finally:
        udp.close()
    raise OSError(-202)


def _answer(reply):
    at = 12
    for _ in range(reply[5]):
        at = _skip_name(reply, at) + 4
    for _ in range(reply[7]):
        at = _skip_name(reply, at)
        kind = reply[at + 1]
        size = reply[at + 8] << 8 | reply[at + 9]
        at += 10
        if kind == 1 and size == 4:
            return ".".join(str(byte) for byte in reply[at : at + 4])
        at += size
    raise OSError(-2)


def _skip_name(data, at):
    while data[at]:
        if data[at] >= 0xC0:
            return at + 2
        at += 1 + data[at]
    return at + 1


class _Icmp(io.IOBase):
    """A raw socket: takes ICMP packets, gives IP packets, as lwIP's does."""

    def __init__(self):
        self._udp = _real_socket(AF_INET, SOCK_DGRAM)
        self._peers = {}

    def sendto(self, packet, where):
        address = _origin.get(bytes(where))
        if address is None:
            raise OSError(errno.EHOSTUNREACH)
        to = channel.call("route-icmp", address=address)
        relay = _real_getaddrinfo(to[0], to[1])[0][-1]
        self._peers[bytes(relay)] = where
        return self._udp.sendto(packet, relay)

    def connect(self, where):
        self._to = where

    def send(self, packet):
        return self.sendto(packet, self._to)

    write = send

    def recvfrom(self, size):
        packet, relay = self._udp.recvfrom(size)
        return packet, self._peers.get(bytes(relay), relay)

    def recv(self, size):
        return self._udp.recv(size)

    read = recv

    def readinto(self, buffer):
        return self._udp.readinto(buffer)

    def setblocking(self, on):
        self._udp.setblocking(on)

    def settimeout(self, seconds):
        self._udp.settimeout(seconds)

    def setsockopt(self, *args):
        pass

    def bind(self, where):
        pass

    def fileno(self):
        return self._udp.fileno()

    def ioctl(self, request, argument):
        return self._udp.fileno() if request == _GET_FILENO else 0

    def close(self):
        self._udp.close()
