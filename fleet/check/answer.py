"""What a check found: findings, the worst first, and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.check.metric import METRICS, Figure, Status, Thresholds, order


@dataclass(frozen=True)
class Observation:
    """One subject's value of a metric; of a metric that counts, one that is counted.

    Attributes:
        message: what to say if it is one to alert for.
    """

    part: str
    metric: str
    subject: str
    message: str
    value: float = 1


@dataclass(frozen=True)
class Finding:
    """Something that somebody should look at; `metric` is "" for what could not be told."""

    part: str
    status: Status
    subject: str
    message: str
    metric: str = ""

    @property
    def text(self) -> str:
        """What it says, with the subject first."""
        if self.message.startswith(self.subject):
            return self.message
        return f"{self.subject}: {self.message}"

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "part": self.part,
            "status": self.status.name,
            "metric": self.metric or None,
            "subject": self.subject,
            "message": self.message,
        }


@dataclass
class Answer:
    """What was observed, and what follows from it.

    Attributes:
        measured: the metrics that were looked at; one that counts is 0 where nothing was seen.
        unknown: what could not be told.
        notes: what is well, for whoever wants to read it.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    observations: list[Observation] = field(default_factory=list)
    measured: set[str] = field(default_factory=set)
    unknown: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def see(self, part: str, metric: str, subject: str, message: str, value: float = 1) -> None:
        """Take in one observation."""
        self.measured.add(metric)
        self.observations.append(Observation(part, metric, subject, message, value))

    def doubt(self, part: str, subject: str, message: str) -> None:
        """Take in that something cannot be told."""
        self.unknown.append(Finding(part, Status.UNKNOWN, subject, message))

    @property
    def status(self) -> Status:
        """The worst that was found."""
        found = (each.status for each in self.worst_first)
        return max(found, key=lambda each: each.gravity, default=Status.OK)

    @property
    def worst_first(self) -> list[Finding]:
        """The findings: the worst first, of equal ones the cause before what follows from it."""
        found = [*self._alerts(), *self.unknown]
        return sorted(found, key=lambda each: (-each.status.gravity, order(each.metric)))

    @property
    def figures(self) -> list[Figure]:
        """The value of each metric, always in the same order."""
        values = self._values()
        return [
            self._figure(name, values[name])
            for name in METRICS
            if name in self.measured and name in values
        ]

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "status": self.status.name,
            "findings": [each.document() for each in self.worst_first],
            "metrics": {each.name: each.value for each in self.figures},
        }

    def _values(self) -> dict[str, float]:
        seen: dict[str, list[float]] = defaultdict(list)
        for each in self.observations:
            seen[each.metric].append(each.value)
        values: dict[str, float] = {}
        for name in self.measured:
            if METRICS[name].of == "count":
                values[name] = sum(seen[name])
            elif seen[name]:
                values[name] = min(seen[name]) if METRICS[name].of == "least" else max(seen[name])
        return values

    def _figure(self, name: str, value: float) -> Figure:
        kind = METRICS[name]
        warning, critical = self.thresholds.warning_of(name), self.thresholds.critical_of(name)
        return Figure(
            name, value, kind.unit, warning.text if warning else "",
            critical.text if critical else "", kind.least, kind.most,
        )  # fmt: skip

    def _alerts(self) -> Iterator[Finding]:
        values = self._values()
        worst = sorted(
            self.observations,
            key=lambda each: each.value if METRICS[each.metric].of == "least" else -each.value,
        )
        for each in worst:
            counts = METRICS[each.metric].of == "count"
            value = values[each.metric] if counts else each.value
            status = self.thresholds.status(each.metric, value)
            if status is not Status.OK:
                yield Finding(each.part, status, each.subject, each.message, each.metric)
