import unittest

from agent.certificate import not_after_s, not_before_s, unix_s
from agent.clock import Clock
from linkreport.table import CLOCK_ACK, CLOCK_KEPT, CLOCK_NONE
from port.null import NullPort

FLOOR_S = 1780000000
NOW_S = 1790000000


def port_at(time_s):
    port = NullPort()
    port.set_time_s(time_s)
    return port


class ClockTest(unittest.TestCase):
    def near(self, value, expected):
        self.assertLessEqual(abs(value - expected), 2)

    def test_a_cold_board_knows_no_time_but_is_past_the_floor(self):
        port = port_at(946684800)
        clock = Clock(port, FLOOR_S)
        self.assertEqual(clock.now(), (0, CLOCK_NONE))
        self.near(port.time_s(), FLOOR_S)

    def test_a_last_report_from_a_wrong_future_does_not_keep_the_right_time_out(self):
        port = port_at(0)
        clock = Clock(port, FLOOR_S, NOW_S + 1000000)
        self.near(port.time_s(), NOW_S + 1000000)
        self.assertEqual(clock.now(), (0, CLOCK_NONE))
        clock.hear_ack(NOW_S)
        self.near(clock.now()[0], NOW_S)

    def test_time_is_kept_over_a_restart_but_not_over_a_power_cut(self):
        for cause, quality in ((1, CLOCK_NONE), (0, CLOCK_NONE), (3, CLOCK_KEPT), (5, CLOCK_KEPT)):
            port = port_at(NOW_S)
            port.remember("clock_set", 1)
            port.cause = cause
            self.assertEqual(Clock(port, FLOOR_S).now()[1], quality)

    def test_a_floor_is_not_taken_for_a_kept_time(self):
        port = port_at(0)
        Clock(port, FLOOR_S)
        port.cause = 5
        self.assertEqual(Clock(port, FLOOR_S).now(), (0, CLOCK_NONE))

    def test_after_a_power_cut_the_next_restart_keeps_nothing_either(self):
        port = port_at(NOW_S)
        port.remember("clock_set", 1)
        Clock(port, FLOOR_S)
        port.cause = 5
        self.assertEqual(Clock(port, FLOOR_S).now(), (0, CLOCK_NONE))

    def test_an_acknowledgement_gives_time_to_a_board_without_ntp(self):
        port = port_at(0)
        clock = Clock(port, FLOOR_S)
        clock.hear_ack(NOW_S)
        self.near(clock.now()[0], NOW_S)
        self.assertEqual(clock.now()[1], CLOCK_ACK)
        clock.hear_ack(NOW_S + 100)
        self.near(clock.now()[0], NOW_S + 100)

    def test_an_acknowledgement_from_before_the_floor_is_wrong(self):
        port = port_at(0)
        clock = Clock(port, FLOOR_S)
        for time_s in (0, FLOOR_S - 1, 0xFFFFFFFF):
            clock.hear_ack(time_s)
            self.assertEqual(clock.now(), (0, CLOCK_NONE))

    def test_an_acknowledgement_s_delay_is_no_step(self):
        port = port_at(0)
        clock = Clock(port, FLOOR_S)
        clock.hear_ack(NOW_S)
        steps = port.calls.count("set_time_s")
        clock.hear_ack(NOW_S - 1)
        self.assertEqual(port.calls.count("set_time_s"), steps)


class CalendarTest(unittest.TestCase):
    def test_days(self):
        for date, expected in (
            ((2000, 1, 1), 946684800),
            ((2000, 2, 29), 951782400),
            ((2000, 3, 1), 951868800),
            ((2001, 1, 1), 978307200),
            ((2024, 12, 31), 1735603200),
            ((2026, 11, 22), 1795305600),
            ((2049, 12, 31), 2524521600),
        ):
            self.assertEqual(unix_s(*date), expected)

    def test_finds_the_beginning_of_a_certificate(self):
        validity = b"\x30\x1e\x17\x0d261122061500Z\x17\x0d361119061500Z"
        decoy = b"\x17\x0d" + bytes(30)
        self.assertEqual(not_before_s(b"\x30\x82" + decoy + validity), 1795305600 + 6 * 3600 + 900)

    def test_finds_the_end_of_a_certificate(self):
        begin = b"\x30\x82" + bytes(20) + b"\x30\x1e\x17\x0d261122061500Z"
        tail = b"\x30\x00" + bytes(20)
        for end, date in (
            (b"\x17\x0d261124000000Z", (2026, 11, 24)),
            (b"\x17\x0d491231000000Z", (2049, 12, 31)),
            (b"\x18\x0f20501231000000Z", (2050, 12, 31)),
        ):
            self.assertEqual(not_after_s(begin + end + tail), unix_s(*date))
        self.assertTrue(not_after_s(begin + b"\x18\x0f99991231235959Z" + tail) > 1 << 37)

    def test_says_nothing_of_what_is_no_certificate(self):
        for raw in (b"", b"\x17", b"\x17\x0d" * 40, bytes(200)):
            self.assertEqual(not_before_s(raw), 0)
            self.assertEqual(not_after_s(raw), 0)
