"""What is measured, and when that is worth an alarm: ranges as monitoring plugins write them.

    10       outside of 0 … 10       10:      below 10
    ~:10     above 10                10:20    outside of 10 … 20
    @10:20   within 10 … 20          ~:       never

Source: Monitoring Plugins Development Guidelines, "Threshold and Ranges".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from fleet.errors import UsageError

_NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_RANGE = re.compile(rf"(@?)(?:(~|{_NUMBER})?:)?({_NUMBER})?")
_SYNTAX = "ranges are 10, 10:, ~:10, 10:20 or @10:20, see docs/monitoring.md"


class Status(IntEnum):
    """A plugin's states; the number is its exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def gravity(self) -> int:
        """Its place among the others, the worst last: what is not known may be bad."""
        return (Status.OK, Status.UNKNOWN, Status.WARNING, Status.CRITICAL).index(self)


@dataclass(frozen=True)
class Range:
    """A range; `alerts` says whether a value is one to alert for."""

    text: str
    start: float
    end: float
    inside: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read a range.

        Raises: UsageError: it is none.
        """
        match = _RANGE.fullmatch(text.strip())
        if not match or text.strip() in {"", "@", ":", "@:"}:
            raise UsageError(f"{text!r} is no range", hint=_SYNTAX)
        at, low, high = match.groups()
        start = -math.inf if low == "~" else float(low or 0)
        end = math.inf if high is None else float(high)
        if start > end:
            raise UsageError(f"the range {text!r} ends before it begins", hint=_SYNTAX)
        return cls(text.strip(), start, end, bool(at))

    def alerts(self, value: float) -> bool:
        """Tell whether a value is one to alert for."""
        return (self.start <= value <= self.end) is self.inside


@dataclass(frozen=True)
class Kind:
    """A metric.

    Attributes:
        of: `count` counts what is wrong; of other kinds the `most` or the `least` value of all
            subjects is shown, and each subject is held against the thresholds.
        unit: unit of measurement as performance data have it: `s`, `%`, none.
        warning, critical: thresholds unless others are given.
        least, most: what it can be at all.
    """

    of: Literal["count", "most", "least"]
    about: str
    warning: str | None = None
    critical: str | None = None
    unit: str = ""
    least: float | None = 0
    most: float | None = None


# In the order of causes: of two findings that are equally bad, the first leads to the second.
METRICS: Mapping[str, Kind] = {
    "gateways_unreachable": Kind("count", "gateways that do not answer over SSH", None, "0"),
    "gateways_stopped": Kind("count", "gateways without broker or collector", None, "0"),
    "lines_down": Kind("count", "lines that are down", None, "0"),
    "sites_silent": Kind("count", "sites of which all boards are silent", None, "0"),
    "disk_free": Kind("least", "of a gateway's disk", "10:", "5:", "%", most=100),
    "certificate_days": Kind("least", "until a certificate ends", "30:", "7:", least=None),
    "clock_offset": Kind("most", "between a gateway's clock and ours", "5", "60", "s"),
    "unacknowledged_age": Kind("most", "of a report behind a hole", "3600", "86400", "s"),
    "queue_age": Kind("most", "of a report that waits for collection", "3600", "86400", "s"),
    "queue": Kind("most", "reports of a gateway that wait for collection"),
    "collection_age": Kind("most", "since a gateway was collected", "3600", None, "s"),
    "boards_silent": Kind("count", "boards that are silent", "0"),
    "boards_down": Kind("count", "boards that are down", "0"),
    "boards_rebooting": Kind("count", "boards that restarted often in a day", "0"),
    "gateways_outdated": Kind("count", "gateways with another Netzpuls than here", "0"),
    "boards_outdated": Kind("count", "boards with an older agent than others have"),
}
_ORDER = list(METRICS)


def order(metric: str) -> int:
    """Return a metric's place among the causes; what is none stands last."""
    return _ORDER.index(metric) if metric in METRICS else len(_ORDER)


@dataclass(frozen=True)
class Thresholds:
    """When a metric is worth a warning, and when it is critical; None is never."""

    warning: Mapping[str, Range] = field(default_factory=dict)
    critical: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def parse(cls, warning: Sequence[str] = (), critical: Sequence[str] = ()) -> Thresholds:
        """Read `METRIC=RANGE`, several in one text with commas between; others keep theirs.

        Raises: UsageError: there is no such metric, or no such range.
        """
        return cls(_given("-w", warning), _given("-c", critical))

    def warning_of(self, metric: str) -> Range | None:
        """Return when a metric is worth a warning."""
        return self.warning.get(metric) or _default(METRICS[metric].warning)

    def critical_of(self, metric: str) -> Range | None:
        """Return when a metric is critical."""
        return self.critical.get(metric) or _default(METRICS[metric].critical)

    def status(self, metric: str, value: float) -> Status:
        """Return how bad a value is."""
        for status, limit in (
            (Status.CRITICAL, self.critical_of(metric)),
            (Status.WARNING, self.warning_of(metric)),
        ):
            if limit and limit.alerts(value):
                return status
        return Status.OK


def _default(text: str | None) -> Range | None:
    return None if text is None else Range.parse(text)


def _given(option: str, texts: Sequence[str]) -> dict[str, Range]:
    found = {}
    for text in (each for many in texts for each in many.split(",")):
        name, equals, limit = text.strip().partition("=")
        if not equals or name not in METRICS:
            raise UsageError(
                f"{option} {text.strip()!r}: "
                + (f"there is no metric {name!r}" if equals else "which metric is that for?"),
                hint=f"write {option} METRIC=RANGE; metrics are {', '.join(METRICS)}",
            )
        found[name] = Range.parse(limit)
    return found


@dataclass(frozen=True)
class Figure:
    """One metric's value, as performance data have it."""

    name: str
    value: float
    unit: str = ""
    warning: str = ""
    critical: str = ""
    least: float | None = None
    most: float | None = None

    def text(self) -> str:
        """Return it as performance data: 'label'=value[UOM];[warn];[crit];[min];[max]."""
        label = self.name
        if re.search(r"[\s='\"|;]", label):
            label = "'" + label.replace("=", "_").replace("'", "''").replace("|", "/") + "'"
        bounds = ("" if each is None else _number(each) for each in (self.least, self.most))
        parts = (f"{label}={_number(self.value)}{self.unit}", self.warning, self.critical, *bounds)
        return ";".join(parts).rstrip(";")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}".rstrip("0").rstrip(".")
