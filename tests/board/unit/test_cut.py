import gc
import unittest

import linkreport.report as wire
from agent.spool import Spool
from medium import SEAL, SMALL, FakeFiles, Lent, PowerCutError, Spools, Store, drained, make, packed


class CutTest(Spools, unittest.TestCase):
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
        packed.clear()
        gc.collect()

    def live(self, content, cut):
        """Make reports until the power fails, restart, and compare."""
        device = Block(content)
        device.left = cut
        store = DyingStore(device)
        kept = 0
        try:
            self.vfs.mount(self.vfs.VfsLfs2(device), "/ram")
            spool = Spool("/ram/spool", SEAL, 1, store, **SMALL)
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
            spool = Spool("/ram/spool", SEAL, 1, store, **SMALL)
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
