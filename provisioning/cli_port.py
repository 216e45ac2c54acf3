"""`netzpuls board ports` and `relay`: which ports there are, here or on a gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fleet import inventory
from fleet.cli.login import unlock
from fleet.cli.output import city_option, emit, json_option
from provisioning import port, relay, remote
from provisioning.display import say
from provisioning.port import Adapter

_on = click.option(
    "--on",
    "gateway",
    metavar="GATEWAY",
    help="The ports are this gateway's; all work is done here, over SSH.",
)
_ports = click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="P",
    help="Serial port, such as /dev/ttyUSB0; may be repeated.",
)
_all = click.option("--all", "others", is_flag=True, help="All boards that are plugged in by USB.")

F = TypeVar("F", bound=Callable[..., Any])


def port_options(command: F) -> F:
    """Add --port, --all and --on: the arguments `ports`, `others` and `gateway` of `places`."""
    return _ports(_all(_on(command)))


def places(
    city: Path, ports: Sequence[str], gateway: str | None, *, others: bool
) -> tuple[tuple[str, ...], Callable[[], list[Adapter]]]:
    """Return the ports that were named, as they are called here, and what finds all there are.

    A gateway says which it has until the command ends.

    Raises:
        UsageError: no port is meant.
        NetzpulsError: the gateway is not known.
    """
    if not ports and not others:
        raise click.UsageError("which board? give its --port P, or --all")
    if gateway is None:
        return tuple(ports), lambda: port.plugged(ports, others=others)
    unlock(inventory.load(city), [gateway])
    reached = remote.reach(city, gateway)
    there = reached.ports(ports, others=others)
    click.get_current_context().call_on_close(there.close)
    return tuple(reached.name(each) for each in ports), there.now


@click.command("ports")
@city_option
@_on
@json_option
def list_ports(*, city: Path, gateway: str | None, as_json: bool) -> None:
    """List the serial ports that boards come with; opens none."""
    _, find = places(city, (), gateway, others=True)
    found = find()

    def show() -> None:
        for each in found:
            about = [each.name, f"USB {each.usb}" if each.usb else ""]
            say(f"{each.port}: {', '.join(filter(None, about)) or 'a port'}")
        if not found:
            say("No port that boards come with is plugged in.")

    emit(port.listed(found), show, as_json)


@click.command("relay", hidden=True)
@click.option("--port", "port_name", required=True, metavar="P")
@click.option("--silence", "silence_s", type=click.FloatRange(min=1), default=relay.SILENCE_S)
def carry(*, port_name: str, silence_s: float) -> None:
    """Carry a port over stdin and stdout; `--on` of the other verbs runs this on a gateway."""
    relay.serve(port_name, sys.stdin.fileno(), sys.stdout.fileno(), silence_s)


@click.command("watch", hidden=True)
@_ports
@_all
def watch(*, ports: tuple[str, ...], others: bool) -> None:
    """Say which ports there are; `--on` of the other verbs runs this on a gateway."""
    relay.watch(ports, sys.stdin.fileno(), sys.stdout.fileno(), others=others)
