"""The confusion matrix as people read it: on a terminal, and in docs/verdicts.md."""

from __future__ import annotations

import os
from pathlib import Path

from rich.text import Text

from fleet import file
from fleet.errors import UsageError
from hil.lab.error import LabError
from hil.lab.listing import Listing
from hil.lab.matrix import Row

BEGIN = "<!-- matrix: begin -->"
END = "<!-- matrix: end -->"
_ANOTHER = "name another file: --markdown FILE"


def terminal(rows: list[Row]) -> Listing:
    """Return the matrix for a terminal."""
    table = Listing(
        ("fault", "role", "expected", "said", "cycles", "s", "back", "s", ""),
        right=("cycles", "s", "back"),
        movable=("expected", "said", "", "role"),
    )
    for row in rows:
        table.add(
            row.fault.name,
            row.role,
            str(row.fault.expected),
            _said(row),
            *_times(row),
            Text(row.problem or _fine(row), "bold red" if row.problem else "green"),
        )
    return table


def markdown(rows: list[Row], period_s: int) -> str:
    """Return the matrix as a part of a Markdown page: for each layer faults against verdicts."""
    right = sum(not row.problem for row in rows)
    lines = [
        BEGIN,
        "",
        f"{len(rows)} rows (fault and role), {right} right; boards report every {period_s} s.",
        "",
        "Cells count the reports of all boards during the fault; **bold** is what is expected.",
        "The last columns count reports from the fault to its verdict, and from its end to `up`,",
        "the one under way included; where roles differ: classroom sensor / monitor.",
    ]
    layers = dict.fromkeys(_group(row) for row in rows)
    for layer in layers:
        lines += ["", *_grid(layer, [row for row in rows if _group(row) == layer])]
    return "\n".join((*lines, "", END))


def _group(row: Row) -> str:
    return "two at once" if "+" in row.fault.name else row.fault.layer_name


def _grid(layer: str, rows: list[Row]) -> list[str]:
    """Return one layer's table and its notes."""
    faults = list(dict.fromkeys(row.fault for row in rows))
    expected = dict.fromkeys(verdict for fault in faults for verdict in fault.expected.verdicts)
    said = dict.fromkeys(verdict for row in rows for verdict in row.verdicts)
    verdicts = [each for each in expected | said if each in said or each not in _alternatives(rows)]
    lines = [
        f"| {layer} | " + " | ".join(verdicts) + " | verdict | back |",
        "|---|" + "--:|" * (len(verdicts) + 2),
    ]
    notes = []
    for fault in faults:
        own = [row for row in rows if row.fault is fault]
        cells = []
        for verdict in verdicts:
            count = sum(row.verdicts[verdict] for row in own)
            text = str(count or "")
            cells.append(f"**{text}**" if text and verdict in fault.expected.verdicts else text)
        name = f"`{fault.name}`"
        if fault.expected.trouble:
            name += f" + {fault.expected.trouble}"
        times = [_joined([_times(row)[at] for row in own]) for at in (0, 2)]
        lines.append("| " + " | ".join((name, *cells, *times)) + " |")
        for row in own:
            if row.first_try:
                notes.append(f"- `{fault.name}`, {row.role}: second try; first: {row.first_try}")
            if row.problem:
                notes.append(f"- **wrong**: `{fault.name}`, {row.role}: {row.problem}")
        if fault.merged:
            notes.append(f"- `{fault.name}` is not to be told from {fault.merged}")
    return [*lines, *(["", *notes] if notes else [])]


def _alternatives(rows: list[Row]) -> set[str]:
    return {verdict for row in rows for verdict in row.fault.expected.verdicts[1:]}


def _joined(texts: list[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def check(path: Path) -> None:
    """See that a page can be written, before minutes are spent on what is to stand in it.

    Raises: UsageError: it cannot.
    """
    try:
        _text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {_reason(error)}", hint=_ANOTHER) from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        reason = "you may not write there" if path.parent.is_dir() else "there is no such folder"
        raise UsageError(f"cannot write {path}: {reason}", hint=_ANOTHER)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "it failed" if isinstance(error, OSError) else "it is no text"


def write(path: Path, part: str) -> None:
    """Put the part into a page: between its marks if the page has them, else at its end.

    Raises: LabError: the page cannot be read or written.
    """
    try:
        text = _text(path)
        if BEGIN in text and END in text:
            head, _, rest = text.partition(BEGIN)
            text = head + part + rest.partition(END)[2]
        else:
            text = f"{text}\n{part}\n" if text else f"{part}\n"
        file.write(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"cannot write {path}: {_reason(error)}", hint=_ANOTHER) from None


def _fine(row: Row) -> str:
    return f"ok; the first try: {row.first_try}" if row.first_try else "ok"


def _said(row: Row) -> str:
    return ", ".join(f"{verdict} ×{count}" for verdict, count in row.verdicts.most_common())


def _times(row: Row) -> tuple[str, str, str, str]:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:g}"

    return shown(row.cycles), shown(row.seconds), shown(row.back_cycles), shown(row.back_seconds)
