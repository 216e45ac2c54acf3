"""Reports on flash until the collector has them: append-only segments, removed whole.

    segment = header ‖ record ‖ record ‖ …        file name: first sequence number, in hex
    header  = "NZ" ‖ version (B) ‖ 0 (B) ‖ key id (H) ‖ first sequence (I) ‖ oldest sequence (I)
              ‖ lost (I) ‖ link of the first record (16) ‖ CRC-32 of all that (I): 38 bytes
    record  = size (B) ‖ size XOR 255 (B) ‖ code ‖ first 4 bytes of the tag

The code is the body's difference to the record before (`agent.delta`; size 0: the body as it
is). Link and tag are made again when a report is read: the link is the tag before it, and the
tag must begin as the record says. A segment is one block of LittleFS. A plain report takes 16 bytes
of flash, one that is full of blocks whose every field moves 58: 28 days of one report a minute
fit the 960 KiB of the OTA layout beside the agent's own files, and 7.7 in the worst case.

The newest segment always stays, acknowledged or not: it carries the sequence number and the last
tag over a power cut. A record that a cut tore is dropped; it never left the board. Where the
flash itself lost records, their sequence numbers are not used again. The header's oldest
sequence makes removal safe to repeat after a cut.

A flash that cannot be written keeps no report from being made: the last sixteen stay in memory,
are sent as any other, and go to flash as soon as it takes them.

Each report costs LittleFS one erase and 2 KiB programmed, and the free blocks take turns: 3,100
erases of a block and year at one report a minute, 3,300 of the block worst off. Flash made for
100,000 lasts thirty years. (All measured by `python -m benchmarks spool`.)
"""

import binascii
import os
import struct

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

from .loan import borrow, give_back

_MAGIC = b"NZ"
_VERSION = const(2)
_HEADER = ">2sBBHIII16s"
_CRC = ">I"
HEADER_BYTES = struct.calcsize(_HEADER) + struct.calcsize(_CRC)
MARK_BYTES = 4
_SUFFIX = ".seg"

SEGMENT_BYTES = 4096
MAX_SEGMENTS = 220
# Numbers are set aside so many at a time: a segment has no more records.
MOST_RECORDS = 255
_RESERVE_BYTES = const(32768)
_IN_MEMORY = const(16)
_ENOSPC = const(28)  # MicroPython's errno does not name it
_SMALLEST_BYTES = const(24)  # a segment with less room is full
_MOST_REPORT_BYTES = const(287)


class Files:
    """The few file operations that the spool needs, in one folder."""

    def __init__(self, folder):
        self._folder = folder
        try:
            os.mkdir(folder)
        except OSError:  # it is there; if not, the first write says so
            return

    def _path(self, name):
        return self._folder + "/" + name

    def names(self):
        """List the files."""
        return os.listdir(self._folder)

    def write(self, name, offset, content):
        """Write at an offset, which is the file's end; 0 makes the file anew."""
        with open(self._path(name), "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(content)

    def open(self, name):
        """Open a file for reading."""
        return open(self._path(name), "rb")

    def remove(self, name):
        """Remove a file."""
        os.remove(self._path(name))

    def free_bytes(self):
        """Return the free space."""
        stat = os.statvfs(self._folder)
        return stat[0] * stat[3]


class Spool:
    """The reports that the collector has not acknowledged yet, in order.

    Attributes:
        next_seq: sequence number of the next report.
        tag: tag of the last report, the link of the next.
        lost: reports given up because there was no room, or because the flash lost them.
        last_time_s: time of the last report found on flash, 0 if none.
        first_seq_of_boot: `next_seq` when the spool was opened.
        error: why the flash takes nothing at present, None if it does.
    """

    def __init__(
        self, files, seal, key_id, store, *, max_segments=MAX_SEGMENTS, most_records=MOST_RECORDS
    ):
        self.files = files
        self.key_id = key_id
        self.seal = seal
        self.store = store
        self._max_segments = max_segments
        self._most_records = most_records
        self.firsts = []  # first sequence number of each segment, ascending
        self.size = SEGMENT_BYTES  # of the newest segment
        self.state = None  # what `agent.delta` knows of the newest segment
        self._reader = None  # [sequence, segment, offset, link, state] where a batch ended
        self._recent = []  # the last reports, as they are sent
        self.holes = []  # [(first, end), …) that are lost
        self.acked = 0
        self.next_seq = 1
        self.tag = wire.NO_TAG
        self.lost = 0
        self.last_time_s = 0
        self.error = None
        try:
            borrow("agent.recovery").recover(self)
        finally:
            give_back("agent.recovery", "agent.delta")
        self._flash_seq = self.next_seq  # the next that has to go to flash
        self.first_seq_of_boot = self.next_seq

    @property
    def last_seq(self):
        """Sequence number of the last report made, 0 before the first."""
        return self.next_seq - 1

    @property
    def oldest_seq(self):
        """Lowest sequence number still held; that of the next report if none is."""
        return self.acked + 1

    @property
    def waiting(self):
        """Number of reports held."""
        return self.last_seq - self.acked - sum(end - first for first, end in self.holes)

    def make_room(self):
        """Begin a new segment if the newest is full; give up the oldest if there is no room.

        To be called before a report is made, for the report tells what is held.
        """
        try:
            if self._flash_seq < self.next_seq:
                self._store()
            elif self._is_full(_SMALLEST_BYTES):
                self._begin(self.next_seq, self.tag)
        except OSError as error:
            self._fail(error)

    def append(self, raw):
        """Keep one sealed report, which must be the next one, wherever that is possible."""
        self._recent.append(raw)
        self.tag = wire.tag_of(raw)
        self.next_seq += 1
        try:
            self._store()
        except (OSError, MemoryError) as error:
            self._fail(error)
        while len(self._recent) > (1 if self._flash_seq == self.next_seq else _IN_MEMORY):
            seq = self.next_seq - len(self._recent)
            self._recent.pop(0)
            if seq >= self._flash_seq:
                self._flash_seq = seq + 1
                self.lose(seq, seq + 1)

    def _store(self):
        """Bring to flash what is not there yet."""
        try:
            delta = borrow("agent.delta")
            while self._flash_seq < self.next_seq:
                raw = self._recent[self._flash_seq - self.next_seq]
                if self._is_full(_SMALLEST_BYTES):
                    self._begin(self._flash_seq, wire.link_of(raw))
                record = self._record(delta, raw)
                if self._is_full(len(record)):
                    self._begin(self._flash_seq, wire.link_of(raw))
                    record = self._record(delta, raw)
                self._write(record)
                self.size += len(record)
                self._flash_seq += 1
        finally:
            delta = None  # this frame would hold it
            give_back("agent.delta")
        if self.error:
            self.error = None
            self._remember("seq_ram", 0)

    def _is_full(self, more_bytes):
        return (
            not self.firsts
            or self.size + more_bytes > SEGMENT_BYTES
            or self._flash_seq - self.firsts[-1] >= self._most_records
        )

    def _record(self, delta, raw):
        body = raw[: -wire.SEAL_BYTES]
        if self.state is None:
            self.state = delta.fresh()
        code = delta.encode(self.state, body)
        size = len(code)
        if size >= len(body):
            code, size = body, 0
        return bytes((size, size ^ 0xFF)) + code + raw[-TAG_BYTES : MARK_BYTES - TAG_BYTES]

    def _write(self, record):
        name = file_name(self.firsts[-1])
        try:
            self.files.write(name, self.size, record)
        except OSError as error:
            if error.errno != _ENOSPC or len(self.firsts) < 2:
                raise
            self._give_up_oldest()
            self.files.write(name, self.size, record)

    def _fail(self, error):
        """Go on in memory; see that numbers used now are not used again by the next boot."""
        self.size = SEGMENT_BYTES  # a torn end is not written on
        self.error = error
        if self.next_seq + 1 >= (self.store.recall("seq_ram") or 0):
            self._remember("seq_ram", self.next_seq + _IN_MEMORY)

    def batch(self, seq, max_bytes):
        """Read reports from a sequence number on, as one message.

        Returns: (message, sequence number after its last report); the message is empty if
            there is none to send.
        """
        while True:
            seq = self._after_hole(max(seq, self.oldest_seq))
            in_memory = self.next_seq - len(self._recent)
            if seq >= in_memory:
                self._reader = None
                parts = self._recent[seq - in_memory :]
                while len(parts) > 1 and sum(len(raw) for raw in parts) > max_bytes:
                    parts.pop()
                return b"".join(parts), seq + len(parts)
            try:
                parts, seq = self._read(seq, max_bytes)
            except OSError:
                self._reader = None
                self.lose(seq, min(self._segment(seq)[1], in_memory))
                continue
            if parts:  # if not, the flash lost them: on with what comes after
                return b"".join(parts), seq

    def _segment(self, seq):
        """Return the first sequence number of the segment of one, and of the segment after."""
        index = len(self.firsts) - 1
        while index > 0 and self.firsts[index] > seq:
            index -= 1
        after = self.firsts[index + 1 : index + 2] or [self._flash_seq]
        return self.firsts[index], after[0]

    def _read(self, seq, max_bytes):
        """Read reports of one segment; return them and the sequence number after them."""
        segment, end_seq = self._segment(seq)
        parts, lost, is_new = [], None, False
        size = 0
        try:
            delta = borrow("agent.delta")
            with self.files.open(file_name(segment)) as file:
                if self._reader and self._reader[:2] == [seq, segment]:
                    at, _, offset, link, state = self._reader
                    file.seek(offset)
                else:
                    header = file.read(HEADER_BYTES)
                    link, state = header[-4 - TAG_BYTES : -4], delta.fresh()
                    at, offset = segment, HEADER_BYTES
                self._reader = None
                while at < end_seq and not (parts and size > max_bytes - _MOST_REPORT_BYTES):
                    record = read_record(file, delta, state, self.key_id, at)
                    tag = record and self.seal.tag(wire.LABEL, link, record[0])
                    if not record or tag[:MARK_BYTES] != record[1]:
                        lost = (at, end_seq)  # what is coded on it, too
                        # A gap that no record tells of was counted before the next one began.
                        is_new = record != b"" and self._after_hole(at) == at
                        at = end_seq
                        break
                    if at >= seq and self._after_hole(at) == at:
                        parts.append(record[0] + link + tag)
                        size += len(parts[-1])
                    link = tag
                    offset += record[2]
                    at += 1
                else:
                    self._reader = [at, segment, offset, link, state]
        finally:
            delta = None
            give_back("agent.delta")
        if lost and self._after_hole(lost[0]) == lost[0]:
            self.lose(lost[0], lost[1], is_new)
        return parts, at

    def acknowledge(self, seq):
        """Forget all reports up to a sequence number; a segment goes when all of it may."""
        self.acked = max(self.acked, min(seq, self.last_seq))
        while self.holes and self.acked + 1 >= self.holes[0][0]:
            self.acked = max(self.acked, self.holes.pop(0)[1] - 1)
        try:
            while len(self.firsts) > 1 and self.firsts[1] <= self.acked + 1:
                self.files.remove(file_name(self.firsts[0]))
                self.firsts.pop(0)
        except OSError as error:
            self.error = error

    def lose(self, first, end, is_new=True):
        """Note that reports are lost; those that are not new were counted before."""
        if is_new:
            self.lost += end - first
        self.holes.append((first, end))
        self.holes.sort()
        self.acknowledge(self.acked)

    def _after_hole(self, seq):
        """Return the sequence number, or where the hole ends that it lies in."""
        for first, end in self.holes:
            if first <= seq < end:
                seq = end
        return seq

    def _give_up_oldest(self):
        end = self.firsts[1]
        gone = sum(min(e, end) - max(f, self.oldest_seq) for f, e in self.holes if f < end)
        self.lost += max(0, end - self.oldest_seq - gone)
        self.holes = [hole for hole in self.holes if hole[0] >= end]
        self.acknowledge(end - 1)

    def _begin(self, seq, link):
        """Begin a new segment with a report's number and link."""
        if len(self.firsts) >= self._max_segments or (
            len(self.firsts) > 1 and self.files.free_bytes() < _RESERVE_BYTES
        ):
            self._give_up_oldest()
        header = struct.pack(
            _HEADER, _MAGIC, _VERSION, 0, self.key_id, seq, self.oldest_seq, self.lost, link
        )
        self.size = SEGMENT_BYTES  # until the header stands
        self.files.write(file_name(seq), 0, header + struct.pack(_CRC, binascii.crc32(header)))
        if not self.firsts or self.firsts[-1] != seq:
            self.firsts.append(seq)
        self.size = HEADER_BYTES
        self.state = None
        self.set_aside()
        self.acknowledge(self.acked)

    def set_aside(self):
        """See that numbers used now are not used again, should the flash forget them all."""
        self._remember("seq_bound", self.firsts[-1] + self._most_records + 1)
        self._remember("key_id", self.key_id)

    def _remember(self, name, number):
        try:
            if self.store.recall(name) != number:
                self.store.remember(name, number)
        except OSError as error:  # both memories fail: then all that is left is to report
            self.error = error


def read_record(file, delta, state, key_id, seq):
    """Read the record that must come next: (body, first bytes of its tag, length on flash).

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
    tag = file.read(MARK_BYTES)
    if len(tag) != MARK_BYTES or len(code) != size:
        return None
    if mark[0]:
        body = delta.decode(state, code)
    else:
        body = code
        delta.encode(state, body)
    if body[:2] != bytes((wire.VERSION, len(body))) or len(body) < wire.CORE_BYTES:
        return None
    if struct.unpack(">HI", body[2:8]) != (key_id, seq):
        return None
    return body, tag, len(code) + 2 + MARK_BYTES


def read_header(content, key_id, name):
    """Return (first sequence, oldest sequence, lost, link) of a segment.

    Raises: ValueError: it is torn or foreign; its argument tells whether it may have held ours.
    """
    if len(content) == HEADER_BYTES:
        header = struct.unpack(_HEADER, content[:-4])
        good = struct.unpack(_CRC, content[-4:])[0] == binascii.crc32(content[:-4])
        if good and header[:2] == (_MAGIC, _VERSION) and file_name(header[4]) == name:
            if header[3] != key_id:
                raise ValueError(False)
            return header[4:]
    raise ValueError(True)


def file_name(first_seq):
    """Return the name of the segment that begins with a sequence number."""
    return "%08x%s" % (first_seq, _SUFFIX)
