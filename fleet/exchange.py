"""Reports from and to other tools: Parquet, CSV and JSON Lines in one schema.

    device,time_s,seq,period_s,state,layer,reason
    np-240ac4000010,1793404860,1,60,up,,ok

Rows go through some hundreds at a time, so memory stays bounded however large a file is. Where all
of them are plainly reports they are taken by columns, else one by one. What is no report is not
guessed at: it goes to a file of rejects with its line and the reason.

Source: docs/import.md.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

import csv
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
from numpy.typing import NDArray

from firmware.linkreport import table, term
from fleet.errors import READABLE, OutputError, UsageError
from fleet.store import Store, schema
from fleet.store import piece as pieces
from fleet.store.fold import NO_SEAL
from fleet.text import printable

FORMATS = (".parquet", ".csv", ".jsonl")
GATEWAY = "import"
_PIECE_ROWS = 100_000
# One row that is not plainly a report has so many taken one by one.
_CHUNK_ROWS = 500
# So few different texts are looked at one by one.
_FEW = 64
# So far a board's clock may go ahead of ours.
_AHEAD_S = 86_400
_LINE_LIMIT = 1 << 20
_MOST_REASONS = 100
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_WHOLE_LINES = re.compile(r"-?[0-9]{1,18}(\n-?[0-9]{1,18})*")
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
        devices: of which boards there were reports.
    """

    rows: int = 0
    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

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
    readers = [(path, *_rows(path)) for path in files]
    if dry_run:
        for path, names, rows in readers:
            for piece in _pieces(_Source(path, names, rejects), rows, found):
                found.devices.update(device for device, *_ in piece.origins)
                on_progress(path, found)
        return found
    with Store(city).writing() as writer:
        for path, names, rows in readers:
            for piece in _pieces(_Source(path, names, rejects), rows, found):
                ingested = writer.take(piece)
                found.devices.update(device for device, *_ in piece.origins)
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
# Values, by name or in the order of the names that hold for all rows; or what is wrong with them.
Row = tuple[int, Values | Sequence[object] | str]
Names = Sequence[str] | None


@dataclass(frozen=True)
class _Source:
    """A file, the names of its columns if they hold for all rows, and where its rejects go."""

    path: Path
    names: Names
    rejects: Path


def _rows(path: Path) -> tuple[Names, Iterator[Row]]:
    """Return the names of a file's columns and its rows; it is looked into at once."""
    reader = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}.get(path.suffix)
    if reader is None:
        raise _unknown_format(path)
    rows = reader(path)
    try:
        _, names = next(rows)
        first = next(rows, None)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    rest = itertools.chain([first] if first else [], rows)
    return cast("Names", names), cast("Iterator[Row]", rest)


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


# Each tells the names of its columns first.
Told = Iterator[Row | tuple[int, Names]]


def _csv(path: Path) -> Told:
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
        yield 0, header
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"no CSV: {error}"
                continue
            if len(cells) == len(header):
                yield reader.line_num, cells
            else:
                yield reader.line_num, f"{len(cells)} fields where the header has {len(header)}"


def _json_lines(path: Path) -> Told:
    with path.open(encoding="utf-8", errors="replace") as stream:
        yield 0, None
        for number, line in enumerate(iter(lambda: stream.readline(_LINE_LIMIT), ""), 1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                values = None
            if isinstance(values, dict):
                yield number, values
            else:
                yield number, "this is no JSON object"


def _parquet(path: Path) -> Told:
    with path.open("rb"), duckdb.connect() as connection:
        try:
            cursor = connection.execute("SELECT * FROM read_parquet($1)", [str(path)])
            names = [each[0] for each in cursor.description or ()]
            _check_columns(path, set(names))
            yield 0, names
            numbers = itertools.count(1)
            while rows := cursor.fetchmany(10_000):
                yield from zip(numbers, rows, strict=False)
        except duckdb.Error as error:
            said = printable(str(error).partition("\n")[0], 200)
            raise UsageError(
                f"{path} is no parquet file, or a damaged one: {said}",
                hint="what was read before is stored; import a sound copy",
            ) from None


def _pieces(source: _Source, rows: Iterator[Row], found: Imported) -> Iterator[pieces.Piece]:
    """Yield pieces for the store; write down the rows that are no reports."""
    now_s = int(time.time())
    parts: list[pieces.Piece] = []
    count = 0
    while some := list(itertools.islice(rows, _CHUNK_ROWS)):
        found.rows += len(some)
        part = _columns(source.names, some, now_s)
        if part is not None:
            parts.append(part)
        else:
            for at in range(0, len(some), _FEW):
                few = some[at : at + _FEW]
                part = _columns(source.names, few, now_s)
                if part is None:
                    part = pieces.piece(_reports(source, few, now_s, found))
                parts.append(part)
        count += len(some)
        if count >= _PIECE_ROWS:
            yield pieces.joined(parts)
            parts, count = [], 0
    if parts:
        yield pieces.joined(parts)


def _reports(
    source: _Source, rows: list[Row], now_s: int, found: Imported
) -> Iterator[tuple[object, ...]]:
    """Yield rows for the store; write down those that are none."""
    for number, told in rows:
        said = told
        if not isinstance(told, str):
            values = (
                told
                if isinstance(told, Mapping)
                else dict(zip(source.names or (), told, strict=True))
            )
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
        entry = {"file": source.path.name, "line": number, "reason": reason}
        try:
            with source.rejects.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as fault:
            raise OutputError(
                f"cannot write {source.rejects}: {fault.strerror}",
                hint="look at free space and rights there, or name another with --rejects",
            ) from None


# -- rows that are plainly reports, by columns ------------------------------------------------

Numbers = tuple[NDArray[np.int64], NDArray[np.bool_]]


def _columns(names: Names, rows: list[Row], now_s: int) -> pieces.Piece | None:
    """Return rows as `_report` would take each of them, None where that is not plain."""
    told = [each for _, each in rows]
    if any(isinstance(each, str) for each in told):
        return None
    if names is None:
        values = cast("list[Values]", told)
        names = list(values[0])
        if any(each.keys() != values[0].keys() for each in values):
            return None
        by_name = {name: [each[name] for each in values] for name in names}
    else:
        by_name = dict(zip(names, map(list, zip(*told, strict=True)), strict=True))
    if not {*_NEEDED} <= by_name.keys() <= _KNOWN:
        return None
    if any(value not in (None, "") for name in schema.HEARD for value in by_name.get(name, ())):
        return None
    origins = _origins(by_name["device"], by_name.get("bssid") or [None] * len(rows))
    given: dict[str, Numbers] = {}
    for name in by_name.keys() & pieces.NUMBERS.keys():
        numbers = _numbers(name, by_name[name])
        if numbers is None:
            return None
        given[name] = numbers
    if origins is None or not all(given[name][1].all() for name in _NEEDED if name != "device"):
        return None
    time_s = given["time_s"][0]
    if not (time_s.all() and given["period_s"][0].all() and (time_s <= now_s + _AHEAD_S).all()):
        return None
    return _filled(origins, given, now_s)


def _origins(
    devices: list[object], bssids: list[object]
) -> tuple[list[pieces.Origin], list[int]] | None:
    """Return what `fleet.store.piece` calls origins, and which each row has."""
    numbers: dict[tuple[object, object], int] = {}
    try:
        which = [
            numbers.setdefault(each, len(numbers)) for each in zip(devices, bssids, strict=True)
        ]
    except TypeError:  # a list or an object
        return None
    found: list[pieces.Origin] = []
    for device, bssid in numbers:
        if not isinstance(device, str) or not _DEVICE.fullmatch(device):
            return None
        try:
            address = _addresses("bssid", bssid) if bssid not in (None, "") else None
        except ValueError:
            return None
        found.append((device, GATEWAY, address if address != bytes(6) else None))
    return found, which


def _numbers(name: str, values: list[object]) -> Numbers | None:
    """Return a column as `_value` has it, 0 where nothing stands, and where something does."""
    kinds = {*map(type, values)}
    if type(None) in kinds or "" in values:
        there = np.array([value is not None and value != "" for value in values], np.bool_)
        kinds.discard(type(None))
    else:
        there = np.ones(len(values), np.bool_)
    try:
        if kinds == {str}:
            numbers = _spelled(name, cast("list[str | None]", values))
        elif kinds == {int} or not kinds:
            whole = values if there.all() else [value or 0 for value in values]
            numbers = np.array(whole, np.int64)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    kind = schema.COLUMNS[name]
    most = table.DOWN if name == "state" else _MOST[kind]
    least = -128 if kind == "TINYINT" else 0
    if len(numbers) != len(values) or ((numbers < least) | (numbers > most)).any():
        return None
    return numbers, there


def _spelled(name: str, values: list[str | None]) -> NDArray[np.int64]:
    """Return texts as numbers.

    Raises: ValueError: one of them is none.
    """
    distinct = {*values} - {None, ""}
    if name in _NAMED or len(distinct) <= _FEW:
        kind = schema.COLUMNS[name]
        meant: dict[str | None, int] = {None: 0, "": 0}
        meant |= {text: int(str(_value(name, kind, text))) for text in distinct}
        return np.fromiter(map(meant.__getitem__, values), np.int64, len(values))
    text = "\n".join(value or "0" for value in values)
    if not _WHOLE_LINES.fullmatch(text):
        raise ValueError("no whole numbers")
    return np.array(text.split("\n"), np.int64)


def _filled(
    origins: tuple[list[pieces.Origin], list[int]], given: dict[str, Numbers], now_s: int
) -> pieces.Piece:
    """Return a piece; what was left out is as `_fill` has it."""
    count = len(origins[1])

    def filled(name: str, default: NDArray[Any] | int) -> NDArray[Any]:
        numbers, there = given.get(name, (default, np.zeros(count, np.bool_)))
        return np.where(there, numbers, default)

    state = given["state"][0]
    works = (state == table.UP) | (state == table.DEGRADED)
    layer = filled("layer", 0)
    reason = filled("reason", np.where(works, table.OK, table.UNTESTED))
    internet = np.where(works, table.OK, np.where(layer == table.INTERNET, reason, table.UNTESTED))
    defaults: dict[str, NDArray[Any] | int] = dict.fromkeys(_REASON_COLUMNS, table.UNTESTED)
    for name, (_, nothing) in schema.MEASURED.items():
        if isinstance(nothing, int):
            defaults[name] = nothing
    defaults |= {
        "layer": layer,
        "reason": reason,
        "internet_reason": internet,
        "gateway_reason": np.where(internet == table.UNTESTED, table.UNTESTED, table.OK),
        "received_s": now_s,
        "key_id": 1,
        "oldest_seq": 1,
        "boot": 0,
        "uptime_cs": given["time_s"][0] * 100 % (1 << 32),
        "clock": table.CLOCK_NTP,
        "confidence_percent": 100,
    }
    columns: dict[str, NDArray[Any]] = {
        name: filled(name, defaults.get(name, 0)).astype(kind)
        for name, kind in pieces.NUMBERS.items()
    }
    columns["origin"] = np.array(origins[1], np.int64)
    columns["air"] = np.zeros(count, np.int64)
    columns["link"] = columns["tag"] = np.full(count, NO_SEAL, np.uint64)
    return pieces.Piece(origins[0], [(None, None, None)], columns)


# -- one row --------------------------------------------------------------------------------


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
