"""`netzpuls board`: the verbs that need no board at the desk, only the registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click
from cryptography.hazmat.primitives import hashes

from fleet import authority, inventory, period, revocation
from fleet.cli.output import city_option, emit, json_option, result
from fleet.errors import UsageError
from fleet.inventory import Board, Inventory
from fleet.text import printable
from provisioning import assignment, journal, registry
from provisioning.assignment import Change
from provisioning.journal import Pending

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_LEFT_OUT = ("enrolled", "agent", "key", "tested")
_BARE_LEFT_OUT = ("hardware", *_LEFT_OUT)

_at_option = click.option(
    "--at",
    metavar="WHEN",
    help="Since when: a date or time in the past, in the city's time zone.  [default: now]",
)


def _changing_options(command: Decorated) -> Decorated:
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Say what would change; change nothing."),
        city_option,
    ):
        command = option(command)
    return command


@click.command("list")
@city_option
@click.option("--site", metavar="S", help="Only this site's boards.")
@click.option(
    "--expiring",
    "expiring_days",
    type=click.IntRange(0),
    metavar="DAYS",
    help="Only boards in service whose certificate ends within so many days.",
)
@json_option
def list_boards(*, city: Path, site: str | None, expiring_days: int | None, as_json: bool) -> None:
    """List the boards that the registry has, and those that were begun and not finished."""
    known = inventory.load(city)
    if site is not None:
        known.site(site)
    boards = {i: b for i, b in sorted(known.boards.items()) if site in (None, b.site)}
    pending = journal.boards(city) if site is None and expiring_days is None else []
    nothing = "No boards yet. The first one: netzpuls board flash --help"
    if expiring_days is not None:
        nothing = f"No board's certificate ends within {expiring_days} days."
        until = assignment.now() + timedelta(days=expiring_days)
        boards = {
            i: b
            for i, b in boards.items()
            if not (b.retired or b.revoked) and b.certificate_expires <= until
        }
    document = {
        "boards": [{"board": i, **b.model_dump(mode="json")} for i, b in boards.items()],
        "unfinished": [each.document() for each in pending],
    }

    def show() -> None:
        _show_boards(boards, nothing)
        _show_unfinished(pending)

    emit(document, show, as_json)


@click.command()
@click.argument("board_id", metavar="BOARD")
@click.option("--site", required=True, metavar="S", help="The site's id in the inventory.")
@click.option("--room", required=True, metavar="R", help="One of the site's rooms.")
@_at_option
@_changing_options
def move(
    board_id: str,
    *,
    city: Path,
    site: str,
    room: str,
    at: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say that a board hangs in another room.

    Its reports before that stay those of the old room. If the new place has another WLAN,
    gateway or services, the board must be flashed again, and the command for that is shown.
    """

    def decide(known: Inventory) -> Change:
        return assignment.move(known, board_id, site, room, _moment(known, at))

    _carry_out(city, decide, dry_run, as_json)


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@_at_option
@_changing_options
def replace(
    old: str, new: str, *, city: Path, at: str | None, dry_run: bool, as_json: bool
) -> None:
    """Let one board take another's place.

    It takes over site, room, role and hardware, and the room's history goes on: until then by
    the old board's reports, from then on by the new one's. The old one is retired.
    """

    def decide(known: Inventory) -> Change:
        return assignment.replace(known, old, new, _moment(known, at))

    _carry_out(city, decide, dry_run, as_json)


@click.command()
@click.argument("board_id", metavar="BOARD")
@click.option("--undo", is_flag=True, help="Take it back into service.")
@_at_option
@_changing_options
def retire(
    board_id: str, *, city: Path, undo: bool, at: str | None, dry_run: bool, as_json: bool
) -> None:
    """Take a board out of service.

    What it reported stays counted. A board that was lost or stolen is to be revoked instead.
    """

    def decide(known: Inventory) -> Change:
        if undo and at:
            raise UsageError("--undo holds from now on", hint="leave out --at")
        if undo:
            return assignment.reinstate(known, board_id)
        return assignment.retire(known, board_id, _moment(known, at))

    _carry_out(city, decide, dry_run, as_json)


@click.command()
@click.argument("board_id", metavar="BOARD")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the registry.")
@click.option("--undo", is_flag=True, help="It was a mistake: believe the board again.")
@_changing_options
def revoke(
    board_id: str, *, city: Path, reason: str | None, undo: bool, dry_run: bool, as_json: bool
) -> None:
    """Believe nothing any more that a board says, because it was lost or stolen.

    From now on no report of it is stored. With the next collection its gateway takes none, and
    refuses its connection. Run again it does what is left to do.
    """

    def decide(known: Inventory) -> Change:
        if undo and reason:
            raise UsageError("--undo needs no reason", hint="leave out --reason")
        if undo:
            return assignment.trust_again(known, board_id)
        return assignment.revoke(known, board_id, reason)

    change = registry.change(city, decide, dry_run=dry_run)
    certificates = revocation.certificates(city, board_id)
    if undo:  # what was certified for keys that it no longer has stays revoked
        certificates = [c for c in certificates if c.public_key() == certificates[0].public_key()]
    if not certificates:
        change.notes.append(
            f"boards/{board_id}.pem is missing, so gateways go on to accept its connection; they "
            "take no reports of it. Bring the file back and run the command again"
        )
    elif not dry_run:
        # After the registry: reports are refused even where the CA's key is not at hand.
        revocation.update(city, **{"remove" if undo else "add": certificates})
    _tell(city, change, dry_run, as_json)


@click.command()
@click.option("--renew", is_flag=True, help="Make it valid for another 20 years, by the same key.")
@_changing_options
def ca(*, city: Path, renew: bool, dry_run: bool, as_json: bool) -> None:
    """Show the city's certificate authority, or renew it.

    Renewed, it is the same for all who know it already: boards and gateways go on with what they
    have until its old end, and get the new certificate by and by. A CA whose key somebody else may
    have cannot be renewed; see the documentation.
    """
    before = authority.load(city).certificate
    renewed = authority.renew(city) if renew and not dry_run else None
    if renewed:
        revocation.update(city)
    certificate = renewed.certificate if renewed else before
    document = {
        "dry_run": dry_run,
        "renewed": renewed is not None,
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "ends": certificate.not_valid_after_utc.isoformat(),
        "ended_before": before.not_valid_after_utc.isoformat(),
    }

    def show() -> None:
        _say(f"SHA-256 {document['sha256']}")
        _say(f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
        if renewed:
            _say(
                f"before: until {before.not_valid_after_utc:%Y-%m-%d}. Gateways get it with the "
                "next netzpuls fleet collect; boards when they are flashed again, which must be "
                "done until that day. Put ca.pem into git"
            )
        elif renew:
            _say("Nothing was changed. Run the command without --dry-run.")

    emit(document, show, as_json)


def _moment(known: Inventory, at: str | None) -> datetime | None:
    if at is None:
        return None
    seconds = period.moment(at, ZoneInfo(known.city.timezone), "--at", int(time.time()))
    return datetime.fromtimestamp(seconds, UTC)


def _carry_out(
    city: Path, decide: Callable[[Inventory], Change], dry_run: bool, as_json: bool
) -> None:
    _tell(city, registry.change(city, decide, dry_run=dry_run), dry_run, as_json)


def _tell(city: Path, change: Change, dry_run: bool, as_json: bool) -> None:
    zone = ZoneInfo(inventory.load(city).city.timezone)
    document = {"dry_run": dry_run, **change.document()}
    emit(document, lambda: _show_change(change, zone, dry_run), as_json)


def _show_change(change: Change, zone: ZoneInfo, dry_run: bool) -> None:
    for board_id, board in change.boards.items():
        _say(f"{board_id}: {_standing(board, zone)}")
    for note in change.notes:
        _say(f"note: {note}")
    if change.command:
        _say(
            f"note: it must be flashed again, because of its {', '.join(change.differs)}: "
            f"{change.command}"
        )
    if dry_run:
        _say("Nothing was changed. Run the command without --dry-run.")


def _standing(board: Board, zone: ZoneInfo) -> str:
    place = f"{board.site}, {printable(board.room)}"
    if board.revoked:
        why = f" ({printable(board.revoked_because)})" if board.revoked_because else ""
        return f"revoked since {_shown(board.revoked, zone)}{why}; it hangs in {place}"
    if board.retired:
        after = f", replaced by {board.replaced_by}" if board.replaced_by else ""
        return f"retired since {_shown(board.retired, zone)}{after}; it was in {place}"
    since = f" since {_shown(board.since, zone)}" if board.since else ""
    return f"{place}, {board.role}{since}"


def _shown(moment: datetime, zone: ZoneInfo) -> str:
    return period.shown(int(moment.timestamp()), zone)


def _say(text: str) -> None:
    result.print(text, markup=False, soft_wrap=True)


def _show_unfinished(boards: list[Pending]) -> None:
    for each in boards:
        why = printable(each.problem) or "it was cut"
        _say(f"{each.board} is not finished: {each.stage}, {each.since:%Y-%m-%d %H:%M} UTC: {why}")
    if boards:
        _say("Flash them again: each goes on where it stopped.")


def _show_boards(boards: Mapping[str, Board], nothing: str) -> None:
    if not boards:
        _say(nothing)
        return
    rows = [
        {
            "board": board_id + _mark(entry),
            "site": entry.site,
            "room": printable(entry.room),
            "role": entry.role,
            "hardware": entry.hardware or "-",
            "tested": entry.tested or "-",
            "key": str(entry.key_id),
            "agent": printable(entry.agent),
            "enrolled": f"{entry.enrolled:%Y-%m-%d}",
            "certificate until": f"{entry.certificate_expires:%Y-%m-%d}",
        }
        for board_id, entry in boards.items()
    ]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    # Whole columns go where a terminal is narrow; an id that is cut is no id.
    left_out = _LEFT_OUT if any(each.hardware for each in boards.values()) else _BARE_LEFT_OUT
    for name in left_out if result.is_terminal else ():
        if sum(widths.values()) + 2 * (len(widths) - 1) > result.width:
            del widths[name]
    for row in [{name: name for name in widths}, *rows]:
        _say("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def _mark(entry: Board) -> str:
    if entry.revoked:
        return " (revoked)"
    if entry.retired:
        return f" (replaced by {entry.replaced_by})" if entry.replaced_by else " (retired)"
    return ""
