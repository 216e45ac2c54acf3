"""Ask an NTP server for the time.

Source: RFC 5905 (SNTP client: section 14), RFC 4330 (what an answer must hold).
"""

import os
import struct

from micropython import const

from .connection import receive, resolve
from .dns import find

_NTP_PORT = const(123)
_TRIES = const(3)
_NAME_MS = const(2000)
_WAIT_MS = const(1000)
_PACKET_BYTES = const(48)
_ERA_S = const(1 << 32)
_EPOCH_S = 2208988800  # from 1900 to 1970


async def ask(port, host, resolver):
    """Return Unix seconds, None if nobody tells them; takes five seconds at most."""
    address = await find(port, resolver, host, _NAME_MS)
    if not address:
        return None
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        port.bind_wlan(sock)
        sock.connect(resolve(port, address, _NTP_PORT))
        for _ in range(_TRIES):
            mark = os.urandom(8)
            sock.send(b"\x23" + bytes(39) + mark)
            start_ms = now_ms = port.uptime_ms()
            while now_ms - start_ms < _WAIT_MS:
                packet = await receive(port, sock, 2 * _PACKET_BYTES, start_ms + _WAIT_MS)
                now_ms = port.uptime_ms()
                time_s = parse(packet, mark, (now_ms - start_ms) // 2)
                if time_s is not None:
                    return time_s
    except OSError:  # no route, or its port is closed
        return None
    finally:
        sock.close()
    return None


def parse(packet, mark, way_ms):
    """Return the Unix seconds, rounded, that an answer to the question `mark` tells.

    None for what is no answer to it, or comes from a server that does not know the time itself.
    The years from 1968 to 2104 are meant: the seconds start anew in 2036.
    """
    if len(packet) < _PACKET_BYTES or packet[24:32] != mark:
        return None
    leap, mode, stratum = packet[0] >> 6, packet[0] & 7, packet[1]
    if leap == 3 or mode != 4 or not 1 <= stratum <= 15:
        return None
    seconds, fraction = struct.unpack(">II", packet[40:48])
    if not seconds:
        return None
    if seconds < _ERA_S >> 1:
        seconds += _ERA_S
    milliseconds = (fraction >> 16) * 1000 >> 16
    return seconds - _EPOCH_S + (milliseconds + way_ms + 500) // 1000
