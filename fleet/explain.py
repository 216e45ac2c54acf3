"""Why a subject was in its state at one second: which reports led to it, by which rule.

    answer = explain(city, city.subject("line/goethe-schule"), moment_s)
    answer.document()        # as --json prints it

Rules are told by their number in docs/fleet.md, "How time is counted". The state itself is the
ledger's; here is said what it follows from.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

from firmware.linkreport import table, term
from fleet import calendar, exclusion, point, post
from fleet.inventory import Inventory, Subject
from fleet.ledger import Interval, Kind, Ledger
from fleet.maintenance import Maintenance
from fleet.period import Period, duration, iso
from fleet.post import Post
from fleet.report import layer_name
from fleet.store import Store, clock
from fleet.store.air import SCAN

_CLOCKS = {
    table.CLOCK_NONE: "none",
    table.CLOCK_KEPT: "kept over a restart",
    table.CLOCK_ACK: "collector",
    table.CLOCK_NTP: "time server",
}


@dataclass(frozen=True)
class Told:
    """One report as the store has it.

    Attributes:
        time_s: when it was made by its board's clock; None if that knew no time.
        at_s: when it was made as the ledger counts it.
        covered_s: for how long before that it speaks.
        gap_s: since the report before; None for the first.
    """

    key_id: int
    seq: int
    boot: int
    period_s: int
    time_s: int | None
    clock: int
    gateway: str
    received_s: int
    state: int
    layer: int
    reason: int
    gateway_reason: int
    internet_reason: int
    at_s: int
    gap_s: int | None
    covered_s: int

    @property
    def is_bridged(self) -> bool:
        """Whether it tells of all the time since the report before."""
        return self.gap_s is not None and 2 * self.gap_s <= 5 * self.period_s

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "number": self.seq,
            "key_id": self.key_id,
            "boot": self.boot,
            "reported_time": None if self.time_s is None else iso(self.time_s, zone),
            "counted_time": iso(self.at_s, zone),
            "clock": _CLOCKS.get(self.clock, f"clock-{self.clock}"),
            "period_s": self.period_s,
            "tells_of_s": self.covered_s,
            "gateway": self.gateway,
            "received": iso(self.received_s, zone),
            "state": term.STATES[self.state] if self.state < len(term.STATES) else "unknown",
            "layer": layer_name(self.layer),
            "reason": term.reason_name(self.reason),
            "gateway_reason": term.reason_name(self.gateway_reason),
            "internet_reason": term.reason_name(self.internet_reason),
        }


@dataclass(frozen=True)
class Hearing:
    """What one board heard of an access point at a second.

    Attributes:
        well: whether it heard it well; None if it did not hear it.
        scanned: whether it knows all that was in the air.
        seen_s, well_s: for how long it saw it, and heard it well, on the days by which it is told
            what is normal; 0 if it never did before.
        is_usual: whether it normally sees it.
    """

    well: bool | None = None
    scanned: bool = False
    seen_s: int = 0
    well_s: int = 0
    is_usual: bool = False

    def rule(self) -> str:
        """Return what that says of the access point."""
        if self.well is not None:
            return f"9: it heard the access point{'' if self.well else ', if weakly'}"
        if not self.scanned:
            return "9: it told of no scan of which all is known"
        if not self.seen_s:
            return "9: it scanned and did not hear it, but it never heard it before either"
        usual = "so it normally sees it" if self.is_usual else "so it does not normally see it"
        return (
            "9: it scanned and did not hear it; on the last days on which it did, it heard it well "
            f"for {duration(self.well_s)} of {duration(self.seen_s)}, {usual}"
        )

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "heard": self.well is not None,
            "well": self.well,
            "scanned": self.scanned,
            "seen_s": self.seen_s,
            "well_s": self.well_s,
            "normally_seen": self.is_usual,
        }


@dataclass(frozen=True)
class Word:
    """What one board said of a second.

    Attributes:
        holds: the report that covers the second.
        before, after: its neighbours; of a second that no report covers, those around it.
        beaten: reports with the same time and a lower number.
        hearing: what it heard of an access point that was asked for.
    """

    board: str
    room: str
    moment_s: int
    holds: Told | None
    before: Told | None
    after: Told | None
    beaten: tuple[Told, ...]
    hearing: Hearing | None = None

    @property
    def state(self) -> int:
        """The state that follows, if nothing excludes the second."""
        known = (table.UP, table.DEGRADED, table.DOWN)
        return self.holds.state if self.holds and self.holds.state in known else table.UNKNOWN

    @property
    def reaches(self) -> bool:
        """Whether it says that the site's line works."""
        works = (table.UP, table.DEGRADED)
        return bool(
            self.state != table.UNKNOWN
            and self.holds
            and table.reason_state(self.holds.internet_reason) in works
        )

    @property
    def misses(self) -> bool:
        """Whether it says that the line does not: its gateway answered and the internet did not."""
        works = (table.UP, table.DEGRADED)
        return bool(
            self.state != table.UNKNOWN
            and self.holds
            and table.reason_state(self.holds.gateway_reason) in works
            and table.reason_state(self.holds.internet_reason) == table.DOWN
        )

    @property
    def evidence(self) -> str:
        """What it says of the site's line."""
        return "reaches" if self.reaches else "misses" if self.misses else "none"

    def rules(self) -> list[str]:
        """Return by which rules this is so, each with its number."""
        held = self.holds
        if held is None:
            return [f"2: {self._silence()}"]
        said = []
        if held.is_bridged:
            since = f"report {self.before.seq}" if self.before else "the report before"
            said.append(f"1: report {held.seq} tells of the {held.gap_s} s since {since}")
        else:
            why = "the first"
            if held.gap_s is not None:
                why = f"the first after {duration(held.gap_s)}, more than 2.5 periods"
            said.append(f"1: report {held.seq} is {why}: it tells of one period, {held.period_s} s")
        if held.state not in (table.UP, table.DEGRADED, table.DOWN):
            said.append("2: its state is none that a board may claim")
        if self.beaten:
            numbers = ", ".join(str(each.seq) for each in self.beaten)
            said.append(f"3: of the reports with its time it has the highest number ({numbers})")
        if held.time_s is None:
            said.append(f"4: its board knew no time then; boot {held.boot} did, later or before")
        elif held.time_s != held.at_s:
            said.append(
                f"4: its own clock was {held.time_s - held.at_s:+d} s off a better one of boot "
                f"{held.boot}"
            )
        return said

    def _silence(self) -> str:
        if self.before is None and self.after is None:
            return "no report of it is there"
        if self.before is None:
            return "it is before the first report, and more than a period"
        if self.after is None:
            return f"it is after the last report, {self.before.seq}"
        gap_s = self.after.at_s - self.before.at_s
        return (
            f"no report covers it: between {self.before.seq} and {self.after.seq} lie "
            f"{duration(gap_s)}, more than 2.5 periods of {self.after.period_s} s"
        )

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "board": self.board,
            "room": self.room,
            "state": term.STATES[self.state],
            "line_evidence": self.evidence,
            "rules": self.rules(),
            "report": self.holds.document(zone) if self.holds else None,
            "before": self.before.document(zone) if self.before else None,
            "after": self.after.document(zone) if self.after else None,
            "beaten": [each.document(zone) for each in self.beaten],
            "hearing": self.hearing.document() if self.hearing else None,
        }


@dataclass(frozen=True)
class Explanation:
    """Why a subject was in its state at one second.

    Attributes:
        state, layer, reason: the ledger's answer; of the city and districts there is none.
        outside: why the second does not count by the calendar, "" if it does.
        maintenance: the windows that exclude it.
        words: what each board said.
        lines: for a district or the city, the state of each site's line.
        rule: how the state of a line or an access point follows from the boards' words.
    """

    subject: Subject
    moment_s: int
    zone: ZoneInfo
    state: int | None
    layer: int
    reason: int
    calendar: str
    outside: str
    maintenance: tuple[Maintenance, ...]
    words: tuple[Word, ...]
    lines: Mapping[str, int]
    rule: str

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "subject": str(self.subject),
            "time": iso(self.moment_s, self.zone),
            "state": None if self.state is None else term.STATES[self.state],
            "layer": layer_name(self.layer),
            "reason": term.reason_name(self.reason),
            "calendar": self.calendar,
            "outside_calendar": self.outside,
            "maintenance": [each.document(self.zone) for each in self.maintenance],
            "rule": self.rule,
            "boards": [each.document(self.zone) for each in self.words],
            "lines": {site: term.STATES[state] for site, state in self.lines.items()},
        }


def explain(
    city: Inventory, subject: Subject, moment_s: int, calendar_id: str | None = None
) -> Explanation:
    """Return why a subject was in its state in the second that begins at a moment.

    Args:
        city: its inventory.
        subject: what; of a room all its boards are told, of a district or the city all lines.
        moment_s: UTC seconds.
        calendar_id: by which calendar; None is the site's own.

    Raises: UsageError: no such calendar. ConfigurationError: what does not count cannot be told.
        StoreError: there is no store to read.
    """
    zone = ZoneInfo(city.city.timezone)
    period = Period(moment_s, moment_s + 1)
    places = [each for each in post.posts(city) if each.within(moment_s, moment_s + 1)]
    there = _there(city, subject, places, moment_s)
    sites = sorted(_sites(city, subject, there))
    excluded = exclusion.find(city, period, sites, calendar_id)
    with Store(city.folder).reading() as connection:
        points = [each for each in point.of(city) if subject == Subject("access-point", each.id)]
        ledger = Ledger(connection, period, post.stints(places), excluded.windows, points)
        kind: Kind = "board" if subject.kind in ("board", "room") else "line"
        if points:
            kind = "access-point"
        found = {each.subject: each for each in ledger.intervals(kind)}
        wide = subject.kind in ("city", "district")
        words = () if wide else _words(connection, there, moment_s)
        if points:
            words = _heard(connection, words, moment_s)
    state, layer, reason = _answer(subject, there, found)
    outside = ""
    if len(sites) == 1:
        (site,) = sites
        own = calendar.schedule(city, site, excluded.calendars[site])
        outside = calendar.why_not(own, moment_s, zone) if own else ""
    names = {*sites, *(word.board for word in words if subject.kind in ("board", "room"))}
    names |= {each.subject for each in points}
    return Explanation(
        subject,
        moment_s,
        zone,
        state,
        layer,
        reason,
        excluded.calendars[sites[0]] if len(sites) == 1 else "",
        outside,
        tuple(each for each in excluded.maintenance if names & set(exclusion.subjects(city, each))),
        words,
        {
            site: found[site].state if site in found else table.UNKNOWN
            for site in (sites if wide else ())
        },
        _rule(subject, words),
    )


def _there(
    city: Inventory, subject: Subject, places: Sequence[Post], moment_s: int
) -> list[tuple[Post, str]]:
    """Return the places that a subject has at a moment, and the board that is there."""
    found = [
        (place, stint.board) for place in places for stint in place.within(moment_s, moment_s + 1)
    ]
    if subject.kind == "board":
        return [each for each in found if each[1] == subject.id]
    if subject.kind == "room":
        return [
            each for each in found if (each[0].site, each[0].room) == (subject.id, subject.room)
        ]
    if subject.kind in ("site", "line"):
        return [each for each in found if each[0].site == subject.id]
    if subject.kind == "access-point":
        return [each for each in found if each[0].site == city.access_points[subject.id].site]
    return []


def _sites(city: Inventory, subject: Subject, there: Sequence[tuple[Post, str]]) -> set[str]:
    if subject.kind == "city":
        return set(city.sites)
    if subject.kind == "district":
        return {each for each, site in city.sites.items() if site.district == subject.id}
    if subject.kind == "board":
        return {place.site for place, _ in there} & set(city.sites)
    if subject.kind == "access-point":
        return {city.access_points[subject.id].site}
    return {subject.id}


def _answer(
    subject: Subject, there: Sequence[tuple[Post, str]], found: Mapping[str, Interval]
) -> tuple[int | None, int, int]:
    """Return the ledger's state, layer and reason; no state where there is none of its own."""
    if subject.kind in ("city", "district") or (subject.kind == "room" and len(there) != 1):
        return None, 0, 0
    name = there[0][0].subject if there else ""
    if subject.kind in ("site", "line"):
        name = subject.id
    elif subject.kind == "access-point":
        name = point.subject(subject.id)
    interval = found.get(name)
    if interval is None:
        return table.UNKNOWN, 0, 0
    return interval.state, interval.layer, interval.reason


def _rule(subject: Subject, words: Sequence[Word]) -> str:
    if subject.kind in ("site", "line"):
        return _line_rule(words)
    return _point_rule(words) if subject.kind == "access-point" else ""


def _point_rule(words: Sequence[Word]) -> str:
    found = [(word.board, word.hearing or Hearing()) for word in words]
    hearing = [board for board, heard in found if heard.well is not None]
    if hearing:
        return f"9: the access point is up, because {', '.join(hearing)} heard it"
    lacking = [board for board, heard in found if heard.scanned and heard.is_usual]
    if lacking:
        return (
            f"9: the access point is down: {', '.join(lacking)} scanned and normally would have "
            "heard it, and none did"
        )
    return "9: nobody knows: none heard it, and none that normally does looked"


def _heard(
    connection: duckdb.DuckDBPyConnection, words: Sequence[Word], moment_s: int
) -> tuple[Word, ...]:
    """Return the words with what their boards heard; `fleet.point` has laid its tables."""
    rows = connection.execute(_HEARD, {"moment": moment_s, "scan": SCAN}).fetchall()
    found = {board: Hearing(*values) for board, *values in rows}
    return tuple(replace(word, hearing=found.get(word.board, Hearing())) for word in words)


_HEARD = """
    WITH here AS (FROM stay WHERE start_s <= $moment AND end_s > $moment),
    heard AS (
        SELECT stay AS number, bool_or(well) AS well FROM seen
        WHERE start_s <= $moment AND end_s > $moment GROUP BY stay
    ),
    scanned AS (
        SELECT DISTINCT device FROM sighting
        WHERE bssid = $scan AND start_s <= $moment AND end_s > $moment
    )
    SELECT device, any_value(well), bool_or(scanned.device IS NOT NULL),
        coalesce(any_value(seen_s), 0), coalesce(any_value(well_s), 0),
        coalesce(any_value(is_usual), false)
    FROM here LEFT JOIN heard USING (number) LEFT JOIN scanned USING (device)
        LEFT JOIN (FROM usual WHERE start_s <= $moment AND end_s > $moment) AS usual
            ON usual.stay = here.number
    GROUP BY device
"""


def _line_rule(words: Sequence[Word]) -> str:
    if not words:
        return "6: no board hung there"
    reaching = [word.board for word in words if word.reaches]
    if reaching:
        return f"6: the line is up, because {', '.join(reaching)} reached the internet"
    missing = [word.board for word in words if word.misses]
    if missing:
        return (
            f"6: the line is down: {', '.join(missing)} found the internet gone although the "
            "gateway answered, and none reached it"
        )
    return "6: nobody knows: no board reached the internet, and none is evidence against the line"


def _words(
    connection: duckdb.DuckDBPyConnection, there: Sequence[tuple[Post, str]], moment_s: int
) -> tuple[Word, ...]:
    return tuple(
        _word(connection, board, place.room, moment_s)
        for place, board in sorted(there, key=lambda each: (each[0].room, each[1]))
    )


# All reports of one board by time, of equal times the one that holds first; the gap before the
# others is 0. The ledger says the same of all boards.
_REPORTS = f"""
    WITH one AS (SELECT * FROM report WHERE device = $device),
    spaced AS (
        SELECT *, at_s - lag(at_s) OVER w AS gap_s
        FROM ({clock.timed("one", "boot")})
        WINDOW w AS (ORDER BY at_s, key_id DESC, seq DESC)
    ),
    covering AS (
        SELECT *, CASE WHEN 2 * gap_s <= 5 * period_s::BIGINT THEN gap_s ELSE period_s END
            AS covered_s
        FROM spaced
    )
    SELECT key_id, seq, boot, period_s, nullif(time_s, 0), clock, gateway, received_s, state, layer,
        reason, gateway_reason, internet_reason, at_s, gap_s, covered_s
    FROM covering
    WHERE at_s >= coalesce(
            (SELECT max(at_s) FROM covering WHERE at_s <= $moment), $moment)
        AND at_s <= coalesce(
            (SELECT min(at_s) FROM covering WHERE at_s > $moment), $moment)
    ORDER BY at_s, key_id DESC, seq DESC
"""


def _word(connection: duckdb.DuckDBPyConnection, board: str, room: str, moment_s: int) -> Word:
    rows = connection.execute(_REPORTS, {"device": board, "moment": moment_s}).fetchall()
    found = [Told(*row) for row in rows]
    before = [each for each in found if each.at_s <= moment_s]
    after = [each for each in found if each.at_s > moment_s]
    holds = after[0] if after and after[0].at_s - after[0].covered_s <= moment_s else None
    return Word(
        board,
        room,
        moment_s,
        holds,
        before[0] if before else None,
        after[0] if after else None,
        tuple(after[1:]) if holds else (),
    )
