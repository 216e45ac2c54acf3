"""Writes the spool's reports to flash. On loan, see `agent.segment` for the format."""

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

from . import segment
from .loan import borrow, give_back

_RESERVE_BYTES = const(32768)
_ENOSPC = const(28)  # MicroPython's errno does not name it
_SEGMENT_BYTES = const(4096)
_SMALLEST_BYTES = const(24)  # a segment with less room is full
_CLOSED = const(0xFFFF)  # a segment's size as long as its end may be torn


def write(spool, recent):
    """Bring to flash what is not there yet of the recent reports.

    If nothing is, begin a new segment if the newest is full.

    Raises: OSError, MemoryError: what is not there yet stays for another time.
    """
    files = segment.files(spool)
    if spool.flash_seq == spool.next_seq:
        if _is_full(spool):
            _begin(spool, files, spool.tag)
        return
    while spool.flash_seq < spool.next_seq:
        raw = recent[spool.flash_seq - spool.next_seq]
        if _is_full(spool):
            _begin(spool, files, wire.link_of(raw))
        size, spool.size = spool.size, _CLOSED  # as long as only the state has seen the record
        record = _record(spool, raw)
        if size + len(record) > _SEGMENT_BYTES:
            _begin(spool, files, wire.link_of(raw))
            size, spool.size = spool.size, _CLOSED
            record = _record(spool, raw)
        name = segment.file_name(spool.firsts[-1])
        try:
            files.write(name, size, record)
        except OSError as error:
            if error.errno != _ENOSPC or len(spool.firsts) < 2:
                raise
            _give_up_oldest(spool)
            files.write(name, size, record)
        spool.size = size + len(record)
        spool.flash_seq += 1
    if spool.error:
        spool.error = None
        spool.remember("seq_ram", 0)


def _is_full(spool):
    return (
        not spool.firsts
        or spool.size + _SMALLEST_BYTES > _SEGMENT_BYTES
        or spool.flash_seq - spool.firsts[-1] >= spool.most_records
    )


def _record(spool, raw):
    body = raw[: -wire.SEAL_BYTES]
    try:
        delta = borrow("agent.delta")
        if spool.state is None:
            spool.state = delta.fresh()
        elif spool.flash_seq == spool.firsts[-1]:
            delta.reset(spool.state)
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
    header = segment.header(spool, link)
    spool.size = _CLOSED
    files.write(segment.file_name(seq), 0, header)
    if not spool.firsts or spool.firsts[-1] != seq:
        spool.firsts.append(seq)
    spool.size = len(header)
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
