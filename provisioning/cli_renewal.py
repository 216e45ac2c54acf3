"""`netzpuls board renew`: another certificate for one board, or for all on the desk."""

from __future__ import annotations

from pathlib import Path

import click

from fleet import authority, inventory
from fleet.cli.output import city_option, emit, json_option, progress
from fleet.errors import NetzpulsError
from provisioning import port, renewal
from provisioning.cli_desk import finish, has_keyboard
from provisioning.cli_port import places, port_options
from provisioning.display import Display, TrayDisplay, interruptible, say, say_below
from provisioning.port import Adapter
from provisioning.renewal import RenewalRequest, Renewed


@click.command()
@city_option
@port_options
@click.option(
    "--new-key",
    is_flag=True,
    help="New keys, too; the old ones' certificates are revoked, and unsent reports are lost.",
)
@click.option("--dry-run", is_flag=True, help="Check all that can be checked; touch nothing.")
@json_option
def renew(
    *,
    city: Path,
    ports: tuple[str, ...],
    others: bool,
    gateway: str | None,
    new_key: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Give the board on a port a new certificate, or all of them.

    The board keeps its id, its room, its keys and the reports that it holds; a few sectors are
    written. It then starts anew, says how it is, and its new certificate goes into the registry.

    With --new-key it gets new keys, for one whose keys somebody may have read. Its gateway takes
    its reports after the next collection.
    """
    request = RenewalRequest(city, new_key)
    named, find = places(city, ports, gateway, others=others)
    if dry_run:
        _show_plan(request, find(), named, as_json=as_json)
        return 0
    if others or len(ports) > 1:
        display = TrayDisplay(progress, has_keyboard=has_keyboard())
        desk = renewal.desk(request, find, display, expected=named)
        return finish(desk, display, _show_each, as_json=as_json)
    left = f"The board on {named[0]} is not renewed: run the same command again."
    with interruptible(left), Display(progress) as one:
        renewed = renewal.renew(request, named[0], one.show)
    emit(renewed.document(), lambda: _show_renewed(renewed), as_json)
    return 0


def _show_plan(
    request: RenewalRequest, there: list[Adapter], named: tuple[str, ...], *, as_json: bool
) -> None:
    inventory.load(request.city)
    ca = authority.load(request.city).certificate
    found = {each.port: each for each in there}
    ports = []
    for name in [*found, *(name for name in named if not port.plugged([name], others=False))]:
        problem = None
        try:
            port.check(name)
        except NetzpulsError as error:
            problem = f"{error.message}: {error.hint}"
        usb = found[name].usb if name in found else ""
        ports.append({"port": name, "usb": usb or None, "problem": problem})
    document = {
        "dry_run": True,
        "new_key": request.new_key,
        "ca_ends": ca.not_valid_after_utc.isoformat(),
        "ports": ports,
    }

    def show() -> None:
        for each in ports:
            about = [f"USB {each['usb']}" if each["usb"] else "", each["problem"] or ""]
            say(f"{each['port']}: {', '.join(filter(None, about)) or 'a port'}")
        if not ports:
            say("No port that boards come with is plugged in.")
        say(f"No certificate lasts longer than the CA, until {ca.not_valid_after_utc:%Y-%m-%d}.")
        say("Nothing was written. Run the command without --dry-run.")

    emit(document, show, as_json)


def _show_each(head: str, renewed: Renewed) -> None:
    say(head + renewed.ending)
    for note in _notes(renewed):
        say_below(note)


def _show_renewed(renewed: Renewed) -> None:
    until = f"{renewed.entry.certificate_expires:%Y-%m-%d}"
    say(
        f"{renewed.board} has a new certificate, until {until} "
        f"(before: {renewed.ended_before:%Y-%m-%d}); {renewed.written_bytes:,} bytes were written "
        f"in {renewed.seconds['total']:.1f} s"
    )
    for note in _notes(renewed):
        say(f"note: {note}")


def _notes(renewed: Renewed) -> list[str]:
    if not renewed.new_key:
        return []
    note = (
        f"its keys are new (key {renewed.entry.key_id}), the old ones' certificates are revoked: "
        "gateways know it after the next netzpuls fleet collect; its label is old: "
        f"netzpuls board label {renewed.board}"
    )
    return [note]
