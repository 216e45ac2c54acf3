"""Virtual boards in processes of their own, and the real tools that use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from hil.board import BoardProcess, Settings
from hil.board.application import build_image
from hil.board.flash import INSTANT, Flash
from tests.hil.board.desk import Desk


@pytest.fixture(scope="session")
def image() -> bytes:
    return build_image()


@pytest.fixture(scope="session")
def template(image: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a flash with the stand-in image."""
    path = tmp_path_factory.mktemp("template") / "flash.bin"
    flash = Flash(path, INSTANT)
    flash.program(0x1000, image)
    flash.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def start(
    template: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Desk]]:
    """Start a board that has the stand-in image, unless a flash is named."""
    with ExitStack() as stack:

        def start_board(**changes: Any) -> Desk:
            folder = tmp_path_factory.mktemp("board")
            settings = replace(
                Settings(link=folder / "np", flash=folder / "flash.bin", instant=True), **changes
            )
            if settings.flash is not None and not settings.flash.exists():
                settings.flash.write_bytes(template)
            return Desk(stack.enter_context(BoardProcess(settings)))

        yield start_board


@pytest.fixture(scope="module")
def desk(start: Callable[..., Desk]) -> Desk:
    """A board that the tests of a module share."""
    return start()
