"""Calendars against a reference that looks at the wall's clock in every single minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet import calendar, holiday, span
from fleet.calendar import Schedule
from fleet.errors import ConfigurationError, UsageError
from fleet.holiday import SchoolHolidays
from fleet.inventory import Calendar, Land
from fleet.period import Period
from tests.fleet.town import Town

BERLIN = ZoneInfo("Europe/Berlin")
TEACHING = {
    "kind": "teaching",
    "hours": {"weekdays": ["07:50-09:20", "09:40-11:10"], "friday": ["07:50-09:20"]},
    "closed": [date(2026, 2, 16)],
}
NEVER: SchoolHolidays = SchoolHolidays("NI", ((date(1990, 1, 1), date(2099, 1, 1)),), {})
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def _s(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp())


def _is_in(
    table: dict[str, Any], feasts: dict[date, str], off: dict[date, str], wall: datetime
) -> bool:
    """Tell whether a moment counts, as a person would: look at the day, look at the clock."""
    hours, day = table["hours"], wall.date()
    stretches = hours.get("weekend" if wall.weekday() >= 5 else "weekdays", [])
    stretches = hours.get(DAYS[wall.weekday()], stretches)
    if day in table.get("closed", []):
        return False
    if day in feasts:
        stretches = hours.get("public_holidays", [] if table["kind"] == "teaching" else stretches)
    elif table["kind"] == "teaching" and day in off:
        return False
    clock = f"{wall:%H:%M}"
    return any(start <= clock < end for start, end in (each.split("-") for each in stretches))


def _reference(
    table: dict[str, Any],
    feasts: dict[date, str],
    off: dict[date, str],
    period: Period,
    zone: ZoneInfo,
) -> list[span.Span]:
    return span.union(
        (max(minute_s, period.start_s), min(minute_s + 60, period.end_s))
        for minute_s in range(period.start_s // 60 * 60, period.end_s, 60)
        if _is_in(table, feasts, off, datetime.fromtimestamp(minute_s, zone))
    )


CLOCK = st.integers(0, 24 * 12).map(lambda n: f"{n // 12:02}:{n % 12 * 5:02}")
DAY = st.lists(CLOCK, unique=True, max_size=8).map(
    lambda clocks: [
        f"{start}-{end}"
        for start, end in zip(sorted(clocks)[::2], sorted(clocks)[1::2], strict=False)
    ]
)
HOURS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["weekdays", "weekend", "public_holidays", *DAYS], DAY)
)


def _night(zone: str, day: str, hours: str) -> Any:
    return example(
        kind="opening", hours={"weekend": [hours]}, first=date.fromisoformat(day),
        start_s=0, length_s=200_000, zone=zone, land="NI",
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["teaching", "opening"]),
    hours=HOURS,
    first=st.dates(date(2025, 8, 1), date(2028, 7, 1)),
    start_s=st.integers(0, 86_399),
    length_s=st.integers(1, 4 * 86_400),
    zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "UTC"]),
    land=st.sampled_from(["NI", "NW"]),
)
# Summer time begins and ends at night in Berlin, at midnight in Havana, by half an hour far away.
@_night("Europe/Berlin", "2026-03-28", "01:30-03:30")
@_night("Europe/Berlin", "2026-10-24", "01:30-02:30")
@_night("America/Havana", "2026-03-07", "00:00-00:45")
@_night("America/Havana", "2026-10-31", "00:15-01:15")
@_night("Australia/Lord_Howe", "2026-04-04", "01:40-02:10")
def test_what_counts_and_what_does_not_are_the_whole(
    *,
    kind: str,
    hours: dict[str, list[str]],
    first: date,
    start_s: int,
    length_s: int,
    zone: str,
    land: Land,
) -> None:
    table = {"kind": kind, "hours": hours, "closed": [first + timedelta(2)]}
    found = Calendar.model_validate(table)
    school = holiday.school(Path("nowhere"), land)
    schedule = Schedule(
        found, land if found.needs_land else None, school if kind == "teaching" else None
    )
    place = ZoneInfo(zone)
    at_s = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()) + start_s
    period = Period(at_s, at_s + length_s)
    counts = calendar.included(schedule, period, place)
    not_counts = calendar.excluded(schedule, period, place)
    feasts = {**holiday.public(land, first.year), **holiday.public(land, first.year + 1)}
    expected = _reference(
        table, feasts if found.needs_land else {}, dict(school.names), period, place
    )
    assert counts == expected
    assert span.length_s(counts) + span.length_s(not_counts) == period.length_s
    assert span.union([*counts, *not_counts]) == [(period.start_s, period.end_s)]
    for edge_s in {edge for each in (*counts, *not_counts) for edge in each}:
        if edge_s < period.end_s:
            assert (calendar.why_not(schedule, edge_s, place) == "") == any(
                start_s <= edge_s < end_s for start_s, end_s in counts
            )


@pytest.mark.parametrize(
    ("night", "hours_open"),
    [("2026-03-28", 7), ("2026-03-29", 6), ("2026-10-24", 7), ("2026-10-25", 8)],
)
def test_a_day_of_23_or_25_hours_has_the_hours_that_the_wall_shows(
    night: str, hours_open: int
) -> None:
    table = Calendar.model_validate({"kind": "opening", "hours": {"weekend": ["00:00-07:00"]}})
    noon_s = _s(f"{night}T12:00")
    found = calendar.included(Schedule(table), Period(noon_s - 14 * 3600, noon_s), BERLIN)
    assert span.length_s(found) == hours_open * 3600


def test_a_week_of_teaching() -> None:
    found = Schedule(Calendar.model_validate(TEACHING), "NW", NEVER)
    week = Period(_s("2026-02-16T00:00"), _s("2026-02-23T00:00"))
    assert span.length_s(calendar.included(found, week, BERLIN)) == 3 * 3 * 3600 + 5400
    for moment, why in (
        ("2026-02-16T08:00", "closed that day"),
        ("2026-02-17T08:00", ""),
        ("2026-02-17T07:49:59", "outside the hours of that day"),
        ("2026-02-17T09:20", "outside the hours of that day"),
        ("2026-02-17T11:09:59", ""),
        ("2026-02-20T10:00", "outside the hours of that day"),
        ("2026-04-03T08:00", "public holiday: Karfreitag"),
        ("2026-06-04T08:00", "public holiday: Fronleichnam"),
    ):
        assert calendar.why_not(found, _s(moment), BERLIN) == why, moment


def test_public_holidays_are_those_of_the_land() -> None:
    day = date(2026, 10, 31)
    assert holiday.public("NI", 2026)[day] == "Reformationstag"
    assert day not in holiday.public("NW", 2026)
    assert date(2026, 6, 4) not in holiday.public("NI", 2026)


@pytest.mark.parametrize("land", ["NI", "NW"])
def test_the_school_holidays_are_those_of_another_source(land: Land) -> None:
    from holidays.countries.germany import Germany  # noqa: PLC0415 - takes half a second

    ours = holiday.school(Path("nowhere"), land)
    ((first, last),) = ours.known
    years = range(first.year, last.year + 1)
    theirs = Germany(subdiv=land, years=years, categories=("school",))
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    feasts = {day for year in years for day in holiday.public(land, year)}
    school_days = [day for day in days if day.weekday() < 5 and day not in feasts]
    assert [day for day in days if bool(ours.on(day)) != (day in theirs)] == []
    assert 500 < sum(not ours.on(day) for day in school_days) < 700


def test_days_that_no_file_covers_are_an_error_and_no_school_days(tmp_path: Path) -> None:
    table = Calendar.model_validate(TEACHING)
    for land, day in (("NI", "2028-08-31"), ("NI", "2025-07-02"), ("BY", "2026-03-02")):
        found = Schedule(table, land, holiday.school(tmp_path, land))  # type: ignore[arg-type]
        period = Period(_s(f"{day}T00:00"), _s(f"{day}T06:00"))
        with pytest.raises(ConfigurationError, match=f"of {land} on {day} are not known") as error:
            calendar.excluded(found, period, BERLIN)
        assert "school-holidays.toml" in error.value.hint
    (tmp_path / "school-holidays.toml").write_text(
        'version = 1\n[land.NI]\nname = "Niedersachsen"\nfirst = 2028-08-31\nlast = 2028-12-31\n'
        'holidays = [{ name = "Herbstferien", first = 2028-10-23, last = 2028-11-04 }]\n'
    )
    school = holiday.school(tmp_path, "NI")
    assert school.known == ((date(2025, 7, 3), date(2028, 12, 31)),)
    names = [school.on(day) for day in (date(2028, 8, 30), date(2028, 8, 31), date(2028, 10, 23))]
    assert names == ["Sommerferien", "", "Herbstferien"]


def test_a_citys_own_file_goes_before_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "school-holidays.toml").write_text(
        'version = 1\n[land.NW]\nname = "x"\nfirst = 2026-10-01\nlast = 2026-10-31\n'
        'holidays = [{ name = "Herbstferien", first = 2026-10-19, last = 2026-10-31 }]\n'
    )
    school = holiday.school(tmp_path, "NW")
    assert school.on(date(2026, 10, 17)) == ""
    assert school.on(date(2026, 10, 19)) == "Herbstferien"
    assert school.on(date(2025, 10, 13)) == "Herbstferien"


@pytest.mark.parametrize(
    ("holidays", "fault"),
    [
        ("{ name = 'A', first = 2026-02-02, last = 2026-02-01 }", "end before that"),
        ("{ name = 'A', first = 2025-02-02, last = 2025-02-03 }", "are not within"),
        (
            "{name='A',first=2026-02-01,last=2026-02-05},{name='B',first=2026-02-05,last=2026-02-06}",
            "begin before the holidays above end",
        ),
        ("{ name = 'A', first = '2026-02-01', last = 2026-02-05 }", "valid date"),
        ("{ name = 'A', first = 2026-02-01, until = 2026-02-05 }", "is missing"),
        ("", "at least 1 item"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, holidays: str, fault: str) -> None:
    _write_holidays(tmp_path, "2026-01-01", "2026-12-31", holidays)
    with pytest.raises(ConfigurationError, match=fault):
        holiday.school(tmp_path, "NI")


@pytest.mark.parametrize(
    ("first", "last"), [("2026-01-01", "9999-12-31"), ("0001-01-01", "2026-12-31")]
)
def test_a_date_that_nobody_means_is_told(tmp_path: Path, first: str, last: str) -> None:
    _write_holidays(tmp_path, first, last, "{ name = 'A', first = 2026-02-01, last = 2026-02-01 }")
    with pytest.raises(ConfigurationError, match="from 1971 to 2199"):
        holiday.school(tmp_path, "NI")


def _write_holidays(folder: Path, first: str, last: str, holidays: str) -> None:
    (folder / "school-holidays.toml").write_text(
        f"version = 1\n[land.NI]\nname = 'x'\nfirst = {first}\nlast = {last}\n"
        f"holidays = [{holidays}]\n"
    )


@pytest.mark.parametrize(
    ("calendar_table", "fault"),
    [
        ({"hours": {"weekdays": ["7:50-09:20"]}}, "'7:50' is no time of day"),
        ({"hours": {"weekdays": ["07:50"]}}, "no stretch of a day"),
        ({"hours": {"weekdays": ["09:20-07:50"]}}, "ends before it begins"),
        ({"hours": {"weekdays": ["22:00-25:00"]}}, "'25:00' is no time of day"),
        ({"hours": {"weekdays": ["08:00-10:00", "09:00-11:00"]}}, "follow one another"),
        ({"hours": {"mondays": ["08:00-10:00"]}}, "unknown key calendar.c.hours.mondays"),
        ({"hours": {}}, "no hour in which anything counts"),
        ({"hours": {"public_holidays": ["08:00-09:00"]}}, "no hour in which anything counts"),
        ({"hours": {"weekdays": ["08:00-10:00"], "public_holidays": ["08:00-09:00"]},
          "kind": "teaching"}, "no teaching then"),
        ({"hours": {"weekdays": ["08:00-10:00"]}, "kind": "teaching"}, "needs the Land"),
        ({"hours": {"weekdays": ["08:00-10:00"]}, "closed": ["2026-02-30"]}, "closed"),
    ],
)  # fmt: skip
def test_a_wrong_calendar_is_told(
    tmp_path: Path, calendar_table: dict[str, Any], fault: str
) -> None:
    town = Town(tmp_path / "city")
    town.calendars["c"] = {"kind": "opening"} | calendar_table
    town.sites["goethe-schule"]["calendar"] = "c"
    with pytest.raises(ConfigurationError) as error:
        town.write()
    assert fault in error.value.message + error.value.hint


def test_a_sites_calendar_and_land(tmp_path: Path) -> None:
    town = Town(tmp_path / "city", ["goethe-schule", "hotspot", "office"])
    town.calendars["t"] = TEACHING
    town.sites["goethe-schule"] |= {"calendar": "t", "land": "NW"}
    city = town.write()
    period = Period(_s("2026-06-04T00:00"), _s("2026-06-05T00:00"))  # a public holiday in NW
    whole = [(period.start_s, period.end_s)]
    found = calendar.schedule(city, "goethe-schule", city.calendar_of("goethe-schule"))
    assert calendar.excluded(found, period, BERLIN) == whole
    assert city.calendar_of("hotspot") == "24/7"
    assert calendar.excluded(calendar.schedule(city, "hotspot", "24/7"), period, BERLIN) == []
    with pytest.raises(ConfigurationError, match="needs the Land of site hotspot"):
        calendar.schedule(city, "hotspot", "t")
    with pytest.raises(UsageError, match="no calendar 'nope'"):
        calendar.schedule(city, "hotspot", "nope")
    town.sites["hotspot"]["calendar"] = "nope"
    with pytest.raises(ConfigurationError, match=r"site.hotspot.calendar: there is no"):
        town.write()
