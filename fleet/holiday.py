"""Public holidays and school holidays of the Länder.

Public holidays are those of the package `holidays`. School holidays stand in a file, with their
sources: `fleet/schoolholiday.toml`, and, for Länder and years that are not there,
`school-holidays.toml` in the city's folder. What no file covers is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fleet import document
from fleet.document import Table
from fleet.errors import ConfigurationError
from fleet.inventory.calendar import Land
from fleet.period import check_year

CITY_FILE = "school-holidays.toml"
_SHIPPED = Path(__file__).with_name("schoolholiday.toml")


def _within(day: date) -> date:
    check_year(day)
    return day


Day = Annotated[date, AfterValidator(_within)]


class Holiday(Table):
    """Some days off; the first and the last belong to it."""

    name: str
    first: Day
    last: Day


class LandHolidays(Table):
    """The school holidays of one Land; all of them from `first` to `last`."""

    name: str
    first: Day
    last: Day
    holidays: Annotated[list[Holiday], Field(min_length=1)]


class _File(Table):
    version: Literal[1]
    land: dict[Land, LandHolidays]


@dataclass(frozen=True)
class SchoolHolidays:
    """The school holidays of one Land, by day.

    Attributes:
        known: first and last day of each stretch of which all is known.
    """

    land: Land
    known: tuple[tuple[date, date], ...]
    names: Mapping[date, str]

    def on(self, day: date) -> str:
        """Return the name of the holidays on a day, "" on a school day.

        Raises: ConfigurationError: nobody said what that day is.
        """
        if not any(first <= day <= last for first, last in self.known):
            said = " and ".join(f"{first} to {last}" for first, last in self.known)
            raise ConfigurationError(
                f"the school holidays of {self.land} on {day} are not known"
                + (f", only those of {said}" if said else ""),
                hint=f"add them to {CITY_FILE} in the city's folder (see docs/inventory.md, "
                "Calendars), ask for another period, or with --calendar 24/7",
            )
        return self.names.get(day, "")


def school(folder: Path, land: Land) -> SchoolHolidays:
    """Return the school holidays of a Land, with what a city's folder adds.

    Raises: ConfigurationError: a file is wrong.
    """
    found = [_read(_SHIPPED).get(land)]
    if (folder / CITY_FILE).exists():
        found.append(_read(folder / CITY_FILE).get(land))
    names: dict[date, str] = {}
    known = []
    for each in found:
        if each is None:
            continue
        known.append((each.first, each.last))
        # What is read later holds, also where it says that there are none.
        names = {day: name for day, name in names.items() if not each.first <= day <= each.last}
        for holiday in each.holidays:
            names |= dict.fromkeys(_days(holiday.first, holiday.last), holiday.name)
    return SchoolHolidays(land, tuple(_joined(known)), names)


@lru_cache(maxsize=64)
def public(land: Land, year: int) -> Mapping[date, str]:
    """Return the public holidays of a Land in a year, by day."""
    from holidays.countries.germany import Germany  # noqa: PLC0415 - takes half a second

    return dict(Germany(subdiv=land, years=[year], language="de"))


def _read(path: Path) -> dict[Land, LandHolidays]:
    file = document.load(_File, path)
    faults = []
    for land, each in file.land.items():
        if each.first > each.last:
            faults.append(f"land.{land}: it ends before it begins")
        for holiday in each.holidays:
            if holiday.first > holiday.last:
                faults.append(f"land.{land}: {holiday.name} of {holiday.first} end before that")
            if holiday.last < each.first or holiday.first > each.last:
                faults.append(
                    f"land.{land}: {holiday.name} of {holiday.first} are not within "
                    f"{each.first} to {each.last}"
                )
        faults += [
            f"land.{land}: {after.name} of {after.first} begin before the holidays above end"
            for before, after in pairwise(each.holidays)
            if after.first <= before.last
        ]
    if faults:
        raise document.faulty(path, faults)
    return file.land


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(n) for n in range((last - first).days + 1)]


def _joined(stretches: list[tuple[date, date]]) -> list[tuple[date, date]]:
    found: list[tuple[date, date]] = []
    for first, last in sorted(stretches):
        if found and first <= found[-1][1] + timedelta(1):
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
