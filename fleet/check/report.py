"""The last word of every board and line, as of its gateway's last collection or right now.

Of what was in maintenance then nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from firmware.linkreport import table, term
from fleet import exclusion, post, visit
from fleet.check.answer import Answer
from fleet.check.scope import Scope
from fleet.errors import StoreError
from fleet.gateway.status import SILENT_S
from fleet.inventory import Board, Inventory
from fleet.ledger import Interval, Ledger
from fleet.period import Period, duration
from fleet.store import Store

PART = "reports"

# How far back the last word of a board or a line is looked for.
_LOOK_BACK_S = 86_400
_SILENT_PERIODS = 5
# So often a board may start anew in a day: the power was off, somebody moved it.
_RESTARTS = 3


def silent_s(city: Inventory) -> int:
    """Return how much of what its gateway had a board must have missed to count as silent."""
    return max(SILENT_S, _SILENT_PERIODS * city.measurement.period_s)


def look(scope: Scope, answer: Answer) -> None:
    """Look at lines and boards."""
    store = Store(scope.city.folder)
    answer.measured |= {"lines_down", "sites_silent", "boards_silent", "boards_down"}
    answer.measured |= {"boards_rebooting", "boards_outdated"}
    period = Period(scope.now_s - _LOOK_BACK_S, scope.now_s)
    boards: dict[str, Interval] = {}
    lines: dict[str, Interval] = {}
    restarts: dict[str, int] = {}
    try:
        with store.reading() as connection:
            stints = post.stints(post.posts(scope.city))
            ledger = Ledger(connection, period, stints)
            boards, lines = _last(ledger.intervals("board")), _last(ledger.intervals("line"))
            restarts = _restarts(connection, period)
    except StoreError as error:
        answer.doubt(PART, scope.city.city.name, error.message)
        if not scope.live:
            return
    collected_s = _collections(scope, answer)
    for site_id in scope.sites:
        _look_at_site(scope, answer, site_id, _Word(boards, lines, restarts, collected_s, period))
    _look_at_agents(scope, answer)


class _Word:
    """What is known of boards and lines, and as of when."""

    def __init__(
        self,
        boards: Mapping[str, Interval],
        lines: Mapping[str, Interval],
        restarts: Mapping[str, int],
        collected_s: Mapping[str, float],
        period: Period,
    ) -> None:
        self.boards = boards
        self.lines = lines
        self.restarts = restarts
        self.collected_s = collected_s
        self.period = period


def _look_at_site(scope: Scope, answer: Answer, site_id: str, word: _Word) -> None:
    site, silent_after_s = scope.sites[site_id], silent_s(scope.city)
    collected_s = word.collected_s[site.gateway]
    live = scope.live.get(site.gateway)
    resting = exclusion.resting(scope.city, scope.now_s if live else int(collected_s))
    if site_id in resting:
        return
    heard_s = collected_s - silent_after_s
    line = word.lines.get(site_id)
    line_down = line is not None and line.state == table.DOWN and line.end_s >= heard_s
    if line_down:
        answer.see(PART, "lines_down", site.name, "the line is down")
    # One that was only just enrolled had no time to report.
    known_s = (scope.now_s if live else collected_s) - silent_after_s
    here = {
        board_id: board
        for board_id, board in scope.boards.items()
        if board.site == site_id
        and board_id not in resting
        and (board_id in word.boards or board.enrolled.timestamp() < known_s)
    }
    silent = 0
    for board_id, board in here.items():
        subject = f"{site.name}, {board.room} ({board_id})"
        found = word.boards.get(board_id)
        told = _silence(scope, word, board_id, board)
        if told:
            silent += 1
            answer.see(PART, "boards_silent", subject, told)
        elif (
            found
            and found.state == table.DOWN
            and found.end_s >= heard_s
            and not (line_down and found.layer == table.INTERNET)
        ):
            message = f"down: {_layer(found.layer)}, {term.reason_name(found.reason)}"
            answer.see(PART, "boards_down", subject, message)
        if word.restarts.get(board_id, 0) > _RESTARTS:
            message = f"restarted {word.restarts[board_id]} times within a day"
            answer.see(PART, "boards_rebooting", subject, message)
    if here and silent == len(here):
        answer.see(PART, "sites_silent", site.name, "all its boards are silent")


def _silence(scope: Scope, word: _Word, board_id: str, board: Board) -> str:
    """Return for how long a board is silent, in words; nothing if it is not."""
    gateway = scope.sites[board.site].gateway
    live, found = scope.live.get(gateway), word.boards.get(board_id)
    if live is not None:
        if board_id not in live.silent:
            return ""
        if live.silent[board_id]:
            since_s = live.time_ms // 1000 - live.silent[board_id]
            return f"silent for {duration(max(0, since_s))}"
    elif found is not None:
        silence_s = word.collected_s[gateway] - found.end_s
        return f"silent for {duration(int(silence_s))}" if silence_s > silent_s(scope.city) else ""
    if board.enrolled.timestamp() > word.period.start_s:
        return "silent since it was flashed"
    return "silent for a day or more"


def _restarts(connection: duckdb.DuckDBPyConnection, period: Period) -> dict[str, int]:
    """Return how often each board restarted, by the times at which it made its reports."""
    found = connection.execute(
        "SELECT device, count(DISTINCT (key_id, boot)) - 1 FROM report"
        " WHERE time_s BETWEEN ? AND ? GROUP BY device",
        (period.start_s, period.end_s),
    )
    return {str(device): int(count) for device, count in found.fetchall()}


def _collections(scope: Scope, answer: Answer) -> dict[str, float]:
    """Return when each gateway was collected last, and say which were not for long."""
    visits = visit.load(Store(scope.city.folder).folder)
    collected_s: dict[str, float] = {}
    for gateway_id in sorted({site.gateway for site in scope.sites.values()}):
        last = visits.get(gateway_id)
        collected_s[gateway_id] = last.collected.timestamp() if last else scope.now_s
        if last:
            age_s = max(0, int(scope.now_s - collected_s[gateway_id]))
            message = f"was not collected for {duration(age_s)}"
            answer.see(PART, "collection_age", gateway_id, message, age_s)
    return collected_s


def _look_at_agents(scope: Scope, answer: Answer) -> None:
    """Tell which boards were flashed with an older agent than the newest one in the city."""
    newest = max((_version(board.agent) for board in scope.city.boards.values()), default=())
    for board_id, board in scope.boards.items():
        if _version(board.agent) < newest:
            subject = f"{scope.sites[board.site].name}, {board.room} ({board_id})"
            message = f"has agent {board.agent}, others have {'.'.join(map(str, newest))}"
            answer.see(PART, "boards_outdated", subject, message)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _last(intervals: Sequence[Interval]) -> dict[str, Interval]:
    """Return the last interval of each subject in which something is known."""
    known = (table.UP, table.DEGRADED, table.DOWN)
    return {each.subject: each for each in intervals if each.state in known}


def _layer(number: int) -> str:
    return term.LAYERS[number] if number < len(term.LAYERS) else f"layer-{number}"
