"""What does not count in a period: time outside calendars, and maintenance.

    found = find(city, period, places)        # each site by its own calendar
    Ledger(connection, period, stints, found.windows)
    found.maintenance_s(post)                 # of what was excluded, how much was maintenance

A second outside the calendar is the calendar's, whether there was maintenance or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from zoneinfo import ZoneInfo

from fleet import calendar, maintenance, point, span
from fleet.inventory import Inventory
from fleet.inventory.calendar import ALWAYS
from fleet.maintenance import Maintenance
from fleet.period import Period
from fleet.post import Post
from fleet.span import Span
from fleet.stint import Window


@dataclass(frozen=True)
class Exclusion:
    """What does not count in a period.

    Attributes:
        calendars: the calendar of each site.
        outside: the spans outside its calendar, by site.
        maintenance: the windows that hold, by number.
    """

    city: Inventory
    period: Period
    calendars: Mapping[str, str]
    outside: Mapping[str, list[Span]]
    maintenance: tuple[Maintenance, ...]

    @cached_property
    def windows(self) -> list[Window]:
        """All of it, as the ledger wants it."""
        return [
            *(
                Window(site, start_s, end_s)
                for site, spans in self.outside.items()
                for start_s, end_s in spans
            ),
            *(
                Window(subject, *spans)
                for subject, found in self._by_subject.items()
                for spans in found
            ),
        ]

    @cached_property
    def _by_subject(self) -> dict[str, list[Span]]:
        """The spans of maintenance of each site and board, cut to the period."""
        found: dict[str, list[Span]] = {}
        for each in self.maintenance:
            start_s = max(each.period.start_s, self.period.start_s)
            end_s = min(each.period.end_s, self.period.end_s)
            for subject in subjects(self.city, each):
                found.setdefault(subject, []).append((start_s, end_s))
        return found

    def line_maintenance_s(self, site: str) -> int:
        """Return how much of a line's excluded time was maintenance."""
        return self._within(site, self._by_subject.get(site, []))

    def point_maintenance_s(self, subject: str) -> int:
        """Return how much of an access point's excluded time was maintenance."""
        site = self.city.access_points[point.id_of(subject)].site
        spans = [*self._by_subject.get(site, []), *self._by_subject.get(subject, [])]
        return self._within(site, spans)

    def maintenance_s(self, place: Post) -> int:
        """Return how much of a place's excluded time was maintenance of its site or boards."""
        spans = list(self._by_subject.get(place.site, []))
        for stint in place.stints:
            spans += span.common(
                self._by_subject.get(stint.board, []), [(stint.start_s, stint.end_s)]
            )
        return self._within(place.site, spans)

    def _within(self, site: str, spans: Iterable[Span]) -> int:
        return span.length_s(span.minus(spans, self.outside.get(site, [])))


def subjects(city: Inventory, found: Maintenance) -> list[str]:
    """Return the sites, the board or the access point that a window is for."""
    kind, name = found.subject
    if kind == "access-point":
        return [point.subject(name)]
    if kind == "gateway":
        return sorted(site_id for site_id, site in city.sites.items() if site.gateway == name)
    return [name]


def resting(city: Inventory, moment_s: int) -> set[str]:
    """Return the sites and boards that are in maintenance at a moment.

    Raises: ConfigurationError: the maintenance file is wrong.
    """
    found = maintenance.holding(city, Period(moment_s, moment_s + 1))
    return {subject for each in found for subject in subjects(city, each)}


def find(
    city: Inventory, period: Period, sites: Iterable[str], calendar_id: str | None = None
) -> Exclusion:
    """Return what does not count in a period.

    Args:
        city: its inventory.
        period: what is asked for.
        sites: those of which the calendar matters.
        calendar_id: one for all of them; None is each site's own.

    Raises: UsageError: there is no such calendar. ConfigurationError: the maintenance file is
        wrong, a site's Land is not said, or school holidays are not known.
    """
    zone = ZoneInfo(city.city.timezone)
    calendars = {site: calendar_id or city.calendar_of(site) for site in sites}
    known: dict[tuple[str, str | None], list[Span]] = {}
    outside = {}
    for site, own in calendars.items():
        key = own, city.land_of(site)
        if key not in known:
            known[key] = calendar.excluded(calendar.schedule(city, site, own), period, zone)
        outside[site] = known[key]
    return Exclusion(city, period, calendars, outside, tuple(maintenance.holding(city, period)))


def maintenance_only(city: Inventory, period: Period) -> Exclusion:
    """Return the maintenance in a period, around the clock.

    Raises: ConfigurationError: the maintenance file is wrong.
    """
    return find(city, period, city.sites, ALWAYS)
