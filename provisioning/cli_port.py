"""`netzpuls board ports` and `relay`: which ports there are, here or on a gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fleet.cli.output import city_option, emit, json_option
from provisioning import port, relay, remote
from provisioning.display import say
from provisioning.port import Adapter

on_option = click.option(
    "--on",
    "gateway",
    metavar="GATEWAY",
    help="The ports are this gateway's; all work is done here, over SSH.",
)


def places(
    city: Path, ports: Sequence[str], gateway: str | None, *, others: bool
) -> tuple[tuple[str, ...], Callable[[], list[Adapter]]]:
    """Return the ports that were named, as they are called here, and what finds all there are.

    Those of a gateway are looked for once.

    Raises: NetzpulsError: the gateway is not known, or cannot be reached.
    """
    if gateway is None:
        return tuple(ports), lambda: port.plugged(ports, others=others)
    reached = remote.reach(city, gateway)
    named = tuple(reached.name(each) for each in ports)
    found = {name: Adapter(name) for name in named}
    for each in reached.ports() if others else []:
        found.setdefault(each.port, each)
    return named, lambda: list(found.values())


@click.command("ports")
@city_option
@on_option
@json_option
def list_ports(*, city: Path, gateway: str | None, as_json: bool) -> None:
    """List the serial ports that boards come with; opens none."""
    _, find = places(city, (), gateway, others=True)
    found = find()
    document = {
        "ports": [
            {"port": each.port, "usb": each.usb or None, "name": each.name or None}
            for each in found
        ]
    }

    def show() -> None:
        for each in found:
            about = [each.name, f"USB {each.usb}" if each.usb else ""]
            say(f"{each.port}: {', '.join(filter(None, about)) or 'a port'}")
        if not found:
            say("No port that boards come with is plugged in.")

    emit(document, show, as_json)


@click.command("relay", hidden=True)
@click.option("--port", "port_name", required=True, metavar="P")
@click.option("--silence", "silence_s", type=click.FloatRange(min=1), default=relay.SILENCE_S)
def carry(*, port_name: str, silence_s: float) -> None:
    """Carry a port over stdin and stdout; `--on` of the other verbs runs this on a gateway."""
    relay.serve(port_name, sys.stdin.fileno(), sys.stdout.fileno(), silence_s)
