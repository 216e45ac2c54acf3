"""Reports from and to other tools: Parquet, CSV and JSON Lines in one schema.

    device,time_s,seq,period_s,state,layer,reason
    np-240ac4000010,1793404860,1,60,up,,ok

Rows go through one by one, so memory stays bounded however large a file is. What is no report is
not guessed at: it goes to a file of rejects with its line and the reason.

Source: docs/import.md.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

import csv
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from firmware.linkreport import table, term
from fleet.errors import READABLE, OutputError, UsageError
from fleet.store import Store, schema
from fleet.store import piece as pieces
from fleet.store.fold import NO_SEAL
from fleet.text import printable

FORMATS = (".parquet", ".csv", ".jsonl")
GATEWAY = "import"
_PIECE_ROWS = 100_000
# So far a board's clock may go ahead of ours.
_AHEAD_S = 86_400
_LINE_LIMIT = 1 << 20
_MOST_REASONS = 100
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_DEVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NEEDED = ("device", "time_s", "seq", "period_s", "state")
_STATES = {name: number for number, name in enumerate(term.STATES[: table.DOWN + 1])}
_LAYERS = {name: number for number, name in enumerate(term.LAYERS)}
_REASONS = {name: number for number, name in term.REASONS.items()}
_REASON_COLUMNS = tuple(name for name in schema.COLUMNS if name.endswith("_reason"))
_NAMED = {"state": _STATES, "layer": _LAYERS, "reason": _REASONS} | dict.fromkeys(
    _REASON_COLUMNS, _REASONS
)
_ADDRESSES = ("bssid", "heard_well", "heard_weakly")
_MOST_HEARD = 64
_MOST = {"UTINYINT": 255, "USMALLINT": 65_535, "UINTEGER": (1 << 32) - 1, "TINYINT": 127}
_COLUMNS = tuple(name for name in schema.COLUMNS if name not in ("gateway", "raw"))
_KNOWN = {*_COLUMNS, "gateway", "site"}


@dataclass
class Imported:
    """What became of the rows of files.

    Attributes:
        rejected: rows that are no reports; they stand in the file of rejects.
    """

    rows: int = 0
    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "rows": self.rows,
            "new": self.new,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "reasons": self.reasons,
        }


def take(
    city: Path,
    files: list[Path],
    rejects: Path,
    on_progress: Callable[[Path, Imported], None] = lambda _, __: None,
    *,
    dry_run: bool = False,
) -> Imported:
    """Put the reports of files into a city's store.

    Args:
        city: its folder.
        files: each by its ending one of `FORMATS`.
        rejects: where rows go that are no reports, as JSON Lines; made if there are any.
        on_progress: called after each piece.
        dry_run: read and check all, store nothing.

    Raises: UsageError: a file is of another kind, cannot be read or lacks a column.
        StoreError: the store cannot be written. OutputError: the rejects cannot.
    """
    found = Imported()
    readers = [(path, _rows(path)) for path in files]
    if dry_run:
        for path, rows in readers:
            for _ in _reports(path, rows, rejects, found):
                pass
            on_progress(path, found)
        return found
    with Store(city).writing() as writer:
        for path, rows in readers:
            reports = _reports(path, rows, rejects, found)
            while piece := list(itertools.islice(reports, _PIECE_ROWS)):
                ingested = writer.take(pieces.piece(piece))
                found.new += ingested.new
                found.duplicates += ingested.duplicates + ingested.forks
                on_progress(path, found)
    return found


def give(city: Path, path: Path) -> int:
    """Write all reports of a city's store to a file; return how many.

    Raises: UsageError: its ending is none of `FORMATS`. StoreError: there is no store to read.
        OutputError: the file cannot be written.
    """
    how = {
        ".parquet": "FORMAT parquet, COMPRESSION zstd",
        ".csv": "FORMAT csv, HEADER",
        ".jsonl": "FORMAT json",
    }.get(path.suffix)
    if how is None:
        raise _unknown_format(path)
    columns = []
    for name in _COLUMNS:
        if name in _NAMED:
            cases = " ".join(f"WHEN {n} THEN '{text}'" for text, n in _NAMED[name].items())
            columns.append(f"CASE {name} {cases} ELSE {name}::VARCHAR END AS {name}")
        else:
            is_text = name in _ADDRESSES
            columns.append(f"lower(hex({name})) AS {name}" if is_text else name)
    target = str(path).replace("'", "''")
    with Store(city).reading() as connection:
        try:
            rows = connection.execute(
                f"COPY (SELECT {', '.join(columns)} FROM report ORDER BY device, key_id, seq) "
                f"TO '{target}' ({how})"
            ).fetchall()
        except duckdb.IOException as error:
            raise OutputError(
                f"cannot write {path}: {printable(str(error).partition(chr(10))[0], 200)}",
                hint="look at free space and rights there",
            ) from None
    return int(rows[0][0])


Values = Mapping[str, object]


def _rows(path: Path) -> Iterator[tuple[int, Values | str]]:
    """Return (line, values or what is wrong with it) of a file, which is looked into at once."""
    reader = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}.get(path.suffix)
    if reader is None:
        raise _unknown_format(path)
    rows = reader(path)
    try:
        first = next(rows, None)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    return itertools.chain([first] if first else [], rows)


_HINT = "docs/import.md says which columns there are"


def _unknown_format(path: Path) -> UsageError:
    return UsageError(
        f"{path.name} ends in none of {', '.join(FORMATS)}", hint="name the file by what is in it"
    )


def _check_columns(path: Path, names: set[str]) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise UsageError(f"{path} has no column {', '.join(missing)}", hint=_HINT)
    if unknown := sorted(names - _KNOWN):
        raise UsageError(
            f"{path}: unknown column {', '.join(printable(name, 40) for name in unknown)}",
            hint=_HINT,
        )


def _csv(path: Path) -> Iterator[tuple[int, Values | str]]:
    # What is no UTF-8 becomes a sign that no value may have. Spreadsheets begin with a mark.
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.reader(stream)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise UsageError(f"{path} is no CSV: {error}", hint=_HINT) from None
        _check_columns(path, set(header))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise UsageError(f"{path}: column {twice} stands there twice", hint=_HINT)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"no CSV: {error}"
                continue
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            else:
                yield reader.line_num, f"{len(cells)} fields where the header has {len(header)}"


def _json_lines(path: Path) -> Iterator[tuple[int, Values | str]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LINE_LIMIT), ""), 1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                values = None
            if isinstance(values, dict):
                yield number, values
            else:
                yield number, "this is no JSON object"


def _parquet(path: Path) -> Iterator[tuple[int, Values | str]]:
    with path.open("rb"), duckdb.connect() as connection:
        try:
            cursor = connection.execute("SELECT * FROM read_parquet($1)", [str(path)])
            names = [each[0] for each in cursor.description or ()]
            _check_columns(path, set(names))
            number = 0
            while rows := cursor.fetchmany(10_000):
                for row in rows:
                    number += 1
                    yield number, dict(zip(names, row, strict=True))
        except duckdb.Error as error:
            said = printable(str(error).partition("\n")[0], 200)
            raise UsageError(
                f"{path} is no parquet file, or a damaged one: {said}",
                hint="what was read before is stored; import a sound copy",
            ) from None


def _reports(
    path: Path, rows: Iterator[tuple[int, Values | str]], rejects: Path, found: Imported
) -> Iterator[tuple[object, ...]]:
    """Yield rows for the store; write down those that are none."""
    now_s = int(time.time())
    for number, values in rows:
        found.rows += 1
        said = values
        if not isinstance(values, str):
            try:
                report = _report(values, now_s)
            except ValueError as error:
                said = str(error)
            else:
                yield report
                continue
        found.rejected += 1
        reason = printable(str(said), 200)
        if reason in found.reasons or len(found.reasons) < _MOST_REASONS:
            found.reasons[reason] = found.reasons.get(reason, 0) + 1
        entry = {"file": path.name, "line": number, "reason": reason}
        try:
            with rejects.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as fault:
            raise OutputError(
                f"cannot write {rejects}: {fault.strerror}",
                hint="look at free space and rights there, or name another with --rejects",
            ) from None


def _report(values: Values, now_s: int) -> tuple[object, ...]:
    """Return a report as `fleet.store.piece` takes it.

    Raises: ValueError: it is none, and why.
    """
    given = {name: value for name, value in values.items() if value is not None and value != ""}
    for name in given:
        if name not in _KNOWN:
            raise ValueError(f"{printable(name, 40)} is no column")
    for name in _NEEDED:
        if name not in given:
            raise ValueError(f"{name} is missing")
    device = given["device"]
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ValueError("device is no id")
    row: dict[str, object] = {"device": device, "gateway": GATEWAY}
    for name, kind in schema.COLUMNS.items():
        if name in given and name not in ("device", "gateway", "raw"):
            row[name] = _value(name, kind, given[name])
    for name in ("time_s", "period_s"):
        if not row[name]:
            raise ValueError(f"{name} is 0")
    if int(str(row["time_s"])) > now_s + _AHEAD_S:
        raise ValueError("time_s is in the future")
    _fill(row, now_s)
    return (*(row.get(name) for name in schema.COLUMNS), NO_SEAL, NO_SEAL)


def _fill(row: dict[str, object], now_s: int) -> None:
    """Add what was left out."""
    state, layer = row["state"], row.setdefault("layer", 0)
    works = state in (table.UP, table.DEGRADED)
    reason = row.setdefault("reason", table.OK if works else table.UNTESTED)
    internet = table.UNTESTED
    if works:
        internet = table.OK
    elif layer == table.INTERNET and isinstance(reason, int):
        internet = reason
    row.setdefault("internet_reason", internet)
    row.setdefault("gateway_reason", table.UNTESTED if internet == table.UNTESTED else table.OK)
    for name in _REASON_COLUMNS:
        row.setdefault(name, table.UNTESTED)
    if any(name in row for name in schema.HEARD):  # a list alone may be a part of all
        for name, nothing in {"heard_all": False, "heard_well": b"", "heard_weakly": b""}.items():
            row.setdefault(name, nothing)
    row.setdefault("received_s", now_s)
    row.setdefault("key_id", 1)
    row.setdefault("oldest_seq", 1)
    row.setdefault("boot", 0)
    # A monotonic clock that goes as the times do, so that none of them is taken for a wrong one.
    row.setdefault("uptime_cs", int(str(row["time_s"])) * 100 % (1 << 32))
    row.setdefault("clock", table.CLOCK_NTP)
    row.setdefault("confidence_percent", 100)


def _addresses(name: str, value: object) -> bytes:
    most = 1 if name == "bssid" else _MOST_HEARD
    if isinstance(value, str) and re.fullmatch(rf"([0-9a-f]{{12}}){{1,{most}}}", value):
        found = bytes.fromhex(value)
        parts = {found[at : at + 6] for at in range(0, len(found), 6)}
        if name == "bssid" or bytes(6) not in parts:
            return found
    times = "" if most == 1 else f", up to {most} times"
    raise ValueError(f"{name} is not twelve hexadecimal digits{times}")


def _value(name: str, kind: str, value: object) -> object:
    if name in _ADDRESSES:
        return _addresses(name, value)
    if kind == "BOOLEAN":
        found = {"true": True, "false": False}.get(str(value).lower())
        if found is None:
            raise ValueError(f"{name} is neither true nor false")
        return found
    names = _NAMED.get(name, {})
    if isinstance(value, str) and value in names:
        return names[value]
    text = "" if isinstance(value, bool) else str(value)
    try:
        number = int(text if _WHOLE.fullmatch(text) else "")
    except ValueError:
        what = f"no {'reason' if name.endswith('reason') else name}" if names else "no whole number"
        raise ValueError(f"{name} is {what}") from None
    least = -128 if kind == "TINYINT" else 0
    if not least <= number <= _MOST[kind] or (name == "state" and number > table.DOWN):
        raise ValueError(f"{name} is out of range")
    return number
