"""The confusion matrix as people read it: on a terminal, and in docs/verdicts.md."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from fleet import file
from hil.lab.error import LabError
from hil.lab.matrix import Row

BEGIN = "<!-- matrix: begin -->"
END = "<!-- matrix: end -->"


def terminal(rows: list[Row]) -> Table:
    """Return the matrix for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("fault", "role", "expected", "said", "cycles", "s", "back", "s", ""):
        right = title in ("cycles", "s", "back")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row.fault.name,
            row.role,
            str(row.fault.expected),
            _said(row),
            *_times(row),
            Text(row.problem or "ok", "bold red" if row.problem else "green"),
        )
    return table


def markdown(rows: list[Row], period_s: int) -> str:
    """Return the matrix as a part of a Markdown page."""
    right = sum(not row.problem for row in rows)
    lines = [
        BEGIN,
        "",
        f"{len(rows)} rows, {right} of them right; boards report every {period_s} s.",
        "Cycles count reports from the fault, the one under way included.",
        "",
        "| layer | fault | role | expected | said | cycles | s | back, cycles | s | note |",
        "|---|---|---|---|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        note = "; ".join(each for each in (row.problem, _merged(row)) if each)
        cells = [
            row.fault.layer_name,
            f"`{row.fault.name}`",
            row.role,
            str(row.fault.expected),
            _said(row),
            *_times(row),
            note,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join((*lines, "", END))


def write(path: Path, part: str) -> None:
    """Put the part into a page: between its marks if the page has them, else at its end.

    Raises: LabError: the page cannot be read or written.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if BEGIN in text and END in text:
            head, _, rest = text.partition(BEGIN)
            text = head + part + rest.partition(END)[2]
        else:
            text = f"{text}\n{part}\n" if text else f"{part}\n"
        file.write(path, text)
    except OSError as error:
        raise LabError(
            f"cannot write {path}: {error.strerror}", hint="name another file: --markdown FILE"
        ) from None


def _said(row: Row) -> str:
    return ", ".join(f"{verdict} ×{count}" for verdict, count in row.verdicts.most_common())


def _times(row: Row) -> tuple[str, str, str, str]:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:g}"

    return shown(row.cycles), shown(row.seconds), shown(row.back_cycles), shown(row.back_seconds)


def _merged(row: Row) -> str:
    return f"not to be told from {row.fault.merged}" if row.fault.merged else ""
