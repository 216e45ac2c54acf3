"""What the verbs that work on all boards of the desk share: run them, and say how each ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fleet.cli.output import emit, progress
from fleet.errors import NetzpulsError
from provisioning.desk import A, Desk
from provisioning.display import TrayDisplay, headed, say_failed
from provisioning.errors import StoppedError, TrayError


def has_keyboard() -> bool:
    """Tell whether somebody sits at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and progress.is_terminal


def finish(
    desk: Desk[A], display: TrayDisplay, show: Callable[[str, Any], None], *, as_json: bool
) -> int:
    """Work on all boards to the end, say how each ended; return the exit code.

    `show` prints a result, given the beginning of its line.

    Raises: NetzpulsError: there was no board, or some are not as they should be.
    """
    with display:
        ends = desk.run(lambda: desk.running == 0)
    document = {"boards": [each.document() for each in ends]}
    left = [each.name for each in ends if not each.is_good]

    def render() -> None:
        for head, each in headed(ends):
            if each.result is None:
                say_failed(head, each)
            else:
                show(head, each.result)

    if not left and not desk.is_interrupted:
        emit(document, render, as_json)
        return 0
    error: NetzpulsError
    if desk.is_interrupted:
        error = StoppedError(
            f"interrupted: {len(ends) - len(left)} of {len(ends)} boards are as they should be",
            hint="run the same command again",
        )
    else:
        error = TrayError(
            f"{len(left)} of {len(ends)} boards are not as they should be: {', '.join(left)}",
            hint="what to do about each stands above",
        )
    emit(error.document() | document, render, as_json)
    if not as_json:
        raise error
    return error.exit_code
