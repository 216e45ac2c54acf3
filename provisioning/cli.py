"""The command `netzpuls board`; what concerns the registry alone is in `cli_registry`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.errors import UsageError
from fleet.inventory import Role
from fleet.text import printable
from provisioning import cli_registry
from provisioning.application import Application
from provisioning.check import Checked, CheckRequest, check_board
from provisioning.display import Display
from provisioning.flash import Flashed, FlashRequest, Plan, carry_out, plan
from provisioning.label.cli import label


@click.group()
def board() -> None:
    """Flash, enrol, label and list boards; say where they hang."""


for command in (
    cli_registry.list_boards,
    cli_registry.move,
    cli_registry.replace,
    cli_registry.retire,
    cli_registry.revoke,
    cli_registry.ca,
    label,
):
    board.add_command(command)


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
    metavar="N",
    help="Speed of the line.  [default: the best that it carries, up to 2000000]",
)
@click.option(
    "--reassign",
    is_flag=True,
    help="Take a board that the registry has elsewhere, or as revoked.",
)
@click.option("--renew", is_flag=True, help="Give the board a new key and certificate.")
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
    baud: int | None,
    reassign: bool,
    renew: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Turn the board on a port into one of the city's boards.

    Writes MicroPython, the agent, configuration and identity, checks them, waits for the
    board's self-test and enrols it. A board that fails is not enrolled: the same command goes
    on where it stopped. Of a board that is enrolled already only what differs is written; it
    keeps its identity and the reports that it holds, unless --renew is given.
    """
    planned = plan(
        FlashRequest(
            city, port, site, room, role, image, baud, reassign, hardware=hardware, renew=renew
        )
    )
    if dry_run:
        emit({"dry_run": True, "plan": planned.document()}, lambda: _show_plan(planned), as_json)
        return
    _show_image(planned.application, progress)
    with _interruptible(port), Display(progress) as display:
        flashed = carry_out(planned, display.show)
    emit(flashed.document(), lambda: _show_flashed(flashed), as_json)


@board.command()
@city_option
@click.option("--port", required=True, metavar="P", help="Serial port, such as /dev/ttyUSB0.")
@click.option(
    "--micropython",
    "image",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The image that the board should run; without it that is not compared.",
)
@click.option("--repair", is_flag=True, help="Then write what differs, as the registry says.")
@json_option
def check(*, city: Path, port: str, image: Path | None, repair: bool, as_json: bool) -> None:
    """Compare the board on a port with the registry; write nothing.

    Identity, application and every file are compared, dead boards included; then the board
    starts anew and says how it is. Exit code 1 if something differs.
    """
    if repair and image is None:
        raise UsageError("--repair needs the image", hint="add --micropython FILE")
    with Display(progress) as display:
        checked = check_board(CheckRequest(city, port, image), display.show)
    entry = checked.entry
    if repair and not checked.ok and entry and not entry.revoked and not entry.retired:
        if not as_json:
            _show_checked(checked, city)
        request = FlashRequest(city, port, entry.site, entry.room, entry.role, image)
        with _interruptible(port), Display(progress) as display:
            flashed = carry_out(plan(request), display.show)
        document = checked.document() | {"repaired": flashed.document()}
        emit(document, lambda: _show_flashed(flashed), as_json)
        return
    document = checked.document() | {"ok": checked.ok, "repaired": None}
    emit(document, lambda: _show_checked(checked, city), as_json)
    if not checked.ok:
        sys.exit(1)


@contextlib.contextmanager
def _interruptible(port: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _say(
            f"The board on {port} is not enrolled and may be half written: "
            "run the same command again; it goes on where it stopped.",
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


def _show_checked(checked: Checked, city: Path) -> None:
    _say(f"{checked.board} on {checked.port}")
    width = max(len(finding.what) for finding in checked.findings)
    for finding in checked.findings:
        mark = "ok " if finding.ok else "BAD"
        _say(f"  {mark} {finding.what:{width}}  {finding.told}")
    if not checked.ok and checked.entry:
        _say(
            f"To write what differs: netzpuls board check --city {city} --port {checked.port} "
            "--repair --micropython FILE"
        )
    elif not checked.ok:
        _say("To make it one of the city's: netzpuls board flash --help")


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
