"""Finds at a boot what the spool's flash holds: segments, sequence number, last tag. On loan."""

import binascii
import struct

import linkreport.frame as wire
from micropython import const

from . import delta, reader, segment

_TIME_AT = const(20)  # where a body holds its time


def recover(spool):
    """Set a new Spool to what its flash holds; one that cannot be read holds nothing."""
    left, newest = False, None
    damaged = True  # until all was read
    try:
        files = segment.files(spool)
        firsts, strange = _names(files)
        # Where nothing is, everything may have been forgotten.
        forgotten = not firsts and not strange
        for first in firsts:
            header, forgotten = _header(spool, files, segment.file_name(first))
            if header:
                spool.firsts.append(first)
                newest = header
        for name in strange:
            is_last = not firsts or name > segment.file_name(firsts[-1])
            has_records = _header(spool, files, name)[1]
            forgotten = has_records if is_last else forgotten
        if newest:
            spool.next_seq, oldest_seq, spool.lost, spool.tag = newest
            spool.acked = max(oldest_seq, spool.firsts[0]) - 1
            left, is_torn = _newest(spool, files)
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
        segment.set_aside(spool)
    spool.acknowledge(spool.acked)
    if damaged or left:
        _close(spool)


def _close(spool):
    """See that nothing is appended to a torn end, or to what is not the number before."""
    spool.size = 0xFFFF
    spool.state = None


def _skip_to(spool, seq):
    """Leave out numbers that reports may have had which the flash has lost."""
    if seq > spool.next_seq:
        first, spool.next_seq = spool.next_seq, seq
        spool.lose(first, seq)
        _close(spool)


def _names(files):
    """Return the segments' first sequence numbers and the names of other files, both sorted."""
    firsts, strange = [], []
    for name in files.names():
        try:
            first = int(name[:8], 16)
        except ValueError:
            first = 0
        if segment.file_name(first) == name:
            firsts.append(first)
        else:
            strange.append(name)
    firsts.sort()
    strange.sort()
    return firsts, strange


def _newest(spool, files):
    """Follow the chain of the newest segment; tell what follows: (anything, a torn record)."""
    spool.size = segment.HEADER_BYTES
    spool.state = delta.fresh()
    with files.open(segment.file_name(spool.firsts[-1])) as file:
        file.seek(segment.HEADER_BYTES)
        while True:
            record = reader.read_record(spool, file, spool.state, spool.next_seq, spool.tag)
            if record == b"":
                return False, False
            if not record:
                break
            body, spool.tag, length = record
            spool.last_time_s = struct.unpack_from(">I", body, _TIME_AT)[0]
            spool.size += length
            spool.next_seq += 1
        file.seek(spool.size)
        rest = file.read(2)
        # A power cut leaves the beginning of one record; anything else the flash has done.
        if len(rest) == 2 and rest[0] ^ rest[1] != 0xFF:
            return True, False
        more = len(file.read(300))
        return True, len(rest) < 2 or more < (rest[0] or wire.CORE_BYTES) + segment.MARK_BYTES


def _header(spool, files, name):
    """Return (first sequence, oldest sequence, lost, link) of a segment, None if it is none.

    What is none is removed; the second value tells whether it may have held records of ours.
    """
    with files.open(name) as file:
        content = file.read(segment.HEADER_BYTES)
        has_records = len(file.read(1)) == 1
    is_foreign = False
    if len(content) == segment.HEADER_BYTES:
        magic, key_id, *header = struct.unpack(segment.HEADER, content[:-4])
        good = int.from_bytes(content[-4:], "big") == binascii.crc32(content[:-4])
        if good and magic == segment.MAGIC and segment.file_name(header[0]) == name:
            is_foreign = key_id != spool.key_id
            if not is_foreign:
                return header, False
    files.remove(name)
    return None, has_records and not is_foreign
