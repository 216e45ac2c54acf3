"""`netzpuls lab up`, `fault`, `heal`, `status`, `capture`, `down` and `matrix`."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet.cli import EXIT_INTERRUPTED
from fleet.cli.output import emit, json_option, print_document, progress, result
from fleet.errors import NetzpulsError, UsageError
from hil.lab import table
from hil.lab.control import LabClient, LabControl
from hil.lab.error import LabError
from hil.lab.fault import BOTH, catalogue, find
from hil.lab.laboratory import PERIOD_S, Laboratory, Size
from hil.lab.listing import Listing
from hil.lab.matrix import Matrix, Row
from hil.lab.namespace import enter
from hil.lab.screen import Screen

_NAME_WIDTH = 28
_WIDE = 100  # from here on a fault's text has room beside its name
_BENEATH = (0, 0, 0, 6)

_dir_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".lab"),
    show_default=True,
    help="The lab's folder; what an earlier lab left there is removed.",
)
_period_option = click.option(
    "--period",
    "period_s",
    type=click.IntRange(4, 600),
    default=PERIOD_S,
    show_default=True,
    help="Seconds between two reports of a board.",
)


@click.command()
@click.option("--sites", type=click.IntRange(0, 32), default=1, show_default=True, help="Schools.")
@click.option(
    "--boards", type=click.IntRange(1, 9), default=2, show_default=True, help="At each school."
)
@click.option(
    "--hotspots", type=click.IntRange(0, 8), default=0, show_default=True, help="Public WLANs."
)
@_period_option
@click.option("--watch", is_flag=True, help="Show a live table of boards, faults and verdicts.")
@_dir_option
@json_option
def up(
    *,
    sites: int,
    boards: int,
    hotspots: int,
    period_s: int,
    watch: bool,
    folder: Path,
    as_json: bool,
) -> int:
    """Build the network lab and keep it until Ctrl-C, or `netzpuls lab down`.

    Schools with boards, access points, router and gateway, and an internet, in network
    namespaces; nothing of it is left when it ends. See docs/lab.md.
    """
    if sites + hotspots == 0:
        raise UsageError("a lab without a site", hint="--sites 1 or --hotspots 1")
    code = enter()
    if code is not None:
        return code
    size = Size(sites, boards, hotspots)
    ended = threading.Event()
    with Screen(live=watch, quiet=as_json) as screen:
        lab = Laboratory(folder, size, period_s=period_s, on_progress=screen.event)
        with lab, LabControl(lab, ended.set, screen.event):
            screen.show(lab)
            lab.wait_up()
            screen.event(f"all {len(lab.boards)} boards are up", "green")
            emit(lab.document(), lambda: screen.event(_what_next(folder)), as_json)
            try:
                ended.wait()
            except KeyboardInterrupt:
                return EXIT_INTERRUPTED
    return 0


def _what_next(folder: Path) -> str:
    where = "" if folder == Path(".lab") else f" --dir {folder}"
    return f"next, in another terminal: netzpuls lab fault --list; netzpuls lab status{where}"


@click.command()
@click.argument("name", required=False)
@click.option("--site", help="A site's id.  [default: the first that it fits]")
@click.option("--board", help="A board's id or room.  [default: all that it fits]")
@click.option("--list", "listed", is_flag=True, help="List all faults.")
@_dir_option
@json_option
def fault(
    *,
    name: str | None,
    site: str | None,
    board: str | None,
    listed: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Break something in the running lab; it stays broken until `netzpuls lab heal`."""
    if listed:
        _list(as_json)
        return
    if name is None:
        raise UsageError("which fault?", hint="see them all: netzpuls lab fault --list")
    text = find(name).text
    answer = LabClient(folder).call("fault", name=name, site=site, board=board)

    def show() -> None:
        for made in answer["made"]:
            where = f"{made['site']}: {', '.join(made['boards'])}"
            result.print(f"{name} at {where}: {text}", markup=False, soft_wrap=True)
            result.print(f"expected: {made['expected']}", markup=False)

    emit(answer, show, as_json)


def _list(as_json: bool) -> None:
    document = {
        "faults": [
            {
                "fault": each.name,
                "layer": each.layer_name,
                "what": each.text,
                "roles": each.roles,
                "at": each.kind,
                "one_board": each.one_board,
                "expected": str(each.expected),
                "merged": each.merged,
            }
            for each in catalogue()
        ]
    }

    def show() -> None:
        layer = ""
        for each in catalogue():
            if each.layer_name != layer and "+" not in each.name:
                layer = each.layer_name
                result.print(f"\n{layer}", style="bold")
            text, expected = Text(each.text), Text(f"→ {each.expected}", "dim")
            if result.width < _WIDE:
                result.print(f"  {each.name}", markup=False)
                result.print(Padding(text, _BENEATH), Padding(expected, _BENEATH), sep="")
                continue
            row = Table.grid(padding=(0, 1, 0, 0))
            row.add_column(min_width=_NAME_WIDTH + 2)
            row.add_row(Text(f"  {each.name}"), text)
            row.add_row("", expected)
            result.print(row)

    emit(document, show, as_json)


@click.command()
@click.argument("name", required=False)
@click.option("--site", help="Only at this site.")
@_dir_option
@json_option
def heal(*, name: str | None, site: str | None, folder: Path, as_json: bool) -> None:
    """End a fault, or all of them."""
    answer = LabClient(folder).call("heal", name=name, site=site)

    def show() -> None:
        for each in answer["healed"]:
            result.print(f"{each['fault']} at {each['site']} is healed", markup=False)
        if not answer["healed"]:
            result.print("there was nothing to heal")

    emit(answer, show, as_json)


@click.command()
@_dir_option
@json_option
def status(*, folder: Path, as_json: bool) -> None:
    """Show the running lab's boards, their faults and what they say."""
    document = LabClient(folder).call("status")["lab"]

    def show() -> None:
        shown = Listing(
            ("site", "room", "board", "role", "faults", "verdict", "reports"),
            right=("reports",),
            movable=("faults", "role", "verdict"),
        )
        for board in document["boards"]:
            said = board["verdict"] or "no report yet"
            if board["state"] not in (None, "up"):
                said = f"{board['state']} {board['layer']}: {board['verdict']}"
            faults = ", ".join(board["faults"])
            cells = (board["site"], board["room"], board["board"], board["role"], faults, said)
            shown.add(*cells, str(board["seq"]))
        result.print(shown)

    emit(document, show, as_json)


@click.command()
@click.argument("board")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=click.IntRange(1), help="How long.  [default: until Ctrl-C]")
@_dir_option
@json_option
def capture(*, board: str, file: Path, seconds: int | None, folder: Path, as_json: bool) -> None:
    """Write what passes over a BOARD's links to a pcap FILE, for Wireshark and scapy."""
    lab = LabClient(folder)
    lab.call("capture", board=board, file=str(file.absolute()))
    if not as_json:
        progress.print(
            f"capturing {board}; stop it with Ctrl-C" if seconds is None else "capturing"
        )
    with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
        threading.Event().wait(seconds)
    answer = lab.call("capture-end", board=board)
    text = f"{file}: {answer['frames']} frames"
    emit(answer, lambda: result.print(text, markup=False, soft_wrap=True), as_json)


@click.command()
@_dir_option
@json_option
def down(*, folder: Path, as_json: bool) -> None:
    """End the running lab; returns when it has ended."""
    LabClient(folder).end()
    emit({}, lambda: result.print("the lab has ended"), as_json)


@click.command()
@click.option(
    "--fault", "names", multiple=True, help="Only this fault; may be repeated.  [default: all]"
)
@click.option(
    "--role",
    type=click.Choice(("classroom-sensor", "ap-monitor")),
    help="Only these boards.",
)
@click.option(
    "--lanes",
    type=click.IntRange(1, 16),
    default=6,
    show_default=True,
    help="Schools at a time.",
)
@_period_option
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put the matrix into this page, too.",
)
@click.option(
    "--second-try",
    is_flag=True,
    help="Try whatever is not right once more, and show that: for a busy machine.",
)
@_dir_option
@json_option
def matrix(
    *,
    names: tuple[str, ...],
    role: str | None,
    lanes: int,
    period_s: int,
    markdown: Path | None,
    second_try: bool,
    folder: Path,
    as_json: bool,
) -> int:
    """Make every fault and print what the boards said: the confusion matrix.

    Exits with 1 if a verdict was wrong, or came later than two cycles.
    """
    faults = [find(name) for name in dict.fromkeys(names)] or catalogue()
    roles = tuple(each for each in BOTH if role in (None, each))
    faults = [fault for fault in faults if set(fault.roles) & set(roles)]
    if not faults:
        raise UsageError(f"none of these faults can be seen by a {role}", hint="leave --role out")
    if markdown:
        table.check(markdown)
    code = enter()
    if code is not None:
        return code
    schools = [fault for fault in faults if fault.kind == "school"]
    size = Size(min(lanes, len(schools)), 2, 1 if len(schools) < len(faults) else 0)
    with Screen(quiet=as_json) as screen:

        def on_row(row: Row) -> None:
            what = row.problem or f"{row.fault.expected} after {row.cycles}, back after "
            more = "" if row.problem else f"{row.back_cycles} cycles"
            if row.first_try:
                more += f"; second try, of the first: {row.first_try}"
            style = "bold red" if row.problem else "green"
            screen.event(f"{row.fault.name}, {row.role}: {what}{more}", style)

        lab = Laboratory(folder, size, period_s=period_s, on_progress=screen.event)
        with lab:
            lab.wait_up()
            screen.event(f"all {len(lab.boards)} boards are up; {len(faults)} faults", "green")
            rows = Matrix(lab, faults, roles, on_row, second_try=second_try).run()
    wrong = [row for row in rows if row.problem]
    failure = _failure(len(wrong), len(rows)) if wrong else None
    try:
        if markdown:
            table.write(markdown, table.markdown(rows, period_s))
    except LabError as error:
        failure = error
    if as_json:
        outcome = failure.document() if failure else {"ok": True}
        print_document(
            outcome
            | {
                "period_s": period_s,
                "rows": [row.document() for row in rows],
            }
        )
    else:
        result.print(table.terminal(rows))
        result.print(
            f"{len(rows)} rows, {len(rows) - len(wrong)} right, {len(wrong)} wrong or late"
        )
        if isinstance(failure, LabError):
            raise failure
    return failure.exit_code if failure else 0


def _failure(wrong: int, rows: int) -> NetzpulsError:
    error = NetzpulsError(
        f"{wrong} of {rows} rows are wrong or late", hint="their problem says what"
    )
    error.code = "matrix"
    return error
