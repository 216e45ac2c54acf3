"""A board's week in some minutes: break, heal, cut the power, and account for every report."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware.linkreport import report, term
from firmware.linkreport.seal import Seal
from tests.board.site import compiled
from tests.board.soak.board import SCRIPTS, Board, SoakError, Told, furnish
from tests.board.soak.fault import FLASH, PATIENCE_MS, UPLINK
from tests.board.soak.plan import AWAY, Event, Life, Plan, plan
from tests.board.soak.world import World

BOARD = "np-240ac4000365"
PERIOD_S = 60
HEAP_KIB = 64
# The newest report's length differs, and a text that a stack slot still points at may stay.
TOLERANCE_BYTES = 256
# From the second start on, the spool is found again: a segment followed, numbers recalled.
START_TOLERANCE_BYTES = 512
_AFTERGLOW = 3  # cycles in which what a fault did may still be told
SAMPLES = 10
_OFF_MS = (10_000, 1_200_000)
_KILL_S = 0.08
_PROGRESS_CYCLES = 360
_PEAKS = 20
_MOST_NAMES = 300  # for more MicroPython takes a table that is twice as large


@dataclass
class Record:
    """What was seen."""

    told: list[Told] = field(default_factory=list)
    survived: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    left: dict[frozenset[str], int] = field(default_factory=dict)
    names: int = 0


class Soak:
    """One run.

    Args:
        finds_peaks: see when how much of the heap is in use; needs a large one, and more time.
        away_part: for how much of it the collector is away.
    """

    def __init__(
        self, folder: Path, cycles: int, heap_kib: int, seed: int, *, finds_peaks: bool = False,
        away_part: float = AWAY,
    ) -> None:  # fmt: skip
        self._script = "peak" if finds_peaks else "soak"
        self.plan: Plan = plan(cycles, seed, away_part)
        self.record = Record()
        self._chance = random.Random(seed + 1)
        self._code = compiled(folder / "code", *SCRIPTS[1:], script=SCRIPTS[0])
        self._heap_kib = heap_kib
        self._folder = folder
        self._stepped_s = 0

    def run(self) -> dict[str, Any]:
        """Run it all; return the document."""
        started = time.monotonic()
        with World(self._folder, BOARD) as world:
            self._root = furnish(self._folder / "board", world)
            board = self._start(world, 0)
            try:
                for cycle in range(self.plan.cycles):
                    self._hear(world, board, cycle)
                    board.order(*self._act(world, cycle))
                    if any(life.end == cycle for life in self.plan.lives):
                        board = self._cut(world, board)
                    self._progress(cycle, started)
                self._hear(world, board, self.plan.cycles)
            finally:
                self._end(board)
            return self._document(world, time.monotonic() - started)

    def _start(self, world: World, off_ms: int) -> Board:
        start_s = world.clock.restart(off_ms)
        self._stepped_s = 0
        return Board(
            self._code, self._root, world.clock.path, start_s,
            heap_kib=self._heap_kib, script=self._script,
        )  # fmt: skip

    def _cut(self, world: World, board: Board) -> Board:
        time.sleep(self._chance.uniform(0, _KILL_S))
        self._end(board)
        return self._start(world, self._chance.randint(*_OFF_MS))

    def _end(self, board: Board) -> None:
        board.kill()
        self.record.names = max(self.record.names, board.names)
        for loaded, left in board.left.items():
            self.record.left[loaded] = min(left, self.record.left.get(loaded, left))

    def _hear(self, world: World, board: Board, cycle: int) -> None:
        told, survived = board.told()
        self.record.told.append(told)
        world.made = told.made
        near = [e for e in self.plan.events if e.start <= cycle <= e.end + _AFTERGLOW]
        allowed = [text for event in near for text in event.fault.texts]
        for text in survived:
            self.record.survived[text] += 1
            if not any(part in text for part in allowed):
                self.record.unexpected.append(f"cycle {cycle}: {text}")

    def _act(self, world: World, cycle: int) -> tuple[int, int, int, int]:
        """Heal and strike; return the board's order."""
        step_s = 0
        for event in self.plan.events:
            if event.end == cycle:
                event.fault.heal(world)
                step_s -= self._stepped_s if event.fault.step_s else 0
            if event.start == cycle:
                event.fault.strike(world)
                self._stepped_s = event.fault.step_s or self._stepped_s
                step_s += event.fault.step_s
        active = [e.fault for e in self.plan.events if e.start <= cycle < e.end]
        flags = status = 0
        for fault in active:
            flags |= fault.flags
            status = fault.status or status
        return flags, status, step_s, min([f.patience_ms for f in active] or [PATIENCE_MS])

    def _progress(self, cycle: int, started: float) -> None:
        if (cycle + 1) % _PROGRESS_CYCLES:
            return
        told, real_s = self.record.told[-1], time.monotonic() - started
        sys.stderr.write(
            f"{(cycle + 1) / 1440:5.2f} days in {real_s:5.0f} s: {told.made} reports made,"
            f" {told.waiting} wait, {told.lost} lost, {told.free_bytes} bytes free\n"
        )
        sys.stderr.flush()

    # What came of it.

    def _document(self, world: World, real_s: float) -> dict[str, Any]:
        told = self.record.told
        last = told[-1]
        held = dict(world.committed())
        shown = self._shown(held)
        if "time-server-silent" in shown:
            shown["time-server-silent"] = world.ntp_unheard > 0
        free = [each.free_bytes for each in told]
        lives = [self._life(life) for life in self.plan.lives]
        calm = [
            report.unpack(held[seq])
            for cycle in range(self.plan.cycles)
            if self.plan.is_calm(cycle) and (seq := told[cycle].made + 1) in held
        ]
        virtual_s = self.plan.cycles * PERIOD_S
        document: dict[str, Any] = {
            "cycles": self.plan.cycles,
            "heap_bytes": self._heap_kib * 1024,
            "reports": {
                "made": last.made,
                "committed": len(held),
                "lost": last.lost,
                "waiting": last.waiting,
            },
            "verdicts": dict(
                Counter(term.reason_name(report.unpack(raw).reason) for raw in held.values())
            ),
            "calm_cycles": len(calm),
            "calm_not_up": dict(
                Counter(term.reason_name(each.reason) for each in calm if each.state != 1)
            ),
            "faults_not_shown": sorted(name for name, seen in shown.items() if not seen),
            "survived": dict(self.record.survived),
            "lives": lives,
            "free_bytes_per_day": free[1440::1440],
            "free_bytes_least": min(free),
            "names": self.record.names,
            "memory_errors": sum(
                count for text, count in self.record.survived.items() if "MemoryError" in text
            ),
            "refused": {str(reason): count for reason, count in world.refusals()},
            "real_s": round(real_s),
            "virtual_per_real": round(virtual_s / real_s),
        }
        if self.record.left:
            document["peak_bytes"] = peaks(self.record.left, lives[0]["begin_free_bytes"] or 0)
        document["failures"] = self._failures(document, held, Seal(world.key))
        return document

    def _shown(self, held: dict[int, bytes]) -> dict[str, bool]:
        shown: dict[str, bool] = {}
        for event in self.plan.events:
            fault = event.fault
            if not shown.get(fault.name):
                shown[fault.name] = any(
                    fault.shows(report.unpack(held[seq])) for seq in self._seqs(event) & held.keys()
                )
        return shown

    def _seqs(self, event: Event) -> set[int]:
        told = self.record.told
        end = min(event.end + _AFTERGLOW, len(told) - 1)
        return set(range(told[event.start].made + 1, told[end].made + 1))

    def _life(self, life: Life) -> dict[str, int | None]:
        free = [each.free_bytes for each in self.record.told]
        calm = life.start + self.plan.calm_cycles
        return {
            "start": life.start,
            "cycles": life.end - life.start,
            "begin_free_bytes": round(statistics.median(free[calm - SAMPLES : calm])),
            "end_free_bytes": round(statistics.median(free[life.end - SAMPLES : life.end]))
            if life.ends_calmly
            else None,
        }

    def _may_overlap(self) -> bool:
        """Tell whether reports may be counted lost that the collector has.

        A board without room gives up what is not acknowledged; it may have been on its way.
        """
        parts = [[e for e in self.plan.events if e.fault.part == part] for part in (FLASH, UPLINK)]
        return any(a.start <= b.end and b.start <= a.end for a in parts[0] for b in parts[1])

    def _failures(self, document: dict[str, Any], held: dict[int, bytes], seal: Seal) -> list[str]:
        """Return what must not be, one line each."""
        failures = list(self.record.unexpected)
        lives = document["lives"]
        for life in lives:
            if (
                life["end_free_bytes"] is not None
                and life["end_free_bytes"] < life["begin_free_bytes"] - TOLERANCE_BYTES
            ):
                failures.append(f"the free heap shrank in the life from cycle {life['start']}")
            if life["begin_free_bytes"] < lives[0]["begin_free_bytes"] - START_TOLERANCE_BYTES:
                failures.append(f"less is free after the start at cycle {life['start']}")
        reports = document["reports"]
        missing = reports["made"] - reports["committed"]
        if missing != reports["lost"] and not (missing < reports["lost"] and self._may_overlap()):
            failures.append(f"reports are not accounted for: {reports}")
        if reports["waiting"]:
            failures.append("reports still wait after the calm hour")
        if not 0 < document["names"] <= _MOST_NAMES:
            failures.append(f"the board's heap holds {document['names']} names")
        if document["refused"]:
            failures.append("the collector refused what the board sent")
        failures += _chain(held, seal)
        failures += [f"{name} never showed" for name in document["faults_not_shown"]]
        return failures


def peaks(left: dict[frozenset[str], int], rest_free_bytes: int) -> dict[str, int]:
    """Return what lived on top of what a calm board has between cycles, the most first.

    Args:
        left: the least that was left of the heap, by the modules loaded then.
        rest_free_bytes: what is left between cycles.

    Returns: bytes by the modules on loan, those that are always loaded left out.
    """
    always = frozenset.intersection(*(m for m in left if "probes" in m))
    found = {" ".join(sorted(m - always)): rest_free_bytes - free for m, free in left.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1])[:_PEAKS])


def _chain(held: dict[int, bytes], seal: Seal) -> list[str]:
    """Check that each report is sealed and linked to the one before, where that is there."""
    failures = []
    for seq, raw in sorted(held.items()):
        if not report.sealed(raw, seal):
            failures.append(f"report {seq} has a wrong tag")
        before = held.get(seq - 1)
        if before is not None and report.link_of(raw) != report.tag_of(before):
            failures.append(f"report {seq} is not linked to the one before")
    return failures


__all__ = ["Soak", "SoakError"]
