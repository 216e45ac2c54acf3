"""`netzpuls lab matrix`: every fault in every fitting role, and what the boards said of it.

Each school of the lab is a lane, each hotspot one for the faults of portals; a lane takes fault
after fault: wait until its boards are up, break, wait for the verdict, wait for one report more,
heal, wait for `up`. Cycles are counted in reports, the one under way included.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from firmware.linkreport.term import reason_name
from fleet.errors import NetzpulsError
from fleet.inventory import Role
from hil.lab import evidence
from hil.lab.board import LabBoard, Told
from hil.lab.fault import Fault
from hil.lab.laboratory import Laboratory, LabSite
from hil.lab.parallel import side_by_side

WANTED_CYCLES = 2
SILENCE_CYCLES = 3  # silence is noticed after 2.5 periods, the ledger's grace
_PATIENCE_CYCLES = 5
_CALM_CYCLES = 10
_MORE_REPORTS = 1
_TROUBLE_REPORTS = 4


@dataclass
class Row:
    """One fault as one board saw it.

    Attributes:
        verdicts: how often it said what from the fault's beginning to its end.
        cycles, seconds: to the expected verdict; None: it never came.
        back_cycles, back_seconds: from the end to `up`.
        meanwhile: what it said, neither `up` nor expected, before the verdict and on the way back.
        problem: what is wrong with the row, "" if nothing is.
        first_try: what was wrong with a first try, where chance allows a second one; else "".
    """

    fault: Fault
    role: Role
    board: str
    verdicts: Counter[str] = field(default_factory=Counter)
    cycles: int | None = None
    seconds: float | None = None
    back_cycles: int | None = None
    back_seconds: float | None = None
    meanwhile: list[str] = field(default_factory=list)
    problem: str = ""
    first_try: str = ""

    def document(self) -> dict[str, Any]:
        """Return the row as `--json` prints it."""
        return {
            "fault": self.fault.name,
            "layer": self.fault.layer_name,
            "role": self.role,
            "expected": str(self.fault.expected),
            "verdicts": dict(self.verdicts),
            "cycles": self.cycles,
            "seconds": self.seconds,
            "back_cycles": self.back_cycles,
            "back_seconds": self.back_seconds,
            "meanwhile": self.meanwhile,
            "merged": self.fault.merged,
            "problem": self.problem,
            "first_try": self.first_try,
        }


class Matrix:
    """Runs faults in all lanes of a lab.

    Args:
        roles: only boards with these are looked at.
        on_row: told each row when it is done, from the lane's thread.
    """

    def __init__(
        self,
        lab: Laboratory,
        faults: Iterable[Fault],
        roles: tuple[Role, ...],
        on_row: Callable[[Row], None],
        *,
        second_try: bool = False,
    ) -> None:
        self._lab = lab
        self._second_try = second_try
        self._roles = roles
        self._on_row = on_row
        self._order = list(faults)
        self._queues: dict[str, queue.SimpleQueue[Fault]] = {}
        for fault in self._order:
            self._queues.setdefault(fault.kind, queue.SimpleQueue()).put(fault)

    def run(self) -> list[Row]:
        """Run them all; return the rows in the catalogue's order."""
        lanes = side_by_side(self._lane, self._lab.sites.values())
        rows = [row for lane in lanes for row in lane]
        place = {fault.name: at for at, fault in enumerate(self._order)}
        return sorted(rows, key=lambda row: (place[row.fault.name], row.role))

    def _lane(self, site: LabSite) -> list[Row]:
        rows: list[Row] = []
        waiting = self._queues.get(site.kind)
        while waiting is not None:
            try:
                fault = waiting.get_nowait()
            except queue.Empty:
                break
            found = self._try(site, fault)
            if (fault.is_chance or self._second_try) and any(row.problem for row in found):
                again = self._try(site, fault)
                for first, second in zip(found, again, strict=True):
                    second.first_try = first.problem
                found = again
            rows += found
            for row in found:
                self._on_row(row)
        return rows

    def _try(self, site: LabSite, fault: Fault) -> list[Row]:
        boards = [
            board
            for board in site.boards
            if board.role in fault.roles and board.role in self._roles
        ]
        rows = [Row(fault, board.role, board.id) for board in boards]
        if not boards:
            return []
        try:
            pairs = list(zip(boards, rows, strict=True))
            side_by_side(lambda pair: self._wait_calm(*pair), pairs)
            begin_s = time.monotonic()
            active = self._lab.break_(fault.name, site.id)
            side_by_side(lambda pair: self._see(*pair, begin_s), pairs)
            end_s = time.monotonic()
            self._lab.end(active)
            side_by_side(lambda pair: self._see_back(*pair, end_s), pairs)
            side_by_side(lambda pair: self._examine(site, *pair, begin_s), pairs)
        except NetzpulsError as error:
            for row in rows:
                row.problem = row.problem or f"could not be tried: {error.message}"
        return rows

    def _wait_calm(self, board: LabBoard, row: Row) -> None:
        now_s = time.monotonic()
        recent_s = now_s - 1.5 * self._lab.period_s
        told = board.wait(
            recent_s,
            lambda all_: bool(all_) and all_[-1].state == "up",
            _CALM_CYCLES * self._lab.period_s,
        )
        if not told or told[-1].state != "up":
            said = told[-1].verdict if told else "nothing"
            row.problem = f"it was not up before the fault: it said {said}"

    def _see(self, board: LabBoard, row: Row, begin_s: float) -> None:
        expected, period_s = row.fault.expected, self._lab.period_s
        if expected.silence:
            self._see_silence(board, row, begin_s)
            return

        def enough(told: list[Told]) -> bool:
            first = _first(told, *expected.verdicts)
            more = _TROUBLE_REPORTS if expected.trouble else _MORE_REPORTS
            return first is not None and len(told) > first + more

        told = board.wait(begin_s, enough, _PATIENCE_CYCLES * period_s)
        row.verdicts.update(each.verdict for each in told)
        first = _first(told, *expected.verdicts)
        if first is None:
            row.problem = row.problem or f"it never said {expected}"
        else:
            row.cycles = first + 1
            row.seconds = round(told[first].at_s - begin_s, 1)
            after = {each.verdict for each in told[first:]} - set(expected.verdicts)
            if row.fault.comes_and_goes:
                after -= {"up"}
            if after:
                row.problem = row.problem or f"after the verdict it said {', '.join(sorted(after))}"
        row.meanwhile = _others(told[:first], *expected.verdicts)
        self._judge_time(row, row.cycles, WANTED_CYCLES, "the verdict came")

    def _see_silence(self, board: LabBoard, row: Row, begin_s: float) -> None:
        time.sleep(SILENCE_CYCLES * self._lab.period_s)
        told = board.since(begin_s)
        row.verdicts.update(each.verdict for each in told)
        last = board.last
        silent_s = time.monotonic() - (last.at_s if last else begin_s)
        if silent_s < 2.5 * self._lab.period_s:
            row.problem = row.problem or "it was not silent"
            return
        row.verdicts["unknown"] += 1
        row.cycles, row.seconds = SILENCE_CYCLES, round(2.5 * self._lab.period_s, 1)

    def _see_back(self, board: LabBoard, row: Row, end_s: float) -> None:
        patience_s = _PATIENCE_CYCLES * self._lab.period_s
        told = board.wait(end_s, lambda all_: _first(all_, "up") is not None, patience_s)
        first = _first(told, "up")
        if first is None:
            said = told[-1].verdict if told else "nothing"
            row.problem = row.problem or f"it did not come back: it says {said}"
        else:
            row.back_cycles = first + 1
            row.back_seconds = round(told[first].at_s - end_s, 1)
        row.meanwhile += _others(told[:first], *row.fault.expected.verdicts)
        self._judge_time(row, row.back_cycles, WANTED_CYCLES, "up came back")

    def _examine(self, site: LabSite, board: LabBoard, row: Row, begin_s: float) -> None:
        """Look into the collector's database for what else must stand in the reports."""
        fault, told = row.fault, board.since(begin_s)
        if not told or not (fault.evidence or fault.expected.trouble):
            return
        folder, seqs = site.gateway.folder, [each.seq for each in told]
        patience_s = _PATIENCE_CYCLES * self._lab.period_s
        evidence.wait_for(folder, board.id, seqs[0], seqs[-1], patience_s)
        reports = evidence.stored(folder, board.id, seqs[0])
        if fault.expected.trouble:
            troubles = [report.trouble for report in reports]
            if fault.expected.trouble in troubles:
                row.cycles = troubles.index(fault.expected.trouble) + 1
                row.seconds = round(told[min(row.cycles, len(told)) - 1].at_s - begin_s, 1)
                self._judge_time(row, row.cycles, WANTED_CYCLES, "the trouble was told")
            else:
                others = sorted(set(troubles) - {"none"})
                row.cycles = row.seconds = None
                row.problem = row.problem or (
                    f"no report carries {fault.expected.trouble}; they carry: "
                    + (", ".join(others) or "none")
                )
        during = {each.seq for each in told if each.verdict in fault.expected.verdicts}
        for layer, reason in fault.evidence:
            kept = [r.layer_reasons[layer - 1] for r in reports if r.seq in during]
            if reason not in kept:
                said = ", ".join(sorted({str(reason_name(each)) for each in kept})) or "nothing"
                row.problem = row.problem or (
                    f"the later fault is not kept as {reason_name(reason)}: there is {said}"
                )

    @staticmethod
    def _judge_time(row: Row, cycles: int | None, wanted: int, what: str) -> None:
        if cycles is not None and cycles > wanted:
            row.problem = row.problem or f"{what} after {cycles} cycles"


def _first(told: list[Told], *verdicts: str) -> int | None:
    return next((at for at, each in enumerate(told) if each.verdict in verdicts), None)


def _others(told: list[Told], *verdicts: str) -> list[str]:
    return [each.verdict for each in told if each.verdict not in ("up", *verdicts)]
