"""The board itself: its power, its flash."""

from __future__ import annotations

from collections.abc import Iterator

from firmware.linkreport.table import DEVICE, FLASH_FAILED
from hil.lab.fault.definition import Expected, Scene, fault


@fault(
    "power-cut",
    "somebody pulls the board's plug",
    Expected(silence=True),
    layer=DEVICE,
    part="power",
    one_board=True,
)
def _power(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        board.control.power(on=False)
    yield
    for board in scene.boards:
        board.control.power(on=True)


@fault(
    "flash-worn",
    "the board's flash refuses to be written",
    Expected(FLASH_FAILED),
    layer=DEVICE,
    part="flash",
    one_board=True,
)
def _worn(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        board.control.call("wear", failing=True)
    yield
    for board in scene.boards:
        board.control.call("wear", failing=False)
