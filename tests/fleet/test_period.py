"""Periods as people name them, clock changes included."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fleet.errors import UsageError
from fleet.period import Period, duration, iso, parse, shown

BERLIN = ZoneInfo("Europe/Berlin")


def _at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


NOW_S = _at("2026-11-22T08:05:30+01:00")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, ("2026-11-21T08:05:30+01:00", "2026-11-22T08:05:30+01:00")),
        ("2026-11-01", None, ("2026-11-01T00:00+01:00", "2026-11-22T08:05:30+01:00")),
        ("2026-10-01", "2026-10-31", ("2026-10-01T00:00+02:00", "2026-11-01T00:00+01:00")),
        ("2026-03-29", "2026-03-29", ("2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00")),
        (None, "2026-11-20T12:00", ("2026-11-19T12:00+01:00", "2026-11-20T12:00+01:00")),
        ("2026-11-20T12:00Z", "2026-11-20 13:30", ("2026-11-20T12:00Z", "2026-11-20T12:30Z")),
        (
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:30+01:00",
            ("2026-10-25T00:30Z", "2026-10-25T01:30Z"),
        ),
        ("20261001", "20261031", ("2026-10-01T00:00+02:00", "2026-11-01T00:00+01:00")),
        # What lies in the future is cut off.
        ("2026-11-22", "2026-12-31", ("2026-11-22T00:00+01:00", "2026-11-22T08:05:30+01:00")),
    ],
)
def test_what_people_say_is_understood(
    start: str | None, end: str | None, expected: tuple[str, str]
) -> None:
    assert parse(start, end, BERLIN, NOW_S) == Period(_at(expected[0]), _at(expected[1]))


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", None, "--from 'yesterday' is no date or time"),
        (None, "2026-13-01", "--to '2026-13-01' is no date or time"),
        ("9999-12-31", "9999-12-31", "no date or time"),
        ("", None, "--from '' is no date or time"),
        ("0001-01-01", None, "from 1971 to 2199"),
        (None, "0001-01-01T00:00+14:00", "from 1971 to 2199"),
        ("2026-11-20", "2026-11-19", "ends before it begins"),
        ("2026-12-01", None, "ends before it begins"),
        ("2026-03-29T02:30", None, "does not exist in Europe/Berlin"),
        ("2026-10-25T02:30", None, "comes twice in Europe/Berlin"),
    ],
)
def test_nonsense_is_refused_with_a_hint(start: str | None, end: str | None, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(start, end, BERLIN, NOW_S)
    assert said in caught.value.message
    assert caught.value.hint


def test_times_are_shown_in_the_citys_zone() -> None:
    assert shown(NOW_S, BERLIN) == "2026-11-22 08:05:30"
    assert iso(NOW_S, BERLIN) == "2026-11-22T08:05:30+01:00"
    assert [duration(n) for n in (0, 59, 3600, 93909)] == [
        "0:00:00",
        "0:00:59",
        "1:00:00",
        "26:05:09",
    ]
