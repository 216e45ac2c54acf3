"""Periods of time as people name them: dates and times in the city's time zone.

Inside, time is UTC seconds, and a period is half open: its start belongs to it, its end does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fleet.errors import UsageError

DEFAULT_LENGTH_S = 24 * 3600
# Times outside of these years are slips of the pen, and some cannot be told in every time zone.
FIRST_YEAR, LAST_YEAR = 1971, 2199
_HINT = "give a date (2026-11-22) or a time (2026-11-22T08:05, 2026-11-22T08:05+01:00)"


@dataclass(frozen=True)
class Period:
    """UTC seconds from `start_s` until before `end_s`.

    Raises: UsageError: it ends before it begins.
    """

    start_s: int
    end_s: int

    def __post_init__(self) -> None:
        if self.end_s <= self.start_s:
            raise UsageError(
                "the period ends before it begins",
                hint="--from must be earlier than --to, and not in the future",
            )

    @property
    def length_s(self) -> int:
        """How long it is."""
        return self.end_s - self.start_s

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "from": iso(self.start_s, zone),
            "to": iso(self.end_s, zone),
            "seconds": self.length_s,
            "timezone": zone.key,
        }


def parse(start: str | None, end: str | None, zone: ZoneInfo, now_s: int) -> Period:
    """Return the period that a user asked for.

    A date as start is that day's beginning, a date as end is that day's end, so that
    `--from 2026-11-01 --to 2026-11-30` is all of November. What lies in the future is cut
    off. Without a start it is the 24 hours before the end, without an end it ends now.

    Raises: UsageError: a text is no time, names an hour that the clock change skips or
        repeats, or the period ends before it begins.
    """
    end_s = now_s if end is None else min(now_s, _seconds(end, zone, "--to", end_of_day=True))
    if start is None:
        return Period(end_s - DEFAULT_LENGTH_S, end_s)
    return Period(_seconds(start, zone, "--from", end_of_day=False), end_s)


def month(text: str, zone: ZoneInfo, now_s: int) -> Period:
    """Return a month that a user named, `2026-11`; of the one that runs, what has passed.

    Raises: UsageError: the text is no month, or the month has not begun.
    """
    try:
        first = date.fromisoformat(f"{text.strip()}-01")
    except ValueError:
        raise UsageError(f"--month {text!r} is no month", hint="give one as 2026-11") from None
    after = (first + timedelta(31)).replace(day=1)
    start_s, end_s = (
        int(datetime.combine(day, time(), zone).timestamp()) for day in (first, after)
    )
    if start_s >= now_s or first.year < FIRST_YEAR:
        raise UsageError(f"--month {text!r} has not begun, or is before all boards", hint=_HINT)
    return Period(start_s, min(end_s, now_s))


def window(start: str, end: str, zone: ZoneInfo) -> Period:
    """Return a time that a user named, which may lie in the future; a date as end is its end.

    Raises: UsageError: a text is no time, or it ends before it begins.
    """
    return Period(
        _seconds(start, zone, "--from", end_of_day=False),
        _seconds(end, zone, "--to", end_of_day=True),
    )


def moment(text: str, zone: ZoneInfo, option: str, now_s: int) -> int:
    """Return a moment in the past that a user named; a date is that day's beginning.

    Raises: UsageError: the text is no time, or lies in the future.
    """
    found_s = _seconds(text, zone, option, end_of_day=False)
    if found_s > now_s:
        raise UsageError(f"{option} {text!r} is in the future", hint=_HINT)
    return found_s


def _seconds(text: str, zone: ZoneInfo, option: str, *, end_of_day: bool) -> int:
    text = text.strip()
    try:
        found = _midnight(text, zone, days_on=end_of_day) or datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r} is no date or time", hint=_HINT) from None
    try:
        check_year(found)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}", hint=_HINT) from None
    if found.tzinfo is None:
        found = _local(found, zone, f"{option} {text}")
    return int(found.timestamp())


def check_year(day: date) -> None:
    """Check that a date or time is one that somebody may mean.

    Raises: ValueError: it is not.
    """
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"years are from {FIRST_YEAR} to {LAST_YEAR}")


def _midnight(text: str, zone: ZoneInfo, *, days_on: int) -> datetime | None:
    """Return the beginning of a date, or of a later day; None if the text is no date."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime.combine(day + timedelta(days=days_on), time(), zone)


def _local(moment: datetime, zone: ZoneInfo, what: str) -> datetime:
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    skipped = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment
    how = "does not exist" if skipped else "comes twice"
    raise UsageError(
        f"{what}: this hour {how} in {zone.key}, because the clocks change",
        hint=f"give the offset from UTC: {first.isoformat()} or {second.isoformat()}",
    )


def shown(moment_s: int, zone: ZoneInfo) -> str:
    """Return a moment as people read it: `2026-11-22 08:05:00`."""
    return f"{datetime.fromtimestamp(moment_s, zone):%Y-%m-%d %H:%M:%S}"


def iso(moment_s: int, zone: ZoneInfo) -> str:
    """Return a moment as programs read it: `2026-11-22T08:05:00+01:00`."""
    return datetime.fromtimestamp(moment_s, zone).isoformat()


def duration(length_s: int) -> str:
    """Return a length of time as hours, minutes and seconds: `26:05:09`."""
    minutes, seconds = divmod(length_s, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
