"""Posts: places in rooms, each held by one board after the other.

A board's reports count for the place in which they were made. When a board is moved, a post ends
and another one begins; when it is replaced, the post goes on with the other board. What a board
reports while it hangs nowhere counts for nobody.

Source: `earlier`, `since`, `retired` and `replaced_by` of the registry's boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fleet.inventory import Board, Inventory
from fleet.period import Period
from fleet.stint import FOREVER_S, Stint


@dataclass(frozen=True)
class Post:
    """One place and the boards that held it, the first one first.

    Attributes:
        subject: what the ledger calls it: its last board's id, if that still is its place.
    """

    subject: str
    site: str
    room: str
    stints: tuple[Stint, ...]

    def within(self, start_s: int, end_s: int) -> tuple[Stint, ...]:
        """Return the stints that touch a time."""
        return tuple(s for s in self.stints if s.start_s < end_s and s.end_s > start_s)


@dataclass(frozen=True)
class _Stay:
    board: str
    site: str
    room: str
    start_s: int
    end_s: int
    successor: str | None
    subject: str


def posts(city: Inventory) -> list[Post]:
    """Return all posts that there are or were."""
    stays = [stay for board_id, board in city.boards.items() for stay in _stays(board_id, board)]
    begins = {(stay.board, stay.site, stay.room, stay.start_s): stay for stay in stays}
    after = {
        stay: begins[key]
        for stay in stays
        if stay.successor
        and (key := (stay.successor, stay.site, stay.room, stay.end_s)) in begins
        and stay.start_s < stay.end_s
    }
    first = set(stays) - set(after.values())
    return [_post(stay, after) for stay in stays if stay in first]


def active(city: Inventory, period: Period) -> dict[str, Post]:
    """Return the posts that somebody held in a period, by subject."""
    return {post.subject: post for post in posts(city) if post.within(period.start_s, period.end_s)}


def stints(found: Iterable[Post]) -> list[Stint]:
    """Return the stints of all these posts, as the ledger wants them."""
    return [stint for each in found for stint in each.stints]


def _stays(board_id: str, board: Board) -> Iterator[_Stay]:
    for number, stay in enumerate(board.earlier):
        yield _Stay(
            board_id, stay.site, stay.room, _seconds(stay.since, 0), _seconds(stay.until, 0),
            stay.replaced_by, f"{board_id}/{number}",
        )  # fmt: skip
    yield _Stay(
        board_id, board.site, board.room, _seconds(board.since, 0),
        _seconds(board.retired, FOREVER_S), board.replaced_by, board_id,
    )  # fmt: skip


def _post(stay: _Stay, after: dict[_Stay, _Stay]) -> Post:
    line = [stay]
    while line[-1] in after:
        line.append(after[line[-1]])
    subject = line[-1].subject
    stints = tuple(Stint(subject, s.board, s.site, s.start_s, s.end_s) for s in line)
    return Post(subject, stay.site, stay.room, stints)


def _seconds(moment: datetime | None, otherwise: int) -> int:
    return otherwise if moment is None else int(moment.timestamp())
