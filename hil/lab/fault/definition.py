"""What a fault is: a name, what it breaks, what a board must say of it, how to do and undo it.

@fault(
"dns-dead", "the router's DNS server is stopped", Expected(RESOLVER_SILENT), part="dns"
)
def _dead(scene: Scene) -> Iterator[None]:
scene.site.network.dns.stop()
yield                                   # until it is healed
scene.site.network.dns.start()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from firmware.linkreport import table
from firmware.linkreport.term import LAYERS, STATES, TROUBLES, reason_name
from fleet.inventory import Role
from hil.lab.error import FaultError

if TYPE_CHECKING:
    from hil.lab.board import LabBoard
    from hil.lab.laboratory import Laboratory, LabSite

Kind = Literal["school", "hotspot"]
BOTH: tuple[Role, ...] = ("classroom-sensor", "ap-monitor")
# A monitor's Ethernet holds DHCP's port: docs/verdicts.md, "What a board cannot tell apart".
WITHOUT_LAN: tuple[Role, ...] = ("classroom-sensor",)
SILENCE = "unknown"


@dataclass(frozen=True)
class Expected:
    """What a board must say: a reason; or `up`, with a trouble of the uplink; or nothing at all.

    Attributes:
        reason: number from linkreport.table.
        also: one that is as right, where the fault's `merged` says why; 0 for none.
        trouble: name from linkreport.term.TROUBLES that the uplink block must carry.
        silence: no report comes: the ledger holds the board for unknown.
    """

    reason: int = table.OK
    also: int = 0
    trouble: str = ""
    silence: bool = False

    def __post_init__(self) -> None:
        if self.trouble and self.trouble not in TROUBLES:
            raise ValueError(f"no trouble {self.trouble!r}")

    @property
    def state(self) -> str:
        """The name of the state."""
        return SILENCE if self.silence else str(STATES[table.reason_state(self.reason)])

    @property
    def verdict(self) -> str:
        """The reason's name, or the state's where that is all."""
        if self.silence or self.reason == table.OK:
            return self.state
        return str(reason_name(self.reason))

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The names of all that is right."""
        return (self.verdict, str(reason_name(self.also))) if self.also else (self.verdict,)

    def __str__(self) -> str:
        """Return it as the matrix and `lab fault --list` show it."""
        right = " or ".join(self.verdicts)
        return f"{right} + {self.trouble}" if self.trouble else right


@dataclass(frozen=True)
class Scene:
    """Where a fault is made: a site of the lab, and the boards that it is to strike."""

    lab: Laboratory
    site: LabSite
    boards: tuple[LabBoard, ...]


@dataclass(frozen=True)
class Fault:
    """One entry of the catalogue.

    Attributes:
        text: what it does, one line.
        layer: number of the layer that is broken; 0: the way of the reports.
        part: what of the site or board it occupies; two faults of one part exclude each other.
        roles: boards that it can be seen by.
        kind: the kind of site that it can be made at.
        one_board: it strikes boards one by one, not the whole site.
        evidence: reasons by layer that must stand in the report besides the verdict.
        comes_and_goes: between its strokes boards are up.
        is_chance: dice are thrown; a matrix tries it a second time if the first one is not right.
        merged: other faults that a board cannot tell from this one, and why.
    """

    name: str
    text: str
    layer: int
    expected: Expected
    parts: frozenset[str]
    apply: Callable[[Scene], contextlib.AbstractContextManager[None]]
    roles: tuple[Role, ...] = BOTH
    kind: Kind = "school"
    one_board: bool = False
    evidence: tuple[tuple[int, int], ...] = ()
    comes_and_goes: bool = False
    is_chance: bool = False
    merged: str = ""

    @property
    def layer_name(self) -> str:
        """The layer's name; "uplink" for the way of the reports."""
        return str(LAYERS[self.layer]) if self.layer else "uplink"


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    text: str,
    expected: Expected,
    *,
    layer: int,
    part: str,
    roles: tuple[Role, ...] = BOTH,
    kind: Kind = "school",
    one_board: bool = False,
    comes_and_goes: bool = False,
    is_chance: bool = False,
    merged: str = "",
) -> Callable[[Callable[[Scene], Iterator[None]]], Callable[[Scene], Iterator[None]]]:
    """Enter a function into the catalogue; it breaks, yields, and mends."""

    def enter(function: Callable[[Scene], Iterator[None]]) -> Callable[[Scene], Iterator[None]]:
        _add(
            Fault(
                name,
                text,
                layer,
                expected,
                frozenset({part}),
                contextlib.contextmanager(function),
                roles=roles,
                kind=kind,
                one_board=one_board,
                comes_and_goes=comes_and_goes,
                is_chance=is_chance,
                merged=merged,
            )
        )
        return function

    return enter


def two_at_once(first: str, second: str, *, evidence: tuple[tuple[int, int], ...]) -> None:
    """Enter two faults of the catalogue at once: the first one's verdict must come.

    `evidence`: layer and reason of the other one, which must be kept in the report.
    """
    one, other = FAULTS[first], FAULTS[second]

    @contextlib.contextmanager
    def apply(scene: Scene) -> Iterator[None]:
        with one.apply(scene), other.apply(scene):
            yield

    _add(
        Fault(
            f"{first}+{second}",
            f"both at once: {one.text}; {other.text}",
            one.layer,
            one.expected,
            one.parts | other.parts,
            apply,
            roles=tuple(role for role in one.roles if role in other.roles),
            kind=one.kind,
            one_board=one.one_board and other.one_board,
            evidence=evidence,
        )
    )


def _add(entry: Fault) -> None:
    if entry.name in FAULTS:
        raise ValueError(f"two faults are called {entry.name}")
    FAULTS[entry.name] = entry


def find(name: str) -> Fault:
    """Return a fault of the catalogue.

    Raises: FaultError: there is none of that name.
    """
    try:
        return FAULTS[name]
    except KeyError:
        raise FaultError(
            f"no fault {name!r}", hint="see them all: netzpuls lab fault --list"
        ) from None


def catalogue() -> list[Fault]:
    """Return all faults: layer by layer, then the way of the reports, then two at once."""
    return sorted(FAULTS.values(), key=lambda each: ("+" in each.name, each.layer or 99))
