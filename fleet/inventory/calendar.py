"""When a site counts: `[calendar]`.

[calendar.teaching]
kind = "teaching"                                # nothing on public and in school holidays
hours.weekdays = ["07:50-09:20", "09:40-11:10"]  # what lies between is a break
hours.friday = ["07:50-09:20"]                   # goes before weekdays
closed = [2026-02-16]
"""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fleet.document import Table

ALWAYS = "24/7"
# Stands for each site's own calendar, where one for all can be named.
OWN = "own"

Land = Literal[
    "BB", "BE", "BW", "BY", "HB", "HE", "HH", "MV", "NI", "NW", "RP", "SH", "SL", "SN", "ST", "TH"
]  # fmt: skip

_CLOCK = re.compile(r"(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_DAY_S = 86_400


def _clock_s(text: str) -> int:
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no time of day, such as 07:50")
    return int(match[1]) * 3600 + int(match[2]) * 60 if match[1] else _DAY_S


def _stretch(text: object) -> tuple[int, int]:
    start, dash, end = text.partition("-") if isinstance(text, str) else ("", "", "")
    if not dash:
        raise ValueError(f"{text!r} is no stretch of a day, such as 07:50-09:20")
    found = _clock_s(start), _clock_s(end)
    if found[0] >= found[1]:
        raise ValueError(
            f"{text!r} ends before it begins; what goes over midnight is two stretches"
        )
    return found


def _in_turn(stretches: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    if any(before[1] > after[0] for before, after in pairwise(stretches)):
        raise ValueError("the stretches of a day must follow one another")
    return stretches


# Seconds since midnight by the clock on the wall.
Stretch = Annotated[tuple[int, int], BeforeValidator(_stretch)]
Day = Annotated[tuple[Stretch, ...], BeforeValidator(tuple), AfterValidator(_in_turn)]


class Hours(Table):
    """The hours of each day; a day's own go before those of `weekdays` and `weekend`.

    Attributes:
        public_holidays: absent: as on any other such day, and none for `teaching`.
    """

    weekdays: Day = ()
    weekend: Day = ()
    monday: Day | None = None
    tuesday: Day | None = None
    wednesday: Day | None = None
    thursday: Day | None = None
    friday: Day | None = None
    saturday: Day | None = None
    sunday: Day | None = None
    public_holidays: Day | None = None

    def of_weekday(self, number: int) -> Day:
        """Return the hours of a day of the week; Monday is 0."""
        own = (
            self.monday, self.tuesday, self.wednesday, self.thursday, self.friday,
            self.saturday, self.sunday,
        )[number]  # fmt: skip
        return own if own is not None else self.weekend if number >= 5 else self.weekdays


class Calendar(Table):
    """When what happens at a site counts.

    Attributes:
        kind: `teaching` never counts on public holidays and in school holidays of the Land.
        closed: further days on which nothing counts.
    """

    kind: Literal["teaching", "opening"]
    hours: Hours
    closed: Annotated[list[date], Field(max_length=1000)] = Field(default_factory=list)

    @property
    def needs_land(self) -> bool:
        """Whether it depends on the Land where the site is."""
        return self.kind == "teaching" or self.hours.public_holidays is not None
