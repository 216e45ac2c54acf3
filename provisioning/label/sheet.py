"""Sheets of labels for chosen boards: decided and checked before they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleet.errors import UsageError
from fleet.inventory import REGISTRY_FILE, Board, Inventory
from fleet.text import printable
from provisioning import enrolment, journal
from provisioning.enrolment import EnrolmentId
from provisioning.errors import UntestedError
from provisioning.journal import Pending
from provisioning.label import face, html, pdf
from provisioning.label.layout import Label, Language, Page, pages
from provisioning.label.stock import Place, Stock

# So many boards are named in a note; the registry has them all.
_TOLD = 3


class Format(NamedTuple):
    """How the labels are printed: on which sheet, in which language, how many of each, from where.

    `skip` is how many labels of the first sheet are gone already.
    """

    stock: Stock
    language: Language
    copies: int = 1
    skip: int = 0


@dataclass(frozen=True)
class Sheets:
    """Labels on their sheets; `notes` are for the technician."""

    title: str
    format: Format
    boards: Sequence[tuple[str, Board]]
    labels: Sequence[Label]
    notes: Sequence[str]

    @property
    def places(self) -> list[Place]:
        """Where each label is."""
        skip, stock = self.format.skip, self.format.stock
        return [stock.place(position) for position in range(skip, skip + len(self.labels))]

    @property
    def count(self) -> int:
        """How many sheets it takes."""
        return self.places[-1].sheet + 1

    def pdf(self) -> bytes:
        """Return the sheets as PDF."""
        return pdf.render(self._pages(), self.title)

    def html(self) -> str:
        """Return the sheets as HTML."""
        return html.render(self._pages(), self.title, self.format.language)

    def document(self) -> dict[str, Any]:
        """Return what is printed, as `--json` prints it; sheets, rows and columns count from 1."""
        return {
            "sheets": self.count,
            "labels": [
                {
                    "board": board_id,
                    "site": board.site,
                    "room": board.room,
                    "enrolment_id": str(label.enrolment_id),
                    "sheet": place.sheet + 1,
                    "row": place.row + 1,
                    "column": place.column + 1,
                }
                for (board_id, board), label, place in zip(
                    self.boards, self.labels, self.places, strict=True
                )
            ],
            "notes": list(self.notes),
        }

    def _pages(self) -> list[Page]:
        chosen = self.format
        return pages(self.labels, chosen.stock, chosen.language, skip=chosen.skip)


def lay_out(
    city: Inventory, boards: Sequence[tuple[str, Board]], notes: Sequence[str], chosen: Format
) -> Sheets:
    """Put labels for the boards on sheets.

    Raises: UsageError: `skip` is more than a sheet.
    """
    stock = chosen.stock
    if chosen.skip >= stock.per_sheet:
        raise UsageError(
            f"a sheet has {stock.per_sheet} labels: {chosen.skip} of them cannot be used already",
            hint=f"--skip 0 to {stock.per_sheet - 1}; a sheet that is used up is not printed on",
        )
    printed = [each for each in boards for _ in range(chosen.copies)]
    labels = [_label(city, board_id, board) for board_id, board in printed]
    title = f"Netzpuls · {face.clean(city.city.name)[0]}"
    notes = [*notes, *_lacking(city, boards)]
    return Sheets(title, chosen, printed, labels, notes)


def untested(city: Inventory, boards: Sequence[tuple[str, Board]]) -> dict[str, str]:
    """Return why boards have not passed the self-test that they must have passed, by id.

    That of a board that was enrolled before self-tests were noted is taken as passed.
    """
    unfinished = {each.board: each for each in journal.boards(city.folder)}
    found = {}
    for board_id, board in boards:
        if board_id in unfinished:
            found[board_id] = _unfinished(unfinished[board_id])
        elif city.bench and board.tested == "alone":
            found[board_id] = "it was tested alone, and not at the bench"
    return found


def _unfinished(pending: Pending) -> str:
    why = printable(pending.problem) or "it was cut"
    return f"work on it is not finished: {pending.stage}: {why}"


def named(city: Inventory, texts: Sequence[str]) -> tuple[list[tuple[str, Board]], list[str]]:
    """Return the boards that were named by id or scanned, each once, and notes on them.

    Raises: UsageError: one is no board's id, or the registry does not have it.
        UntestedError: one was begun and is not enrolled.
    """
    boards: dict[str, Board] = {}
    notes = []
    for text in texts:
        board_id, key_id = enrolment.parse(text)
        begun = None if board_id in city.boards else journal.load(city.folder, board_id)
        if begun:
            raise UntestedError(
                f"{board_id} is not enrolled, so it gets no label: {_unfinished(begun)}",
                hint="flash it again: it goes on where it stopped",
            )
        board = boards[board_id] = city.board(board_id)
        if key_id not in (None, board.key_id):
            notes.append(
                f"{board_id}: the label that was scanned is for key {key_id}, the registry has "
                f"key {board.key_id}; the new label is for that one"
            )
    notes += [
        f"{board_id} is {gone}; its label is printed because it was named"
        for board_id, gone in ((i, _gone(board)) for i, board in boards.items())
        if gone
    ]
    return list(boards.items()), notes


def in_service(city: Inventory, site_id: str | None) -> tuple[list[tuple[str, Board]], list[str]]:
    """Return all boards, or a site's, in the order of their sites and rooms, and notes on them.

    Those that are revoked or retired are left out.

    Raises: UsageError: no such site, or no boards.
    """
    if site_id is not None:
        city.site(site_id)
    there = [(i, b) for i, b in city.boards.items() if site_id in (None, b.site)]
    boards = [(i, b) for i, b in there if not _gone(b)]
    left_out = sorted(f"{i} ({_gone(b)})" for i, b in there if _gone(b))
    told = ", ".join(left_out[:_TOLD]) + (", …" if len(left_out) > _TOLD else "")
    if not boards:
        place = f"at site {site_id!r}" if site_id else f"in {city.folder / REGISTRY_FILE}"
        raise UsageError(
            f"no boards in service {place}",
            hint=f"name those whose labels you want: there is {told}"
            if left_out
            else "a board gets there by netzpuls board flash",
        )
    boards.sort(key=lambda each: (_site_name(city, each[1]), each[1].room, each[0]))
    return boards, [f"without {len(left_out)} that left service: {told}"] if left_out else []


def _gone(board: Board) -> str:
    if board.revoked:
        return f"revoked since {board.revoked:%Y-%m-%d}"
    return f"retired since {board.retired:%Y-%m-%d}" if board.retired else ""


def _site_name(city: Inventory, board: Board) -> str:
    # A retired board's site may be one that the inventory does not have any more.
    site = city.sites.get(board.site)
    return site.name if site else board.site


def _label(city: Inventory, board_id: str, board: Board) -> Label:
    return Label(
        city=face.clean(city.city.name)[0],
        site=face.clean(_site_name(city, board))[0],
        room=face.clean(board.room)[0],
        enrolment_id=EnrolmentId(board_id, board.key_id),
    )


def _lacking(city: Inventory, boards: Sequence[tuple[str, Board]]) -> list[str]:
    names = dict.fromkeys(
        name
        for _, board in boards
        for name in (city.city.name, _site_name(city, board), board.room)
    )
    return [
        f"{name!r}: {face.LACKING} stands for {lacking!r}, which the labels' typeface lacks"
        for name, lacking in ((name, face.clean(name)[1]) for name in names)
        if lacking
    ]
