"""Finds at a boot what the spool's flash holds: segments, sequence number, last tag. On loan."""

import struct

import linkreport.frame as wire
from micropython import const

from . import delta
from .spool import HEADER_BYTES, MARK_BYTES, file_name, read_header, read_record

_TIME_AT = const(20)  # where a body holds its time


def recover(spool):
    """Set a new Spool to what its flash holds; one that cannot be read holds nothing."""
    left, newest = False, None
    damaged = True  # until all was read
    try:
        names = sorted(spool.files.names())
        # Where nothing is, everything may have been forgotten.
        forgotten = not names
        for name in names:
            header, forgotten = _header(spool, name)
            if header:
                spool.firsts.append(header[0])
                newest = header
        if newest:
            spool.next_seq, oldest_seq, spool.lost, spool.tag = newest
            spool.acked = max(oldest_seq, spool.firsts[0]) - 1
            left, is_torn = _newest(spool)
            damaged = left and not is_torn
        else:
            damaged = False
        damaged = damaged or forgotten
    except OSError as error:
        spool.error = error
    recall = spool.store.recall
    ours = recall("key_id") == spool.key_id
    if damaged and ours:
        _skip_to(spool, recall("seq_bound") or spool.next_seq)
    if ours:  # the flash may have taken nothing at the last
        _skip_to(spool, recall("seq_ram") or 0)
    if newest and not spool.error:
        spool.set_aside()
    spool.acknowledge(spool.acked)
    if damaged or left:
        spool.size = 0xFFFF  # never append to a torn end


def _skip_to(spool, seq):
    """Leave out numbers that reports may have had which the flash has lost."""
    if seq > spool.next_seq:
        first, spool.next_seq = spool.next_seq, seq
        spool.lose(first, seq)
        spool.size = 0xFFFF  # the next number is not the next record


def _newest(spool):
    """Follow the chain of the newest segment; tell what follows: (anything, a torn record)."""
    spool.size = HEADER_BYTES
    spool.state = delta.fresh()
    with spool.files.open(file_name(spool.firsts[-1])) as file:
        file.seek(HEADER_BYTES)
        while True:
            record = read_record(file, delta, spool.state, spool.key_id, spool.next_seq)
            if record == b"":
                return False, False
            tag = record and spool.seal.tag(wire.LABEL, spool.tag, record[0])
            if not record or tag[:MARK_BYTES] != record[1]:
                break
            spool.tag = tag
            spool.last_time_s = struct.unpack_from(">I", record[0], _TIME_AT)[0]
            spool.size += record[2]
            spool.next_seq += 1
        file.seek(spool.size)
        rest = file.read(2)
        # A power cut leaves the beginning of one record; anything else the flash has done.
        if len(rest) == 2 and rest[0] ^ rest[1] != 0xFF:
            return True, False
        more = len(file.read(300))
        return True, len(rest) < 2 or more < (rest[0] or wire.CORE_BYTES) + MARK_BYTES


def _header(spool, name):
    """Return a segment's header, and whether it is none but records follow; remove what is none."""
    with spool.files.open(name) as file:
        content = file.read(HEADER_BYTES)
        has_records = len(file.read(1)) == 1
    try:
        return read_header(content, spool.key_id, name), False
    except ValueError as error:
        spool.files.remove(name)
        return None, has_records and error.args[0]
