"""Calendars: in which seconds of a period something counts.

A calendar says hours by the clock on the wall. A second counts if the wall's clock at the site
shows, in that second, an hour that the calendar names for that date: an hour that the clock change
skips is not there, one that comes twice counts twice.

    excluded(city, "goethe-schule", "teaching", Period(start_s, end_s))   # [(start_s, end_s), …]

Source: docs/inventory.md, "Calendars"; `tests/fleet/test_calendar.py` says it minute by minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from fleet import holiday, span
from fleet.errors import ConfigurationError
from fleet.holiday import SchoolHolidays
from fleet.inventory import Inventory
from fleet.inventory.calendar import ALWAYS, Calendar, Day, Land
from fleet.period import Period
from fleet.span import Span

_DAY_S = 86_400
_EPOCH = date(1970, 1, 1)


class Schedule:
    """A calendar in a Land: what each date's hours are, and why others do not count.

    Args:
        calendar: its hours and closed days.
        land: None where the calendar does not need it.
        school: the Land's school holidays; None where the calendar does not need them.
    """

    def __init__(
        self, calendar: Calendar, land: Land | None = None, school: SchoolHolidays | None = None
    ) -> None:
        self._calendar = calendar
        self._land = land
        self._school = school

    @cached_property
    def _closed(self) -> frozenset[date]:
        return frozenset(self._calendar.closed)

    def on(self, day: date) -> tuple[Day, str]:
        """Return a date's hours, and what makes it another day than its like.

        Raises: ConfigurationError: it is not known whether it is a school day.
        """
        calendar = self._calendar
        usual = calendar.hours.of_weekday(day.weekday())
        name = self._school.on(day) if self._school else ""
        if day in self._closed:
            return (), "closed that day"
        feast = holiday.public(self._land, day.year).get(day) if self._land else None
        if feast is not None:
            own = calendar.hours.public_holidays
            hours = own if own is not None else () if calendar.kind == "teaching" else usual
            return hours, f"public holiday: {feast}"
        return ((), f"school holidays: {name}") if name else (usual, "")


def schedule(city: Inventory, site_id: str, calendar_id: str) -> Schedule | None:
    """Return a calendar as it holds at a site; None is around the clock.

    Raises: UsageError: no such site or calendar. ConfigurationError: the site's Land is not said.
    """
    if calendar_id == ALWAYS:
        return None
    calendar = city.calendar(calendar_id)
    land = city.land_of(site_id)
    if not calendar.needs_land:
        return Schedule(calendar)
    if land is None:
        raise ConfigurationError(
            f"calendar {calendar_id} needs the Land of site {site_id}, which is not said",
            hint='set land (such as "NI") in [city], or at the site, in inventory.toml',
        )
    school = holiday.school(city.folder, land) if calendar.kind == "teaching" else None
    return Schedule(calendar, land, school)


def excluded(found: Schedule | None, period: Period, zone: ZoneInfo) -> list[Span]:
    """Return the spans of a period in which nothing counts.

    Raises: ConfigurationError: it is not known which days are school days.
    """
    if found is None:
        return []
    return span.minus([(period.start_s, period.end_s)], included(found, period, zone))


def included(found: Schedule, period: Period, zone: ZoneInfo) -> list[Span]:
    """Return the spans of a period that count.

    Raises: ConfigurationError: it is not known which days are school days.
    """
    spans = []
    for start_s, end_s, offset_s in _offsets(period, zone):
        # Within one offset the wall's clock goes as UTC does.
        first, last = ((moment_s + offset_s) // _DAY_S for moment_s in (start_s, end_s - 1))
        for number in range(first, last + 1):
            midnight_s = number * _DAY_S - offset_s
            hours, _ = found.on(_EPOCH + timedelta(number))
            spans += [
                (max(start_s, midnight_s + from_s), min(end_s, midnight_s + to_s))
                for from_s, to_s in hours
            ]
    return span.union(spans)


def why_not(found: Schedule, moment_s: int, zone: ZoneInfo) -> str:
    """Return why a moment does not count, "" if it does.

    Raises: ConfigurationError: it is not known whether it is a school day.
    """
    if included(found, Period(moment_s, moment_s + 1), zone):
        return ""
    _, why = found.on(datetime.fromtimestamp(moment_s, zone).date())
    return why or "outside the hours of that day"


def _offsets(period: Period, zone: ZoneInfo) -> Iterator[tuple[int, int, int]]:
    """Yield the stretches of a period with one offset from UTC, as (start, end, offset)."""
    start_s = period.start_s
    offset_s = _offset_s(start_s, zone)
    at_s = start_s
    while at_s < period.end_s:
        next_s = min(at_s + _DAY_S, period.end_s)
        if _offset_s(next_s - 1, zone) != offset_s:
            turn_s = _turn_s(at_s, next_s - 1, zone)
            yield start_s, turn_s, offset_s
            start_s, offset_s, next_s = turn_s, _offset_s(turn_s, zone), turn_s
        at_s = next_s
    yield start_s, period.end_s, offset_s


def _turn_s(before_s: int, after_s: int, zone: ZoneInfo) -> int:
    """Return the first second between two that has another offset than the first one."""
    offset_s = _offset_s(before_s, zone)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(middle_s, zone) == offset_s:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def _offset_s(moment_s: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(moment_s, UTC).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0
