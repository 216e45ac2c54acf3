"""Strategies for input that is nearly right: that is where parsers break."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st

# A parser is fast, a server on loopback is not.
many = settings(max_examples=300)
some = settings(max_examples=60)

_ODD_BYTES = (0x00, 0x01, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
_ODD_SIZES = (0, 1, 2, 63, 64, 127, 128, 255, 256, 512)
_MOST_BYTES = 4096

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def mutants(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Make strategies of messages with up to four faults: flipped, cut, lengthened, repeated."""
    return _mutants(valid)


@st.composite
def _mutants(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    raw = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        fault = draw(st.sampled_from(("flip", "set", "cut", "drop", "add", "repeat")))
        if fault == "flip" and raw:
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif fault == "set" and raw:
            raw[at] = draw(st.sampled_from(_ODD_BYTES))
        elif fault == "cut":
            del raw[at:]
        elif fault == "drop":
            del raw[at : at + draw(st.integers(1, 16))]
        elif fault == "add":
            raw[at:at] = draw(st.binary(min_size=1, max_size=64))
        else:
            piece = bytes(raw[at : at + draw(st.integers(1, 16))])
            raw[at:at] = piece * draw(st.sampled_from(_ODD_SIZES))
    return bytes(raw[:_MOST_BYTES])


def documents(*words: str) -> st.SearchStrategy[bytes]:
    """Make strategies of what is nearly JSON and knows the right words; much of it nests."""
    tokens = ["{", "}", "[", "]", ",", ":", "true", "false", "null", "-", "1", "1e999", "9" * 400]
    tokens += [json.dumps(word) for word in words]
    tokens += ['"', '"\\ud800"', '"\\', "[" * 100, '{"":' * 100, " ", "\x00", "ä"]
    pieces = st.lists(st.sampled_from(tokens), max_size=30).map("".join)
    return pieces.map(str.encode) | JSON.map(lambda value: json.dumps(value).encode())
