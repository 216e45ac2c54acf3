"""What a monitoring system asks: is all well, and if not, what is wrong.

Each part looks at one thing and returns what it found and measured; `PARTS` names them all. The
worst finding is the answer. Nothing here asks a gateway: what is known is what was collected.

Source: the monitoring plugins' guidelines for states, the status line and performance data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

from firmware.linkreport import table, term
from fleet import authority, exclusion, post, visit
from fleet.authority import CERTIFICATE_FILE
from fleet.errors import StoreError, UsageError
from fleet.inventory import Inventory
from fleet.ledger import Interval, Ledger
from fleet.period import Period, duration
from fleet.store import Store
from fleet.visit import Visit

WARNING_DAYS = 30
CRITICAL_DAYS = 7

# How far back the last word of a board or a line is looked for.
_LOOK_BACK_S = 86_400
_DAY_S = 86_400
# A board is silent if it missed so much of what its gateway had at its last collection.
_SILENT_S = 900
_SILENT_PERIODS = 5
# Cities collect every few minutes; what is older says nothing about now.
_STALE_S = 3600


class Status(IntEnum):
    """A plugin's states; the number is its exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_GRAVITY = (Status.OK, Status.UNKNOWN, Status.WARNING, Status.CRITICAL)


@dataclass(frozen=True)
class Finding:
    """Something that somebody should look at."""

    part: str
    status: Status
    subject: str
    message: str

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "part": self.part,
            "status": self.status.name,
            "subject": self.subject,
            "message": self.message,
        }


@dataclass(frozen=True)
class Metric:
    """One figure; thresholds are ranges as plugins write them, `30:` alerts below 30."""

    name: str
    value: int
    warning: str = ""
    critical: str = ""

    def text(self) -> str:
        """Return it as performance data."""
        return ";".join((f"{self.name}={self.value}", self.warning, self.critical)).rstrip(";")


@dataclass(frozen=True)
class Thresholds:
    """From how many days before its end on a certificate is worth a word.

    Raises: UsageError: the critical one comes before the warning.
    """

    warning_days: int = WARNING_DAYS
    critical_days: int = CRITICAL_DAYS

    def __post_init__(self) -> None:
        if self.critical_days > self.warning_days:
            raise UsageError(
                f"critical at {self.critical_days} days would come before the warning at "
                f"{self.warning_days}",
                hint="-c must not be more than -w",
            )

    def status(self, days: int) -> Status:
        """Return how bad it is that so many days are left."""
        if days < self.critical_days:
            return Status.CRITICAL
        return Status.WARNING if days < self.warning_days else Status.OK


@dataclass
class Answer:
    """What was found and measured."""

    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The worst that was found."""
        return max((each.status for each in self.findings), key=_GRAVITY.index, default=Status.OK)

    @property
    def worst_first(self) -> list[Finding]:
        """The findings, the worst one first."""
        return sorted(self.findings, key=lambda each: -_GRAVITY.index(each.status))

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "status": self.status.name,
            "findings": [each.document() for each in self.worst_first],
            "metrics": {each.name: each.value for each in self.metrics},
        }


def check(
    city: Inventory,
    thresholds: Thresholds,
    parts: Sequence[str] = (),
    *,
    now_s: int | None = None,
) -> Answer:
    """Return whether all is well in a city.

    Args:
        city: its inventory.
        thresholds: when a certificate is worth a word.
        parts: what to look at; all if none is named.
        now_s: for tests.

    Raises: NetzpulsError: it cannot be told, because the city cannot be read.
    """
    now_s = int(time.time()) if now_s is None else now_s
    answer = Answer()
    for name in parts or PARTS:
        found = PARTS[name](city, thresholds, now_s)
        answer.findings += found.findings
        answer.metrics += found.metrics
    return answer


def certificates(city: Inventory, thresholds: Thresholds, now_s: int) -> Answer:
    """Look at the ends of all certificates: boards, gateways, collectors, CA."""
    answer = Answer()
    least = None
    for subject, end, hint in _ends(city, answer):
        days = int((end.timestamp() - now_s) // _DAY_S)
        least = days if least is None else min(least, days)
        status = thresholds.status(days)
        if status is not Status.OK:
            when = "ended" if days < 0 else f"ends in {days} days,"
            message = f"certificate {when} on {end:%Y-%m-%d}: {hint}"
            answer.findings.append(Finding("certificates", status, subject, message))
    if least is not None:
        limits = f"{thresholds.warning_days}:", f"{thresholds.critical_days}:"
        answer.metrics.append(Metric("certificate_days", least, *limits))
    return answer


def _ends(city: Inventory, answer: Answer) -> Iterator[tuple[str, datetime, str]]:
    """Yield whose certificate ends when, and what to do about it."""
    path = city.folder / CERTIFICATE_FILE
    if path.exists():
        end = authority.read_certificate(path).not_valid_after_utc
        yield "CA", end, "netzpuls board ca --renew, then flash the boards again"
    for board_id, board in sorted(city.boards.items()):
        if board.retired is None and board.revoked is None:
            hint = f"at the desk: netzpuls board renew ({board.site}, {board.room})"
            yield board_id, board.certificate_expires, hint
    visits = visit.load(Store(city.folder).folder)
    for gateway_id in sorted(city.gateways):
        last = visits.get(gateway_id)
        if last is None or not last.certificates:
            message = "its certificates are not known: it was not collected yet"
            answer.findings.append(Finding("certificates", Status.UNKNOWN, gateway_id, message))
            continue
        for name in ("gateway", "collector"):
            if name in last.certificates:
                subject = gateway_id if name == "gateway" else f"collector of {gateway_id}"
                hint = f"netzpuls gateway install {gateway_id}"
                yield subject, last.certificates[name], hint


def reports(city: Inventory, _: Thresholds, now_s: int) -> Answer:
    """Look at the last word of every board and line, as of its gateway's last collection.

    Of what was in maintenance then nothing is said.
    """
    answer = Answer()
    store = Store(city.folder)
    period = Period(now_s - _LOOK_BACK_S, now_s)
    places = {each.subject: each for each in post.posts(city)}
    try:
        with store.reading() as connection:
            ledger = Ledger(connection, period, post.stints(places.values()))
            boards, lines = _last(ledger.intervals("board")), _last(ledger.intervals("line"))
    except StoreError as error:
        answer.findings.append(Finding("reports", Status.UNKNOWN, city.city.name, error.message))
        return answer
    collected_s = _collections(city, visit.load(store.folder), now_s, answer)
    silent_s = max(_SILENT_S, _SILENT_PERIODS * city.measurement.period_s)
    counts = {"lines_down": 0, "boards_down": 0, "boards_silent": 0}
    for site_id, site in sorted(city.sites.items()):
        heard_s = collected_s[site.gateway] - silent_s
        resting = exclusion.resting(city, int(collected_s[site.gateway]))
        if site_id in resting:
            continue
        line = lines.get(site_id)
        line_down = line is not None and line.state == table.DOWN and line.end_s >= heard_s
        if line_down:
            counts["lines_down"] += 1
            answer.findings.append(
                Finding("reports", Status.CRITICAL, site.name, "the line is down")
            )
        here = [
            (board_id, board)
            for board_id, board in sorted(city.boards.items())
            if board.site == site_id
            and board_id not in resting
            and board.retired is None
            and board.revoked is None
            # One that was only just enrolled had no time to report.
            and (board_id in boards or board.enrolled.timestamp() < heard_s)
        ]
        silent = 0
        for board_id, board in here:
            found = boards.get(board_id)
            subject = f"{site.name}, {board.room} ({board_id})"
            if found is None or found.end_s < heard_s:
                silent += 1
                told = "silent for a day or more"
                if found:
                    told = f"silent for {_ago(collected_s[site.gateway], found)}"
                elif board.enrolled.timestamp() > period.start_s:
                    told = "silent since it was flashed"
                answer.findings.append(Finding("reports", Status.WARNING, subject, told))
            elif found.state == table.DOWN:
                counts["boards_down"] += 1
                if not (line_down and found.layer == table.INTERNET):
                    message = f"down: {_layer(found.layer)}, {term.reason_name(found.reason)}"
                    answer.findings.append(Finding("reports", Status.WARNING, subject, message))
        counts["boards_silent"] += silent
        if here and silent == len(here):
            answer.findings.append(
                Finding("reports", Status.CRITICAL, site.name, "all its boards are silent")
            )
    answer.metrics += [Metric(name, count) for name, count in counts.items()]
    return answer


def _collections(
    city: Inventory, visits: Mapping[str, Visit], now_s: int, answer: Answer
) -> dict[str, float]:
    """Return when each gateway was collected last, and say which were not for long."""
    collected_s: dict[str, float] = {}
    for gateway_id in sorted({site.gateway for site in city.sites.values()}):
        last = visits.get(gateway_id)
        collected_s[gateway_id] = last.collected.timestamp() if last else now_s
        age_s = int(now_s - collected_s[gateway_id])
        if age_s > _STALE_S:
            message = f"was not collected for {duration(age_s)}"
            answer.findings.append(Finding("reports", Status.WARNING, gateway_id, message))
    return collected_s


def _last(intervals: Sequence[Interval]) -> dict[str, Interval]:
    """Return the last interval of each subject in which something is known."""
    known = (table.UP, table.DEGRADED, table.DOWN)
    return {each.subject: each for each in intervals if each.state in known}


def _ago(until_s: float, found: Interval) -> str:
    return duration(int(until_s - found.end_s))


def _layer(number: int) -> str:
    return term.LAYERS[number] if number < len(term.LAYERS) else f"layer-{number}"


PARTS: Mapping[str, Callable[[Inventory, Thresholds, int], Answer]] = {
    "certificates": certificates,
    "reports": reports,
}
