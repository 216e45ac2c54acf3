"""The technician's list of rooms for a tray of boards: a CSV file.

    room,board,usb,role,hardware
    101,24:0a:c4:00:00:01,,,
    102,,A5069RR4,ap-monitor,
    103,,,,classroom

Only `room` must be there. A row with a board (id or MAC) or with the serial number of a USB
adapter belongs to it; the others are given out in the order in which boards are found.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from fleet.errors import READABLE
from fleet.inventory import INVENTORY_FILE, NO_HARDWARE, Inventory, Role
from fleet.text import printable
from provisioning.errors import RoomsError

COLUMNS = ("room", "board", "usb", "role", "hardware")

_LONGEST_BYTES = 1 << 20
_BOARD = re.compile("(?:np)?([0-9a-f]{12})")
_FAULTS_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """A place for a board.

    Attributes:
        line: of the list, 0 for a place that is on none.
        board: the id of the board that it belongs to, "" for none.
        usb: the serial number of the adapter that it belongs to, "" for none.
        hardware: as in `FlashRequest`.
    """

    room: str
    role: Role
    hardware: str | None = None
    line: int = 0
    board: str = ""
    usb: str = ""

    @property
    def is_free(self) -> bool:
        """Whether any board may have it."""
        return not self.board and not self.usb


def read(
    path: Path, city: Inventory, site: str, role: Role | None, hardware: str | None
) -> list[Row]:
    """Read a list of rooms.

    Where a row says nothing of role or hardware, those given here hold.

    Raises: RoomsError: it cannot be read or is wrong; with lines and columns.
    """
    reader = csv.reader(io.StringIO(text := _text(path)), delimiter=_delimiter(text), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise _faulty(path, [f"line {reader.line_num}: {error}"]) from None
    lines = [
        (number, [cell.strip() for cell in cells])
        for number, cells in lines
        if any(map(str.strip, cells))
    ]
    if not lines:
        raise _faulty(path, ["it is empty; its first line is: " + ",".join(COLUMNS)])
    head = [cell.lower() for cell in lines[0][1]]
    faults = _head_faults(lines[0][0], head)
    if faults:
        raise _faulty(path, faults)
    rows = []
    for number, cells in lines[1:]:
        if len(cells) > len(head):
            faults.append(f"line {number}: {len(cells)} cells below {len(head)} columns")
            continue
        row, wrong = _row(number, dict(zip(head, cells, strict=False)), city, site, role)
        faults += [f"line {number}, column {fault}" for fault in wrong]
        rows.append(replace(row, hardware=row.hardware or hardware))
    faults += _twice(rows)
    if faults:
        raise _faulty(path, faults)
    if not rows:
        raise _faulty(path, [f"line {lines[0][0]}: there is no room below it"])
    return rows


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST_BYTES + 1)
        if len(content) > _LONGEST_BYTES:
            raise _faulty(
                path, [f"it has more than {_LONGEST_BYTES} bytes: that is no list of rooms"]
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RoomsError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _faulty(path, [f"line {line}: it is not UTF-8; save it as CSV UTF-8"]) from None


def _delimiter(text: str) -> str:
    """Return what parts the columns: spreadsheets of a German desktop write semicolons."""
    head = text.lstrip().partition("\n")[0]
    return ";" if ";" in head and "," not in head else ","


def _head_faults(number: int, head: list[str]) -> list[str]:
    faults = [
        f"line {number}: unknown column {printable(name)!r}; there are {', '.join(COLUMNS)}"
        for name in head
        if name not in COLUMNS
    ]
    faults += [
        f"line {number}: column {n} stands there twice" for n in COLUMNS if head.count(n) > 1
    ]
    if "room" not in head:
        faults.append(f"line {number}: there is no column room")
    return faults


def _row(
    number: int, cells: dict[str, str], city: Inventory, site: str, role: Role | None
) -> tuple[Row, list[str]]:
    """Return a row and what is wrong with it, as "column: what"."""
    wrong = []
    rooms = city.site(site).rooms
    room, said = cells["room"], cells.get("role", "")
    if not room:
        wrong.append("room: it is empty")
    elif room not in rooms:
        wrong.append(
            f"room: site {site!r} has no room {printable(room)!r}; rooms there: "
            f"{', '.join(rooms)}; add it to {INVENTORY_FILE} if it is new"
        )
    board = _BOARD.fullmatch(re.sub("[:-]", "", cells.get("board", "").lower()))
    if cells.get("board") and not board:
        wrong.append(f"board: {printable(cells['board'])!r} is no board's id and no MAC")
    known: dict[str, Role] = {each: each for each in get_args(Role)}
    chosen = known.get(said) if said else role
    if said and not chosen:
        wrong.append(f"role: there is no {printable(said)!r}; there are {', '.join(known)}")
    elif not chosen:
        wrong.append(f"role: it is empty; write {' or '.join(known)}, or add --role to the command")
    hardware = cells.get("hardware") or None
    if hardware not in (None, NO_HARDWARE, *city.hardware):
        there = ", ".join([*sorted(city.hardware), NO_HARDWARE])
        wrong.append(f"hardware: there is no {printable(str(hardware))!r}; there are {there}")
    row = Row(
        room=room,
        role=chosen or "classroom-sensor",
        hardware=hardware,
        line=number,
        board=f"np-{board[1]}" if board else "",
        usb=cells.get("usb", ""),
    )
    return row, wrong


def _twice(rows: Iterable[Row]) -> list[str]:
    """Return what stands in two rows and cannot be."""
    faults: list[str] = []
    seen: dict[object, int] = {}
    for row in rows:
        for column, value, what in (
            ("room", (row.room, row.role), f"{row.room!r} for {row.role}"),
            ("board", row.board, row.board),
            ("usb", not row.board and row.usb, row.usb),
        ):
            first = seen.setdefault((column, value), row.line) if value else row.line
            if first != row.line:
                faults.append(
                    f"line {row.line}, column {column}: {printable(what)} stands in line {first}, "
                    "too"
                )
    return faults


def _faulty(path: Path, faults: list[str]) -> RoomsError:
    hint = "mend it and run the command again; no board was touched"
    if len(faults) > 1:
        hint = "and also: " + "; ".join(faults[1:_FAULTS_SHOWN]) + "; no board was touched"
    return RoomsError(f"{path}: {faults[0]}", hint=hint)
