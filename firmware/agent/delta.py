"""Reports as their difference to the report before, for the spool: small, exact, and on loan.

Each byte of a body is coded by how far it is from what stood there last: the number of bits of
that difference in unary, with odds that learn from what this place does (a place that never
changes costs next to nothing), then the bits themselves. An extension block is compared with
the last one of its kind, wherever it stood. Number, uptime and time are predicted.

A state is numbers and bytes, so that this module may go while it stays; its 1.5 KB are taken once,
for later a heap in use has no such pieces. Whoever decodes must see the same bodies in the same
order, from a fresh state on; any bytes decode to something, in bounded time, and whether it is a
report its seal must tell.

Source: binary arithmetic coding after Witten, Neal, Cleary: Arithmetic Coding for Data
Compression, CACM 30 (1987); bytes go out once they are certain.
"""

import struct
from array import array

from linkreport.block import FOREIGN
from linkreport.frame import CORE_BYTES
from micropython import const

_SEQ_AT = const(4)
_UPTIME_AT = const(16)
_TIME_AT = const(20)
# Places: the core's bytes; what kind follows each kind; how long each kind is; contents.
_KINDS_AT = const(72)
_SIZES_AT = const(104)
_CONTENT_AT = const(136)
_CONTENT_PLACES = const(200)
# Foreign networks come and go, so one is found by the first byte of its hash: after which other
# it stood, and the rest of its entry.
_NEXT_AT = const(336)
_NEXT_PLACES = const(32)
_ENTRY_AT = const(368)
_ENTRY_PLACES = const(40)
_ENTRY_BYTES = const(6)
_PLACES = const(568)
_LEVELS = const(17)
_ALL = const(0xFFFFFF)


def fresh():
    """Return a state that has seen nothing: see the names in `walk`."""
    odds = array("H", (0x4000 for _ in range(_LEVELS * 8)))
    return [bytearray(_PLACES), bytearray(_PLACES), odds, {}, 0, 0]


def reset(state):
    """Let a state forget what it has seen, in the memory that it has."""
    for place in range(_PLACES):
        state[0][place] = state[1][place] = 0
    for index in range(_LEVELS * 8):
        state[2][index] = 0x4000
    state[3].clear()
    state[4] = state[5] = 0


def encode(state, body):
    """Return the code of a body, which may be longer than it; the state has then seen it."""
    coder = _Coder(state, None)
    coder.walk(body)
    return coder.end()


def decode(state, code):
    """Return the body that a code stands for; the state has then seen it."""
    coder = _Coder(state, code)
    return bytes(coder.walk(None))


class _Coder:
    """Codes into `out`, or decodes `code`."""

    def __init__(self, state, code):
        self.state = state
        self.code = code
        self.at = 0
        self.low = 0
        self.high = _ALL
        self.out = bytearray()
        self.window = 0
        if code is not None:
            for _ in range(3):
                self._take()

    def _take(self):
        code = self.code
        byte = code[self.at] if self.at < len(code) else 0
        self.window = (self.window & 0xFFFF) << 8 | byte
        self.at += 1

    def bit(self, index, bit):
        """Code one bit with the odds at an index, evenly at -1; return the bit."""
        odds = self.state[2]
        likely = odds[index] if index >= 0 else 0x8000
        middle = self.low + (((self.high - self.low) >> 8) * (likely >> 4 or 1) >> 4)
        if self.code is not None:
            bit = 1 if self.window <= middle else 0
        if bit:
            self.high = middle
            likely += (0xFFFF - likely) >> 4
        else:
            self.low = middle + 1
            likely -= likely >> 4
        if index >= 0:
            odds[index] = likely
        while not (self.low ^ self.high) >> 16:
            if self.code is None:
                self.out.append(self.low >> 16)
            else:
                self._take()
            self.low = (self.low & 0xFFFF) << 8
            self.high = (self.high & 0xFFFF) << 8 | 0xFF
        return bit

    def byte(self, place, byte):
        """Code one byte; return it."""
        old, habits = self.state[:2]
        step = byte - old[place] & 0xFF
        step = (step << 1 ^ (0x1FF if step & 0x80 else 0)) & 0xFF  # small ones either way
        bits = 0
        while step >> bits:
            bits += 1
        index = (habits[place] + 7 >> 3) * 8
        size = 0
        while size < 8 and self.bit(index + size, size < bits):
            size += 1
        found = 1
        for shift in range(size - 2, -1, -1):
            found = found << 1 | self.bit(-1, step >> shift & 1)
        step = found if size else 0
        habits[place] += (size * 16 - habits[place]) >> 2
        step = (step >> 1 ^ (0xFF if step & 1 else 0)) & 0xFF
        old[place] = old[place] + step & 0xFF
        return old[place]

    def walk(self, body):  # noqa: PLR0912 - one walk for both ways, so that they cannot differ
        """Code a body byte by byte; return it."""
        old, _, _, bases, step_cs, room_at = self.state
        seq, uptime_cs, time_s = (
            struct.unpack_from(">I", old, at)[0] for at in (_SEQ_AT, _UPTIME_AT, _TIME_AT)
        )
        self._foresee(_SEQ_AT, seq + 1)
        self._foresee(_UPTIME_AT, uptime_cs + step_cs)
        made = bytearray()
        size = CORE_BYTES
        first = 0
        kind, base, left = 0, 0, -2  # a block's kind comes next, at -1 its length, then so much
        while len(made) < size:
            at = place = len(made)
            if at == _TIME_AT:
                now_cs = struct.unpack_from(">I", old, _UPTIME_AT)[0]
                self.state[4] = now_cs - uptime_cs
                self._foresee(_TIME_AT, time_s + now_cs // 100 - uptime_cs // 100)
            if at >= CORE_BYTES:
                if left == -2:
                    place = _KINDS_AT + (kind & 31)
                elif left == -1:
                    place = _SIZES_AT + (kind & 31)
                elif kind != FOREIGN:
                    place = _CONTENT_AT + base % _CONTENT_PLACES
                elif base % _ENTRY_BYTES:
                    place = _ENTRY_AT + first % _ENTRY_PLACES * 5 + base % _ENTRY_BYTES - 1
                else:
                    place = _NEXT_AT + first % _NEXT_PLACES
            byte = self.byte(place, body[at] if body else 0)
            made.append(byte)
            if at == 1:
                size = byte
            elif at >= CORE_BYTES:
                if left == -2:
                    kind, left = byte, -1
                elif left == -1:
                    if kind not in bases and kind != FOREIGN:
                        bases[kind] = room_at
                        room_at += byte
                    base, left = bases.get(kind, 0), byte or -2
                    first = 0
                else:
                    if base % _ENTRY_BYTES == 0:
                        first = byte
                    base += 1
                    left = left - 1 or -2
        self.state[5] = room_at
        return made

    def _foresee(self, place, number):
        struct.pack_into(">I", self.state[0], place, number & 0xFFFFFFFF)

    def end(self):
        """Return the code: the shortest that lies where the last bit left us."""
        for size in range(1, 4):
            mask = _ALL >> size * 8
            value = self.high & ~mask
            if value >= self.low:
                break
        return bytes(self.out) + value.to_bytes(3, "big")[:size]
