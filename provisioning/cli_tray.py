"""`netzpuls board flash --all`: a tray of boards."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet import inventory
from fleet.cli.output import emit, progress, result
from fleet.errors import NetzpulsError, UsageError
from fleet.inventory import Role
from fleet.text import printable
from provisioning import port, roomlist
from provisioning.cli_desk import has_keyboard
from provisioning.display import TrayDisplay, headed, say, say_failed, show_bench, show_image
from provisioning.errors import StoppedError, TrayError
from provisioning.flash import FlashRequest
from provisioning.port import Adapter
from provisioning.room import Rooms
from provisioning.tray import Attempt, Questions, Tray


@dataclass(frozen=True)
class Wanted:
    """What a technician asks for.

    Attributes:
        request: what is to be done with each board; its role holds where `role` is None.
        role: for boards of which the list does not say it.
        ports: those that are named.
        find: the ports that are there now.
        rooms: the list of rooms.
        wait_s: how long to wait for further boards; None for as a terminal does.
    """

    request: FlashRequest
    role: Role | None
    ports: Sequence[str]
    find: Callable[[], list[Adapter]]
    rooms: Path | None
    wait_s: float | None


def run(wanted: Wanted, *, dry_run: bool, as_json: bool) -> int:
    """Flash a tray and say how each board ended; return the exit code.

    Raises: NetzpulsError: no board could be flashed like that, or some were not.
    """
    request, role = wanted.request, wanted.role
    can_ask = has_keyboard()
    city = inventory.load(request.city)
    city.site(request.site)
    rows = None
    if wanted.rooms:
        rows = roomlist.read(wanted.rooms, city, request.site, role, request.hardware)
        request = replace(request, role=role or rows[0].role)
    elif role is None:
        raise UsageError("nobody said what the boards are for", hint="add --role")
    elif not can_ask and not dry_run:
        raise UsageError(
            "which rooms are the boards for? there is no terminal to ask on",
            hint=f"add --rooms FILE.csv, with the columns {', '.join(roomlist.COLUMNS)}",
        )
    questions = Questions()
    rooms = Rooms(
        request.city,
        request.site,
        rows,
        role=role,
        hardware=request.hardware,
        reassign=request.reassign,
        ask=questions.ask,
    )
    display = TrayDisplay(progress, has_keyboard=can_ask)
    tray = Tray(
        request,
        rooms,
        wanted.find,
        display,
        expected=wanted.ports,
        questions=questions,
        wait_s=wanted.wait_s if wanted.wait_s is not None or can_ask else 0,
        is_enough=_enter_pressed if can_ask else lambda: False,
    )
    if dry_run:
        _show_plan(tray, rooms, wanted.find(), as_json)
        return 0
    show_image(tray.plan.application, progress)
    show_bench(tray.plan, progress)
    with display:
        ends = tray.run()
    return _show_ends(tray, ends, as_json)


def _enter_pressed() -> bool:
    """Tell whether a line, or the end of the input, waits at the keyboard; take it."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return False
    sys.stdin.readline()
    return True


def _show_plan(tray: Tray, rooms: Rooms, there: Sequence[Adapter], as_json: bool) -> None:
    plan = tray.plan
    places = [
        {
            "room": row.room,
            "role": row.role,
            "hardware": row.hardware,
            "for_board": row.board or None,
            "for_usb": row.usb or None,
            "has_board": rooms.holder(row) or None,
        }
        for row in rooms.rows or []
    ]
    ports = [_port_document(adapter, rooms) for adapter in there]
    document = {
        "dry_run": True,
        "site": plan.request.site,
        "bench": plan.bench and plan.bench.document(),
        "image": plan.application.document(),
        "ports": ports,
        "rooms": places,
        "write": plan.writes(),
    }

    def show() -> None:
        for each in ports:
            about = [f"USB {each['usb']}" if each["usb"] else "", each["name"] or ""]
            about += [f"for {each['room']}" if each["room"] else "", each["problem"] or ""]
            say(f"{each['port']}: {', '.join(filter(None, about)) or 'a port'}")
        if not ports:
            say("No port that boards come with is plugged in.")
        for place in places:
            belongs = place["for_board"] or (place["for_usb"] and f"USB {place['for_usb']}")
            has = f"{place['has_board']} is there already" if place["has_board"] else ""
            whose = has or (f"for {belongs}" if belongs else "for the next board")
            say(f"{printable(str(place['room']))}, {place['role']}: {printable(whose)}")
        if rooms.rows is None:
            say("Each board's room is asked for.")
        show_bench(plan)
        show_image(plan.application, result)
        say("Nothing was written. Run the command without --dry-run.")

    emit(document, show, as_json)


def _port_document(adapter: Adapter, rooms: Rooms) -> dict[str, Any]:
    """Return what is known of a port without opening it: a board does not tell who it is."""
    problem = None
    try:
        port.check(adapter.port)
    except NetzpulsError as error:
        problem = f"{error.message}: {error.hint}"
    row = next((row for row in rooms.rows or [] if row.usb and row.usb == adapter.usb), None)
    return {
        "port": adapter.port,
        "usb": adapter.usb or None,
        "name": adapter.name or None,
        "board": (row and row.board) or None,
        "room": row.room if row else None,
        "problem": problem,
    }


def _show_ends(tray: Tray, ends: Sequence[Attempt], as_json: bool) -> int:
    document = {
        "site": tray.plan.request.site,
        "bench": tray.plan.bench and tray.plan.bench.document(),
        "image": tray.plan.application.document(),
        "boards": [each.document() for each in ends],
    }
    failed = [each.name for each in ends if each.error]
    if not failed and not tray.is_interrupted:
        emit(document, lambda: _show_each(ends), as_json)
        return 0
    error: NetzpulsError
    if tray.is_interrupted:
        error = StoppedError(
            f"interrupted: {len(ends) - len(failed)} of {len(ends)} boards are enrolled",
            hint="run the same command again: each board goes on where it stopped",
        )
    else:
        error = TrayError(
            f"{len(failed)} of {len(ends)} boards failed: {', '.join(failed)}",
            hint="what to do about each stands above; then run the same command again: boards "
            "that are enrolled keep their rooms",
        )
    emit(error.document() | document, lambda: _show_each(ends), as_json)
    if not as_json:
        raise error
    return error.exit_code


def _show_each(ends: Sequence[Attempt]) -> None:
    for head, each in headed(ends):
        if each.result:
            say(head + each.result.ending)
        else:
            say_failed(head, each)
