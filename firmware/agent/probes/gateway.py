"""Gateway: does the router answer pings, how fast, how evenly, and how many?

The echoes go out one after the other without waiting for answers, so that a way that takes
300 ms costs no more time than a fast one. An answer counts if it comes before the deadline.

Source: RFC 792 (echo), RFC 1071 (checksum).
"""

import os
import struct

from linkreport.block import PATH, PATH_FORMAT
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

_ECHOES = const(20)
_GAP_MS = const(25)
_LONGEST_WAIT_MS = const(1200)
_PAUSE_MS = const(5)
_ICMP = const(1)
_ECHO_REPLY = const(0)
_ECHO_REQUEST = const(8)
_HEADER = ">BBHHH"
_PAYLOAD = b"netzpuls"
_MAX_PACKET_BYTES = const(128)
_NOTHING = const(0xFFFFFFFF)


async def probe(port, config, evidence):
    """Send echo requests and collect what comes back."""
    deadline_ms = config.deadline_ms["gateway"]
    # A quarter of the deadline to send, half to wait for the last answer, the rest is reserve.
    gap_ms = max(1, min(_GAP_MS, deadline_ms // (4 * _ECHOES)))
    wait_ms = min(_LONGEST_WAIT_MS, deadline_ms // 2)
    times_us = await _echoes(port, evidence.gateway, gap_ms, wait_ms)
    came_us = [time_us for time_us in times_us if time_us is not None]
    loss_percent = (_ECHOES - len(came_us)) * 100 // _ECHOES
    measures = {"gateway_loss_percent": loss_percent}  # type: dict
    if not came_us:
        return Result(GATEWAY_SILENT, measures)
    jitter_us = _jitter_us(times_us)
    came_us.sort()
    median_us = came_us[len(came_us) // 2]
    p95_us = came_us[(len(came_us) * 95 + 99) // 100 - 1]
    measures["gateway_rtt_us"] = median_us
    measures[PATH] = struct.pack(PATH_FORMAT, _ECHOES, came_us[0], p95_us, jitter_us)
    if loss_percent > config.thresholds.gateway_loss_percent:
        return Result(GATEWAY_LOSS, measures)
    if median_us > config.thresholds.gateway_rtt_ms * 1000:
        return Result(GATEWAY_SLOW, measures)
    return Result(OK, measures)


async def _echoes(port, address, gap_ms, wait_ms):
    """Return the round-trip time of each echo in µs, None where no answer came."""
    identifier = struct.unpack(">H", os.urandom(2))[0]
    times_us = [None] * _ECHOES
    sent = []  # marks of when, for ticks_us_since
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_RAW, _ICMP)
    try:
        sock.setblocking(False)
        port.bind_wlan(sock)
        target = resolve(port, address, 1)
        start_ms = port.uptime_ms()
        until_ms = start_ms + gap_ms * _ECHOES + wait_ms
        while (now_ms := port.uptime_ms()) < until_ms and None in times_us:
            next_ms = start_ms + gap_ms * len(sent)
            if len(sent) == _ECHOES:
                next_ms = until_ms
            elif now_ms >= next_ms:
                sent.append(port.ticks_us())
                try:
                    sock.sendto(request(identifier, len(sent)), target)
                except OSError:  # no route, no buffer: an echo that is lost
                    pass
            try:
                # No pause: it would be part of the time measured. Other tasks run all the same.
                packet = await receive(port, sock, _MAX_PACKET_BYTES, next_ms, 0)
            except OSError:  # the stack tells of a packet that found no way
                await sleep_ms(_PAUSE_MS)
                continue
            seq = answered(packet, identifier)
            if seq and seq <= len(sent) and times_us[seq - 1] is None:
                times_us[seq - 1] = port.ticks_us_since(sent[seq - 1])
    finally:
        sock.close()
    return times_us


def _jitter_us(times_us):
    """Return the mean difference of neighbours that both came back."""
    total = count = 0
    for at in range(1, len(times_us)):
        before, after = times_us[at - 1 : at + 1]
        if before is not None and after is not None:
            total += abs(after - before)
            count += 1
    return total // count if count else _NOTHING


def request(identifier, seq):
    """Pack an echo request."""
    packet = struct.pack(_HEADER, _ECHO_REQUEST, 0, 0, identifier, seq) + _PAYLOAD
    return packet[:2] + struct.pack(">H", checksum(packet)) + packet[4:]


def answered(packet, identifier):
    """Return which echo request an IPv4 packet is the reply to, 0 if it is none of ours."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return 0
    icmp = packet[(packet[0] & 15) * 4 :]
    if len(icmp) < 8 or icmp[0] != _ECHO_REPLY or checksum(icmp) != 0:
        return 0
    theirs, seq = struct.unpack(">HH", icmp[4:8])
    return seq if theirs == identifier and icmp[8:] == _PAYLOAD else 0


def checksum(packet):
    """Return the internet checksum; 0 over a packet that holds its own."""
    total = 0
    for at in range(0, len(packet), 2):
        total += packet[at] << 8 | (packet[at + 1] if at + 1 < len(packet) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
