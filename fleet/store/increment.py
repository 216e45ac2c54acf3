"""Takes one piece of reports into what the store keeps, touching only what they change.

The reports are a `fleet.store.piece`; `link` and `tag` are the first eight bytes of each as a
number, `NO_SEAL` where not known. A transaction is open.

    1. which are new            by the runs of sequence numbers
    2. when they were made      by the clocks of their boots
    3. what they change         mostly the end of a board's intervals; for a late report the
                                stretch between its neighbours; for a clock that is better known
                                now the old and the new stretches of that boot's reports

For 3 neighbours are read anew from the reports, as few as will do.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb
import numpy as np
from numpy.typing import NDArray

from fleet.store import air, clock, fold, stretch
from fleet.store.fold import END_S, NEVER_S, Bools, Columns, Ints
from fleet.store.piece import Piece
from fleet.store.schema import BOOT, HEARD, INTERVAL, RUN, SIGHTING

_CLOCK_COLUMNS = ("boot", "period_s", "uptime_cs", "time_s", "clock")
_FACT_COLUMNS = ("state", "layer", "reason", "gateway_reason", "internet_reason")
_LEDGER_COLUMNS = ("device", "key_id", "seq", *_CLOCK_COLUMNS, *_FACT_COLUMNS)
_AROUND_COLUMNS = (*_LEDGER_COLUMNS, *HEARD)
_MENDED = "most_cs - least_cs > 500 AND falls AND best > 0"


class Shelf(Protocol):
    """Where reports are that were stored before, and where new ones go."""

    def put(self, piece: Piece, numbers: Ints, at_s: Ints) -> None:
        """Store some rows of a piece, which were made at these times, `NEVER_S` where not known."""

    def source(
        self, columns: tuple[str, ...], low_s: int | None = None, high_s: int | None = None
    ) -> str:
        """Return SQL for columns of the stored reports and `cold`, whether from a day file.

        Of those in day files the ones suffice that were made from `low_s` to `high_s`.
        """


@dataclass(frozen=True)
class Added:
    """What a piece brought: how many reports were new, and which rows of it were not."""

    new: int
    known: Ints


def add(connection: duckdb.DuckDBPyConnection, shelf: Shelf, piece: Piece) -> Added:
    """Take the new reports of a piece into the shelf, `run`, `boot` and `interval`."""
    return Increment(connection, shelf, piece).add()


@contextmanager
def registered(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, NDArray[Any]]
) -> Iterator[None]:
    """Let SQL see columns as a table."""
    connection.register(name, dict(columns))
    try:
        yield
    finally:
        connection.unregister(name)


class Increment:
    """One piece on its way in."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, shelf: Shelf, piece: Piece) -> None:
        self._connection = connection
        self._shelf = shelf
        self._piece = piece
        self._sky = air.Sky()
        airs = self._sky.numbers([air.key(each) for each in piece.airs])
        self._rows = stretch.Rows({**piece.columns, "air": airs[piece.columns["air"]]})
        # What stands in ranges of (board, time) from now on: one after the other, see `_lay`.
        self._laid: list[tuple[Columns, Columns]] = []
        self._heard: list[tuple[Columns, Columns]] = []
        # Reports by which boots are timed may have been let go.
        query = "SELECT max(raw_before_s) FROM expired"
        ((self._expired_s,),) = connection.execute(query).fetchall()
        self._known = None if self._expired_s is None else "boot"

    def add(self) -> Added:
        """Take it in."""
        rows, runs, known = self._fresh()
        if not len(rows["first"]):
            return Added(0, known)
        rows["trust"] = fold.trust(rows)
        self._put("run", RUN, fold.runs_with(rows, runs))
        rows, boots, dirty, number = self._timed(rows, runs)
        last_s, longest_s = self._before(rows)
        points = [self._redo(rows, boots, dirty, number)] if dirty.any() else []
        settled = (rows["first_at_s"] != NEVER_S) & ~dirty[number]
        self._store(rows, settled)
        self._connection.execute(
            "DELETE FROM boot USING owner AS o, made AS m WHERE o.owner = m.owner "
            "AND boot.device = o.device AND boot.key_id = o.key_id AND boot.boot = m.boot"
        )
        self._connection.execute("DROP TABLE made")
        self._insert("boot", BOOT, boots)
        points.append(self._extend(fold.take(rows, settled), last_s))
        self._relay(self._alive(fold.joint(*points), longest_s), longest_s)
        self._lay()
        self._hear()
        return Added(len(self._piece) - len(known), known)

    # -- which are new -------------------------------------------------------------------------

    def _fresh(self) -> tuple[Columns, Columns, Ints]:
        """Return new stretches by (owner, first_seq), their owners' runs, and the known rows."""
        rows = self._rows.stretches()
        rows["owner"], rows["board"] = self._owners(rows)
        runs = self._columns(
            f"SELECT owner, {_but_owner(RUN)} FROM run JOIN owner USING (device, key_id) "
            "ORDER BY owner, first_seq"
        )
        known = [self._rows.known]
        parted = True
        while parted:
            rows, old, over = fold.fresh(rows, runs, in_order=self._rows.in_order)
            known.append(self._rows.numbers(fold.take(rows, old)))
            rows, over = fold.take(rows, ~old), over[~old]
            parted = bool(over.any())
            if parted:
                rows = self._rows.singly(rows, over)
        return rows, runs, np.sort(np.concatenate(known))

    def _owners(self, rows: Columns) -> tuple[Ints, Ints]:
        """Number the devices of the piece, and these with their keys, in the order of their names.

        Returns: the numbers of each stretch; `owner` and `board` are tables of them.
        """
        devices = sorted({device for device, *_ in self._piece.origins})
        place = {device: number for number, device in enumerate(devices)}
        origin = np.array([place[device] for device, *_ in self._piece.origins], np.int64)
        board = origin[rows["origin"]]
        key = rows["key_id"]
        keys = np.flatnonzero(np.bincount(key, minlength=1))
        pair = board * len(keys) + np.searchsorted(keys, key)
        there, owner = np.unique(pair, return_inverse=True)
        execute = self._connection.execute
        owners = {
            "owner": np.arange(len(there)),
            "device": np.array([devices[n] for n in there // max(1, len(keys))], object),
            "key_id": keys[there % max(1, len(keys))].astype(np.uint16),
            "board": there // max(1, len(keys)),
        }
        with registered(self._connection, "given", owners):
            execute(
                "CREATE OR REPLACE TEMP TABLE owner AS "
                "SELECT device::VARCHAR AS device, key_id, owner, board FROM given"
            )
        execute("CREATE OR REPLACE TEMP TABLE board AS SELECT DISTINCT device, board FROM owner")
        return owner, board

    def _store(self, rows: Columns, settled: Bools) -> None:
        numbers = self._rows.numbers(rows)
        count = rows["last"] - rows["first"] + 1
        at_s = self._piece.columns["time_s"][numbers].astype(np.int64)
        first = np.cumsum(count) - count
        at_s[first[count == 1]] = rows["first_at_s"][count == 1]
        at_s[np.repeat(~settled, count)] = NEVER_S
        self._shelf.put(self._piece, numbers, at_s)

    # -- when they were made -------------------------------------------------------------------

    def _timed(self, rows: Columns, runs: Columns) -> tuple[Columns, Columns, Bools, Ints]:
        """Return when the reports were made, as far as that can be told without others.

        Returns: the stretches by (owner, boot, first_seq) with `first_at_s` and `last_at_s`; their
            boots as they are now; of which boots the times must be found anew; the number of each
            one's boot.
        """
        key = rows["owner"] << 16 | rows["boot"]
        if (key[1:] < key[:-1]).any():
            rows = fold.take(rows, np.argsort(key, kind="stable"))
        made = fold.boots(rows)
        count = np.diff(
            np.append(np.flatnonzero(fold.begins(rows["owner"], rows["boot"])), len(rows["first"]))
        )
        number = np.repeat(np.arange(len(count)), count)
        with registered(self._connection, "new_boot", made):
            self._connection.execute(
                "CREATE OR REPLACE TEMP TABLE made AS SELECT owner, boot FROM new_boot"
            )
        found = self._columns(
            f"SELECT owner, {_but_owner(BOOT)} FROM boot JOIN owner USING (device, key_id) "
            "SEMI JOIN made USING (owner, boot) ORDER BY owner, boot"
        )
        old, is_old = _aligned(found, made)
        unclear = np.zeros(len(count), np.bool_)
        mixed = is_old & (made["best"] == old["best"]) & (made["best"] > 0)
        mixed &= (made["anchor_seq"] < old["last_seq"]) & (made["last_seq"] > old["anchor_seq"])
        if mixed.any():
            chosen = np.flatnonzero(mixed[number] & (rows["trust"] == made["best"][number]))
            which = number[chosen]
            suspect = fold.between(
                fold.take(rows, chosen), made["best"][which], fold.take(old, which), runs
            )
            unclear[which[suspect]] = True
        boots, dirty = fold.boots_with(made, old, is_old, unclear)
        dirty |= fold.mended(boots)
        rows["first_at_s"], rows["last_at_s"] = fold.times(
            rows, boots["best"][number], boots["boot_cs"][number]
        )
        reached = np.where(dirty[number], NEVER_S, rows["last_at_s"])
        first = np.cumsum(count) - count
        boots["to_s"] = np.maximum(boots["to_s"], np.maximum.reduceat(reached, first))
        return rows, boots, dirty, number

    def _before(self, rows: Columns) -> tuple[Ints, Ints]:
        """Return of each board when its last report was made, and its longest period."""
        found = self._columns(
            "SELECT board, max(to_s) AS to_s, max(longest_s) AS longest_s "
            "FROM boot JOIN board USING (device) GROUP BY board ORDER BY board"
        )
        boards = int(rows["board"].max()) + 1
        last_s = np.full(boards, NEVER_S)
        longest_s = np.zeros(boards, np.int64)
        there = found["board"] < boards
        last_s[found["board"][there]] = found["to_s"][there]
        longest_s[found["board"][there]] = found["longest_s"][there]
        np.maximum.at(longest_s, rows["board"], rows["period_s"].astype(np.int64))
        return last_s, longest_s

    def _redo(self, rows: Columns, boots: Columns, dirty: Bools, number: Ints) -> Columns:
        """Time boots by all of their reports; return (board, at_s) of all that changes.

        Puts into `boots` what is true of them then.
        """
        execute = self._connection.execute
        again = fold.take(boots, dirty)
        with registered(self._connection, "dirty", {k: again[k] for k in ("owner", "boot")}):
            execute(
                "CREATE OR REPLACE TEMP TABLE dirty_boot AS SELECT device, key_id, board, owner, "
                "boot FROM dirty JOIN owner USING (owner)"
            )
        columns = ", ".join(_LEDGER_COLUMNS)
        execute(
            f"CREATE OR REPLACE TEMP TABLE whole_row AS SELECT {columns}, cold "
            f"FROM ({self._shelf.source(_LEDGER_COLUMNS)}) "
            "SEMI JOIN dirty_boot USING (device, key_id, boot)"
        )
        execute(
            "CREATE OR REPLACE TEMP TABLE timed_before AS "
            f"SELECT device, key_id, seq, at_s FROM ({clock.timed('whole_row', self._known)})"
        )
        mine = self._rows.singly(fold.take(rows, dirty[number]))
        mine |= {"seq": mine["first_seq"], "time_s": mine["first_time_s"]}
        names = ("seq", *_CLOCK_COLUMNS, *_FACT_COLUMNS)
        with registered(self._connection, "mine", {name: mine[name] for name in ("owner", *names)}):
            execute(
                f"INSERT INTO whole_row BY NAME SELECT device, key_id, {', '.join(names)}, "
                "false AS cold "
                "FROM mine JOIN owner USING (owner)"
            )
        known = None
        if self._known:
            known = "boot_now"
            needed = (
                "owner",
                "boot",
                "best",
                "boot_cs",
                "anchor_seq",
                "most_cs",
                "least_cs",
                "falls",
            )
            with registered(self._connection, "again", {name: again[name] for name in needed}):
                execute(
                    "CREATE OR REPLACE TEMP TABLE boot_now AS SELECT * EXCLUDE (owner) "
                    "FROM again JOIN owner USING (owner)"
                )
        execute(
            "CREATE OR REPLACE TEMP TABLE timed_now AS "
            f"SELECT device, key_id, boot, seq, at_s FROM ({clock.timed('whole_row', known)})"
        )
        whole = self._columns(
            "SELECT owner, boot, seq::BIGINT AS seq, period_s, uptime_cs, time_s, clock, cold, "
            f"coalesce(at_s, {NEVER_S})::BIGINT AS at_s "
            "FROM whole_row JOIN dirty_boot USING (device, key_id, boot) "
            "LEFT JOIN timed_now USING (device, key_id, boot, seq) ORDER BY owner, boot, seq"
        )
        _as_stretches(whole)
        whole["trust"] = fold.trust(whole)
        true = fold.boots(whole)
        first = np.flatnonzero(fold.begins(whole["owner"], whole["boot"]))
        true["to_s"] = np.maximum.reduceat(whole["at_s"], first)
        true["whole"] = again["whole"] | np.logical_or.reduceat(whole["cold"], first)
        # Of what is gone holds what was known.
        held = {"owner": whole["owner"], "boot": whole["boot"], "seq": whole["seq"]}
        gone = ~_has_anchor(again, held) & ~fold.mended(again)
        for name, column in true.items():
            keeps = gone & (name not in ("to_s", "whole"))
            boots[name][dirty] = np.where(keeps, again[name], column)
        return self._columns(
            "SELECT board, unnest([n.at_s, o.at_s])::BIGINT AS at_s "
            "FROM timed_now AS n FULL JOIN timed_before AS o USING (device, key_id, seq) "
            "JOIN board USING (device) WHERE n.at_s IS DISTINCT FROM o.at_s",
            "at_s IS NOT NULL",
        )

    # -- what they change ----------------------------------------------------------------------

    def _extend(self, rows: Columns, last_s: Ints) -> Columns:
        """Lay what comes after all that was there; return (board, at_s) of what else changes."""
        rows = self._by_time(rows, last_s)
        fact = fold.facts(rows)
        late = rows["first_at_s"] <= last_s[rows["board"]]
        points = {"board": rows["board"][:0], "at_s": rows["first_at_s"][:0]}
        if late.any():
            points = self._changing(fold.take(rows, late), fact[late])
            rows, fact = fold.take(rows, ~late), fact[~late]
        if not len(fact):
            return points
        board, end_s = rows["board"], rows["last_at_s"]
        boards = board[fold.begins(board)]
        before_s = last_s[boards]
        since_s = fold.since(board, rows["first_at_s"], end_s, rows["period_s"], before_s)
        new = fold.laid(board, since_s, end_s, rows["period_s"], fact)
        ranges = {
            "board": boards,
            "low_s": before_s,
            "high_s": np.full(len(boards), END_S),
        }
        self._laid.append((ranges, new))
        if rows["air"].any():
            pieces = rows | {"start_s": since_s, "end_s": end_s}
            self._heard.append((ranges, self._sky.sightings(pieces)))
        return points

    def _by_time(self, rows: Columns, last_s: Ints) -> Columns:
        """Return stretches by (board, time), one by one what does not lie apart.

        Of reports with equal times the highest (key, seq) comes first.
        """
        several = rows["last"] > rows["first"]
        late = several & (rows["first_at_s"] <= last_s[rows["board"]])
        if late.any():
            rows = self._rows.singly(rows, late)
        rows = _sorted(rows)
        across = fold.crossing(rows["board"], rows["first_at_s"], rows["last_at_s"])
        across &= rows["last"] > rows["first"]
        return _sorted(self._rows.singly(rows, across)) if across.any() else rows

    def _changing(self, late: Columns, fact: Ints) -> Columns:
        """Return (board, at_s) of late reports that say something new."""
        at_s = late["first_at_s"]
        asked = {"board": late["board"], "at_s": at_s, "number": np.arange(len(fact))}
        with registered(self._connection, "late", asked):
            inside = self._columns(
                f"SELECT number, coalesce(start_s, {END_S})::BIGINT AS start_s, "
                "coalesce(end_s, 0) AS end_s, coalesce(period_s, 0) AS period_s, "
                f"{', '.join(f'coalesce({n}::UTINYINT, 0) AS {n}' for n in fold.FACTS)} "
                "FROM (SELECT * FROM late JOIN board USING (board)) AS late "
                "ASOF LEFT JOIN interval "
                "ON late.device = interval.device AND late.at_s > interval.start_s "
                "ORDER BY number"
            )
        inside["fact"] = fold.packed(inside)
        period_s = late["period_s"].astype(np.int64)
        changes = ~fold.changes_nothing(at_s, period_s, fact, inside)
        changes |= (late["air"] > 0) | self._is_sighting(asked)
        return {"board": late["board"][changes], "at_s": at_s[changes]}

    def _alive(self, points: Columns, longest_s: Ints) -> Columns:
        """Return the points whose neighbours are still there; what is older stays as it is."""
        if self._expired_s is None:
            return points
        reach_s = longest_s[points["board"]] * 5 // 2 + 1
        return fold.take(points, points["at_s"] - reach_s >= self._expired_s)

    def _relay(self, points: Columns, longest_s: Ints) -> None:
        """Lay anew whatever reports at given times may have changed, by all reports around."""
        if not len(points["at_s"]):
            return
        order = np.argsort(fold.moment(points["board"], points["at_s"]), kind="stable")
        board, at_s = points["board"][order], points["at_s"][order]
        # Farther than its grace no report of the board reaches back.
        reach_s = longest_s[board] * 5 // 2 + 1
        apart = fold.begins(board)
        apart[1:] |= at_s[1:] - at_s[:-1] > 2 * reach_s[1:]
        first = np.flatnonzero(apart)
        last = np.append(first[1:], len(board)) - 1
        windows = {
            "number": np.arange(len(first)),
            "board": board[first],
            "low_s": at_s[first] - reach_s[first],
            "high_s": at_s[last] + reach_s[first],
        }
        rows = self._around(windows)
        fact = fold.facts(rows)
        ranges = {name: windows[name] for name in ("board", "low_s")}
        ranges["high_s"] = at_s[last].copy()
        if len(fact):
            start = np.flatnonzero(fold.begins(rows["number"]))
            stop = np.append(start[1:], len(fact)) - 1
            number = rows["number"][start]
            ranges["high_s"][number] = np.maximum(at_s[last][number], rows["at_s"][stop])
            # The first one only tells where the next begins, if it was there before.
            told = rows["at_s"][start] < at_s[first][number]
            ranges["low_s"] = ranges["low_s"].copy()
            ranges["low_s"][number[told]] = rows["at_s"][start][told]
        before_s = np.full(int(fold.begins(rows["number"]).sum()), NEVER_S)
        since_s = fold.since(rows["number"], rows["at_s"], rows["at_s"], rows["period_s"], before_s)
        new = fold.laid(rows["number"], since_s, rows["at_s"], rows["period_s"], fact)
        new = fold.take(new, new["end_s"] > ranges["low_s"][new["board"]])
        low_s = ranges["low_s"][new["board"]]
        new["start_s"] = np.maximum(new["start_s"], low_s)
        new["board"] = windows["board"][new["board"]]
        self._laid.append((ranges, new))
        since_s = np.maximum(since_s, ranges["low_s"][rows["number"]])
        board = windows["board"][rows["number"]]
        pieces = {"board": board, "start_s": since_s, "end_s": rows["at_s"], "air": rows["air"]}
        self._heard.append((ranges, self._sky.sightings(pieces)))

    def _around(self, windows: Columns) -> Columns:
        """Return the reports in windows by time, the one that holds first."""
        execute = self._connection.execute
        with registered(self._connection, "given", windows):
            execute(
                "CREATE OR REPLACE TEMP TABLE span AS "
                "SELECT number, device, low_s, high_s FROM given JOIN board USING (board)"
            )
        columns = ", ".join(_AROUND_COLUMNS)
        execute(
            "CREATE OR REPLACE TEMP TABLE looked AS SELECT device, key_id, boot, best, boot_cs, "
            f"whole OR ({_MENDED}) AS in_whole FROM boot "
            "SEMI JOIN span USING (device)"
        )
        near = self._shelf.source(
            _AROUND_COLUMNS, int(windows["low_s"].min()), int(windows["high_s"].max())
        )
        parts = [
            f"""SELECT {columns}, CASE WHEN {clock.TRUST} = best THEN time_s::BIGINT
                    ELSE (boot_cs + uptime_cs) // 100 END AS at_s
                FROM ({near}) JOIN (FROM looked WHERE NOT in_whole AND best > 0)
                    USING (device, key_id, boot)"""
        ]
        ((whole,),) = execute("SELECT count(*) FROM looked WHERE in_whole").fetchall()
        if whole:
            execute(
                f"CREATE OR REPLACE TEMP TABLE whole_row AS SELECT {columns} "
                f"FROM ({self._shelf.source(_AROUND_COLUMNS)}) "
                "SEMI JOIN (FROM looked WHERE in_whole) USING (device, key_id, boot)"
            )
            parts.append(f"SELECT {columns}, at_s FROM ({clock.timed('whole_row', self._known)})")
        execute(
            "CREATE OR REPLACE TEMP TABLE around AS SELECT r.*, number "
            f"FROM ({' UNION ALL '.join(parts)}) AS r JOIN span ON span.device = r.device "
            "AND at_s BETWEEN low_s AND high_s"
        )
        return self._aired(
            f"SELECT number, at_s, period_s, {', '.join(_FACT_COLUMNS)}",
            "FROM around ORDER BY number, at_s, key_id DESC, seq DESC",
        )

    def _lay(self) -> None:
        """Put new intervals in the place of what was in ranges."""
        names = ("board", "start_s", "end_s", "period_s", *fold.FACTS)
        laid = self._touched("interval", names, self._laid, "")
        laid["fact"] = fold.packed(laid)
        for name in fold.FACTS:
            del laid[name]
        for ranges, new in self._laid:
            laid = fold.relaid(laid, ranges, new)
        laid |= fold.spelled(laid.pop("fact"))
        self._replace("interval", INTERVAL, laid)

    def _touched(
        self,
        table: str,
        names: tuple[str, ...],
        edits: list[tuple[Columns, Columns]],
        condition: str,
    ) -> Columns:
        """Return what stands in the ranges of edits or beside them, by board and time.

        A table is looked at before all of its changes: of rows that the same transaction put
        there, DuckDB 2.0.0 sometimes gives others by `rowid`, or none and ends the process.
        """
        if edits:
            ranges = fold.joint(*(each for each, _ in edits))
        else:
            ranges = dict.fromkeys(("board", "low_s", "high_s"), np.zeros(0, np.int64))
        with registered(self._connection, "given", ranges):
            self._connection.execute(
                "CREATE OR REPLACE TEMP TABLE touched AS "
                f"SELECT DISTINCT {table}.rowid AS number, board, {table}.* "
                f"FROM {table} JOIN board USING (device) JOIN given USING (board) "
                f"WHERE end_s >= low_s AND start_s <= high_s{condition}"
            )
        return self._columns(f"SELECT {', '.join(names)} FROM touched ORDER BY board, start_s")

    def _replace(self, table: str, columns: Mapping[str, str], rows: Columns) -> None:
        """Put rows in the place of those touched."""
        execute = self._connection.execute
        execute(f"DELETE FROM {table} WHERE rowid IN (SELECT number FROM touched)")
        with registered(self._connection, "given", rows):
            execute(
                f"INSERT INTO {table} BY NAME "
                f"SELECT {', '.join(columns)} FROM given JOIN board USING (board)"
            )

    # -- which access points they heard ----------------------------------------------------------

    def _aired(self, select: str, source: str) -> Columns:
        """Return columns and `air`: what each row heard as a number, 0 for nothing."""
        table, _, _ = source.partition(" ORDER BY ")
        query = f"SELECT count(*) {table} WHERE heard_all IS NOT NULL"
        ((scans,),) = self._connection.execute(query).fetchall()
        rows = self._columns(f"{select}, {air.KEY if scans else 0} AS air {source}")
        if scans:
            rows["air"] = self._sky.numbers(rows["air"])
        return rows

    def _is_sighting(self, asked: Columns) -> Bools:
        """Tell at which of given (board, at_s) something is known of the air."""
        found = np.zeros(len(asked["at_s"]), np.bool_)
        if not len(found):
            return found
        with registered(self._connection, "late", asked):
            numbers = self._columns(
                "SELECT DISTINCT number FROM sighting JOIN board USING (device) "
                "JOIN late USING (board) WHERE start_s < at_s AND at_s <= end_s "
                f"AND end_s >= {int(asked['at_s'].min())}"
            )["number"]
        found[numbers] = True
        return found

    def _hear(self) -> None:
        """Put what reports heard in the place of what was in ranges."""
        if not self._heard:
            return
        low_s = np.concatenate([ranges["low_s"] for ranges, _ in self._heard])
        there = low_s > NEVER_S  # a board of which nothing was known has no sighting
        least_s = int(low_s[there].min()) if there.any() else END_S
        names = ("board", "bssid", "start_s", "end_s", "well")
        found = self._touched("sighting", names, self._heard, f" AND end_s >= {least_s}")
        if len(found["board"]) or any(len(new["board"]) for _, new in self._heard):
            for ranges, new in self._heard:
                found = air.relaid(found, ranges, new)
            self._replace("sighting", SIGHTING, found)

    # -- SQL -----------------------------------------------------------------------------------

    def _columns(self, query: str, condition: str = "") -> Columns:
        if condition:
            query = f"SELECT * FROM ({query}) WHERE {condition}"
        found: Columns = self._connection.execute(query).fetchnumpy()
        return found

    def _put(self, name: str, columns: Mapping[str, str], rows: Columns) -> None:
        """Replace all rows of the owners."""
        self._connection.execute(
            f"DELETE FROM {name} USING owner AS o "
            f"WHERE {name}.device = o.device AND {name}.key_id = o.key_id"
        )
        self._insert(name, columns, rows)

    def _insert(self, name: str, columns: Mapping[str, str], rows: Columns) -> None:
        with registered(self._connection, "given", rows):
            self._connection.execute(
                f"INSERT INTO {name} BY NAME SELECT {', '.join(columns)} "
                "FROM given JOIN owner USING (owner)"
            )


def _has_anchor(boots: Columns, rows: Columns) -> Bools:
    """Tell of which boots, sorted by (owner, boot), the report is there by which they are timed."""
    key = rows["owner"] << 16 | rows["boot"]
    at = np.searchsorted(key, boots["owner"] << 16 | boots["boot"])
    count = np.diff(np.append(at, len(key)))
    which = np.repeat(np.arange(len(at)), count)
    found = np.zeros(len(at), np.bool_)
    found[which[rows["seq"] == boots["anchor_seq"][which]]] = True
    return found


def _but_owner(columns: Mapping[str, str]) -> str:
    return ", ".join(name for name in columns if name not in ("device", "key_id"))


def _aligned(found: Columns, made: Columns) -> tuple[Columns, Bools]:
    """Return for each boot that was made the one that was there, and whether there was one."""
    if not len(found["owner"]):
        return made, np.zeros(len(made["owner"]), np.bool_)
    have, want = (each["owner"] << 16 | each["boot"] for each in (found, made))
    at = np.minimum(np.searchsorted(have, want), len(have) - 1)
    return fold.take(found, at), have[at] == want


def _as_stretches(rows: Columns) -> None:
    """Let reports that were read be stretches of one."""
    for end in ("first", "last"):
        rows[f"{end}_seq"] = rows["seq"]
        rows[f"{end}_time_s"] = rows["time_s"].astype(np.int64)
    rows["least_cs"] = rows["most_cs"] = rows["first_time_s"] * 100 - rows["uptime_cs"]


def _sorted(rows: Columns) -> Columns:
    """Return stretches by (board, time), of equal times the highest (key, seq) first."""
    key = fold.moment(rows["board"], rows["first_at_s"])
    if (key[1:] > key[:-1]).all():
        return rows
    return fold.take(rows, np.lexsort((-rows["first_seq"], -rows["owner"], key)))
