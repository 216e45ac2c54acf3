"""All boards on the desk held against the registry, side by side, and mended if that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet import authority, inventory
from provisioning import application, hashkey
from provisioning.application import Image
from provisioning.check import Checked, CheckRequest, check_board
from provisioning.desk import Desk, Registered, Screen
from provisioning.flash import SELF_TEST_S, Flashed, FlashRequest, Progress, carry_out, plan
from provisioning.port import Adapter


@dataclass(frozen=True)
class InspectionRequest:
    """What a technician asks for.

    Attributes:
        city: the city's folder.
        image: the MicroPython image that the boards should have; None: not compared.
        repair: write what differs; needs an image.
        baud: the line's speed; None for the best that it carries.
    """

    city: Path
    image: Image | None = None
    repair: bool = False
    baud: int | None = None
    self_test_s: float = SELF_TEST_S


@dataclass(frozen=True)
class Inspected:
    """A board that was looked at, and what was done about it.

    Attributes:
        flashed: how it was repaired, None if it was not.
    """

    checked: Checked
    flashed: Flashed | None

    @property
    def is_good(self) -> bool:
        """Whether all is as the registry says."""
        return self.checked.ok or self.flashed is not None

    @property
    def has_new_identity(self) -> bool:
        """Whether its repair gave it a new identity."""
        entry = self.checked.entry
        return bool(self.flashed and entry and self.flashed.entry.key_id != entry.key_id)

    @property
    def ending(self) -> str:
        """What became of it, in a few words."""
        if self.flashed:
            return "repaired"
        if self.checked.ok:
            return "good"
        return "differs: " + ", ".join(each.what for each in self.checked.findings if not each.ok)

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        repaired = self.flashed and self.flashed.document()
        return self.checked.document() | {"ok": self.is_good, "repaired": repaired}


Inspection = Registered[Inspected]


def inspect(
    request: InspectionRequest,
    port: str,
    on_progress: Callable[[Progress], None],
    on_checked: Callable[[Checked], None] = lambda _: None,
) -> Inspected:
    """Look at one board, and repair it if that is asked for and helps.

    `on_checked` is told what was seen, before a repair begins.

    Raises: NetzpulsError: it could not be looked at, or its repair failed.
    """
    image = request.image
    asked = CheckRequest(request.city, port, image, request.baud, request.self_test_s)
    checked = check_board(asked, on_progress)
    entry = checked.entry
    if not request.repair or checked.ok or not entry or not checked.in_service:
        return Inspected(checked, None)
    on_checked(checked)
    wanted = FlashRequest(
        request.city,
        port,
        entry.site,
        entry.room,
        entry.role,
        image,
        request.baud,
        self_test_s=request.self_test_s,
        no_bench=True,  # most are mended where they hang
    )
    return Inspected(checked, carry_out(plan(wanted), on_progress))


def desk(
    request: InspectionRequest,
    find: Callable[[], Sequence[Adapter]],
    screen: Screen,
    expected: Sequence[str] = (),
) -> Desk[Inspection]:
    """Make a desk that looks at all boards.

    Args:
        request: what is to be done with each.
        find: the ports that are there now.
        screen: told what happens.
        expected: ports that must be there in the end.

    Raises: NetzpulsError: what no board could be compared with, before one is touched.
    """
    known = inventory.load(request.city)
    authority.load(request.city)
    hashkey.ensure(request.city)
    if request.image:
        application.load(request.image)

    def work(each: Inspection) -> Inspected:
        return inspect(request, each.adapter.port, lambda step: made.step(each, step))

    made: Desk[Inspection] = Desk(
        find, lambda adapter: Inspection(adapter, known), work, screen, expected=expected
    )
    return made
