"""Throughput: what does this board get? Small, capped, and never while the line is busy.

    "throughput": {"host": "probe.example.org", "address": "203.0.113.80", "port": 80,
                   "path": "/256k", "bytes": 262144, "every": 60}

Every 60th cycle, the first one by chance, so that a school's boards take turns. It is left for
the next cycle where the gateway answers slowly (somebody uses the line) or reports wait to be
sent. An ESP32's own limit is some Mbit/s: this is the board's throughput, not the line's.
"""

import errno
import os
import struct

from linkreport.block import PATH, PATH_FORMAT, THROUGHPUT, THROUGHPUT_FORMAT
from linkreport.table import INTERNET, OK, THROUGHPUT_LOW
from micropython import const

from ..connection import connect
from ..deadline import sleep_ms
from ..http import status
from ..web import request
from . import Result

LAYER = INTERNET
NEEDS = INTERNET

_PIECE_BYTES = const(1460)
_LEAST_BYTES = const(16384)
_LEAST_MS = const(500)
_MAX_WAITING = const(8)
_POLL_MS = const(2)


async def probe(port, config, evidence):
    """Download what the configuration says, as far as the deadline allows."""
    plan, link = config.throughput, evidence.link
    if plan is None:
        return Result(OK, {})
    if link.cycles_to_download is None:
        link.cycles_to_download = int.from_bytes(os.urandom(2), "big") % plan.every
    if link.cycles_to_download > 0:
        link.cycles_to_download -= 1
        return Result(OK, {})
    if _is_busy(config, evidence):
        return Result(OK, {})
    link.cycles_to_download = plan.every - 1
    try:
        count, took_ms, whole = await _download(port, plan, config.deadline_ms["throughput"])
    except OSError:  # what is not there is another probe's to tell
        return Result(OK, {})
    # Over too soon to be a rate, or begun too late.
    if not count or (count < _LEAST_BYTES and (whole or took_ms < _LEAST_MS)):
        return Result(OK, {})
    kbit_s = count * 8 // max(1, took_ms)
    block = struct.pack(THROUGHPUT_FORMAT, kbit_s, min(count >> 10, 0xFFFE))
    low = kbit_s < config.thresholds.throughput_kbit_s
    return Result(THROUGHPUT_LOW if low else OK, {THROUGHPUT: block})


def _is_busy(config, evidence):
    if evidence.link.waiting > _MAX_WAITING:
        return True
    path = evidence.measures.get(PATH)
    if path is None:  # a gateway that ignores pings cannot tell
        return False
    _, _, p95_us, _ = struct.unpack(PATH_FORMAT, path)
    return p95_us > config.thresholds.gateway_rtt_ms * 500


async def _download(port, plan, deadline_ms):
    """Return (bytes that came, ms from the first of them to the end, False if time ran out).

    Raises: OSError: it cannot be had, ECANCELED if the server answers anything but 200.
    """
    until_ms = port.uptime_ms() + deadline_ms
    sock = await connect(port, plan.address, plan.port, deadline_ms // 2)
    piece = memoryview(bytearray(_PIECE_BYTES))
    read_into = getattr(sock, "recv_into", None) or sock.readinto
    count = first_ms = last_ms = 0
    try:
        sock.send(request(plan.host, plan.path))
        while count < plan.bytes:
            try:
                size = read_into(piece)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                size = None
            now_ms = port.uptime_ms()
            if now_ms >= until_ms:
                return count, now_ms - first_ms, False
            if size == 0:
                break
            if size is None:
                await sleep_ms(_POLL_MS)
                continue
            if not count:
                first_ms = now_ms
                if status(bytes(piece[:16])) != 200:
                    raise OSError(errno.ECONNABORTED, "no download")
            count += size
            last_ms = now_ms
            if count % (_PIECE_BYTES * 8) < size:
                await sleep_ms(0)
    finally:
        sock.close()
    return count, last_ms - first_ms, True
