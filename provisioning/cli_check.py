"""`netzpuls board check`: one board, or all on the desk, held against the registry."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fleet.cli.output import city_option, emit, json_option, progress
from fleet.errors import UsageError
from fleet.text import printable
from provisioning import cli_image, inspection
from provisioning.application import Application
from provisioning.check import Checked
from provisioning.cli_desk import finish, has_keyboard
from provisioning.cli_image import image_options
from provisioning.cli_port import places, port_options
from provisioning.display import (
    Display,
    TrayDisplay,
    half_written,
    interruptible,
    say,
    say_below,
    show_flashed,
)
from provisioning.flash import Flashed
from provisioning.inspection import Inspected, InspectionRequest
from provisioning.port import Adapter


@click.command()
@city_option
@port_options
@image_options("The image that the board should run; without one that is not compared.")
@click.option("--repair", is_flag=True, help="Then write what differs, as the registry says.")
@json_option
def check(
    *,
    city: Path,
    ports: tuple[str, ...],
    others: bool,
    gateway: str | None,
    image: Path | None,
    version: str | None,
    chip: str | None,
    repair: bool,
    as_json: bool,
) -> int:
    """Compare the board on a port with the registry, or all of them; write nothing.

    Identity, application and every file are compared, dead boards included; then the board
    starts anew and says how it is. Exit code 1 if something differs.

    With --all or several --port the boards are looked at side by side; one that fails does not
    stop the others, and one that is plugged in meanwhile joins.
    """
    named, find = places(city, ports, gateway, others=others)
    if repair and image is None and version is None:
        raise UsageError(
            "--repair needs the image", hint="add --micropython FILE, or --micropython-version"
        )
    request = InspectionRequest(city, cli_image.chosen(city, image, version, chip), repair)
    if others or len(ports) > 1:
        return _check_all(request, named, find, as_json=as_json)
    return _check_one(request, named[0], as_json=as_json)


def _check_one(request: InspectionRequest, port_name: str, *, as_json: bool) -> int:
    def show_before(checked: Checked) -> None:
        if not as_json:
            _show_findings(checked)
            say("Now what differs is written.")

    left = half_written(port_name) if request.repair else ""
    with interruptible(left), Display(progress) as display:
        inspected = inspection.inspect(request, port_name, display.show, show_before)
    emit(inspected.document(), lambda: _show_inspected(inspected, request), as_json)
    return 0 if inspected.is_good else 1


def _check_all(
    request: InspectionRequest,
    ports: Sequence[str],
    find: Callable[[], list[Adapter]],
    *,
    as_json: bool,
) -> int:
    display = TrayDisplay(progress, has_keyboard=has_keyboard())
    desk = inspection.desk(request, find, display, expected=ports)
    return finish(
        desk, display, lambda head, each: _show_each(head, each, request), as_json=as_json
    )


def _show_each(head: str, found: Inspected, request: InspectionRequest) -> None:
    say(head + found.ending)
    if not found.is_good:
        for finding in found.checked.findings:
            if not finding.ok:
                say_below(f"{finding.what}: {finding.told}")
        say_below(_advice(found.checked, request))
    elif found.flashed and found.has_new_identity:
        say_below(_new_identity(found.flashed))


def _show_inspected(inspected: Inspected, request: InspectionRequest) -> None:
    if inspected.flashed:
        show_flashed(inspected.flashed)
        if inspected.has_new_identity:
            say(f"note: {_new_identity(inspected.flashed)}")
        return
    _show_findings(inspected.checked)
    if not inspected.is_good:
        say(_advice(inspected.checked, request))


def _show_findings(checked: Checked) -> None:
    say(f"{checked.board} on {checked.port}")
    width = max(len(finding.what) for finding in checked.findings)
    for finding in checked.findings:
        mark = "ok " if finding.ok else "BAD"
        say(f"  {mark} {finding.what:{width}}  {finding.told}")


def _advice(checked: Checked, request: InspectionRequest) -> str:
    """Return what to do about a board that differs."""
    board_id, entry, folder = checked.board, checked.entry, shlex.quote(str(request.city))
    if entry is None:
        return "To make it one of the city's: netzpuls board flash --help"
    if entry.revoked:
        return (
            "A revoked board is not repaired. If it may report again: netzpuls board flash "
            f"--city {folder} --port {checked.port} --site {entry.site} "
            f"--room {shlex.quote(entry.room)} --role {entry.role} --micropython FILE --reassign"
        )
    if entry.retired:
        return (
            "A retired board is not repaired. To take it back into service: "
            f"netzpuls board retire --city {folder} {board_id} --undo"
        )
    image = request.image
    file = image.path if isinstance(image, Application) else image
    named = shlex.quote(str(file)) if file else "FILE"
    return (
        f"To write what differs: netzpuls board check --city {folder} --port {checked.port} "
        f"--repair --micropython {named}"
    )


def _new_identity(flashed: Flashed) -> str:
    return (
        "it no longer held the identity that was enrolled: it has a new one (key "
        f"{flashed.entry.key_id}), and reports that it had not sent are lost. Its gateway "
        "takes its reports after the next netzpuls fleet collect; its label is old: "
        f"netzpuls board label {printable(flashed.board)}"
    )
