import unittest

from agent.clock import Clock, not_before_s, unix_s
from linkreport.table import CLOCK_ACK, CLOCK_KEPT, CLOCK_NONE, CLOCK_NTP
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

    def test_ntp_sets_the_clock_and_is_not_asked_again_soon(self):
        port = port_at(0)
        port.ntp_s = NOW_S
        clock = Clock(port, FLOOR_S)
        clock.ask_ntp()
        self.near(clock.now()[0], NOW_S)
        self.assertEqual(clock.now()[1], CLOCK_NTP)
        clock.ask_ntp()
        self.assertEqual(port.calls.count("ntp_time_s"), 1)
        self.assertEqual(port.recall("clock_set"), 1)

    def test_silent_or_absurd_ntp_changes_nothing(self):
        for answer in (None, 946684800, FLOOR_S - 1, 1 << 33):
            port = port_at(0)
            port.ntp_s = answer
            clock = Clock(port, FLOOR_S)
            clock.ask_ntp()
            self.assertEqual(clock.now(), (0, CLOCK_NONE))

    def test_a_broken_ntp_answer_is_no_answer(self):
        def broken():
            raise ValueError("buffer too small")

        port = port_at(0)
        port.ntp_time_s = broken
        clock = Clock(port, FLOOR_S)
        clock.ask_ntp()
        self.assertEqual(clock.now(), (0, CLOCK_NONE))

    def test_an_acknowledgement_gives_time_to_a_board_without_ntp(self):
        port = port_at(0)
        clock = Clock(port, FLOOR_S)
        clock.hear_ack(NOW_S)
        self.near(clock.now()[0], NOW_S)
        self.assertEqual(clock.now()[1], CLOCK_ACK)
        clock.hear_ack(NOW_S + 100)
        self.near(clock.now()[0], NOW_S + 100)

    def test_an_acknowledgement_never_moves_a_clock_set_by_ntp(self):
        port = port_at(0)
        port.ntp_s = NOW_S
        clock = Clock(port, FLOOR_S)
        clock.ask_ntp()
        for time_s in (0, FLOOR_S, NOW_S - 100, NOW_S + 100, 0xFFFFFFFF):
            clock.hear_ack(time_s)
            self.near(clock.now()[0], NOW_S)

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

    def test_says_nothing_of_what_is_no_certificate(self):
        for raw in (b"", b"\x17", b"\x17\x0d" * 40, bytes(200)):
            self.assertEqual(not_before_s(raw), 0)
