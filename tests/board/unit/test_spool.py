import unittest

import agent.segment
import agent.spool
import linkreport.report as wire
from agent.segment import Files
from agent.spool import Spool
from medium import SEAL, SMALL, Spools, Store, drained, make
from place import folder, remove


def refuse(_):
    raise MemoryError


class SpoolTest(Spools, unittest.TestCase):
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

    def test_a_place_on_flash_is_not_kept_for_nobody(self):
        spool = self.open(most_records=9, max_segments=4)
        made = [make(spool) for _ in range(6)]
        self.assertEqual(spool.batch(1, 10), (made[0], 2))
        made.append(make(spool))
        self.assertTrue(spool.reader)
        self.assertEqual(spool.batch(2, 10), (made[1], 3))
        for _ in range(2):
            self.assertTrue(spool.reader)
            made.append(make(spool))
        self.assertTrue(spool.reader is None)
        self.assertEqual(drained(spool, 3), made[2:])

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

    def test_another_key_begins_anew(self):
        spool = self.open()
        for _ in range(6):
            make(spool)
        spool = self.open(key_id=2)
        self.assertEqual((spool.next_seq, spool.tag, spool.lost), (1, wire.NO_TAG, 0))
        self.assertEqual(self.files.content, {})

    def test_without_memory_to_write_reports_wait_and_the_segment_goes_on(self):
        spool = self.open(most_records=9, max_segments=4)
        made = [make(spool) for _ in range(2)]

        lend, agent.spool.borrow = agent.spool.borrow, refuse
        try:
            made += [make(spool) for _ in range(3)]
        finally:
            agent.spool.borrow = lend
        self.assertEqual((spool.waiting, spool.lost), (5, 0))
        self.assertTrue(isinstance(spool.error, MemoryError))
        made.append(make(spool))
        self.assertTrue(spool.error is None)
        self.assertEqual(drained(self.open(most_records=9, max_segments=4)), made)
        self.assertEqual(list(self.files.content), ["00000001.seg"])

    def test_what_was_coded_but_not_written_spoils_no_record(self):
        spool = self.open(most_records=9, max_segments=4)
        made = [make(spool) for _ in range(2)]
        name, agent.segment.file_name = agent.segment.file_name, refuse
        try:
            made.append(make(spool))
        finally:
            agent.segment.file_name = name
        made += [make(spool) for _ in range(2)]
        self.assertEqual(drained(self.open(most_records=9, max_segments=4)), made)

    def test_a_report_for_which_there_was_no_memory_was_never_made(self):
        spool = self.open()
        made = [make(spool) for _ in range(2)]
        frame = agent.spool.wire
        tag, frame.tag_of = frame.tag_of, refuse
        try:
            with self.assertRaises(MemoryError):
                make(spool)
        finally:
            frame.tag_of = tag
        self.assertEqual(drained(spool), made)
        made.append(make(spool))
        self.assertEqual(drained(spool), made)


class FilesTest(unittest.TestCase):
    def test_spool_on_a_real_file_system(self):
        root = folder()
        try:
            store = Store()
            spool = Spool(root + "/spool", SEAL, 1, store, **SMALL)
            made = [make(spool) for _ in range(10)]
            spool.acknowledge(5)
            spool = Spool(root + "/spool", SEAL, 1, store, **SMALL)
            self.assertEqual(drained(spool, 6), made[5:])
            self.assertTrue(Files(root + "/spool").free_bytes() > 0)
        finally:
            remove(root)
