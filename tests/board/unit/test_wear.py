import unittest

import linkreport.report as wire
from medium import FakeFiles, Spools, Store, drained, make


class WearTest(Spools, unittest.TestCase):
    def fail(self, number=5):
        """Let the flash refuse all writing; return what mends it."""
        good = self.files.write, self.files.remove

        def refuse(*where):
            raise OSError(number, "flash")

        def mend():
            self.files.write, self.files.remove = good

        self.files.write = self.files.remove = refuse
        return mend

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
