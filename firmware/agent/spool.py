"""Reports on flash until the collector has them, in segments that are removed whole.

How they lie there tells `agent.segment`. It and what writes, reads and finds them again at a
boot (`agent.writer`, `agent.recovery`) are on loan: here is only what has to be known at any
time. A report just made is sent from memory, so most are never read.

The newest segment always stays, acknowledged or not: it carries the sequence number and the last
tag over a power cut. A record that a cut tore is dropped; it never left the board. Where the
flash itself lost records, their sequence numbers are not used again. The header's oldest
sequence makes removal safe to repeat after a cut.

A flash that cannot be written keeps no report from being made: the last sixteen stay in memory,
are sent as any other, and go to flash as soon as it takes them.

Each report costs LittleFS one erase and 2 KiB programmed, and the free blocks take turns: 3,200
erases of a block and year at one report a minute, 3,300 of the block worst off. Flash made for
100,000 lasts thirty years. (All measured by `python -m benchmarks spool`.)
"""

import linkreport.frame as wire
from micropython import const

from .loan import borrow, give_back

_MAX_SEGMENTS = const(220)
# Numbers are set aside so many at a time: a segment has no more records.
_MOST_RECORDS = const(255)
_IN_MEMORY = const(16)


class Spool:
    """The reports that the collector has not acknowledged yet, in order.

    Args:
        files: path of the folder, or what does as `agent.segment.Files`.

    Attributes:
        next_seq: sequence number of the next report.
        tag: tag of the last report, the link of the next.
        lost: reports given up because there was no room, or because the flash lost them.
        last_time_s: time of the last report found on flash, 0 if none.
        first_seq_of_boot: `next_seq` when the spool was opened.
        error: why the flash takes nothing at present, None if it does.
    """

    def __init__(
        self, files, seal, key_id, store, *, max_segments=_MAX_SEGMENTS, most_records=_MOST_RECORDS
    ):
        self.files = files
        self.key_id = key_id
        self.seal = seal
        self.store = store
        self.max_segments = max_segments
        self.most_records = most_records
        self.firsts = []  # first sequence number of each segment, ascending
        self.size = 0  # of the newest segment
        self.state = None  # of `agent.delta`, as the newest segment has left it
        self.reader = None  # where a batch from flash ended, see `agent.recovery`
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
            give_back("agent.recovery", "agent.segment", "agent.delta")
        self.flash_seq = self.next_seq  # the next that has to go to flash
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
        count = self.next_seq - 1 - self.acked
        for first, end in self.holes:
            count -= end - first
        return count

    def make_room(self):
        """Begin a new segment if the newest is full; give up the oldest if there is no room.

        To be called before a report is made, for the report tells what is held. What only memory
        holds goes to flash.
        """
        try:
            borrow("agent.writer").write(self, self._recent)
        except (OSError, MemoryError) as error:  # then it goes on in memory
            self.error = error
            # Numbers used now are not used again by the next boot.
            if self.next_seq + 1 >= (self.store.recall("seq_ram") or 0):
                self.remember("seq_ram", self.next_seq + _IN_MEMORY)
        finally:
            give_back("agent.writer", "agent.segment", "agent.delta")

    def append(self, raw):
        """Keep one sealed report, which must be the next one, wherever that is possible."""
        if self.reader:
            # One that nothing was read with since the last report would only take memory.
            self.reader = None if self.reader[-1] else self.reader[:-1] + [True]
        tag = wire.tag_of(raw)
        self._recent.append(raw)  # the last that may want memory, so that all happens or nothing
        self.tag = tag
        self.next_seq += 1
        self.make_room()
        while len(self._recent) > (1 if self.flash_seq == self.next_seq else _IN_MEMORY):
            seq = self.next_seq - len(self._recent)
            self._recent.pop(0)
            if seq >= self.flash_seq:
                self.flash_seq = seq + 1
                self.lose(seq, seq + 1)

    def batch(self, seq, max_bytes):
        """Read reports from a sequence number on, as one message.

        Returns: (message, sequence number after its last report); the message is empty if
            there is none to send.
        """
        while True:
            seq = max(seq, self.acked + 1)
            for first, end in self.holes:
                if first <= seq < end:
                    seq = end
            in_memory = self.next_seq - len(self._recent)
            if seq >= in_memory:
                self.reader = None
                parts = self._recent[seq - in_memory :]
                while len(parts) > 1 and sum(map(len, parts)) > max_bytes:
                    parts.pop()
                return b"".join(parts), seq + len(parts)
            try:
                parts, seq = borrow("agent.recovery").read(self, seq, in_memory, max_bytes)
            finally:
                give_back("agent.recovery", "agent.segment", "agent.delta")
            if parts:  # if not, the flash lost them: on with what comes after
                return b"".join(parts), seq

    def acknowledge(self, seq):
        """Forget all reports up to a sequence number; a segment goes when all of it may."""
        self.acked = max(self.acked, min(seq, self.next_seq - 1))
        while self.holes and self.acked + 1 >= self.holes[0][0]:
            self.acked = max(self.acked, self.holes.pop(0)[1] - 1)
        if len(self.firsts) > 1 and self.firsts[1] <= self.acked + 1:
            try:
                borrow("agent.segment").drop(self)
            except (OSError, MemoryError) as error:
                self.error = error
            finally:
                give_back("agent.segment")

    def lose(self, first, end, is_new=True):
        """Note that reports are lost; those that are not new were counted before."""
        if is_new:
            self.lost += end - first
        self.holes.append((first, end))
        self.holes.sort()
        self.acknowledge(self.acked)

    def remember(self, name, number):
        """Keep a number outside the spool's flash, if that is possible."""
        try:
            if self.store.recall(name) != number:
                self.store.remember(name, number)
        except OSError as error:  # both memories fail: then all that is left is to report
            self.error = error
