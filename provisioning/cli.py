"""The command `netzpuls board`: flash, enrol and list boards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from fleet import inventory
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.inventory import Board, Role
from fleet.text import printable
from provisioning.application import Application
from provisioning.display import Display
from provisioning.flash import BAUD, Flashed, FlashRequest, Plan, carry_out, plan


@click.group()
def board() -> None:
    """Flash, enrol and list boards."""


@board.command()
@city_option
@click.option("--port", required=True, metavar="P", help="Serial port, such as /dev/ttyUSB0.")
@click.option("--site", required=True, metavar="S", help="The site's id in the inventory.")
@click.option("--room", required=True, metavar="R", help="One of the site's rooms.")
@click.option(
    "--role", required=True, type=click.Choice(get_args(Role)), help="What the board is for."
)
@click.option(
    "--hardware",
    metavar="ID",
    help="What hangs on the board: an id of [hardware] in the inventory, or none. "
    "[default: what the registry says, else none]",
)
@click.option(
    "--micropython",
    "image",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="MicroPython for ESP32_GENERIC, as micropython.org publishes it.",
)
@click.option(
    "--baud",
    type=click.IntRange(9600, 3_000_000),
    default=BAUD,
    show_default=True,
    help="Speed of the line; a long or poor cable wants less.",
)
@click.option(
    "--reassign",
    is_flag=True,
    help="Take a board that the registry has elsewhere, or as revoked.",
)
@click.option("--dry-run", is_flag=True, help="Check all that can be checked; touch nothing.")
@json_option
def flash(
    *,
    city: Path,
    port: str,
    site: str,
    room: str,
    role: Role,
    hardware: str | None,
    image: Path | None,
    baud: int,
    reassign: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Turn the board on a port into one of the city's boards.

    Writes MicroPython, the agent, configuration and identity, checks them, waits for the
    board's self-test and enrols it. A board that fails is not enrolled. Flashing a board
    again gives it a new key and certificate.
    """
    planned = plan(
        FlashRequest(city, port, site, room, role, image, baud, reassign, hardware=hardware)
    )
    if dry_run:
        emit({"dry_run": True, "plan": planned.document()}, lambda: _show_plan(planned), as_json)
        return
    _show_image(planned.application, progress)
    with _interruptible(port), Display(progress) as display:
        flashed = carry_out(planned, display.show)
    emit(flashed.document(), lambda: _show_flashed(flashed), as_json)


@board.command("list")
@city_option
@click.option("--site", metavar="S", help="Only this site's boards.")
@json_option
def list_boards(city: Path, site: str | None, as_json: bool) -> None:
    """List the boards that the registry has."""
    known = inventory.load(city)
    if site is not None:
        known.site(site)
    boards = {i: b for i, b in sorted(known.boards.items()) if site in (None, b.site)}
    document = {
        "boards": [{"board": i, **b.model_dump(mode="json")} for i, b in boards.items()],
    }
    emit(document, lambda: _show_boards(boards), as_json)


@contextlib.contextmanager
def _interruptible(port: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _say(
            f"The board on {port} is not enrolled and may be half written: "
            "run the same command again.",
            progress,
        )
        raise


def _show_plan(planned: Plan) -> None:
    request, document = planned.request, planned.document()
    hardware = f" with {request.hardware}" if request.hardware else ""
    _say(f"{request.port} → {request.site}, {request.room} as {request.role}{hardware}")
    _say(f"WLAN {document['wlan']}, gateway {document['gateway']}")
    _show_image(planned.application, result)
    for part in document["write"]:
        _say(f"write {part['bytes']:>9,} bytes at {part['address']:#08x}: {part['what']}")
    _say("Nothing was written. Run the command without --dry-run.")


def _show_flashed(flashed: Flashed) -> None:
    entry = flashed.entry
    _say(
        f"{flashed.board} is enrolled: {entry.site}, {entry.room}, {entry.role}, "
        f"key {entry.key_id}, certificate until {entry.certificate_expires:%Y-%m-%d}, "
        f"in {flashed.seconds['total']:.1f} s"
    )


def _show_image(image: Application, console: Console) -> None:
    what = "stand-in, for virtual boards only" if image.stand_in else image.version
    _say(f"MicroPython image {printable(image.path.name)} ({what or 'without a version'})", console)
    _say(f"SHA-256 {image.sha256}", console)


def _say(text: str, console: Console = result) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _show_boards(boards: dict[str, Board]) -> None:
    if not boards:
        _say("No boards yet. The first one: netzpuls board flash --help")
        return
    rows = [
        (
            "board",
            "site",
            "room",
            "role",
            "hardware",
            "key",
            "agent",
            "enrolled",
            "certificate until",
        )
    ]
    rows += [
        (
            board_id if entry.revoked is None else f"{board_id} (revoked)",
            entry.site,
            printable(entry.room),
            entry.role,
            entry.hardware or "-",
            str(entry.key_id),
            printable(entry.agent),
            f"{entry.enrolled:%Y-%m-%d}",
            f"{entry.certificate_expires:%Y-%m-%d}",
        )
        for board_id, entry in boards.items()
    ]
    # Not fitted to the terminal: an id that is cut is no id.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        _say("  ".join(map(str.ljust, row, widths)).rstrip())
