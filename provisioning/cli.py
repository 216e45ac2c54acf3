"""The command `netzpuls board`; what concerns the registry alone is in `cli_registry`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.inventory import Role
from provisioning import cli_check, cli_image, cli_port, cli_registry, cli_renewal, cli_tray
from provisioning.cli_image import image_options
from provisioning.cli_port import places, port_options
from provisioning.display import (
    Display,
    half_written,
    interruptible,
    say,
    show_bench,
    show_flashed,
    show_image,
)
from provisioning.flash import FlashRequest, Plan, carry_out, plan
from provisioning.label.cli import label


@click.group()
def board() -> None:
    """Flash, enrol, label and list boards; say where they hang."""


for command in (
    cli_check.check,
    cli_renewal.renew,
    cli_port.list_ports,
    cli_port.carry,
    cli_port.watch,
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
@port_options
@click.option("--site", required=True, metavar="S", help="The site's id in the inventory.")
@click.option("--room", metavar="R", help="One of the site's rooms, for one board.")
@click.option(
    "--rooms",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Rooms for a tray: the column room, and if wanted board, usb, role, hardware.  "
    "[default: each is asked for]",
)
@click.option("--role", type=click.Choice(get_args(Role)), help="What the board is for.")
@click.option(
    "--hardware",
    metavar="ID",
    help="What hangs on the board: an id of [hardware] in the inventory, or none. "
    "[default: what the registry says, else none]",
)
@image_options("MicroPython for the board's chip, as micropython.org publishes it.")
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
@click.option(
    "--no-bench",
    is_flag=True,
    help="Test the board alone, although the inventory has a [bench]; --on does the same.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds to wait for a further board of a tray.  [default: on a terminal until Enter]",
)
@click.option("--dry-run", is_flag=True, help="Check all that can be checked; touch nothing.")
@json_option
def flash(
    *,
    city: Path,
    ports: tuple[str, ...],
    others: bool,
    gateway: str | None,
    site: str,
    room: str | None,
    rooms: Path | None,
    role: Role | None,
    hardware: str | None,
    image: Path | None,
    version: str | None,
    chip: str | None,
    baud: int | None,
    reassign: bool,
    no_bench: bool,
    wait_s: float | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Turn the board on a port into one of the city's boards, or a whole tray of them.

    Writes MicroPython, the agent, configuration and identity, checks them, waits for the
    board's self-test and enrols it. With a [bench] in the inventory the self-test goes on: the
    board joins the bench's WLAN, gets the time, and has a report acknowledged by its gateway.
    A board that fails is not enrolled: the same command goes on where it stopped. Of a board
    that is enrolled already only what differs is written; it keeps its identity and the reports
    that it holds.

    A tray is --all, several --port, or --rooms: its boards are worked on side by side, one that
    is plugged in later joins, and one that fails does not stop the others.
    """
    is_tray = others or len(ports) > 1 or rooms is not None
    named, find = places(city, ports, gateway, others=others)
    if is_tray and room is not None:
        raise click.UsageError("--room is for one board; a tray has --rooms FILE.csv")
    if not is_tray and wait_s is not None:
        raise click.UsageError("--wait is for a tray: --all, several --port, or --rooms")
    if not is_tray and (room is None or role is None):
        missing = "--room" if room is None else "--role"
        raise click.UsageError(f"Missing option '{missing}'.")
    chosen = cli_image.chosen(city, image, version, chip)
    request = FlashRequest(
        city,
        named[0] if named else "",
        site,
        room or "",
        role or "classroom-sensor",
        chosen,
        baud,
        reassign,
        hardware=hardware,
        # On a gateway's port it is in reach of the gateway's WLAN, and not of the bench's.
        no_bench=no_bench or gateway is not None,
    )
    if is_tray:
        wanted = cli_tray.Wanted(request, role, named, find, rooms, wait_s)
        return cli_tray.run(wanted, dry_run=dry_run, as_json=as_json)
    _flash_one(request, dry_run=dry_run, as_json=as_json)
    return 0


def _flash_one(request: FlashRequest, *, dry_run: bool, as_json: bool) -> None:
    planned = plan(request)
    if dry_run:
        emit({"dry_run": True, "plan": planned.document()}, lambda: _show_plan(planned), as_json)
        return
    show_image(planned.application, progress)
    show_bench(planned, progress)
    with interruptible(half_written(request.port)), Display(progress) as display:
        flashed = carry_out(planned, display.show)
    emit(flashed.document(), lambda: show_flashed(flashed), as_json)


def _show_plan(planned: Plan) -> None:
    request, document = planned.request, planned.document()
    hardware = f" with {request.hardware}" if request.hardware else ""
    say(f"{request.port} → {request.site}, {request.room} as {request.role}{hardware}")
    say(f"WLAN {document['wlan']}, gateway {document['gateway']}")
    show_bench(planned)
    show_image(planned.application, result)
    for part in document["write"]:
        say(f"write at most {part['bytes']:>9,} bytes at {part['address']:#08x}: {part['what']}")
    say("Nothing was written. Run the command without --dry-run.")
