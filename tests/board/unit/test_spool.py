import gc
import unittest

import agent.loan
import linkreport.report as wire
from agent.spool import Files, Spool
from linkreport.seal import Seal
from place import REPORT_KEY, folder, remove

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


_packed = {}


def make(spool, extensions=b""):
    """Make the next report and put it into the spool; return its bytes."""
    spool.make_room()
    key = (spool.next_seq, spool.oldest_seq, spool.tag, extensions)
    if key not in _packed:
        report = values(spool.next_seq, spool.oldest_seq, extensions)
        _packed[key] = wire.pack(report, SEAL, spool.tag)
    spool.append(_packed[key])
    return _packed[key]


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


class SpoolTest(Lent, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.files = FakeFiles()
        self.store = Store()

    def open(self, key_id=1, **limits):
        return Spool(self.files, SEAL, key_id, self.store, **(limits or SMALL))

    def seqs(self, reports):
        return [wire.unpack(raw).seq for raw in reports]

    def test_begins_with_one_and_no_link(self):
        spool = self.open()
        self.assertEqual((spool.next_seq, spool.oldest_seq, spool.waiting), (1, 1, 0))
        self.assertEqual(spool.batch(0, 2048), (b"", 1))
        first = make(spool)
        self.assertEqual(wire.link_of(first), wire.NO_TAG)

    def test_gives_back_the_very_bytes(self):
        wide = {"most_records": 7, "max_segments": 9}
        spool = self.open(**wide)
        made = [make(spool, wire.extension(1, b"x" * (n % 5))) for n in range(15)]
        self.assertEqual(drained(spool), made)
        self.assertEqual(drained(self.open(**wide)), made)
        self.assertTrue(all(wire.sealed(raw, SEAL) for raw in made))

    def test_a_plain_report_takes_little_and_a_segment_a_block(self):
        spool = self.open(max_segments=112)
        for _ in range(300):
            make(spool)
        self.assertEqual(len(self.files.content), 2)
        sizes = [len(self.files.content[name]) for name in sorted(self.files.content)]
        self.assertTrue(max(sizes) <= 4096 and sum(sizes) < 300 * 20, sizes)
        self.assertEqual(self.seqs(drained(self.open())), list(range(1, 301)))

    def test_a_batch_is_bounded_but_never_empty(self):
        spool = self.open()
        make(spool, wire.extension(1, bytes(170)))
        made = [make(spool) for _ in range(11)]
        message, after = spool.batch(1, 10)
        self.assertEqual((len(wire.split(message)), after), (1, 2))
        while after < spool.next_seq:
            message, after = spool.batch(after, 250)
            self.assertLessEqual(len(message), 250)
        self.assertEqual(drained(spool, 2, 250), made)

    def test_any_number_may_be_asked_for_in_any_order(self):
        spool = self.open()
        made = [make(spool) for _ in range(13)]
        for seq in (13, 1, 5, 4, 9, 6, 12, 2, 13):
            self.assertEqual(wire.split(spool.batch(seq, 1)[0]), [made[seq - 1]])
        self.assertEqual(spool.batch(14, 2048), (b"", 14))

    def test_reports_go_only_by_acknowledgement(self):
        spool = self.open()
        made = [make(spool) for _ in range(10)]
        spool.acknowledge(3)
        self.assertEqual((spool.oldest_seq, spool.waiting), (4, 7))
        self.assertEqual(drained(spool), made[3:])
        spool.acknowledge(2)
        self.assertEqual(spool.oldest_seq, 4)
        spool.acknowledge(99)
        self.assertEqual((spool.oldest_seq, spool.waiting), (11, 0))
        self.assertEqual(len(self.files.content), 1)

    def test_numbers_and_chain_go_on_over_a_restart(self):
        spool = self.open()
        for _ in range(9):
            last = make(spool)
        spool.acknowledge(9)
        spool = self.open()
        self.assertEqual((spool.next_seq, spool.first_seq_of_boot), (10, 10))
        self.assertEqual(spool.last_time_s, 1790000000 + 540)
        self.assertEqual(wire.link_of(make(spool)), wire.tag_of(last))

    def test_the_oldest_give_way_and_are_counted(self):
        spool = self.open()
        for _ in range(16):
            make(spool)
        self.assertEqual(spool.lost, 0)
        raw = make(spool)
        self.assertEqual((spool.lost, spool.oldest_seq, spool.waiting), (4, 5, 13))
        self.assertEqual(wire.unpack(raw).oldest_seq, 5)
        self.assertEqual(self.seqs(drained(spool)), list(range(5, 18)))
        spool = self.open()
        self.assertEqual((spool.lost, spool.oldest_seq, spool.next_seq), (4, 5, 18))

    def test_what_was_acknowledged_is_not_lost(self):
        spool = self.open()
        for _ in range(16):
            make(spool)
        spool.acknowledge(2)
        make(spool)
        self.assertEqual((spool.lost, spool.oldest_seq), (2, 5))

    def test_the_oldest_give_way_on_a_full_flash(self):
        spool = self.open()
        for _ in range(8):
            make(spool)
        self.files.free = 100
        make(spool)
        self.assertEqual((spool.lost, spool.oldest_seq), (4, 5))

    def test_a_write_that_fails_takes_the_oldest_and_tries_again(self):
        spool = self.open()
        for _ in range(9):
            make(spool)
        write = self.files.write

        def fail_once(*where):
            self.files.write = write
            raise OSError(28, "full")

        self.files.write = fail_once
        make(spool)
        self.assertEqual((spool.lost, spool.oldest_seq, spool.waiting), (4, 5, 6))
        self.assertEqual(self.seqs(drained(spool)), list(range(5, 11)))

    def fail(self, number=5):
        """Let the flash refuse all writing; return what mends it."""
        good = self.files.write, self.files.remove

        def refuse(*where):
            raise OSError(number, "flash")

        def mend():
            self.files.write, self.files.remove = good

        self.files.write = self.files.remove = refuse
        return mend

    def test_a_flash_that_fails_costs_no_report_and_what_memory_holds_goes_there_later(self):
        for number in (5, 30):
            self.files, self.store = FakeFiles(), Store()
            spool = self.open(most_records=4, max_segments=20)
            made = [make(spool) for _ in range(6)]
            mend = self.fail(number)
            made += [make(spool) for _ in range(10)]
            self.assertEqual(spool.error.errno, number)
            self.assertEqual((spool.next_seq, spool.waiting, spool.lost), (17, 16, 0))
            self.assertEqual(drained(spool), made)
            spool.acknowledge(3)
            self.assertEqual(drained(spool), made[3:])
            mend()
            made.append(make(spool))
            self.assertTrue(spool.error is None)
            self.assertEqual(drained(spool), made[3:])
            again = self.open(most_records=4, max_segments=20)
            self.assertEqual((again.next_seq, again.tag, again.lost), (18, spool.tag, 0))
            self.assertEqual(drained(again, 5), made[4:])

    def test_memory_holds_the_newest_and_the_rest_is_lost_and_counted_once(self):
        wide = {"most_records": 4, "max_segments": 20}
        spool = self.open(**wide)
        made = [make(spool) for _ in range(6)]
        mend = self.fail()
        made += [make(spool) for _ in range(30)]
        self.assertEqual((spool.lost, spool.waiting), (14, 22))
        self.assertEqual(drained(spool), made[:6] + made[20:])
        mend()
        made += [make(spool) for _ in range(3)]
        self.assertEqual((spool.lost, spool.waiting), (14, 25))
        for _ in range(2):
            spool = self.open(**wide)
            self.assertEqual(drained(spool), made[:6] + made[20:])
            self.assertEqual((spool.lost, spool.waiting), (14, 25))
        spool.acknowledge(6)
        self.assertEqual(spool.oldest_seq, 21)

    def test_numbers_are_not_used_twice_when_only_memory_held_them(self):
        spool = self.open()
        for _ in range(6):
            make(spool)
        mend = self.fail()
        for _ in range(40):
            last = make(spool)
        mend()
        spool = self.open()
        self.assertTrue(wire.unpack(last).seq < spool.next_seq < 80)
        raw = make(spool)
        self.assertEqual(self.seqs(drained(spool)), [1, 2, 3, 4, 5, 6, wire.unpack(raw).seq])
        self.assertEqual(self.open().next_seq, spool.next_seq)

    def test_a_flash_that_cannot_even_be_read_costs_no_number_and_no_report(self):
        spool = self.open()
        for _ in range(6):
            make(spool)

        def refuse(*where):
            raise OSError(5, "flash")

        good = self.files.names, self.files.open
        mend = self.fail()
        self.files.names = self.files.open = refuse
        spool = self.open()
        self.assertTrue(spool.next_seq > 6)
        made = [make(spool) for _ in range(3)]
        self.assertEqual(drained(spool), made)
        self.assertTrue(spool.error is not None)
        mend()
        self.files.names, self.files.open = good
        made.append(make(spool))
        self.assertEqual(drained(spool), made)
        self.assertEqual(self.seqs(drained(self.open()))[-4:], self.seqs(made))

    def test_a_segment_that_cannot_be_read_is_lost_and_the_others_are_sent(self):
        spool = self.open()
        made = [make(spool) for _ in range(12)]
        good = self.files.open

        def refuse(name):
            if name == "00000005.seg":
                raise OSError(5, "flash")
            return good(name)

        self.files.open = refuse
        self.assertEqual(drained(spool), made[:4] + made[8:])
        self.assertEqual((spool.lost, spool.waiting), (4, 8))

    def test_both_memories_fail_and_it_goes_on(self):
        def refuse(*where):
            raise OSError(5, "flash")

        spool = self.open()
        self.fail()
        self.store.remember = refuse
        made = [make(spool) for _ in range(5)]
        self.assertEqual(drained(spool), made)

    def test_another_key_begins_anew(self):
        spool = self.open()
        for _ in range(6):
            make(spool)
        spool = self.open(key_id=2)
        self.assertEqual((spool.next_seq, spool.tag, spool.lost), (1, wire.NO_TAG, 0))
        self.assertEqual(self.files.content, {})

    def test_numbers_are_not_used_twice_when_the_flash_forgets_all(self):
        spool = self.open()
        for _ in range(6):
            make(spool)
        self.files.content.clear()
        spool = self.open()
        self.assertTrue(spool.next_seq > 6)
        self.assertEqual((spool.waiting, spool.tag), (0, wire.NO_TAG))
        raw = make(spool)
        self.assertEqual(wire.unpack(raw).oldest_seq, wire.unpack(raw).seq)
        self.assertEqual(drained(spool), [raw])

    def test_numbers_are_not_used_twice_when_the_newest_segment_is_damaged(self):
        spool = self.open()
        made = [make(spool) for _ in range(10)]
        name = "00000009.seg"
        self.files.content[name] = b"\xff" + self.files.content[name][1:]
        spool = self.open()
        self.assertTrue(spool.next_seq > 10)
        raw = make(spool)
        self.assertEqual(drained(spool), made[:8] + [raw])
        spool.acknowledge(8)
        self.assertEqual(spool.oldest_seq, wire.unpack(raw).seq)

    def test_numbers_are_not_used_twice_when_the_newest_report_is_damaged(self):
        for at in range(38, 38 + 35):
            self.files, self.store = FakeFiles(), Store()
            spool = self.open()
            make(spool)
            content = bytearray(self.files.content["00000001.seg"])
            content[at] ^= 1
            self.files.content["00000001.seg"] = bytes(content)
            spool = self.open()
            raw = make(spool)
            self.assertTrue(wire.unpack(raw).seq > 1, at)
            self.assertEqual(wire.link_of(raw), wire.NO_TAG, at)  # the last that is whole
            self.assertEqual(drained(spool), [raw])

    def test_a_torn_end_is_not_written_on(self):
        spool = self.open()
        made = [make(spool) for _ in range(2)]
        self.files.content["00000001.seg"] += b"\x14\xeb" + bytes(23)
        spool = self.open()
        self.assertEqual((spool.next_seq, spool.lost), (3, 0))
        made.append(make(spool))
        self.assertEqual(drained(spool), made)
        self.assertEqual(drained(self.open()), made)
        self.assertIn("00000003.seg", self.files.content)

    def test_what_the_flash_altered_is_lost_with_what_is_coded_on_it_and_counted(self):
        for part in range(12):
            self.files, self.store = FakeFiles(), Store()
            spool = self.open()
            made = [make(spool) for _ in range(13)]
            content = bytearray(self.files.content["00000005.seg"])
            content[38 + part * (len(content) - 38) // 12] ^= 0x10
            self.files.content["00000005.seg"] = bytes(content)
            for _ in range(2):
                found = drained(spool)
                self.assertTrue(4 + 5 <= len(found) < 13, len(found))
                self.assertEqual(found, made[: len(found) - 5] + made[8:])
                self.assertEqual((spool.lost, spool.waiting), (13 - len(found), len(found)))
            spool.acknowledge(len(found) - 5)
            self.assertEqual(spool.oldest_seq, 9)
            self.assertEqual(wire.unpack(make(spool)).oldest_seq, 9)

    def test_strange_files_go(self):
        self.files.content = {"00000001.seg": b"", "x": b"abc", "00000007.seg": bytes(60)}
        spool = self.open()
        self.assertEqual((spool.next_seq, self.files.content), (1, {}))

    def test_a_cut_after_any_byte_loses_nothing_that_was_kept(self):
        end = self.live(None)
        for cut in range(end):
            self.files = FakeFiles()
            self.store = Store()
            self.live(cut)

    def live(self, cut):
        """Make reports until the power fails, restart, and compare."""
        self.files.left = cut
        kept, acked = {}, 0
        try:
            spool = self.open()
            for turn in range(1, 13):
                before = spool.next_seq
                raw = make(spool)
                kept[before] = raw
                if turn in (6, 11):
                    acked = turn - 2
                    spool.acknowledge(acked)
        except PowerCutError:
            spool = None
        end = self.files.done
        self.files.left = None
        spool = self.open()
        # A report whose append was cut may have become durable, or not: both are right.
        self.assertIn(spool.next_seq - 1, (len(kept), len(kept) + 1), cut)
        found = drained(spool)
        wanted = [kept[seq] for seq in sorted(kept) if seq >= spool.oldest_seq]
        self.assertEqual(found[: len(wanted)], wanted, cut)
        self.assertLessEqual(spool.oldest_seq, acked + 1, cut)
        self.assertTrue(all(wire.sealed(raw, SEAL) for raw in found), cut)
        self.assertEqual(spool.lost, 0, cut)
        raw = make(spool)
        self.assertEqual(wire.link_of(raw), wire.tag_of((found or [b""])[-1]) or wire.NO_TAG, cut)
        self.assertEqual(drained(self.open())[-1], raw, cut)
        return end


class FilesTest(unittest.TestCase):
    def test_spool_on_a_real_file_system(self):
        root = folder()
        try:
            store = Store()
            spool = Spool(Files(root + "/spool"), SEAL, 1, store, **SMALL)
            made = [make(spool) for _ in range(10)]
            spool.acknowledge(5)
            spool = Spool(Files(root + "/spool"), SEAL, 1, store, **SMALL)
            self.assertEqual(drained(spool, 6), made[5:])
            self.assertTrue(Files(root + "/spool").free_bytes() > 0)
        finally:
            remove(root)


class Block:
    """A block device in memory; the power fails after so many erases and pieces programmed."""

    SIZE = 512
    COUNT = 48
    PIECE = 32  # what LittleFS programs at least

    def __init__(self, content):
        self.content = content
        self.left = None
        self.done = 0
        self.dead = False

    def _spend(self, wanted):
        self.done += wanted
        if self.left is None:
            return wanted
        granted = min(self.left, wanted)
        self.left -= granted
        self.dead = granted < wanted
        return granted

    # Errors are returned, not raised: a file that the cut left open is closed by the garbage
    # collector, during which nothing can be allocated.
    def readblocks(self, block, buffer, offset=0):
        if self.dead:
            return -5
        start = block * self.SIZE + offset
        buffer[:] = self.content[start : start + len(buffer)]
        return 0

    def writeblocks(self, block, buffer, offset=0):
        if self.dead:
            return -5
        start = block * self.SIZE + offset
        size = self._spend(len(buffer) // self.PIECE) * self.PIECE
        if self.dead:
            size += 13  # in the middle of a piece
        size = min(size, len(buffer))
        self.content[start : start + size] = buffer[:size]
        return -5 if self.dead else 0

    def ioctl(self, op, argument):
        if op == 4:
            return self.COUNT
        if op == 5:
            return self.SIZE
        if op == 6:
            if self.dead or not self._spend(1):
                return -5
            start = argument * self.SIZE
            self.content[start : start + self.SIZE] = b"\xff" * self.SIZE
        return 0


class DyingStore(Store):
    """Small numbers that a board without power does not keep either."""

    def __init__(self, device):
        super().__init__()
        self._device = device

    def remember(self, name, number):
        if not self._device.dead:
            super().remember(name, number)


class LittleFsTest(Lent, unittest.TestCase):
    def setUp(self):
        super().setUp()
        try:
            import vfs
        except ImportError:
            self.skipTest("LittleFS is MicroPython's; test_on_micropython.py runs this")
        self.vfs = vfs
        _packed.clear()
        gc.collect()

    def live(self, content, cut):
        """Make reports until the power fails, restart, and compare."""
        device = Block(content)
        device.left = cut
        store = DyingStore(device)
        kept = 0
        try:
            self.vfs.mount(self.vfs.VfsLfs2(device), "/ram")
            spool = Spool(Files("/ram/spool"), SEAL, 1, store, **SMALL)
            for turn in range(1, 11):
                make(spool)
                if device.dead:  # the board is, too
                    break
                kept = turn
                if turn == 7:
                    spool.acknowledge(5)
        except OSError as error:
            if cut is None:
                raise error
        finally:
            device.dead = True
            self.vfs.umount("/ram")
        numbers, store = store.numbers, Store()
        store.numbers = numbers
        self.vfs.mount(self.vfs.VfsLfs2(Block(content)), "/ram")
        try:
            spool = Spool(Files("/ram/spool"), SEAL, 1, store, **SMALL)
            self.assertTrue(spool.error is None, cut)
            self.assertIn(spool.last_seq, (kept, kept + 1), cut)
            self.assertLessEqual(spool.oldest_seq, 6, cut)
            self.assertEqual(spool.lost, 0, cut)
            found = drained(spool)
            seqs = [wire.unpack(raw).seq for raw in found]
            self.assertEqual(seqs, list(range(spool.oldest_seq, spool.next_seq)), cut)
            raw = make(spool)
            if found:
                self.assertEqual(wire.link_of(raw), wire.tag_of(found[-1]), cut)
        finally:
            self.vfs.umount("/ram")
        return device.done

    def test_a_cut_at_any_erase_and_any_piece_programmed_loses_nothing_that_was_kept(self):
        content = bytearray(b"\xff" * Block.SIZE * Block.COUNT)
        self.vfs.VfsLfs2.mkfs(Block(content))
        blank = bytes(content)
        end = self.live(content, None)
        self.assertTrue(end > 50)
        for cut in range(end):
            content[:] = blank
            self.live(content, cut)
