"""Gateway: does the router answer pings, how fast, and how many?

Source: RFC 792 (echo), RFC 1071 (checksum).
"""

import os
import struct

from linkreport.table import (
    ADDRESSING,
    GATEWAY,
    GATEWAY_LOSS,
    GATEWAY_SILENT,
    GATEWAY_SLOW,
    OK,
)
from micropython import const

from ..connection import receive, resolve
from ..deadline import sleep_ms
from . import Result

LAYER = GATEWAY
NEEDS = ADDRESSING

_ECHOES = const(5)
_LONGEST_WAIT_MS = const(1000)
_PAUSE_MS = const(10)
_ICMP = const(1)
_ECHO_REPLY = const(0)
_ECHO_REQUEST = const(8)
_HEADER = ">BBHHH"
_PAYLOAD = b"netzpuls"
_MAX_PACKET_BYTES = const(128)


async def probe(port, config, evidence):
    """Send a few echo requests, one after the other."""
    identifier = struct.unpack(">H", os.urandom(2))[0]
    # One share is left over, so that the probe ends before its deadline.
    wait_ms = min(_LONGEST_WAIT_MS, config.deadline_ms["gateway"] // (_ECHOES + 1))
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_RAW, _ICMP)
    times_us = []
    try:
        sock.setblocking(False)
        target = resolve(port, evidence.gateway, 1)
        for seq in range(1, _ECHOES + 1):
            rtt_us = await _echo(port, sock, target, (identifier, seq), wait_ms)
            if rtt_us is not None:
                times_us.append(rtt_us)
            await sleep_ms(_PAUSE_MS)
    finally:
        sock.close()
    loss_percent = (_ECHOES - len(times_us)) * 100 // _ECHOES
    measures = {"gateway_loss_percent": loss_percent}
    if not times_us:
        return Result(GATEWAY_SILENT, measures)
    times_us.sort()
    measures["gateway_rtt_us"] = times_us[len(times_us) // 2]
    if loss_percent > config.thresholds.gateway_loss_percent:
        return Result(GATEWAY_LOSS, measures)
    if measures["gateway_rtt_us"] > config.thresholds.gateway_rtt_ms * 1000:
        return Result(GATEWAY_SLOW, measures)
    return Result(OK, measures)


async def _echo(port, sock, target, mark, wait_ms):
    """Return the round-trip time in µs, None if no answer came."""
    until_ms = port.uptime_ms() + wait_ms
    try:
        start = port.ticks_us()
        sock.sendto(request(*mark), target)
        while port.uptime_ms() < until_ms:
            # No pause: it would be part of the time measured. Other tasks run all the same.
            packet = await receive(port, sock, _MAX_PACKET_BYTES, until_ms, 0)
            if answers(packet, *mark):
                return port.ticks_us_since(start)
    except OSError:  # no route, no buffer: an echo that is lost
        await sleep_ms(_PAUSE_MS)
    return None


def request(identifier, seq):
    """Pack an echo request."""
    packet = struct.pack(_HEADER, _ECHO_REQUEST, 0, 0, identifier, seq) + _PAYLOAD
    return packet[:2] + struct.pack(">H", checksum(packet)) + packet[4:]


def answers(packet, identifier, seq):
    """Tell whether an IPv4 packet is the echo reply that is waited for."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    icmp = packet[(packet[0] & 15) * 4 :]
    if len(icmp) < 8 or icmp[0] != _ECHO_REPLY or checksum(icmp) != 0:
        return False
    return struct.unpack(">HH", icmp[4:8]) == (identifier, seq) and icmp[8:] == _PAYLOAD


def checksum(packet):
    """Return the internet checksum; 0 over a packet that holds its own."""
    total = 0
    for at in range(0, len(packet), 2):
        total += packet[at] << 8 | (packet[at + 1] if at + 1 < len(packet) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
