"""Where boards hang, since when, and in whose place: what moving, replacing and retiring mean.

Pure: each function looks at the registry and says what becomes of it. Nothing is forgotten, so
that each report counts for the room in which it was made; see `fleet.post`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from fleet.errors import UsageError
from fleet.inventory import Board, Inventory, Role, Stay
from provisioning import configuration

_LEFT_ON_BOARD = (
    "its gateway takes no reports of it any more once it has the new list of boards; the board "
    "itself is as it was: erase its flash before you give it away"
)

_NEXT_COLLECTION = "gateways know it after the next netzpuls fleet collect"


@dataclass(frozen=True)
class Change:
    """What a verb makes of the registry.

    Attributes:
        at: from when on it holds.
        boards: the entries that it makes anew.
        notes: what people should know about it.
        differs: keys of the board's configuration that are others now; it must be flashed again.
        command: what to run next, "" if nothing.
    """

    at: datetime
    boards: dict[str, Board]
    notes: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    command: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "at": self.at.isoformat(),
            "boards": [
                {"board": board_id, **board.model_dump(mode="json")}
                for board_id, board in self.boards.items()
            ],
            "notes": self.notes,
            "must_flash": bool(self.differs),
            "differs": self.differs,
            "next": self.command or None,
        }


def now() -> datetime:
    """Return the time as the registry keeps it, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def enrolled(city: Inventory, board_id: str, entry: Board) -> Board:
    """Return the entry of a board that was flashed, with what the registry knows of its past."""
    known = city.boards.get(board_id)
    if known is None:
        return entry
    if known.retired is None and (known.site, known.room) == (entry.site, entry.room):
        return entry.model_copy(update={"since": known.since, "earlier": known.earlier})
    moment = now()
    return entry.model_copy(update={"since": moment, "earlier": _left(known, moment)})


def move(city: Inventory, board_id: str, site: str, room: str, at: datetime | None) -> Change:
    """Return what it means that a board hangs in another room from a moment on.

    Raises: UsageError: no such board or room, or the board cannot be moved.
    """
    board = _in_service(city, board_id)
    city.room(site, room)
    if (board.site, board.room) == (site, room):
        raise UsageError(
            f"{board_id} hangs in {site}, {room} already", hint="nothing is left to do"
        )
    moment = _after_arrival(city, board_id, board, at or now())
    entry = board.model_copy(
        update={"site": site, "room": room, "since": moment, "earlier": _left(board, moment)}
    )
    notes = _neighbours(city, entry, {board_id})
    return _change(city, moment, board_id, {board_id: entry}, notes)


def replace(city: Inventory, old_id: str, new_id: str, at: datetime | None) -> Change:
    """Return what it means that one board takes another's place, role and hardware.

    Unless told otherwise it does so from the moment on in which the new one was put into that
    room, or else now: what it reported there counts, and the old one's reports before that.

    Raises: UsageError: no such board, or one of them cannot be used for that.
    """
    if old_id == new_id:
        raise UsageError(f"{old_id} cannot replace itself", hint="name the old one, then the new")
    old = city.board(old_id)
    if old.retired:
        raise UsageError(
            f"{old_id} was retired on {old.retired:%Y-%m-%d} and hangs nowhere",
            hint=f"put the new one there: netzpuls board move {new_id} --site {old.site} "
            f"--room '{old.room}'",
        )
    city.room(old.site, old.room)
    if new_id not in city.boards:
        raise UsageError(
            f"the registry does not know {new_id} yet",
            hint="flash it first: " + flash_command(old) + "; then run this command again",
        )
    new = _in_service(city, new_id)
    there_since = new.since or new.enrolled
    hangs_there = (new.site, new.room) == (old.site, old.room)
    takes_over = hangs_there and (old.since is None or there_since >= old.since)
    moment = at or (there_since if takes_over else now())
    _after_arrival(city, old_id, old, moment)
    if not takes_over:
        _after_arrival(city, new_id, new, moment)
    entry = new.model_copy(
        update={
            "site": old.site,
            "room": old.room,
            "role": old.role,
            "hardware": old.hardware,
            "since": moment,
            "earlier": new.earlier if takes_over else _left(new, moment),
        }
    )
    gone = old.model_copy(update={"retired": moment, "replaced_by": new_id})
    notes = _neighbours(city, entry, {old_id, new_id})
    return _change(city, moment, new_id, {old_id: gone, new_id: entry}, notes)


def retire(city: Inventory, board_id: str, at: datetime | None) -> Change:
    """Return what it means that a board is taken out of service.

    Raises: UsageError: no such board, or it is out of service.
    """
    board = city.board(board_id)
    if board.retired:
        raise UsageError(
            f"{board_id} was retired on {board.retired:%Y-%m-%d}",
            hint=f"to take that back: netzpuls board retire {board_id} --undo",
        )
    moment = _after_arrival(city, board_id, board, at or now())
    entry = board.model_copy(update={"retired": moment})
    return Change(moment, {board_id: entry}, [_LEFT_ON_BOARD])


def reinstate(city: Inventory, board_id: str) -> Change:
    """Return what it means that a board was retired by mistake, or comes back after a repair.

    Raises: UsageError: no such board, it is in service, or its room is no more.
    """
    board = city.board(board_id)
    if board.retired is None:
        raise UsageError(f"{board_id} is not retired", hint="nothing is left to do")
    city.room(board.site, board.room)
    moment, notes = now(), []
    update: dict[str, Any] = {"retired": None, "replaced_by": None}
    if board.replaced_by:
        # The room's history goes on with the other board; this one begins anew beside it.
        update |= {"since": moment, "earlier": _left(board, moment)}
        notes.append(f"{board.replaced_by} took its place and keeps it; both hang there now")
    entry = board.model_copy(update=update)
    if not board.replaced_by:
        notes += _neighbours(city, entry, {board_id})
    return Change(moment, {board_id: entry}, notes)


def revoke(city: Inventory, board_id: str, reason: str | None) -> Change:
    """Return what it means that nothing is believed any more that a board says.

    A board that is revoked already stays so since when it was; a new reason takes the old one's
    place.

    Raises: UsageError: no such board.
    """
    board = city.board(board_id)
    moment = board.revoked or now()
    reason = reason or board.revoked_because
    entry = board.model_copy(update={"revoked": moment, "revoked_because": reason})
    return Change(moment, {board_id: entry}, [_NEXT_COLLECTION])


def trust_again(city: Inventory, board_id: str) -> Change:
    """Return what it means that a board was revoked by mistake.

    Raises: UsageError: no such board, or it is not revoked.
    """
    board = city.board(board_id)
    if board.revoked is None:
        raise UsageError(f"{board_id} is not revoked", hint="nothing is left to do")
    entry = board.model_copy(update={"revoked": None, "revoked_because": None})
    notes = [
        _NEXT_COLLECTION,
        "what it reported meanwhile: netzpuls fleet collect --again brings what the gateways have",
    ]
    return Change(now(), {board_id: entry}, notes)


def flash_command(board: Board) -> str:
    """Return the command that flashes a board for its place."""
    hardware = f" --hardware {board.hardware}" if board.hardware else ""
    return (
        f"netzpuls board flash --port PORT --site {board.site} --room '{board.room}' "
        f"--role {board.role}{hardware} --micropython FILE"
    )


def _in_service(city: Inventory, board_id: str) -> Board:
    board = city.board(board_id)
    for verb, when in (("retire", board.retired), ("revoke", board.revoked)):
        if when:
            raise UsageError(
                f"{board_id} was {verb}d on {when:%Y-%m-%d}",
                hint=f"to take that back: netzpuls board {verb} {board_id} --undo",
            )
    return board


def _after_arrival(city: Inventory, board_id: str, board: Board, moment: datetime) -> datetime:
    if board.since and moment < board.since:
        since = board.since.astimezone(ZoneInfo(city.city.timezone))
        raise UsageError(
            f"{board_id} hangs in {board.site}, {board.room} only since {since:%Y-%m-%d %H:%M:%S}",
            hint="name a later moment with --at",
        )
    return moment


def _left(board: Board, moment: datetime) -> list[Stay]:
    """Return where a board hung before, when it leaves its place at a moment."""
    until = board.retired or moment
    if until == board.since:
        return board.earlier
    stay = Stay(
        site=board.site,
        room=board.room,
        since=board.since,
        until=until,
        replaced_by=board.replaced_by,
    )
    return [*board.earlier, stay]


def _neighbours(city: Inventory, entry: Board, without: set[str]) -> list[str]:
    there = [
        f"{board_id} ({board.role})"
        for board_id, board in sorted(city.boards.items())
        if (board.site, board.room) == (entry.site, entry.room)
        and board_id not in without
        and board.retired is None
    ]
    return [f"{entry.site}, {entry.room} has other boards, too: {', '.join(there)}"] * bool(there)


def _change(
    city: Inventory, moment: datetime, board_id: str, boards: dict[str, Board], notes: list[str]
) -> Change:
    """Return the change after which a board hangs elsewhere, and whether it can go on as it is."""
    before, after = city.boards[board_id], boards[board_id]
    ours, theirs = (city.sites[board.site].gateway for board in (before, after))
    if ours != theirs:
        elsewhere = f"it reports to gateway {theirs} now; {ours} takes nothing of it any more"
        notes = [*notes, elsewhere + ", once both have the new list of boards"]
    differs = _differing(_content(city, board_id, before), _content(city, board_id, after))
    return Change(moment, boards, notes, differs, flash_command(after) if differs else "")


def _content(city: Inventory, board_id: str, board: Board) -> Mapping[str, Any]:
    role: Role = board.role
    return configuration.configuration(
        city,
        configuration.Recipient(
            board=board_id,
            key_id=board.key_id,
            site=board.site,
            role=role,
            # WLANs are told apart by their ids; their keys are not needed to see a difference.
            wlan_keys={wlan_id: wlan_id for wlan_id in city.wlans},
            hash_key=b"",
            hardware=board.hardware,
        ),
    )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
