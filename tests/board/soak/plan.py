"""When which fault is there, and when the power is cut: chance, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.board.soak.fault import BY_NAME, CLOCK, FAULTS, UPLINK, Fault

CALM_CYCLES = 60
_MOST_CYCLES = 7  # of an ordinary fault
_TOGETHER = 0.3  # how often a fault has company, once each had its turn
# When the power is cut, as parts of the whole, and whether that is in the middle of a fault.
_CUTS = ((0.05, True), (0.15, False), (0.35, True))
_FEW_CUTS = ((0.15, True), (0.35, False))  # of a day or less
_DAY_CYCLES = 1440
# The collector is away for so much of the whole, the time server for a while as well.
AWAY = 0.3


@dataclass(frozen=True)
class Event:
    """A fault from one cycle on up to another."""

    fault: Fault
    start: int
    end: int


@dataclass
class Life:
    """From one start of the board to the next power cut, in cycles."""

    start: int
    end: int
    ends_calmly: bool


@dataclass
class Plan:
    """What happens in a soak."""

    cycles: int
    calm_cycles: int
    events: list[Event] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)

    def is_calm(self, cycle: int) -> bool:
        """Tell whether nothing is wrong in a cycle, nor was a while before."""
        return not any(each.start <= cycle < each.end + 3 for each in self.events)


def plan(cycles: int, seed: int, away_part: float = AWAY) -> Plan:
    """Make a plan: calm at begin and end, and around each start; in between each fault once."""
    chance = random.Random(seed)
    found = Plan(cycles, min(CALM_CYCLES, cycles // 24))
    parts = _CUTS if cycles > _DAY_CYCLES else _FEW_CUTS
    cuts = [(int(cycles * part), in_fault) for part, in_fault in parts]
    start = 0
    for end, in_fault in [*cuts, (cycles, False)]:
        found.lives.append(Life(start, end, not in_fault))
        start = end + 1
    last = found.lives[-1]
    away = _long(found, "collector-away", last.start + found.calm_cycles, int(cycles * away_part))
    silent = BY_NAME["time-server-silent"].least_cycles
    if away.start + silent < cycles - found.calm_cycles:
        _long(found, "time-server-silent", away.start + 1, silent)
    _fill(found, chance, away)
    return found


def _long(found: Plan, name: str, start: int, cycles: int) -> Event:
    latest = found.cycles - found.calm_cycles
    event = Event(BY_NAME[name], start, min(start + cycles, latest))
    found.events.append(event)
    return event


def _fill(found: Plan, chance: random.Random, away: Event) -> None:
    """Put ordinary faults between the calm parts."""
    kinds = [each for each in FAULTS if each.least_cycles <= _MOST_CYCLES]
    room = sum(
        life.end - life.start - found.calm_cycles * (1 + life.ends_calmly) for life in found.lives
    )
    gap = max(2, min(60, room // len(kinds) - _MOST_CYCLES))
    bag: list[Fault] = []
    turns = 0
    for life in found.lives:
        at = life.start + found.calm_cycles
        end = life.end - found.calm_cycles if life.ends_calmly else life.end + 1
        while True:
            if not bag:
                bag = chance.sample(kinds, len(kinds))
                turns += 1
            cycles = chance.randint(3, _MOST_CYCLES)
            if not life.ends_calmly and end - at < cycles + gap:
                at, cycles = end - 3, 5  # the power is cut in its middle
            elif at + cycles > end:
                break
            is_away = away.start - 10 < at + cycles and at < away.end + 10
            # What only an acknowledgement shows has to wait for the collector.
            fault = next((e for e in bag if not (is_away and e.part in (UPLINK, CLOCK))), None)
            if fault is None:
                bag = [*bag, *chance.sample(kinds, len(kinds))]
                continue
            bag.remove(fault)
            found.events.append(Event(fault, at, at + cycles))
            if turns > 1 and chance.random() < _TOGETHER:
                others = [k for k in kinds if k.part not in (fault.part, UPLINK)]
                found.events.append(Event(chance.choice(others), at + 1, at + 1 + cycles))
            at += cycles + chance.randint(gap // 2 + 1, gap + 1)
            if not life.ends_calmly and at >= end:
                break
