"""Who of a tray gets which room: by the technician's list (`roomlist`), or by asking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet import inventory
from fleet.errors import UsageError
from fleet.inventory import Role
from fleet.text import printable
from provisioning.claim import Claims
from provisioning.errors import NoRoomError
from provisioning.flash import Found, check_free
from provisioning.roomlist import Row


@dataclass(frozen=True)
class Question:
    """Which room a board is for.

    Attributes:
        proposed: the next room that has no board, None if all have one.
        refusal: what is wrong with the last answer, "" if there was none.
    """

    found: Found
    proposed: str | None
    refusal: str = ""


# Returns a room, "" for the proposed one, None if nobody answers.
Ask = Callable[[Question], str | None]


def nobody(_question: Question) -> str | None:
    """Answer no question."""
    return None


class Rooms:
    """The places of one site, given out to boards as they come. Safe for threads.

    Args:
        city: its folder.
        rows: what the list says; None to ask for each board.
        role, hardware: for a board that no row says it of.
        reassign: take boards that the registry has elsewhere, as revoked or retired.
        ask: called from the thread that takes a place, never twice at a time.
    """

    def __init__(
        self,
        city: Path,
        site: str,
        rows: list[Row] | None,
        *,
        role: Role | None = None,
        hardware: str | None = None,
        reassign: bool = False,
        ask: Ask = nobody,
    ) -> None:
        self.rows = rows
        self._city = city
        self._site = site
        self._role = role
        self._hardware = hardware
        self._reassign = reassign
        self._ask = ask
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._held: dict[str, Row] = {}  # by board
        self._claims = Claims(city, site)
        self._known = inventory.load(city)

    def take(self, found: Found, usb: str) -> Row:
        """Return the place of a board, which holds it from now on.

        Raises:
            ReassignError: the registry has the board at another site, as revoked or retired.
            NoRoomError: there is no place for it.
        """
        with self._lock:
            self._known = inventory.load(self._city)
            row = self._own(found, usb) or self._kept(found.board)
            if row is None and self.rows is not None:
                row = self._next(found)
            if row:
                self._held[found.board] = row
        return row or self._asked(found)

    def give_back(self, board: str) -> None:
        """Have a board's place for others again: it was not enrolled."""
        with self._lock:
            row = self._held.pop(board, None)
            if row is not None:
                self._unclaim(row.room, row.role)

    def close(self) -> None:
        """Leave all places that no board was enrolled for to other desks."""
        with self._lock:
            self._claims.close()

    def holder(self, row: Row) -> str:
        """Return the board that has a place: in this tray, or in the registry; "" for none."""
        with self._lock:
            return self._holder(row)

    @property
    def left(self) -> int | None:
        """How many places of the list wait for a board; None if there is no list."""
        if self.rows is None:
            return None
        return sum(not self.holder(row) for row in self.rows)

    def _own(self, found: Found, usb: str) -> Row | None:
        """Return the row that belongs to a board or to its adapter."""
        for row in self.rows or []:
            if row.board == found.board:
                return row
        for row in self.rows or []:
            if usb and row.usb == usb and not row.board:
                holder = next((board for board, held in self._held.items() if held == row), "")
                if holder not in ("", found.board):
                    raise NoRoomError(
                        f"{found.board} and {holder} are on adapters with the same serial number "
                        f"{usb}",
                        hint="name these boards in the list of rooms by their MAC",
                    )
                return row
        return None

    def _kept(self, board: str) -> Row | None:
        """Return the place of a board that is enrolled at this site."""
        known = self._known.boards.get(board)
        if known is None:
            return None
        if not self._reassign:
            check_free(board, known, self._site, None)
        if known.retired or known.site != self._site:
            return None
        taken = [row for holder, row in self._held.items() if holder != board]
        rows = [row for row in self.rows or [] if row.room == known.room and row not in taken]
        free = sorted((row for row in rows if row.is_free), key=lambda r: r.role != known.role)
        return free[0] if free else Row(known.room, self._role or known.role, self._hardware)

    def _next(self, found: Found) -> Row:
        elsewhere = 0
        for row in self.rows or []:
            if not row.is_free or self._holder(row) not in ("", found.board):
                continue
            if not self._claimed(row.room, row.role):
                elsewhere += 1
            elif self._holder(row) in ("", found.board):
                return row
            else:
                self._unclaim(row.room, row.role)
        if elsewhere:
            raise NoRoomError(
                f"no room is left for {found.board} on {found.port}: another desk is giving "
                f"{elsewhere} of the list to its boards",
                hint="when it has ended, run the command again",
            )
        raise NoRoomError(
            f"no room is left for {found.board} on {found.port}",
            hint="add a line to the list of rooms and run the command again",
        )

    def _claimed(self, room: str, role: Role) -> bool:
        """Keep other desks off a place; then look again at what they enrolled until now."""
        if not self._claims.hold(room, role):
            return False
        self._known = inventory.load(self._city)
        return True

    def _holder(self, row: Row) -> str:
        for board, held in self._held.items():
            if held == row:
                return board
        if row.board:
            entry = self._known.boards.get(row.board)
            is_there = entry and (entry.site, entry.room) == (self._site, row.room)
            return row.board if is_there else ""
        return self._neighbour(row.room, row.role)

    def _neighbour(self, room: str, role: Role) -> str:
        """Return a board that hangs in a room for the same purpose, "" for none."""
        for board, row in self._held.items():
            if (row.room, row.role) == (room, role):
                return board
        for board, entry in self._known.boards.items():
            is_in_service = not entry.retired and not entry.revoked and board not in self._held
            if is_in_service and (entry.site, entry.room, entry.role) == (self._site, room, role):
                return board
        return ""

    def _asked(self, found: Found) -> Row:
        role, refusal = self._role, ""
        if role is None:
            raise UsageError("nobody said what the boards are for", hint="add --role")
        with self._asking:  # one after the other: what one board gets is proposed to no other
            while True:
                rooms = self._known.site(self._site).rooms
                with self._lock:
                    proposed = self._vacant(rooms, role)
                answer = self._ask(Question(found, proposed, refusal))
                if answer is None:
                    raise NoRoomError(
                        f"nobody said which room {found.board} on {found.port} is for",
                        hint="run the command again on a terminal, or with --rooms FILE.csv",
                    )
                room = answer.strip() or proposed or ""
                with self._lock:
                    refusal = self._refusal(found, room, role)
                    if not refusal:
                        row = Row(room, role, self._hardware)
                        self._held[found.board] = row
                        if proposed is not None:
                            self._unclaim(proposed, role)
                        return row

    def _vacant(self, rooms: Sequence[str], role: Role) -> str | None:
        """Return the first room without a board, here and at other desks; keep it from these."""
        for room in rooms:
            if self._neighbour(room, role) or not self._claimed(room, role):
                continue
            if not self._neighbour(room, role):
                return room
            self._unclaim(room, role)
        return None

    def _unclaim(self, room: str, role: Role) -> None:
        """Leave a place to other desks, unless a board here is to get it."""
        if not any((row.room, row.role) == (room, role) for row in self._held.values()):
            self._claims.let_go(room, role)

    def _refusal(self, found: Found, room: str, role: Role) -> str:
        rooms = self._known.site(self._site).rooms
        if room not in rooms:
            return f"there is no room {printable(room)!r}; rooms there: {', '.join(rooms)}"
        if not self._claimed(room, role):
            return f"another desk is giving {room} to a board"
        holder = self._neighbour(room, role)
        return f"{room} has {holder} already" if holder not in ("", found.board) else ""
