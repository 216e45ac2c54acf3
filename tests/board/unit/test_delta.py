import unittest

from agent.delta import decode, encode, fresh, reset


class Chance:
    """Bytes by chance, the same on every interpreter."""

    def __init__(self, seed):
        self._state = seed

    def below(self, end):
        self._state = (self._state * 1103515245 + 12345) & 0x3FFFFFFF
        return (self._state >> 8) % end

    def bytes(self, size):
        return bytes(self.below(256) for _ in range(size))


def core(size, seq, uptime_cs, time_s):
    head = b"\x01" + bytes((size,)) + b"\x00\x07"
    numbers = b"".join(n.to_bytes(4, "big") for n in (seq, 1))
    times = b"".join((n & 0xFFFFFFFF).to_bytes(4, "big") for n in (uptime_cs, time_s))
    return head + numbers + b"\x00\x02\x00\x3c" + times + bytes(range(48))


def block(kind, content):
    return bytes((kind, len(content))) + content


class DeltaTest(unittest.TestCase):
    def both_ways(self, bodies):
        """Code bodies one after the other; return the codes."""
        there, back = fresh(), fresh()
        codes = []
        for number, body in enumerate(bodies):
            codes.append(encode(there, body))
            self.assertEqual(decode(back, codes[-1]), body, number)
        self.assertEqual(there[0], back[0])
        return codes

    def test_what_is_foreseen_costs_next_to_nothing(self):
        bodies = [core(72, n, 6000 * n, 1790000000 + 60 * n) for n in range(1, 60)]
        codes = self.both_ways(bodies)
        self.assertTrue(len(codes[0]) < 72)
        self.assertTrue(max(len(code) for code in codes[20:]) <= 2, codes[-1])

    def test_the_ends_of_all_numbers(self):
        last = 0xFFFFFFFF
        bodies = [
            core(72, seq, uptime_cs, time_s)
            for seq, uptime_cs, time_s in (
                (last - 1, last - 5999, last - 60), (last, 1, 0), (0, 6001, last), (1, 0, 1),
                (last, last, last), (0, 0, 0), (7, 0x80000000, 0x7FFFFFFF), (8, 0, 1790000000),
            )
        ]  # fmt: skip
        self.both_ways(bodies)

    def test_blocks_that_come_go_grow_and_change_places(self):
        chance = Chance(5)
        bodies = []
        for n in range(120):
            blocks = [
                block(kind, chance.bytes(chance.below(9) * (6 if kind == 5 else 2)))
                for kind in (1, 3, 5, 7, 40, 200)
                if chance.below(3)
            ]
            if chance.below(2):
                blocks.reverse()
            blocks = b"".join(blocks)[: 255 - 72]
            bodies.append(core(72 + len(blocks), n, n * 6000, n * 60) + blocks)
        self.both_ways(bodies)

    def test_a_list_that_loses_one_says_little_anew(self):
        chance = Chance(9)
        entries = [bytes((n * 11,)) + chance.bytes(5) for n in range(20)]
        codes = self.both_ways(
            core(72 + 2 + 19 * 6, n, n * 6000, n * 60)
            + block(5, b"".join(entry for at, entry in enumerate(entries) if at != n % 4))
            for n in range(80)
        )
        self.assertTrue(sum(len(code) for code in codes[40:]) < 40 * 12, codes[-1])

    def test_any_bytes_are_coded_exactly(self):
        chance = Chance(3)
        bodies = []
        for _ in range(60):
            body = bytearray(chance.bytes(2 + chance.below(254)))
            body[1] = len(body)
            bodies.append(bytes(body))
        self.both_ways(bodies)

    def test_a_state_that_is_reset_has_seen_nothing(self):
        state = fresh()
        parts = state[:4]
        for n in range(20):
            encode(state, core(76, n, 6000 * n, 1790000000 + 60 * n) + block(7, b"ab"))
        self.assertNotEqual(state, fresh())
        reset(state)
        self.assertEqual(state, fresh())
        for before, after in zip(parts, state):
            self.assertTrue(before is after)  # no new memory is asked for

    def test_any_code_stands_for_something(self):
        chance = Chance(1)
        state = fresh()
        for _ in range(150):
            self.assertTrue(2 <= len(decode(state, chance.bytes(chance.below(60)))) <= 255)
        for code in (b"", b"\x00" * 300, b"\xff" * 300):
            self.assertTrue(2 <= len(decode(fresh(), code)) <= 255)
