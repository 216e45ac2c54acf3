"""The command `netzpuls board`; what concerns the registry alone is in `cli_registry`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.errors import UsageError
from fleet.inventory import Role
from provisioning import cli_registry, cli_tray
from provisioning.check import Checked, CheckRequest, check_board
from provisioning.display import Display, say, show_image
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
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="P",
    help="Serial port, such as /dev/ttyUSB0; given several times it is a tray of boards.",
)
@click.option("--all", "others", is_flag=True, help="All boards that are plugged in by USB.")
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
    site: str,
    room: str | None,
    rooms: Path | None,
    role: Role | None,
    hardware: str | None,
    image: Path | None,
    baud: int | None,
    reassign: bool,
    renew: bool,
    wait_s: float | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Turn the board on a port into one of the city's boards, or a whole tray of them.

    Writes MicroPython, the agent, configuration and identity, checks them, waits for the
    board's self-test and enrols it. A board that fails is not enrolled: the same command goes
    on where it stopped. Of a board that is enrolled already only what differs is written; it
    keeps its identity and the reports that it holds, unless --renew is given.

    A tray is --all, several --port, or --rooms: its boards are worked on side by side, one that
    is plugged in later joins, and one that fails does not stop the others.
    """
    is_tray = others or len(ports) > 1 or rooms is not None
    if not ports and not others:
        raise click.UsageError("which board? give its --port P, or --all")
    if is_tray and room is not None:
        raise click.UsageError("--room is for one board; a tray has --rooms FILE.csv")
    if not is_tray and wait_s is not None:
        raise click.UsageError("--wait is for a tray: --all, several --port, or --rooms")
    if not is_tray and (room is None or role is None):
        missing = "--room" if room is None else "--role"
        raise click.UsageError(f"Missing option '{missing}'.")
    request = FlashRequest(
        city,
        ports[0] if ports else "",
        site,
        room or "",
        role or "classroom-sensor",
        image,
        baud,
        reassign,
        hardware=hardware,
        renew=renew,
    )
    if is_tray:
        wanted = cli_tray.Wanted(request, role, ports, others, rooms, wait_s)
        return cli_tray.run(wanted, dry_run=dry_run, as_json=as_json)
    _flash_one(request, dry_run=dry_run, as_json=as_json)
    return 0


def _flash_one(request: FlashRequest, *, dry_run: bool, as_json: bool) -> None:
    planned = plan(request)
    if dry_run:
        emit({"dry_run": True, "plan": planned.document()}, lambda: _show_plan(planned), as_json)
        return
    show_image(planned.application, progress)
    with _interruptible(request.port), Display(progress) as display:
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
    if repair and not checked.ok and entry and checked.in_service:
        if not as_json:
            _show_findings(checked)
            say("Now what differs is written.")
        request = FlashRequest(city, port, entry.site, entry.room, entry.role, image)
        with _interruptible(port), Display(progress) as display:
            flashed = carry_out(plan(request), display.show)
        document = checked.document() | {"repaired": flashed.document()}
        emit(document, lambda: _show_repaired(flashed, entry.key_id), as_json)
        return
    document = checked.document() | {"ok": checked.ok, "repaired": None}
    emit(document, lambda: _show_checked(checked, city, image), as_json)
    if not checked.ok:
        sys.exit(1)


@contextlib.contextmanager
def _interruptible(port: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"The board on {port} is not enrolled and may be half written: "
            "run the same command again; it goes on where it stopped.",
            progress,
        )
        raise


def _show_plan(planned: Plan) -> None:
    request, document = planned.request, planned.document()
    hardware = f" with {request.hardware}" if request.hardware else ""
    say(f"{request.port} → {request.site}, {request.room} as {request.role}{hardware}")
    say(f"WLAN {document['wlan']}, gateway {document['gateway']}")
    show_image(planned.application, result)
    for part in document["write"]:
        say(f"write at most {part['bytes']:>9,} bytes at {part['address']:#08x}: {part['what']}")
    say("Nothing was written. Run the command without --dry-run.")


def _show_findings(checked: Checked) -> None:
    say(f"{checked.board} on {checked.port}")
    width = max(len(finding.what) for finding in checked.findings)
    for finding in checked.findings:
        mark = "ok " if finding.ok else "BAD"
        say(f"  {mark} {finding.what:{width}}  {finding.told}")


def _show_checked(checked: Checked, city: Path, image: Path | None) -> None:
    _show_findings(checked)
    if checked.ok:
        return
    board_id, entry, folder = checked.board, checked.entry, shlex.quote(str(city))
    if entry is None:
        say("To make it one of the city's: netzpuls board flash --help")
    elif entry.revoked:
        say(
            "A revoked board is not repaired. If it may report again: netzpuls board flash "
            f"--city {folder} --port {checked.port} --site {entry.site} "
            f"--room {shlex.quote(entry.room)} --role {entry.role} --micropython FILE --reassign"
        )
    elif entry.retired:
        say(
            "A retired board is not repaired. To take it back into service: "
            f"netzpuls board retire --city {folder} {board_id} --undo"
        )
    else:
        named = shlex.quote(str(image)) if image else "FILE"
        say(
            f"To write what differs: netzpuls board check --city {folder} --port {checked.port} "
            f"--repair --micropython {named}"
        )


def _show_repaired(flashed: Flashed, key_id: int) -> None:
    _show_flashed(flashed)
    if flashed.entry.key_id != key_id:
        say(
            f"note: it no longer held the identity that was enrolled: it has a new one (key "
            f"{flashed.entry.key_id}), and reports that it had not sent are lost. Its gateway "
            "takes its reports after the next netzpuls fleet collect; its label is old: "
            f"netzpuls board label {flashed.board}"
        )


def _show_flashed(flashed: Flashed) -> None:
    entry = flashed.entry
    say(
        f"{flashed.board} is enrolled: {entry.site}, {entry.room}, {entry.role}, "
        f"key {entry.key_id}, certificate until {entry.certificate_expires:%Y-%m-%d}, "
        f"in {flashed.seconds['total']:.1f} s"
    )
