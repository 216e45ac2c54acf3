"""Causes and what they are found from, held against a slow reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.linkreport import table
from fleet import cause, correlate, post
from fleet.cause import Seen
from fleet.inventory import Inventory
from fleet.ledger import Interval
from fleet.outage import Kind, Outage
from fleet.period import Period
from tests.fleet import cause_reference
from tests.fleet.cause_reference import Heard
from tests.fleet.town import DAY_S, TestBoard, Town

POINT = "02:00:00:00:00:01"


@st.composite
def _down(draw: st.DrawFn, subject: str, kind: Kind, layer: int) -> Outage:
    """One outage; it may flap."""
    at_s = draw(st.sampled_from([0, 100, 200, 299, 300, 301, 450, 600, 900]))
    start_s, down = at_s, []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        end_s = at_s + draw(st.sampled_from([1, 60, 100, 250, 400, 900]))
        down.append((at_s, end_s))
        at_s = end_s + draw(st.integers(1, 60))
    return Outage(
        kind, subject, start_s, down[-1][1], "recovered", {(layer, 1): 1}, (subject,), tuple(down),
        len(down),
    )  # fmt: skip


@st.composite
def _everything(draw: st.DrawFn) -> list[Seen]:
    found = []
    for site in draw(st.sets(st.sampled_from("abc"))):
        shared = {
            "district": draw(st.sampled_from(["", "north"])),
            "provider": draw(st.sampled_from(["", "p", "q"])),
        }
        down = draw(_down(site, "line", table.INTERNET))
        found.append(Seen(down, site, **shared))
    for name, site in (("x", "a"), ("y", "a"), ("z", "b")):
        if draw(st.booleans()):
            down = draw(_down(f"access-point/{name}", "access-point", table.RADIO))
            found.append(Seen(down, site, access_point=name))
    for number in range(draw(st.integers(0, 8))):
        site = draw(st.sampled_from(["a", "a", "b", "c", ""]))
        layer = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 9]))
        found.append(
            Seen(
                draw(_down(f"np-{number}", "board", layer)),
                site,
                draw(st.sampled_from(["1", "2"])) if site else "",
                f"np-{number}",
                access_point=draw(st.sampled_from(["", "x", "y", "x", "other"])),
                in_company=draw(st.booleans()),
            )
        )
    return found


@settings(max_examples=400, deadline=None)
@given(found=_everything())
def test_causes_are_those_of_the_slow_reference(found: list[Seen]) -> None:
    told = {
        (each.kind, each.name, frozenset(cause_reference._name(one) for one in each.outages))
        for each in cause.find(found)
    }
    assert told == cause_reference.find(found)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    """Two boards in one room, one in another, all behind one gateway."""
    town = Town(tmp_path_factory.mktemp("town") / "city")
    town.boards.append(TestBoard("np-240ac4000019", "goethe-schule", "101"))
    town.points["aula"] = {"site": "goethe-schule", "bssids": [POINT]}
    return town.write()


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as memory:
        memory.execute(
            "CREATE TABLE report (device VARCHAR, time_s BIGINT, key_id INT, boot INT, bssid BLOB)"
        )
        yield memory


@st.composite
def _reports(draw: st.DrawFn, boards: list[str]) -> list[Heard]:
    found: dict[tuple[str, int], Heard] = {}
    for board in boards:
        for at_s in draw(st.lists(st.sampled_from(_TIMES), max_size=8)):
            bssid = draw(st.sampled_from([None, b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"]))
            boot = draw(st.integers(1, 2))
            found[board, at_s] = Heard(board, DAY_S + at_s, 1, boot, bssid)
    return list(found.values())


# Around a day before and after, and around the silences below.
_TIMES = [-86_401, -86_400, -86_399, -10, 0, 1, 600, 900, 1800, 2700, 3600, 90_000, 200_000]


@st.composite
def _intervals(draw: st.DrawFn, board: str) -> list[Interval]:
    found, at_s = [], DAY_S
    states = (table.UP, table.DEGRADED, table.DOWN, table.UNKNOWN, table.UNKNOWN)
    while at_s < DAY_S + 3600:
        end_s = min(DAY_S + 3600, at_s + draw(st.sampled_from([60, 300, 899, 900, 901, 1800])))
        found.append(Interval(board, at_s, end_s, draw(st.sampled_from(states)), 3, 1))
        at_s = end_s
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_known_of_outages_and_silences(
    connection: duckdb.DuckDBPyConnection, city: Inventory, data: Any
) -> None:
    places = {each.subject: each for each in post.posts(city)}
    boards = sorted(places)
    reports = data.draw(_reports(boards))
    connection.execute("TRUNCATE report")
    for each in reports:
        connection.execute("INSERT INTO report VALUES ($1, $2, $3, $4, $5)", list(each))
    by_board = {board: data.draw(_intervals(board)) for board in boards}
    intervals = [each for some in by_board.values() for each in some]
    outages = [
        Outage(
            "board", i.subject, i.start_s, i.end_s, "recovered", {(1, 10): 1}, (i.subject,),
            ((i.start_s, i.end_s),),
        )
        for i in intervals if i.state == table.DOWN
    ]  # fmt: skip
    for seen in correlate.seen(connection, city, places, outages, intervals):
        found = seen.outage
        bssid = cause_reference.access_point(reports, found.subject, found.start_s)
        assert seen.access_point == ("aula" if bssid == POINT else bssid)
        assert seen.in_company is cause_reference.in_company(found, places, intervals)
    period = Period(DAY_S, DAY_S + 3600)
    collected_s = data.draw(st.sampled_from([period.end_s, period.end_s - 600, DAY_S - 5]))
    asked = period, {"gw-1": collected_s}
    told = correlate.silences(connection, city, places, intervals, asked)
    truth = cause_reference.silences(by_board, period.start_s, min(period.end_s, collected_s))
    assert [(each.start_s, each.end_s) for each in told] == truth
    known = [b for b, some in by_board.items() if any(i.state != table.UNKNOWN for i in some)]
    for each in told:
        ran_on = cause_reference.ran_on(reports, known, each.start_s, each.end_s)
        assert (each.kind == "netzpuls") is ran_on
