"""Spans of time: half-open stretches of UTC seconds, and what can be done with sets of them.

A set is a list of spans that follow one another and do not touch: `[(0, 60), (90, 120)]`. All
functions return such lists; what they are given may be in any order and overlap.
"""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the seconds that are in any of the spans; empty ones count for nothing."""
    found: list[Span] = []
    for start_s, end_s in sorted(span for span in spans if span[0] < span[1]):
        if found and start_s <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end_s))
        else:
            found.append((start_s, end_s))
    return found


def minus(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Return the seconds that are in the first and not in the others."""
    taken = union(others)
    found: list[Span] = []
    at = 0
    for start_s, end_s in union(spans):
        while at < len(taken) and taken[at][1] <= start_s:
            at += 1
        left_s, look = start_s, at
        while look < len(taken) and taken[look][0] < end_s:
            if taken[look][0] > left_s:
                found.append((left_s, taken[look][0]))
            left_s = max(left_s, taken[look][1])
            look += 1
        if left_s < end_s:
            found.append((left_s, end_s))
    return found


def common(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Return the seconds that are in both."""
    whole = union(spans)
    return minus(whole, minus(whole, others))


def length_s(spans: Iterable[Span]) -> int:
    """Return how many seconds the spans hold together."""
    return sum(end_s - start_s for start_s, end_s in union(spans))
