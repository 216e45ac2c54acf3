"""A ping that only wants to know whether anybody is there. On loan."""

import os
import struct

from micropython import const

from .connection import receive, resolve

_PINGS = const(2)
_PING_MS = const(250)
_PACKET_BYTES = const(128)


async def answers(port, address, wait_ms):
    """Tell whether somebody answers a ping."""
    wait_ms = min(wait_ms, _PING_MS)
    net = port.socket
    sock = net.socket(net.AF_INET, net.SOCK_RAW, 1)
    mark = os.urandom(4)
    try:
        sock.setblocking(False)
        port.bind_wlan(sock)
        target = resolve(port, address, 1)
        for _ in range(_PINGS):
            until_ms = port.uptime_ms() + wait_ms
            sock.sendto(_echo(mark), target)
            while port.uptime_ms() < until_ms:
                packet = await receive(port, sock, _PACKET_BYTES, until_ms)
                icmp = packet[(packet[0] & 15) * 4 :] if packet else b""
                if icmp[:1] == b"\0" and icmp[4:8] == mark:
                    return True
    except OSError:  # no way there, as for an address that nobody has
        return False
    finally:
        sock.close()
    return False


def _echo(mark):
    """Pack an ICMP echo request (RFC 792)."""
    total = 0x0800 + sum(struct.unpack(">HH", mark))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">BBH4s", 8, 0, ~total & 0xFFFF, mark)
