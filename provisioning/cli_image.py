"""Which MicroPython image a command works with: a file, or an official one by its version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fleet.cli.output import progress
from fleet.errors import UsageError
from provisioning import application, release
from provisioning.application import Image
from provisioning.chip import CHIPS, ESP32
from provisioning.display import say

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def image_options(what: str) -> Callable[[Decorated], Decorated]:
    """Give a command `image`, `version` and `chip`; `what` is what it does with the image."""

    def decorate(command: Decorated) -> Decorated:
        for option in (
            click.option(
                "--chip",
                type=click.Choice([each.name for each in CHIPS]),
                help=f"Whose image, with --micropython-version.  [default: {ESP32.name}]",
            ),
            click.option(
                "--micropython-version",
                "version",
                metavar="X.Y.Z",
                help="The official image of this version instead: fetched once, and checked.",
            ),
            click.option(
                "--micropython",
                "image",
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE",
                help=what,
            ),
        ):
            command = option(command)
        return command

    return decorate


def chosen(city: Path, image: Path | None, version: str | None, chip: str | None) -> Image | None:
    """Return the image that was asked for, fetched if it has to be; None for none.

    A fetched one is flashed as it was checked, whatever becomes of its file.

    Raises: NetzpulsError: the options contradict each other, or it cannot be had.
    """
    if version is None:
        if chip is not None:
            raise UsageError(
                "--chip goes with --micropython-version", hint="a file says itself what it is for"
            )
        return image
    if image is not None:
        raise UsageError(
            "--micropython and --micropython-version name two images", hint="leave one out"
        )
    wanted = next(each for each in CHIPS if each.name == (chip or ESP32.name))
    bars = Progress(
        TextColumn("fetching MicroPython {task.fields[version]}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=progress,
        transient=True,
        disable=not progress.is_terminal,
    )
    task = bars.add_task("", total=None, version=version)

    def show(done_bytes: int, total_bytes: int) -> None:
        bars.update(task, completed=done_bytes, total=total_bytes or None)

    with bars:
        fetched = release.fetch(version, wanted, city, show)
    if not fetched.was_kept:
        say(f"fetched {fetched.release.name}, kept in {fetched.path.parent}", progress)
    return application.parse(fetched.path, fetched.content)
