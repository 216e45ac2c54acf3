"""What a spool keeps reports on, in memory, and reports to keep; for both interpreters."""

import agent.loan
import linkreport.report as wire
from agent.spool import Spool
from linkreport.seal import Seal
from place import REPORT_KEY

SEAL = Seal(REPORT_KEY)
SMALL = {"most_records": 4, "max_segments": 4}


class PowerCutError(Exception):
    """The power is gone."""


class Store:
    """Small numbers outside the spool's flash."""

    def __init__(self):
        self.numbers = {}

    def recall(self, name):
        return self.numbers.get(name)

    def remember(self, name, number):
        self.numbers[name] = number


class Reader:
    def __init__(self, content):
        self._content = content
        self._at = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def seek(self, at):
        self._at = at

    def read(self, size):
        piece = bytes(self._content[self._at : self._at + size])
        self._at += len(piece)
        return piece


class FakeFiles:
    """Files in memory; the power fails after so many bytes written or files removed."""

    def __init__(self):
        self.content = {}
        self.left = None
        self.done = 0
        self.free = 1000000

    def _spend(self, wanted):
        self.done += wanted
        if self.left is None:
            return wanted
        granted = min(self.left, wanted)
        self.left -= granted
        return granted

    def names(self):
        return list(self.content)

    def write(self, name, offset, content):
        before = self.content.get(name, b"")[:offset] if offset else b""
        granted = self._spend(len(content) + 1) - 1  # one more for the file's own entry
        if granted >= 0:
            self.content[name] = before + content[:granted]
        if granted < len(content):
            raise PowerCutError

    def open(self, name):
        return Reader(self.content[name])

    def remove(self, name):
        if not self._spend(1):
            raise PowerCutError
        del self.content[name]

    def free_bytes(self):
        return self.free


def values(seq, oldest_seq, extensions=b"", time_s=1790000000):
    return wire.Report(
        1, 0, 1, seq, oldest_seq, 1, 60, seq * 6000, time_s + seq * 60, 3, 1, 0, 1, 100,
        bytes((1, 1, 1, 1, 1, 0, 1, 0, 1)), -61, 6, bytes(6), 812, 341, 2300, 0, 1, 14, 21, 23,
        204, 61000, 0, 0, extensions,
    )  # fmt: skip


packed = {}


def make(spool, extensions=b""):
    """Make the next report and put it into the spool; return its bytes."""
    spool.make_room()
    key = (spool.next_seq, spool.oldest_seq, spool.tag, extensions)
    if key not in packed:
        report = values(spool.next_seq, spool.oldest_seq, extensions)
        packed[key] = wire.pack(report, SEAL, spool.tag)
    spool.append(packed[key])
    return packed[key]


def drained(spool, seq=0, max_bytes=2048):
    """Return all reports from a sequence number on, as the uplink would send them."""
    found = []
    while True:
        message, seq = spool.batch(seq, max_bytes)
        if not message:
            return found
        found += wire.split(message)


class Lent:
    """Modules on loan stay: to compile one for each report would take most of the time."""

    def setUp(self):
        self.is_small, agent.loan._IS_SMALL = agent.loan._IS_SMALL, False

    def tearDown(self):
        agent.loan._IS_SMALL = self.is_small


class Spools(Lent):
    """A test of spools that share files and numbers."""

    def setUp(self):
        super().setUp()
        self.files = FakeFiles()
        self.store = Store()

    def open(self, key_id=1, **limits):
        return Spool(self.files, SEAL, key_id, self.store, **(limits or SMALL))

    def seqs(self, reports):
        return [wire.unpack(raw).seq for raw in reports]
