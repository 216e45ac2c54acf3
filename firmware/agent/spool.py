"""Reports on flash until the collector has them: append-only segments, removed whole.

    segment = header ‖ record ‖ record ‖ …        file name: first sequence number, in hex
    header  = "NZ" ‖ version (B) ‖ 0 (B) ‖ key id (H) ‖ first sequence (I) ‖ oldest sequence (I)
              ‖ lost (I) ‖ link of the first record (16) ‖ CRC-32 of all that (I): 38 bytes
    record  = report without its link: body (its second byte is its length) ‖ tag

The link of a record is the tag before it, so a plain report takes 88 bytes. The newest
segment always stays, acknowledged or not: it carries the sequence number and the last tag
over a power cut. A record that a cut tore is dropped; it never left the board. Where the
flash itself lost records, their sequence numbers are not used again. The header's oldest
sequence makes removal safe to repeat after a cut.
"""

import binascii
import os
import struct

import linkreport.frame as wire
from linkreport.seal import TAG_BYTES
from micropython import const

_MAGIC = b"NZ"
_VERSION = const(1)
_HEADER = ">2sBBHIII16s"
_CRC = ">I"
_HEADER_BYTES = struct.calcsize(_HEADER) + struct.calcsize(_CRC)
_SUFFIX = ".seg"

# Two blocks of LittleFS, less the pointer in the second: 92 plain reports.
SEGMENT_BYTES = 8188
# 7 days of one report a minute, and 896 KiB at most.
MAX_SEGMENTS = 112
_RESERVE_BYTES = const(32768)
_TIME_AT = const(20)  # where the body holds its time
_MIN_RECORD_BYTES = wire.CORE_BYTES + TAG_BYTES


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

    Raises: OSError: the flash cannot be read.
    """

    def __init__(
        self, files, seal, key_id, store, *, segment_bytes=SEGMENT_BYTES, max_segments=MAX_SEGMENTS
    ):
        self._files = files
        self._segment_bytes = segment_bytes
        self._max_segments = max_segments
        self._seal = seal
        self._key_id = key_id
        self._store = store
        self._firsts = []  # first sequence number of each segment, ascending
        self._size = 0  # of the newest segment
        self._read_at = None  # (sequence, segment, offset, link) where the last batch ended
        self._holes = []  # [(first, end), …) that the flash lost
        self._acked = 0
        self.next_seq = 1
        self.tag = wire.NO_TAG
        self.lost = 0
        self.last_time_s = 0
        self._recover()
        self.first_seq_of_boot = self.next_seq

    @property
    def last_seq(self):
        """Sequence number of the last report made, 0 before the first."""
        return self.next_seq - 1

    @property
    def oldest_seq(self):
        """Lowest sequence number still held; that of the next report if none is."""
        return self._acked + 1

    @property
    def waiting(self):
        """Number of reports held."""
        return self.last_seq - self._acked - sum(end - first for first, end in self._holes)

    def make_room(self):
        """Begin a new segment if the newest is full; give up the oldest if there is no room.

        To be called before a report is made, for the report tells what is held.
        Raises: OSError: the flash cannot be written.
        """
        if self._firsts and self._size + _MIN_RECORD_BYTES <= self._segment_bytes:
            return
        if len(self._firsts) >= self._max_segments or (
            len(self._firsts) > 1 and self._files.free_bytes() < _RESERVE_BYTES
        ):
            self._give_up_oldest()
        self._begin()

    def append(self, raw):
        """Keep one sealed report, which must be the next one.

        Raises: OSError: the flash cannot be written; the report was not made then.
        """
        record = raw[: -wire.SEAL_BYTES] + wire.tag_of(raw)
        if self._size + len(record) > self._segment_bytes:
            self._begin()
        try:
            self._files.write(_name(self._firsts[-1]), self._size, record)
        except OSError:
            if len(self._firsts) < 2:
                raise
            self._give_up_oldest()
            self._files.write(_name(self._firsts[-1]), self._size, record)
        self._size += len(record)
        self.tag = wire.tag_of(raw)
        self.next_seq += 1

    def batch(self, seq, max_bytes):
        """Read reports from a sequence number on, as one message.

        Returns: (message, sequence number after its last report); the message is empty if
            there is none to send.
        Raises:  OSError: the flash cannot be read.
        """
        while True:
            seq = self._after_hole(max(seq, self.oldest_seq))
            if seq >= self.next_seq:
                return b"", seq
            parts, seq = self._read(seq, max_bytes)
            if parts:  # if not, the flash lost them: on with what comes after
                return b"".join(parts), seq

    def _read(self, seq, max_bytes):
        """Read reports of one segment; return them and the sequence number after them."""
        index = len(self._firsts) - 1
        while self._firsts[index] > seq:
            index -= 1
        segment = self._firsts[index]
        end_seq = self._firsts[index + 1] if index + 1 < len(self._firsts) else self.next_seq
        parts = []
        holes = []
        size = 0
        with self._files.open(_name(segment)) as file:
            if self._read_at and self._read_at[:2] == (seq, segment):
                at, _, offset, link = self._read_at
            else:
                at, offset, link = segment, _HEADER_BYTES, _link(file.read(_HEADER_BYTES))
            file.seek(offset)
            while at < end_seq:
                record = self._record(file, at)
                if record is None:
                    holes.append((at, end_seq))
                    break
                raw = record[:-TAG_BYTES] + link + record[-TAG_BYTES:]
                if at >= seq and self._after_hole(at) == at:
                    if parts and size + len(raw) > max_bytes:
                        break
                    if wire.sealed(raw, self._seal):
                        parts.append(raw)
                        size += len(raw)
                    else:  # the collector would refuse it for ever
                        holes.append((at, at + 1))
                link = record[-TAG_BYTES:]
                offset += len(record)
                at += 1
        self._read_at = (at, segment, offset, link)
        for hole in holes:
            self._lose(*hole)
        return parts, at

    def acknowledge(self, seq):
        """Forget all reports up to a sequence number; a segment goes when all of it may.

        Raises: OSError: the flash cannot be written.
        """
        self._acked = max(self._acked, min(seq, self.last_seq))
        while self._holes and self._acked + 1 >= self._holes[0][0]:
            self._acked = max(self._acked, self._holes.pop(0)[1] - 1)
        while len(self._firsts) > 1 and self._firsts[1] <= self._acked + 1:
            self._files.remove(_name(self._firsts[0]))
            self._firsts.pop(0)

    def _record(self, file, seq):
        """Read the record that must come next; None if it is not that."""
        start = file.read(2)
        if len(start) < 2 or start[0] != wire.VERSION or start[1] < wire.CORE_BYTES:
            return None
        record = start + file.read(start[1] - 2 + TAG_BYTES)
        if len(record) != start[1] + TAG_BYTES:
            return None
        return record if struct.unpack(">HI", record[2:8]) == (self._key_id, seq) else None

    def _after_hole(self, seq):
        """Return the sequence number, or where the hole ends that it lies in."""
        for first, end in self._holes:
            if first <= seq < end:
                seq = end
        return seq

    def _lose(self, first, end):
        """Note a hole that the flash made."""
        self.lost += end - first
        self._holes.append((first, end))
        self._holes.sort()
        self.acknowledge(self._acked)

    def _give_up_oldest(self):
        end = self._firsts[1]
        gone = sum(min(e, end) - max(f, self.oldest_seq) for f, e in self._holes if f < end)
        self.lost += max(0, end - self.oldest_seq - gone)
        self._holes = [hole for hole in self._holes if hole[0] >= end]
        self.acknowledge(end - 1)

    def _begin(self):
        """Begin a new segment."""
        header = struct.pack(
            _HEADER,
            _MAGIC,
            _VERSION,
            0,
            self._key_id,
            self.next_seq,
            self.oldest_seq,
            self.lost,
            self.tag,
        )
        content = header + struct.pack(_CRC, binascii.crc32(header))
        self._files.write(_name(self.next_seq), 0, content)
        if not self._firsts or self._firsts[-1] != self.next_seq:
            self._firsts.append(self.next_seq)
        self._size = _HEADER_BYTES
        self._remember_bound()
        self.acknowledge(self._acked)

    def _remember_bound(self):
        """See that numbers used now are not used again, should the flash forget them all."""
        bound = self._firsts[-1] + self._segment_bytes // _MIN_RECORD_BYTES + 1
        if self._store.recall("seq_bound") != bound:
            self._store.remember("seq_bound", bound)
        if self._store.recall("key_id") != self._key_id:
            self._store.remember("key_id", self._key_id)

    def _recover(self):
        """Find the segments, the sequence number and the last tag on flash."""
        newest = None
        damaged = not self._files.names()
        for name in sorted(self._files.names()):
            header, has_records = self._header(name)
            damaged = header is None and has_records
            if header is None:
                self._files.remove(name)
            else:
                self._firsts.append(header[0])
                newest = header
        left = 0
        if newest:
            self.next_seq, oldest_seq, self.lost, self.tag = newest
            self._acked = max(oldest_seq, self._firsts[0]) - 1
            left = self._recover_newest()
        # Less than a record is what a power cut tore; more is what the flash has lost.
        damaged = damaged or left >= _MIN_RECORD_BYTES
        if damaged and self._store.recall("key_id") == self._key_id:
            self._skip_to(self._store.recall("seq_bound") or self.next_seq)
        elif newest:
            self._remember_bound()
        self.acknowledge(self._acked)
        if damaged or left:
            self._size = self._segment_bytes  # never append to a torn end

    def _skip_to(self, seq):
        """Leave out numbers that reports may have had which the flash has lost."""
        if seq > self.next_seq:
            first, self.next_seq = self.next_seq, seq
            self._lose(first, seq)

    def _recover_newest(self):
        """Follow the chain of the newest segment; return how much follows its end, if little."""
        self._size = _HEADER_BYTES
        with self._files.open(_name(self._firsts[-1])) as file:
            file.seek(_HEADER_BYTES)
            while True:
                record = self._record(file, self.next_seq)
                raw = record and record[:-TAG_BYTES] + self.tag + record[-TAG_BYTES:]
                if not raw or not wire.sealed(raw, self._seal):
                    file.seek(self._size)
                    return len(file.read(_MIN_RECORD_BYTES))
                self.tag = wire.tag_of(raw)
                self.last_time_s = struct.unpack(">I", raw[_TIME_AT : _TIME_AT + 4])[0]
                self._size += len(record)
                self.next_seq += 1

    def _header(self, name):
        """Return (first sequence, oldest sequence, lost, link) and whether records follow.

        None takes the place of a header that is torn or foreign.
        """
        with self._files.open(name) as file:
            content = file.read(_HEADER_BYTES)
            has_records = len(file.read(1)) == 1
        if len(content) != _HEADER_BYTES:
            return None, has_records
        magic, version, _, key_id, first, oldest_seq, lost, link = struct.unpack(
            _HEADER, content[:-4]
        )
        good = struct.unpack(_CRC, content[-4:])[0] == binascii.crc32(content[:-4])
        if not good or (magic, version, _name(first)) != (_MAGIC, _VERSION, name):
            return None, has_records
        if key_id != self._key_id:
            return None, False
        return (first, oldest_seq, lost, link), has_records


def _name(first_seq):
    return "%08x%s" % (first_seq, _SUFFIX)


def _link(header):
    return header[-4 - TAG_BYTES : -4]
