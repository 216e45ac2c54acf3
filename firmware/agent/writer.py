"""Writes the spool's reports to flash. On loan, see `agent.segment` for the format."""

import binascii
import struct

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

from . import segment
from .loan import borrow, give_back

_RESERVE_BYTES = const(32768)
_ENOSPC = const(28)  # MicroPython's errno does not name it
_SMALLEST_BYTES = const(24)


def write(spool):
    """Bring to flash what is not there yet; if nothing is, begin a new segment.

    Raises: OSError, MemoryError: what is not there yet stays for another time.
    """
    files = segment.files(spool)
    if spool.flash_seq == spool.next_seq:
        _begin(spool, files, spool.tag)
        return
    while spool.flash_seq < spool.next_seq:
        raw = spool.recent[spool.flash_seq - spool.next_seq]
        if spool.is_full(_SMALLEST_BYTES):
            _begin(spool, files, wire.link_of(raw))
        record = _record(spool, raw)
        if spool.is_full(len(record)):
            _begin(spool, files, wire.link_of(raw))
            record = _record(spool, raw)
        name = segment.file_name(spool.firsts[-1])
        try:
            files.write(name, spool.size, record)
        except OSError as error:
            if error.errno != _ENOSPC or len(spool.firsts) < 2:
                raise
            _give_up_oldest(spool)
            files.write(name, spool.size, record)
        spool.size += len(record)
        spool.flash_seq += 1
    if spool.error:
        spool.error = None
        spool.remember("seq_ram", 0)


def _record(spool, raw):
    body = raw[: -wire.SEAL_BYTES]
    try:
        delta = borrow("agent.delta")
        if spool.state is None:
            spool.state = delta.fresh()
        code = delta.encode(spool.state, body)
    finally:
        delta = None  # this frame would hold it
        give_back("agent.delta")
    size = len(code)
    if size >= len(body):
        code, size = body, 0
    return bytes((size, size ^ 0xFF)) + code + raw[-TAG_BYTES : segment.MARK_BYTES - TAG_BYTES]


def _begin(spool, files, link):
    """Begin a new segment with the report that comes next on flash, and its link."""
    if len(spool.firsts) >= spool.max_segments or (
        len(spool.firsts) > 1 and files.free_bytes() < _RESERVE_BYTES
    ):
        _give_up_oldest(spool)
    seq = spool.flash_seq
    header = struct.pack(
        segment.HEADER,
        segment.MAGIC,
        spool.key_id,
        seq,
        spool.oldest_seq,
        spool.lost,
        link,
    )
    header += binascii.crc32(header).to_bytes(4, "big")
    spool.size = 0xFFFF  # until the header stands
    files.write(segment.file_name(seq), 0, header)
    if not spool.firsts or spool.firsts[-1] != seq:
        spool.firsts.append(seq)
    spool.size = len(header)
    spool.state = None
    segment.set_aside(spool)
    spool.acknowledge(spool.acked)


def _give_up_oldest(spool):
    end = spool.firsts[1]
    lost = end - spool.oldest_seq
    for first, after in spool.holes:
        if first < end:
            lost -= min(after, end) - max(first, spool.oldest_seq)
    spool.lost += max(0, lost)
    spool.holes = [hole for hole in spool.holes if hole[0] >= end]
    spool.acknowledge(end - 1)
