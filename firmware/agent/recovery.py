"""Gets back what the spool's flash holds: at a boot where it stands, later the reports. On loan.

The format is told in `agent.segment`.
"""

import struct

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

from . import delta, segment

_MOST_REPORT_BYTES = const(287)
_CLOSED = const(0xFFFF)
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
        spool.size = _CLOSED  # never append to a torn end


def _skip_to(spool, seq):
    """Leave out numbers that reports may have had which the flash has lost."""
    if seq > spool.next_seq:
        first, spool.next_seq = spool.next_seq, seq
        spool.lose(first, seq)
        spool.size = _CLOSED  # the next number is not the next record


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
    state = delta.fresh()
    with files.open(segment.file_name(spool.firsts[-1])) as file:
        file.seek(segment.HEADER_BYTES)
        while True:
            record = _record(spool, file, state, spool.next_seq, spool.tag)
            if record == b"":
                spool.state = state
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
    header = segment.parse(content, name)
    if header and header[0] == spool.key_id:
        return header[1:], False
    files.remove(name)
    return None, has_records and not header


def read(spool, seq, in_memory, max_bytes):
    """Read reports of one segment; return them and the sequence number after them.

    Where it ends stays in `spool.reader` for the next time: [sequence number, segment, offset,
    link, state, whether it is idle]. What cannot be read is lost.
    """
    index = len(spool.firsts) - 1
    while index > 0 and spool.firsts[index] > seq:
        index -= 1
    first = spool.firsts[index]
    end_seq = (spool.firsts[index + 1 : index + 2] or [spool.flash_seq])[0]
    parts, lost, is_new = [], None, False
    size = 0
    reader, spool.reader = spool.reader, None
    try:
        with segment.files(spool).open(segment.file_name(first)) as file:
            if reader and reader[:2] == [seq, first]:
                at, _, offset, link, state, _ = reader
                file.seek(offset)
            else:
                header = file.read(segment.HEADER_BYTES)
                link, state = header[-4 - TAG_BYTES : -4], delta.fresh()
                at, offset = first, segment.HEADER_BYTES
            while at < end_seq and not (parts and size > max_bytes - _MOST_REPORT_BYTES):
                record = _record(spool, file, state, at, link)
                if not record:
                    lost = (at, end_seq)  # what is coded on it, too
                    # A gap that no record tells of was counted before the next one began.
                    is_new = record != b"" and not _is_lost(spool, at)
                    at = end_seq
                    break
                body, tag, length = record
                if at >= seq and not _is_lost(spool, at):
                    parts.append(body + link + tag)
                    size += len(parts[-1])
                link = tag
                offset += length
                at += 1
            else:
                spool.reader = [at, first, offset, link, state, False]
    except OSError:
        spool.lose(seq, min(end_seq, in_memory))
        return [], seq
    if lost and not _is_lost(spool, lost[0]):
        spool.lose(lost[0], lost[1], is_new)
    return parts, at


def _is_lost(spool, seq):
    return any(first <= seq < end for first, end in spool.holes)


def _record(spool, file, state, seq, link):
    """Read the record that must come next: (body, tag, length on flash).

    Returns: b"" at the file's end, None for what is not that record.
    """
    mark = file.read(2)
    if not mark:
        return b""
    if len(mark) < 2 or mark[0] ^ mark[1] != 0xFF:
        return None
    size = mark[0]
    code = file.read(size or 2)
    if not size and len(code) == 2:
        size = code[1]
        code += file.read(max(0, size - 2))
    begin = file.read(segment.MARK_BYTES)
    if len(begin) != segment.MARK_BYTES or len(code) != size:
        return None
    if mark[0]:
        body = delta.decode(state, code)
    else:
        body = code
        delta.encode(state, body)
    if body[:2] != bytes((wire.VERSION, len(body))) or len(body) < wire.CORE_BYTES:
        return None
    if struct.unpack(">HI", body[2:8]) != (spool.key_id, seq):
        return None
    tag = spool.seal.tag(wire.LABEL, link, body)
    if tag[: segment.MARK_BYTES] != begin:
        return None
    return body, tag, len(code) + 2 + segment.MARK_BYTES
