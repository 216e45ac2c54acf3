"""Is what the store keeps of the reports what the reports say? For auditors, and after repairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from firmware.linkreport import term
from fleet import recompute
from fleet.errors import NetzpulsError
from fleet.ledger import LEFT, LONGEST_GRACE_S, Difference, Misheard, differences, misheard
from fleet.period import Period, shown
from fleet.point import address
from fleet.stint import FOREVER_S
from fleet.store import Store
from fleet.store.part import Shelf


class LedgerError(NetzpulsError):
    """The intervals in the store are not what its reports say."""

    code = "ledger-differs"


@dataclass(frozen=True)
class Verification:
    """What a full recomputation found.

    Attributes:
        reports, boards: how many were read.
        intervals: how many were compared.
        expired_s: before when reports were let go, None if none were.
        since_s: from when on intervals were compared, None if all were.
        differences: stretches that only one of both says.
        misheard: the same of access points that boards heard.
    """

    reports: int
    boards: int
    intervals: int
    expired_s: int | None
    since_s: int | None
    differences: tuple[Difference, ...]
    misheard: tuple[Misheard, ...] = ()

    def text(self, zone: ZoneInfo) -> str:
        """Return it in one line."""
        since = "" if self.since_s is None else f" since {shown(self.since_s, zone)}"
        return (
            f"equal to the second{since}: {_count(self.intervals, 'interval')} of "
            f"{_count(self.boards, 'board')}, recomputed from {_count(self.reports, 'report')}"
        )

    def error(self, city: str) -> LedgerError | None:
        """Return what is wrong, None if nothing is."""
        boards = len(self.differing())
        if not boards:
            return None
        return LedgerError(
            f"{city}: the ledger of {_count(boards, 'board')} is not what "
            f"{'its' if boards == 1 else 'their'} reports say",
            hint="netzpuls fleet verify --mend lays it anew from the reports; "
            "the store's file is kept beside it as it was, please let us see it",
        )

    def differing(self) -> list[str]:
        """Return the boards of which anything differs."""
        said = {each.interval.subject for each in self.differences}
        return sorted(said | {each.board for each in self.misheard})

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "reports": self.reports,
            "boards": self.boards,
            "intervals": self.intervals,
            "expired_before_s": self.expired_s,
            "since_s": self.since_s,
            "differences": [
                {
                    "board": each.interval.subject,
                    "start_s": each.interval.start_s,
                    "end_s": each.interval.end_s,
                    "said_by": each.said_by,
                    "state": term.STATES[each.interval.state],
                    "layer": each.interval.layer,
                    "reason": each.interval.reason,
                }
                for each in self.differences
            ],
            "heard_differences": [
                {
                    "board": each.board,
                    "bssid": address(each.bssid),
                    "start_s": each.start_s,
                    "end_s": each.end_s,
                    "said_by": each.said_by,
                    "well": each.well,
                }
                for each in self.misheard
            ],
        }


def verify(city: Path) -> Verification:
    """Recompute all boards' intervals from all reports and compare them.

    Raises: StoreError: there is no store to read.
    """
    store = Store(city)
    with store.reading() as connection:
        ((reports, boards),) = connection.execute(
            "SELECT count(*), count(DISTINCT device) FROM report"
        ).fetchall()
        ((expired_s,),) = connection.execute("SELECT max(raw_before_s) FROM expired").fetchall()
        # The first reports after those that are gone have lost their neighbours.
        since_s = None if expired_s is None else expired_s + 2 * LONGEST_GRACE_S
        start_s = -FOREVER_S if since_s is None else since_s
        ((intervals,),) = connection.execute(
            "SELECT count(*) FROM interval WHERE end_s > $1", [start_s]
        ).fetchall()
        period = Period(start_s, FOREVER_S)
        expired = expired_s is not None
        # What is left of a boot does not tell alone when it was.
        said = LEFT if expired else recompute.tell(connection, Shelf(connection, store.folder))
        found = differences(connection, period, said)
        heard = misheard(connection, period, expired=expired)
    return Verification(reports, boards, intervals, expired_s, since_s, tuple(found), tuple(heard))


def mend(
    city: Path, answer: Verification, tell: Callable[[str], None]
) -> tuple[Verification, Path]:
    """Lay anew what differs, from the reports.

    Returns: what is found then, and where the store's file is kept as it was before.
    Raises: StoreError: the store cannot be written; nothing has changed then.
    """
    with Store(city).writing(tell) as writer:
        before = writer.mend(answer.differing(), answer.since_s)
    return verify(city), before


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
