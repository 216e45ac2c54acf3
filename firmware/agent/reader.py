"""Reads the spool's reports from flash. On loan, see `agent.segment` for the format."""

import struct

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

from . import delta, segment

_MOST_REPORT_BYTES = const(287)


def read(spool, seq, max_bytes):
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
                reader = None  # its state goes before there is another
                header = file.read(segment.HEADER_BYTES)
                link, state = header[-4 - TAG_BYTES : -4], delta.fresh()
                at, offset = first, segment.HEADER_BYTES
            while at < end_seq and not (parts and size > max_bytes - _MOST_REPORT_BYTES):
                record = read_record(spool, file, state, at, link)
                if not record:
                    lost = (at, end_seq)  # what is coded on it, too
                    # A gap that no record tells of was counted before the next one began.
                    is_new = record != b"" and spool.after_hole(at) == at
                    at = end_seq
                    break
                body, tag, length = record
                if at >= seq and spool.after_hole(at) == at:
                    parts.append(body + link + tag)
                    size += len(parts[-1])
                link = tag
                offset += length
                at += 1
            else:
                spool.reader = [at, first, offset, link, state, False]
    except OSError:
        spool.lose(seq, min(end_seq, spool.next_seq - len(spool.recent)))
        return [], seq
    if lost and spool.after_hole(lost[0]) == lost[0]:
        spool.lose(lost[0], lost[1], is_new)
    return parts, at


def read_record(spool, file, state, seq, link):
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
