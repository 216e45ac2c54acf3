"""Sets of seconds, against Python's own sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet import span
from fleet.span import Span

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def _seconds(spans: list[Span]) -> set[int]:
    return {second for start_s, end_s in spans for second in range(start_s, end_s)}


def _is_plain(spans: list[Span]) -> bool:
    edges = [edge for each in spans for edge in each]
    return edges == sorted(set(edges))


@given(first=SPANS, second=SPANS)
def test_spans_are_sets_of_seconds(first: list[Span], second: list[Span]) -> None:
    for found, expected in (
        (span.union(first), _seconds(first)),
        (span.minus(first, second), _seconds(first) - _seconds(second)),
        (span.common(first, second), _seconds(first) & _seconds(second)),
    ):
        assert _seconds(found) == expected
        assert _is_plain(found)
        assert span.length_s(found) == len(expected)
