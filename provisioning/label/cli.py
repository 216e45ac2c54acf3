"""The command `netzpuls board label`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from fleet import file, inventory
from fleet.cli.output import city_option, emit, json_option, progress, result
from fleet.errors import OutputError, UsageError
from fleet.inventory import Board, Inventory
from fleet.text import printable
from provisioning.errors import UntestedError
from provisioning.label import sheet, stock
from provisioning.label.layout import Language
from provisioning.label.sheet import Format, Sheets

Named = tuple[str, Board]

_SUFFIXES = (".pdf", ".html")


@click.command()
@click.argument("boards", metavar="[ID]...", nargs=-1)
@city_option
@click.option("--site", metavar="S", help="All boards of this site.")
@click.option("--all", "whole_city", is_flag=True, help="All boards of the city.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("labels"),
    show_default=True,
    metavar="FILE",
    help="FILE.pdf or FILE.html; both if it has no suffix.",
)
@click.option(
    "--stock",
    "stock_id",
    type=click.Choice(list(stock.known())),
    default=stock.DEFAULT,
    show_default=True,
    metavar="N",
    help="The sheet, by Avery Zweckform's number: "
    + "; ".join(f"{i}: {each.name}" for i, each in stock.known().items())
    + ".",
)
@click.option(
    "--skip",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="The first sheet's first N labels, row by row, are used already.",
)
@click.option(
    "--copies",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="So many of each label.",
)
@click.option(
    "--language",
    type=click.Choice(get_args(Language)),
    default="de",
    show_default=True,
    help="Of what a label says to the people in the room.",
)
@click.option(
    "--untested",
    "even_untested",
    is_flag=True,
    help="Also for boards that have not passed their self-test.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be printed; write nothing.")
@json_option
def label(
    *,
    boards: tuple[str, ...],
    city: Path,
    site: str | None,
    whole_city: bool,
    output: Path,
    stock_id: str,
    skip: int,
    copies: int,
    language: Language,
    even_untested: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a sheet of labels for boards, to be printed.

    Boards are named by id, or by what a scanner reads from a label. With --site or --all, those
    that are revoked or retired get none. A board that has not passed its self-test gets none: its
    flashing was not finished, or it was tested alone although there is a bench. A label has the
    site's name, the room, the board's id, and a code with the enrolment id.
    """
    if (len(boards) > 0) + (site is not None) + whole_city != 1:
        raise UsageError("which boards?", hint="name their ids, or else --site S, or else --all")
    files = _files(output)
    known = inventory.load(city)
    selected, notes = sheet.named(known, boards) if boards else sheet.in_service(known, site)
    if not even_untested:
        selected, notes = _tested(known, selected, notes, is_named=bool(boards))
    chosen = Format(stock.known()[stock_id], language, copies, skip)
    sheets = sheet.lay_out(known, selected, notes, chosen)
    contents = {path: sheets.pdf() if _is_pdf(path) else sheets.html() for path in files}
    if not dry_run:
        _write(contents)
    document = {"dry_run": dry_run, "stock": stock_id, "files": files} | sheets.document()
    emit(document, lambda: _show(sheets, stock_id, files, dry_run), as_json)


def _tested(
    city: Inventory, boards: Sequence[Named], notes: Sequence[str], *, is_named: bool
) -> tuple[list[Named], list[str]]:
    """Leave out the boards that have not passed their self-test, with a note on each.

    Raises: UntestedError: one of them was named, or no other is left.
    """
    why = sheet.untested(city, boards)
    left = [(board_id, board) for board_id, board in boards if board_id not in why]
    if why and (is_named or not left):
        told = "; ".join(f"{board_id}: {reason}" for board_id, reason in why.items())
        raise UntestedError(
            f"no label for what has not passed its self-test: {told}",
            hint="flash it again, at the bench; or print the label all the same: --untested",
        )
    return left, [*notes, *(f"without {board_id}: {reason}" for board_id, reason in why.items())]


def _files(output: Path) -> list[Path]:
    suffix = output.suffix.lower()
    if _is_folder(output):
        raise UsageError(f"{output} is a folder", hint="name a file in it: --output FILE.pdf")
    if suffix in _SUFFIXES:
        files = [output]
    elif suffix:
        raise UsageError(
            f"{output} is neither PDF nor HTML",
            hint="--output FILE.pdf, FILE.html, or FILE for both",
        )
    else:
        files = [output.with_suffix(each) for each in _SUFFIXES]
    if not _is_folder(output.parent):
        raise UsageError(f"no folder {output.parent}", hint="make it, or name another --output")
    return files


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # nobody may look there, or no name is that long: writing will say which
        return False


def _is_pdf(path: Path) -> bool:
    return path.suffix.lower() == ".pdf"


def _write(contents: dict[Path, bytes | str]) -> None:
    for path, content in contents.items():
        try:
            file.write(path, content)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror or error}; what was there is as it was",
                hint="make room, or the folder writable, or name another --output",
            ) from None


def _show(sheets: Sheets, stock_id: str, files: list[Path], dry_run: bool) -> None:
    for note in sheets.notes:
        _say(f"note: {note}", progress)
    for each in sheets.document()["labels"]:
        _say(
            f"sheet {each['sheet']} row {each['row']:>2} column {each['column']}  {each['board']}  "
            f"{each['site']}  {printable(each['room'])}"
        )
    count = len(sheets.labels)
    what = f"{count} label{'s' * (count != 1)} on {sheets.count} sheet{'s' * (sheets.count != 1)}"
    where = " and ".join(map(str, files))
    _say(f"{what} {stock_id} ({sheets.format.stock.name}): {where}")
    _say(
        "Nothing was written. Run the command without --dry-run."
        if dry_run
        else "Print at 100 %, not fitted to the page.",
        progress,
    )


def _say(text: str, console: Console = result) -> None:
    console.print(text, markup=False, soft_wrap=True)
