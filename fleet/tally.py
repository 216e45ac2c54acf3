"""The seconds of a subject in each state, and whether a promise was kept.

Availability is working ÷ known, coverage is known ÷ all that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from firmware.linkreport import table, term
from fleet.inventory import Sla

Result = Literal["met", "missed", "coverage-too-low", "other-calendar"]


@dataclass(frozen=True)
class Tally:
    """The seconds of a subject in each state, by the state's number; they sum to the whole.

    Attributes:
        maintenance_s: how much of what is excluded was maintenance; the rest was outside the
            calendar.
    """

    seconds: tuple[int, ...]
    outages: int
    maintenance_s: int = 0

    @property
    def working_s(self) -> int:
        """Seconds in which it worked."""
        return self.seconds[table.UP] + self.seconds[table.DEGRADED]

    @property
    def known_s(self) -> int:
        """Seconds of which it is known whether it worked."""
        return self.working_s + self.seconds[table.DOWN]

    @property
    def asked_s(self) -> int:
        """Seconds that count: all but the excluded."""
        return sum(self.seconds) - self.seconds[table.EXCLUDED]

    @property
    def calendar_s(self) -> int:
        """Seconds that are excluded by the calendar."""
        return self.seconds[table.EXCLUDED] - self.maintenance_s

    @property
    def availability(self) -> float | None:
        """Working part of what is known; None without any evidence."""
        return self.working_s / self.known_s if self.known_s else None

    @property
    def coverage(self) -> float | None:
        """Known part of what counts; None if nothing counts."""
        return self.known_s / self.asked_s if self.asked_s else None

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "availability": self.availability,
            "coverage": self.coverage,
            "seconds": dict(zip(term.STATES, self.seconds, strict=True)),
            "excluded_seconds": {
                "calendar": self.calendar_s,
                "maintenance": self.maintenance_s,
            },
            "outages": self.outages,
        }


def total(tallies: list[Tally]) -> Tally:
    """Return all together: each subject weighs as much as its time."""
    columns = zip([0] * len(term.STATES), *(each.seconds for each in tallies), strict=True)
    return Tally(
        tuple(map(sum, columns)),
        sum(each.outages for each in tallies),
        sum(each.maintenance_s for each in tallies),
    )


@dataclass(frozen=True)
class Verdict:
    """What became of a promise in a period."""

    sla: Sla
    result: Result

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "availability_percent": self.sla.availability_percent,
            "coverage_percent": self.sla.coverage_percent,
            "calendar": self.sla.calendar or "own",
            "result": self.result,
        }


def judge(sla: Sla, tally: Tally, *, same_calendar: bool) -> Verdict:
    """Tell whether a promise was kept.

    It was missed for certain if even with every unknown second up there is too little, and met
    for certain if even with every unknown second down there is enough. Between these what is
    known decides, if that is enough of it. All in whole seconds, with nothing rounded.
    """
    if not same_calendar:
        return Verdict(sla, "other-calendar")
    promised = _part(sla.availability_percent)
    working_s, known_s, asked_s = tally.working_s, tally.known_s, tally.asked_s
    if not known_s:
        return Verdict(sla, "coverage-too-low")
    if working_s >= promised * asked_s:
        return Verdict(sla, "met")
    if working_s + asked_s - known_s < promised * asked_s:
        return Verdict(sla, "missed")
    if known_s < _part(sla.coverage_percent) * asked_s:
        return Verdict(sla, "coverage-too-low")
    return Verdict(sla, "met" if working_s >= promised * known_s else "missed")


def _part(percent: float) -> Fraction:
    """Return a percentage as people wrote it: 99.9 is 999 ÷ 1000, which no float is."""
    return Fraction(str(percent)) / 100
