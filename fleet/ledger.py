"""The ledger: in which state each board, line and access point was, at every second.

It is a function of the *set* of reports: order, duplicates and lateness cannot change it.
With the reports of a board sorted by time, report i of period P asserts its state

    over (t[i-1], t[i]]     if t[i] - t[i-1] <= 2.5 P
    over (t[i] - P, t[i]]   otherwise, and for the first

It counts for the subject that had the board then: the place in a room, which goes on when the
board there is replaced. What no report covers is `unknown`; `excluded` windows are laid over the
result. A site's line is `up` at an instant if a board there reaches the internet, `down` if none
does and one that tried found it gone although its gateway answered, else `unknown`: a board whose
internet probe gave no result (`untested`, `probe-failed`) is no evidence against the line. Of
access points `fleet.point` tells.

All of it is SQL over integer seconds. What each board said stands in the store as intervals, kept
up to date as reports come (`fleet.store.fold`); with `recompute` it is found anew from all reports.
`tests/fleet/reference.py` says the same slowly.

Source: docs/fleet.md, "How time is counted".
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from firmware.linkreport import table, term
from fleet import point
from fleet.period import Period
from fleet.point import Point
from fleet.stint import Stint, Window, fill
from fleet.store import clock

Kind = Literal["board", "line", "access-point"]

# The longest grace that a u16 of seconds allows: so far beyond the edges of a period do
# reports still say something about what lies within.
LONGEST_GRACE_S = 65_535 * 5 // 2


@dataclass(frozen=True)
class Interval:
    """A stretch of time in which nothing changes."""

    subject: str
    start_s: int
    end_s: int
    state: int
    layer: int
    reason: int

    @property
    def length_s(self) -> int:
        """How long it is."""
        return self.end_s - self.start_s


class Ledger:
    """The ledger of one period, in temporary tables of a connection to the store.

    Args:
        connection: where `report` is; may be read-only.
        period: every subject's states sum to its length.
        stints: which board's reports count for whom, and when. Boards without any are in the
            ledger too, as themselves; a board between its stints is not.
        excluded: windows laid over the result.
        points: the access points to tell of.
        recompute: from the reports, not from the intervals that the store keeps of them.
        said: SQL for what boards said, as an engine found it; of access points it says nothing.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        period: Period,
        stints: Iterable[Stint],
        excluded: Iterable[Window] = (),
        points: Iterable[Point] = (),
        *,
        recompute: bool = False,
        said: str | None = None,
    ) -> None:
        self.connection = connection
        self.period = period
        stints, excluded, points = list(stints), list(excluded), list(points)
        fill(
            connection,
            "stint",
            "subject VARCHAR, device VARCHAR, site VARCHAR, start_s BIGINT, end_s BIGINT",
            ((s.subject, s.board, s.site, s.start_s, s.end_s) for s in stints),
        )
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE placed AS SELECT DISTINCT subject, site FROM stint "
            "WHERE start_s < $end_s AND end_s > $start_s",
            {"start_s": period.start_s, "end_s": period.end_s},
        )
        fill(
            connection,
            "excluded_window",
            "subject VARCHAR, start_s BIGINT, end_s BIGINT",
            ((w.subject, w.start_s, w.end_s) for w in excluded),
        )
        said = said or (ASSERTED if recompute else KEPT)
        self._lay("board", _PLACED.format(said=said), _BOARD_SUBJECTS, _BOARD_WINDOWS)
        self._lay("line", _LINE, _LINE_SUBJECTS, _LINE_WINDOWS)
        if points:
            point.lay(connection, period, stints, excluded, points, recompute=recompute)
            self._lay("access-point", "FROM point_piece", point.SUBJECTS, point.WINDOWS)
        self._has_points = bool(points)

    def seconds(self, kind: Kind) -> dict[str, list[int]]:
        """Return, for every subject, the seconds in each state, by the state's number."""
        found: dict[str, list[int]] = {}
        if kind == "access-point" and not self._has_points:
            return found
        rows = self.connection.execute(
            f"SELECT subject, state, sum(end_s - start_s)::BIGINT FROM {_table(kind)} GROUP BY ALL"
        )
        for subject, state, length_s in rows.fetchall():
            found.setdefault(subject, [0] * len(term.STATES))[state] = length_s
        return found

    def intervals(self, kind: Kind) -> list[Interval]:
        """Return all intervals, by subject and time."""
        if kind == "access-point" and not self._has_points:
            return []
        rows = self.connection.execute(
            "SELECT subject, start_s, end_s, state, layer, reason "
            f"FROM {_table(kind)} ORDER BY subject, start_s"
        )
        return [Interval(*row) for row in rows.fetchall()]

    def missing(self) -> list[tuple[str, str, int, int, int]]:
        """Return (site, board, reason, start, end) for each time a board missed the internet.

        The gateway answered there and the internet did not: the evidence against a line.
        """
        rows = self.connection.execute(
            "SELECT site, subject, internet_reason, start_s, end_s "
            "FROM board_interval JOIN placed USING (subject) WHERE misses ORDER BY ALL"
        )
        return rows.fetchall()

    def lacking(self) -> list[tuple[str, str, int, int]]:
        """Return (access point, board's subject, start, end) for each time one was looked for.

        By a monitor that normally sees it: where it is down, that one missed it.
        """
        if not self._has_points:
            return []
        rows = self.connection.execute(
            "SELECT lack.subject, stay.subject, lack.start_s, lack.end_s "
            "FROM lack JOIN stay ON stay.number = lack.stay ORDER BY ALL"
        )
        return rows.fetchall()

    def _lay(self, kind: Kind, source: str, subjects: str, windows: str) -> None:
        """Make the table of a kind's intervals from pieces that do not overlap."""
        edges = {"start_s": self.period.start_s, "end_s": self.period.end_s}
        execute = self.connection.execute
        execute(
            "CREATE OR REPLACE TEMP TABLE piece AS "
            f"SELECT row_number() OVER () AS number, * FROM ({_joined(source)})",
            edges if "$start_s" in source else None,
        )
        execute(f"CREATE OR REPLACE TEMP TABLE frame AS {subjects}")
        execute(f"CREATE OR REPLACE TEMP TABLE shut AS {windows}")
        execute(f"CREATE OR REPLACE TEMP TABLE framed AS {_FRAMED}", edges)
        execute(f"CREATE OR REPLACE TEMP TABLE {_table(kind)} AS {_joined('FROM framed')}")


def _table(kind: Kind) -> str:
    return f"{kind.replace('-', '_')}_interval"


def _numbers(*states: int) -> str:
    """Return the reasons of the given states as an SQL list."""
    return ", ".join(str(n) for n in sorted(term.REASONS) if table.reason_state(n) in states)


_FINE = _numbers(table.UP, table.DEGRADED)
_FAILED = _numbers(table.DOWN)
_KNOWN = f"{table.UP}, {table.DEGRADED}, {table.DOWN}"

_IS_KNOWN = f"state IN ({_KNOWN})"
# What a report asserts; a state that no board may claim is unknown.
FACTS = f"""
    CASE WHEN {_IS_KNOWN} THEN state ELSE {table.UNKNOWN} END AS state,
    layer,
    reason,
    {_IS_KNOWN} AND internet_reason IN ({_FINE}) AS reaches,
    {_IS_KNOWN} AND gateway_reason IN ({_FINE}) AND internet_reason IN ({_FAILED}) AS misses,
    internet_reason
"""


def asserted(timed: str, condition: str = "true") -> str:
    """Return SQL for what each of some reports, which are timed, asserts, and over which time.

    Of those with equal times the highest number comes first; the gap before the others is 0, so
    that they cover nothing. Of a board of which there is one all must be there.
    """
    return f"""
        SELECT device,
            at_s - CASE WHEN 2 * gap_s <= 5 * period_s::BIGINT THEN gap_s ELSE period_s END
                AS start_s,
            at_s AS end_s, {FACTS}
        FROM (
            SELECT *, at_s - lag(at_s) OVER w AS gap_s FROM ({timed}) WHERE {condition}
            WINDOW w AS (PARTITION BY device ORDER BY at_s, key_id DESC, seq DESC)
        )
    """


_NEAR = f"at_s BETWEEN $start_s - {LONGEST_GRACE_S} AND $end_s + {LONGEST_GRACE_S}"
ASSERTED = asserted(clock.timed("report"), _NEAR)
# The same where reports were let go, by what is still known of their boots.
LEFT = asserted(clock.timed("report", "boot"), _NEAR)
KEPT = "FROM interval WHERE start_s < $end_s AND end_s > $start_s"
# The same for the subjects for which it counts, cut to the period.
_PLACED = """
    SELECT coalesce(stint.subject, device) AS subject,
        greatest($start_s, said.start_s, stint.start_s) AS start_s,
        least($end_s, said.end_s, stint.end_s) AS end_s,
        state, layer, reason, reaches, misses, internet_reason
    FROM ({said}) AS said LEFT JOIN stint USING (device)
"""
_BOARD_SUBJECTS = "SELECT subject FROM placed UNION SELECT subject FROM piece"
_BOARD_WINDOWS = """
    SELECT subject, start_s, end_s FROM excluded_window ANTI JOIN stint USING (subject)
    UNION ALL
    SELECT stint.subject, greatest(stint.start_s, shut.start_s), least(stint.end_s, shut.end_s)
    FROM stint JOIN excluded_window AS shut ON shut.subject = device
    UNION ALL
    SELECT placed.subject, start_s, end_s
    FROM placed JOIN excluded_window ON excluded_window.subject = site
"""

# What the boards of a site say together, from how many reach the internet and how many miss it.
_LINE = f"""
    WITH evidence AS (
        FROM board_interval JOIN placed USING (subject) WHERE reaches OR misses
    ),
    edge AS (
        SELECT site, start_s AS at_s, reaches::INT AS reaches, misses::INT AS misses FROM evidence
        UNION ALL
        SELECT site, end_s, -reaches::INT, -misses::INT FROM evidence
    ),
    stretch AS (
        SELECT site, at_s AS start_s, lead(at_s) OVER w AS end_s,
            sum(reaches) OVER w > 0 AS reaches, sum(misses) OVER w > 0 AS misses
        FROM (
            SELECT site, at_s, sum(reaches) AS reaches, sum(misses) AS misses
            FROM edge GROUP BY ALL
        )
        WINDOW w AS (PARTITION BY site ORDER BY at_s)
    )
    SELECT site AS subject, start_s, end_s,
        CASE WHEN reaches THEN {table.UP} ELSE {table.DOWN} END AS state,
        CASE WHEN reaches THEN 0 ELSE {table.INTERNET} END AS layer,
        {table.UNTESTED} AS reason, reaches, misses, {table.UNTESTED} AS internet_reason
    FROM stretch WHERE end_s IS NOT NULL AND (reaches OR misses)
"""
_LINE_SUBJECTS = "SELECT DISTINCT site AS subject FROM placed"
_LINE_WINDOWS = "FROM excluded_window"

# Every subject's frame is the whole period. At each edge of a piece its number is added or
# taken away, so that the running sum is the number of the one piece that holds, 0 where there
# is none; windows, which may overlap, are counted in the same pass.
_FRAMED = f"""
    WITH edge AS (
        SELECT subject, start_s AS at_s, number, 0 AS windows FROM piece
        UNION ALL SELECT subject, end_s, -number, 0 FROM piece
        UNION ALL SELECT subject, $start_s, 0, 0 FROM frame
        UNION ALL SELECT subject, $end_s, 0, 0 FROM frame
        UNION ALL SELECT subject, greatest(start_s, $start_s), 0, 1 FROM shut
            WHERE start_s < least(end_s, $end_s) AND end_s > $start_s
        UNION ALL SELECT subject, least(end_s, $end_s), 0, -1 FROM shut
            WHERE start_s < least(end_s, $end_s) AND end_s > $start_s
    ),
    stretch AS (
        SELECT subject, at_s AS start_s, lead(at_s) OVER w AS end_s,
            sum(number) OVER w AS number, sum(windows) OVER w > 0 AS excluded
        FROM (
            SELECT subject, at_s, sum(number) AS number, sum(windows) AS windows
            FROM edge GROUP BY ALL
        )
        WINDOW w AS (PARTITION BY subject ORDER BY at_s)
    )
    SELECT stretch.subject, stretch.start_s, stretch.end_s,
        CASE WHEN excluded THEN {table.EXCLUDED} ELSE coalesce(state, {table.UNKNOWN}) END AS state,
        coalesce(layer, 0) AS layer, coalesce(reason, 0) AS reason,
        coalesce(reaches, false) AS reaches, coalesce(misses, false) AS misses,
        coalesce(internet_reason, 0) AS internet_reason
    FROM stretch SEMI JOIN frame USING (subject)
        LEFT JOIN piece ON piece.number = stretch.number AND NOT excluded
    WHERE stretch.end_s IS NOT NULL
"""


_FACTS = ("state", "layer", "reason", "reaches", "misses", "internet_reason")


def _joined(source: str, by: str = "subject", facts: Sequence[str] = _FACTS) -> str:
    """Return SQL that joins neighbouring intervals of which all facts are equal."""
    same = " AND ".join(f"{fact} = lag({fact}) OVER w" for fact in facts)
    return f"""
        WITH marked AS (
            SELECT *, lag(end_s) OVER w AS end_before_s, lead(start_s) OVER w IS NULL AS ends,
                NOT coalesce(start_s = end_before_s AND {same}, false) AS begins
            FROM ({source}) WHERE start_s < end_s
            WINDOW w AS (PARTITION BY {by} ORDER BY start_s)
        ),
        edge AS (
            SELECT * REPLACE (
                CASE WHEN ends THEN end_s
                    WHEN lead(begins) OVER w THEN lead(end_before_s) OVER w
                    ELSE lead(end_s) OVER w END AS end_s)
            FROM marked WHERE begins OR ends
            WINDOW w AS (PARTITION BY {by} ORDER BY start_s)
        )
        SELECT {by}, start_s, end_s, {", ".join(facts)} FROM edge WHERE begins
    """


@dataclass(frozen=True)
class Difference:
    """A stretch of a board that only one of both says: the store's intervals, or its reports."""

    said_by: Literal["intervals", "reports"]
    interval: Interval


def differences(
    connection: duckdb.DuckDBPyConnection, period: Period, said: str = ASSERTED
) -> list[Difference]:
    """Return where the intervals that the store keeps are not what its reports say.

    All reports are read and all boards' intervals are found anew, as an auditor would.

    Args:
        connection: to the store, open for reading.
        period: of when.
        said: SQL for what the reports say.
    """
    kept, told = (
        _joined(
            "SELECT device AS subject, * EXCLUDE (device) REPLACE (greatest(start_s, $start_s) "
            f"AS start_s, least(end_s, $end_s) AS end_s) FROM ({source})"
        )
        for source in (KEPT, said)
    )
    names = "subject, start_s, end_s, state, layer, reason, reaches, misses, internet_reason"
    rows = connection.execute(
        _DIFFERENCES.format(kept=kept, told=told, names=names),
        {"start_s": period.start_s, "end_s": period.end_s},
    ).fetchall()
    return [Difference(said_by, Interval(*row[:6])) for said_by, *row in rows]


@dataclass(frozen=True)
class Misheard:
    """A stretch in which only one of both says that a board heard an access point.

    Attributes:
        bssid: as a number; `fleet.store.air.SCAN` is a scan of which all is known.
    """

    said_by: Literal["intervals", "reports"]
    board: str
    bssid: int
    start_s: int
    end_s: int
    well: bool


def misheard(
    connection: duckdb.DuckDBPyConnection, period: Period, *, expired: bool = False
) -> list[Misheard]:
    """Return where the sightings that the store keeps are not what its reports say."""
    kept, told = (
        _joined(
            "SELECT * REPLACE (greatest(start_s, $start_s) AS start_s, "
            f"least(end_s, $end_s) AS end_s) FROM ({said}) "
            "WHERE start_s < $end_s AND end_s > $start_s",
            "device, bssid",
            ("well",),
        )
        for said in (point.KEPT, point.told(connection, expired=expired))
    )
    rows = connection.execute(
        _DIFFERENCES.format(kept=kept, told=told, names="device, bssid, start_s, end_s, well"),
        {"start_s": period.start_s, "end_s": period.end_s},
    ).fetchall()
    return [Misheard(*row) for row in rows]


_DIFFERENCES = """
    WITH kept AS MATERIALIZED (SELECT {names} FROM ({kept})),
        told AS MATERIALIZED (SELECT {names} FROM ({told}))
    SELECT 'intervals', * FROM (FROM kept EXCEPT FROM told)
    UNION ALL SELECT 'reports', * FROM (FROM told EXCEPT FROM kept)
    ORDER BY ALL
"""
