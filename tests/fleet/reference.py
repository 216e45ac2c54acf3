"""The ledger said slowly: one entry for each second, one question at a time.

Only for tests. It shares no code with `fleet/ledger.py`, only the table of reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from firmware.linkreport import table
from fleet.period import Period
from fleet.point import Point
from fleet.stint import Stint, Window
from fleet.store import schema
from fleet.store.piece import Piece, piece


class Row(NamedTuple):
    """What the ledger needs of one report."""

    device: str
    key_id: int
    seq: int
    boot: int
    period_s: int
    uptime_cs: int
    time_s: int
    clock: int
    state: int
    layer: int
    reason: int
    gateway_reason: int
    internet_reason: int
    heard_all: bool | None = None
    heard_well: bytes | None = None
    heard_weakly: bytes | None = None


def piece_of(rows: Sequence[Row]) -> Piece:
    """Return rows as the store takes them, each vouching for the one before."""
    absent = {"gateway": "gw-1", "bssid": None, "raw": None, "oldest_seq": 1}
    return piece(
        [
            *((row._asdict() | absent).get(name, 0) for name in schema.COLUMNS),
            row.seq - 1,
            row.seq,
        ]
        for row in rows
    )


Second = tuple[int, int, int]
NOTHING: Second = (table.UNKNOWN, 0, 0)
EXCLUDED: Second = (table.EXCLUDED, 0, 0)


def trust(row: Row) -> int:
    """Return how good a report's own time is, 0 for none."""
    return min(row.clock, table.CLOCK_NTP) if row.time_s else 0


def time_of(row: Row, rows: Sequence[Row]) -> int | None:
    """Return when a report was made, or None as long as nobody knows."""
    boot = [
        other
        for other in rows
        if (other.device, other.key_id, other.boot) == (row.device, row.key_id, row.boot)
    ]
    best = max(map(trust, boot))
    if not best:
        return None
    knowing = sorted((other for other in boot if trust(other) == best), key=lambda r: r.seq)
    ahead_cs = [0]
    falls = False
    for before, after in pairwise(knowing):
        falls = falls or after.time_s < before.time_s
        step = (after.time_s - before.time_s) * 100 - (after.uptime_cs - before.uptime_cs) % (
            1 << 32
        )
        ahead_cs.append(ahead_cs[-1] + (step if abs(step) > 500 else 0))
    held_cs = max(
        ahead_cs,
        key=lambda each: (
            ahead_cs.count(each),
            max(r.seq for r, a in zip(knowing, ahead_cs, strict=True) if a == each),
        ),
    )
    at_cs = {
        other.seq: other.time_s * 100 - (ahead - held_cs if falls else 0)
        for other, ahead in zip(knowing, ahead_cs, strict=True)
    }
    if row.seq in at_cs:
        return at_cs[row.seq] // 100
    first = knowing[0]
    return (at_cs[first.seq] - first.uptime_cs + row.uptime_cs) // 100


def covered(device: str, rows: Sequence[Row]) -> dict[int, Row]:
    """Return, for each second of which one tells, the report that says what was the case."""
    by_time: dict[int, Row] = {}
    for row in rows:
        at_s = time_of(row, rows)
        if row.device != device or at_s is None:
            continue
        other = by_time.get(at_s)
        if other is None or (row.key_id, row.seq) > (other.key_id, other.seq):
            by_time[at_s] = row
    seconds: dict[int, Row] = {}
    before: int | None = None
    for at_s in sorted(by_time):
        row = by_time[at_s]
        reach = row.period_s
        if before is not None and (at_s - before) <= 2.5 * row.period_s:
            reach = at_s - before
        for second in range(at_s - reach, at_s):
            seconds[second] = row
        before = at_s
    return seconds


def holding(device: str, rows: Sequence[Row], start_s: int, end_s: int) -> list[Row | None]:
    """Return, for each second of a period, the report that says what was the case."""
    seconds = covered(device, rows)
    return [seconds.get(second) for second in range(start_s, end_s)]


def _heard(row: Row) -> tuple[set[int], set[int]]:
    """Return the access points that a report heard, and those that it heard well."""
    well, weakly = (
        {int.from_bytes(text[at : at + 6]) for at in range(0, len(text), 6)}
        for text in (row.heard_well or b"", row.heard_weakly or b"")
    )
    return well | weakly, well


def points(
    rows: Sequence[Row],
    stints: Sequence[Stint],
    asked: Sequence[Point],
    period: Period,
    windows: Sequence[Window] = (),
) -> dict[str, list[Second]]:
    """Return (state, layer, reason) of every access point at every second."""
    said = {device: covered(device, rows) for device in {stint.board for stint in stints}}

    def shut(second: int, *subjects: str) -> bool:
        return any(w.subject in subjects and w.start_s <= second < w.end_s for w in windows)

    found = {}
    for point in asked:
        monitors = []
        for stint in stints:
            if stint.site != point.site:
                continue
            mine = {s: row for s, row in said[stint.board].items() if _holds(stint, s)}
            heard = {s: _heard(row) for s, row in mine.items() if row.heard_all is not None}
            sees = {s for s, (all_of_them, _) in heard.items() if all_of_them & {*point.bssids}}
            well = {s for s, (_, well) in heard.items() if well & {*point.bssids}}
            monitors.append((stint, mine, sees, well))
        seconds = []
        for second in range(period.start_s, period.end_s):
            at_work = [each for each in monitors if not shut(second, each[0].board)]
            if shut(second, point.subject, point.site):
                seconds.append(EXCLUDED)
            elif any(second in sees for _, _, sees, _ in at_work):
                seconds.append((table.UP, 0, 0))
            elif any(
                second in mine and mine[second].heard_all and _normal(second, sees, well)
                for _, mine, sees, well in at_work
            ):
                seconds.append((table.DOWN, table.RADIO, table.ACCESS_POINT_MISSING))
            else:
                seconds.append(NOTHING)
        found[point.subject] = seconds
    return found


def _normal(second: int, sees: set[int], well: set[int]) -> bool:
    """Tell whether a monitor normally sees an access point at a second."""
    if not sees or second < min(sees):
        return False
    days = sorted({s // 86_400 for s in sees if s // 86_400 <= second // 86_400})[-7:]
    seen = [s for s in sees if s // 86_400 in days]
    return 2 * len([s for s in seen if s in well]) >= len(seen)


def ledger(
    rows: Sequence[Row],
    stints: Sequence[Stint],
    start_s: int,
    end_s: int,
    windows: Sequence[Window] = (),
) -> tuple[dict[str, list[Second]], dict[str, list[Second]]]:
    """Return (state, layer, reason) of every subject and of every line at every second."""
    site_of = {s.subject: s.site for s in stints if s.start_s < end_s and s.end_s > start_s}

    def shut(second: int, subject: str) -> bool:
        own = [s for s in stints if s.subject == subject]
        names = {s.board for s in own if _holds(s, second)} if own else {subject}
        names |= {site_of.get(subject)}
        return any(w.subject in names and w.start_s <= second < w.end_s for w in windows)

    held = {
        device: holding(device, rows, start_s, end_s)
        for device in {*(s.board for s in stints), *(row.device for row in rows)}
    }
    said: dict[str, list[Row | None]] = {subject: [None] * (end_s - start_s) for subject in site_of}
    for device, seconds in held.items():
        own = [stint for stint in stints if stint.board == device]
        if not own and any(seconds):
            said[device] = list(seconds)
        for stint in own:
            for number, row in enumerate(seconds):
                if row is not None and _holds(stint, start_s + number):
                    said[stint.subject][number] = row
    for subject, seconds in said.items():
        for number in range(end_s - start_s):
            if shut(start_s + number, subject):
                seconds[number] = None
    boards = {
        subject: [
            EXCLUDED
            if shut(start_s + number, subject)
            else NOTHING
            if row is None
            else (row.state if row.state in (1, 2, 3) else table.UNKNOWN, row.layer, row.reason)
            for number, row in enumerate(seconds)
        ]
        for subject, seconds in said.items()
    }
    lines = {
        site: [
            _line(
                [
                    seconds[number]
                    for subject, seconds in said.items()
                    if site_of.get(subject) == site
                ]
            )
            if not any(
                w.subject == site and w.start_s <= start_s + number < w.end_s for w in windows
            )
            else EXCLUDED
            for number in range(end_s - start_s)
        ]
        for site in set(site_of.values())
    }
    return boards, lines


def _holds(stint: Stint, second: int) -> bool:
    return stint.start_s <= second < stint.end_s


def _line(rows: Sequence[Row | None]) -> Second:
    known = [r for r in rows if r and r.state in (table.UP, table.DEGRADED, table.DOWN)]
    works = (table.UP, table.DEGRADED)
    if any(table.reason_state(row.internet_reason) in works for row in known):
        return (table.UP, 0, 0)
    if any(
        table.reason_state(row.gateway_reason) in works
        and table.reason_state(row.internet_reason) == table.DOWN
        for row in known
    ):
        return (table.DOWN, table.INTERNET, 0)
    return NOTHING
