"""One cause for each outage: rules as properties, and each kind from reports to the table."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fleet.cli
from firmware.linkreport import table
from fleet import cause, correlate, report, visit
from fleet.cause import TOGETHER_S, Cause, Seen
from fleet.inventory import Inventory
from fleet.outage import Outage
from fleet.period import Period
from fleet.report import Outages
from fleet.store import Store
from fleet.visit import Visit
from tests.fleet.town import DAY_S, LINE_CUT, PERIOD_S, TestBoard, Town, fill_store, layers

BEHIND = {table.RESOLVER, table.PORTAL, table.INTERNET, table.SERVICE}


def _seen(draw: st.DrawFn, number: int) -> Seen:
    is_line = draw(st.booleans())
    site = draw(st.sampled_from("abc"))
    start_s = draw(st.integers(0, 1200))
    end_s = start_s + draw(st.integers(1, 900))
    layer = table.INTERNET if is_line else draw(st.integers(1, 9))
    place = f"{site}{number}"
    found = Outage(
        "line" if is_line else "board",
        site if is_line else place,
        start_s,
        end_s,
        draw(st.sampled_from(["recovered", "silence", "ongoing"])),
        {(layer, 1): end_s - start_s},
        (place,),
        ((start_s, end_s),),
    )
    return Seen(
        found,
        site,
        "" if is_line else draw(st.sampled_from(["1", "2"])),
        "" if is_line else place,
        draw(st.sampled_from(["", "north"])) if is_line else "",
        draw(st.sampled_from(["", "p", "q"])) if is_line else "",
        draw(st.sampled_from(["", "aa", "bb"])),
        draw(st.booleans()),
    )


@st.composite
def _many(draw: st.DrawFn) -> list[Seen]:
    found = [_seen(draw, number) for number in range(draw(st.integers(0, 10)))]
    kept: list[Seen] = []
    for each in found:
        if not each.is_line or not any(
            other.is_line and other.site == each.site and _touch(other, each) for other in kept
        ):
            kept.append(each)
    return kept


def _touch(one: Seen, other: Seen) -> bool:
    """Tell whether they are no two outages of one line, but one."""
    return one.outage.start_s <= other.outage.end_s and other.outage.start_s <= one.outage.end_s


def _overlap_s(one: Seen, other: Seen) -> int:
    seconds = [set(range(each.outage.start_s, each.outage.end_s)) for each in (one, other)]
    return len(seconds[0] & seconds[1])


def _is_behind(line: Seen, board: Seen) -> bool:
    return (
        line.site == board.site
        and board.outage.cause[0] in BEHIND
        and 2 * _overlap_s(line, board) >= board.outage.length_s
    )


@settings(max_examples=200, deadline=None)
@given(found=_many(), seed=st.integers(0, 9))
def test_each_outage_has_one_cause_that_explains_it(found: list[Seen], seed: int) -> None:
    causes = cause.find(found)
    explained = [id(each) for one in causes for each in one.outages]
    assert sorted(explained) == sorted(map(id, found))
    shuffled = random.Random(seed).sample(found, len(found))
    assert cause.find(shuffled) == causes
    lines = [each for each in found if each.is_line]
    for one in causes:
        _hold(one, lines)


def _hold(one: Cause, lines: list[Seen]) -> None:
    """Check a cause against what its kind says."""
    mine = [each for each in one.outages if each.is_line]
    boards = [each for each in one.outages if not each.is_line]
    starts = [each.outage.start_s for each in mine or boards]
    assert max(starts) - min(starts) <= TOGETHER_S
    assert one.start_s == min(starts)
    assert one.end_s == max(each.outage.end_s for each in mine or boards)
    if one.kind in ("provider", "district"):
        assert len({each.site for each in mine}) > 1
        assert {getattr(each, one.kind) for each in mine} == {one.name}
        assert one.name
    if mine:
        assert one.kind in ("provider", "district", "line")
        assert all(any(_is_behind(line, each) for line in mine) for each in boards)
        return
    # What a line explains is not told as a cause of its own.
    assert not any(_is_behind(line, each) for line in lines for each in boards)
    layers_seen = {each.outage.cause[0] for each in boards}
    assert len({each.site for each in boards}) == 1
    assert len(layers_seen) == 1 or layers_seen == {table.RADIO, table.ASSOCIATION}
    if one.kind == "access-point":
        assert {each.access_point for each in boards} == {one.name}
        assert len(boards) > 1
    elif one.kind in ("gateway", "site"):
        assert len({each.room for each in boards}) > 1
        assert (one.kind == "gateway") == (layers_seen == {table.GATEWAY})
    elif one.kind == "board":
        assert len(boards) == 1
        assert boards[0].in_company or layers_seen == {table.DEVICE}
    else:
        assert {each.room for each in boards} == {one.name}


HOUR = Period(DAY_S, DAY_S + 3600)
LATER_S = DAY_S + 86_400
UP: dict[str, Any] = {}
POINT, OTHER = b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02"


def _down(layer: int, reason: int, **reasons: int) -> dict[str, Any]:
    found = layers(**reasons)
    return {"state": table.DOWN, "layer": layer, "reason": reason, "layer_reasons": found}


NO_NETWORK = _down(
    table.RADIO, table.NETWORK_NOT_FOUND, radio=table.NETWORK_NOT_FOUND, gateway=0, internet=0
)
MUTE = _down(table.GATEWAY, table.GATEWAY_SILENT, gateway=table.GATEWAY_SILENT, internet=0)
NO_LEASE = _down(table.ADDRESSING, table.NO_LEASE, addressing=table.NO_LEASE, gateway=0, internet=0)
NO_NAMES = _down(table.RESOLVER, table.RESOLVER_SILENT, resolver=table.RESOLVER_SILENT, internet=0)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "city", ["a", "b", "c"])


def _tell(board: TestBoard, *parts: tuple[int, dict[str, Any] | None]) -> list[bytes]:
    raws: list[bytes] = []
    at_s = DAY_S
    for minutes, values in parts:
        if values is not None:
            raws += board.series(at_s, minutes, **values)
        at_s += PERIOD_S * minutes
    return raws


def _ask(town: Town, *told: tuple[int, list[tuple[int, dict[str, Any] | None]]]) -> Outages:
    city: Inventory = town.write()
    boards = dict(told)
    fill_store(
        city,
        [
            (board, _tell(board, *boards.get(number, [(60, UP)])))
            for number, board in enumerate(town.boards)
        ],
    )
    return report.outages(city, HOUR, now_s=LATER_S)


def _kinds(answer: Outages) -> list[tuple[str, str, int]]:
    return [
        (each.kind, each.name, len(each.outages))
        for each in answer.causes
        if each.kind not in ("netzpuls", "silence")
    ]


def _for(values: dict[str, Any], start: int = 10, minutes: int = 10) -> list[Any]:
    return [(start, UP), (minutes, values), (60 - start - minutes, UP)]


def test_lines_of_one_provider_are_one_outage(town: Town) -> None:
    town.providers = {"stadtnetz": {"name": "Stadtnetz"}}
    for site in ("a", "c"):
        town.sites[site]["provider"] = "stadtnetz"
    cut = [(number, _for(LINE_CUT, 10 + number // 2)) for number in (0, 1, 4, 5)]
    answer = _ask(town, *cut)
    assert _kinds(answer) == [("provider", "stadtnetz", 6)]
    (found,) = answer.document()["causes"]
    assert (found["name"], found["sites"], found["lines"]) == (
        "provider Stadtnetz", ["a", "c"], ["a", "c"],
    )  # fmt: skip
    assert (found["length_s"], len(found["rooms"])) == (12 * 60, 4)
    assert all(each.effect for each in answer.found)
    # The same half an hour apart is two outages of lines.
    apart = Town(town.folder.parent / "apart", ["a", "b", "c"])
    apart.providers = town.providers
    for site in ("a", "c"):
        apart.sites[site]["provider"] = "stadtnetz"
    cut = [(0, _for(LINE_CUT)), (1, _for(LINE_CUT))]
    answer = _ask(apart, *cut, (4, _for(LINE_CUT, 40)), (5, _for(LINE_CUT, 40)))
    assert [kind for kind, _, _ in _kinds(answer)] == ["line", "line"]


def test_lines_of_one_district_are_one_outage(town: Town) -> None:
    cut = [(number, _for(LINE_CUT)) for number in range(4)]
    assert _kinds(_ask(town, *cut)) == [("district", "mitte", 6)]
    other = Town(town.folder.parent / "other", ["a", "b", "c"])
    other.sites["b"]["district"] = "nord"
    assert _kinds(_ask(other, *cut)) == [("line", "a", 3), ("line", "b", 3)]


def test_a_line_explains_what_lies_behind_it_alone(town: Town) -> None:
    answer = _ask(town, (0, _for(LINE_CUT)), (1, _for(NO_NAMES, 11, 9)), (2, _for(NO_LEASE)))
    assert _kinds(answer) == [("room", "201", 1), ("line", "a", 3)]
    assert [(each.room, each.effect, each.cause) for each in answer.found] == [
        ("201", False, 0), ("", False, 1), ("101", True, 1), ("102", True, 1),
    ]  # fmt: skip


def test_a_board_that_was_down_for_much_longer_has_its_own_cause(town: Town) -> None:
    answer = _ask(town, (0, _for(LINE_CUT, 10, 5)), (1, _for(NO_NAMES, 10, 40)))
    assert _kinds(answer) == [("line", "a", 2), ("room", "102", 1)]


@pytest.mark.parametrize(
    ("values", "kind"), [(MUTE, "gateway"), (NO_LEASE, "site"), (NO_NETWORK, "site")]
)
def test_what_rooms_of_a_site_share(town: Town, values: dict[str, Any], kind: str) -> None:
    assert _kinds(_ask(town, (0, _for(values)), (1, _for(values, 12)))) == [(kind, "a", 2)]


def test_boards_of_one_access_point(town: Town) -> None:
    def told(point: bytes, values: dict[str, Any]) -> list[Any]:
        on_air = UP | {"bssid": point}
        return [(10, on_air), (10, values), (40, on_air)]

    answer = _ask(
        town,
        (0, told(POINT, NO_NETWORK)), (1, told(POINT, NO_NETWORK)),
        (2, told(POINT, NO_NETWORK)), (3, told(OTHER, NO_NETWORK)),
    )  # fmt: skip
    assert _kinds(answer) == [("access-point", "02:00:00:00:00:01", 2), ("site", "b", 2)]


def test_a_room_and_a_board(town: Town) -> None:
    for board in town.boards[:2]:
        board.room = "101"
    town.boards[3].room = "201"
    answer = _ask(
        town,
        (0, _for(NO_LEASE)), (1, _for(NO_LEASE)),  # both boards of a room
        (2, _for(NO_LEASE)),  # one of two in a room
        (4, _for(NO_LEASE)),  # the only one there
    )  # fmt: skip
    board = town.boards[2].id
    assert sorted(_kinds(answer)) == [("board", board, 1), ("room", "101", 2), ("room", "301", 1)]


def test_flapping_is_one_outage_with_a_count(town: Town) -> None:
    parts: list[Any] = [(10, UP)]
    for _ in range(4):
        parts += [(2, NO_LEASE), (5, UP)]
    parts += [(1, UP), (2, NO_LEASE), (19, UP)]
    answer = _ask(town, (0, parts))
    assert [(each.times, each.start_s - DAY_S, each.end_s - DAY_S) for each in answer.causes] == [
        (4, 600, 600 + 23 * 60), (1, 600 + 29 * 60, 600 + 31 * 60),
    ]  # fmt: skip
    assert [each.outage.length_s for each in answer.found] == [8 * 60, 120]
    # A silence is no recovery: nobody knows whether that was one.
    other = Town(town.folder.parent / "other", ["a", "b", "c"])
    answer = _ask(other, (0, [(10, UP), (2, NO_LEASE), (1, UP), (3, None), (2, NO_LEASE), (9, UP)]))
    assert [each.times for each in answer.causes if each.kind == "room"] == [1, 1]


def test_boards_that_are_registered_nowhere_share_no_cause() -> None:
    """They are at no site that is known, so nothing says that they are at the same."""
    found = []
    for board in ("np-1", "np-2"):
        down = Outage(
            "board", board, 0, 600, "recovered", {(table.GATEWAY, 1): 600}, (board,), ((0, 600),)
        )
        found.append(Seen(down, "", "", board))
    told = sorted((each.kind, each.name) for each in cause.find(found))
    assert told == [("board", "np-1"), ("board", "np-2")]


@pytest.mark.parametrize(("boot", "kind"), [(1, "netzpuls"), (2, "silence")])
def test_what_netzpuls_lost_is_no_outage_of_a_school(town: Town, boot: int, kind: str) -> None:
    gap: list[Any] = [(20, UP), (20, None), (20, UP | {"boot": boot})]
    answer = _ask(town, *((number, gap) for number in range(6)))
    assert [(each.kind, each.name) for each in answer.causes] == [(kind, "gw-1")]
    assert answer.found == ()
    assert (answer.causes[0].start_s, answer.causes[0].end_s) == (DAY_S + 1200, DAY_S + 2400)
    assert answer.summary("line").lengths_s == ()
    one = Town(town.folder.parent / "one", ["a", "b", "c"])
    assert _ask(one, *((number, gap) for number in range(5))).causes == ()


def test_only_reports_around_a_silence_tell_whether_boards_ran_on(town: Town) -> None:
    city = town.write()
    board = town.boards[0]
    week_s = 7 * 86_400
    fill_store(city, [(board, [board.report(DAY_S - week_s), board.report(DAY_S + week_s)])])
    with Store(city.folder).reading() as connection:
        for end_s, lived in ((DAY_S + 3600, False), (DAY_S + week_s - 3600, False)):
            assert correlate._lived(connection, [board.id], DAY_S, end_s) is lived
        start_s, end_s = DAY_S - week_s + 3600, DAY_S + week_s - 3600
        assert correlate._lived(connection, [board.id], start_s, end_s)


def test_what_was_not_collected_yet_is_no_silence(town: Town) -> None:
    city = town.write()
    fill_store(city, [(board, _tell(board, (20, UP))) for board in town.boards])
    for collected_s, silences in ((DAY_S + 1260, 0), (DAY_S + 2400, 1)):
        when = datetime.fromtimestamp(collected_s, UTC)
        visit.remember(Store(city.folder).folder, {"gw-1": Visit(collected=when, certificates={})})
        causes = report.outages(city, HOUR, now_s=LATER_S).causes
        assert len(causes) == silences
    assert (causes[0].end, causes[0].end_s) == ("ongoing", DAY_S + 2400)


def test_the_summary_of_lines(town: Town) -> None:
    answer = _ask(
        town,
        (0, [(10, UP), (10, LINE_CUT), (20, UP), (4, LINE_CUT), (16, UP)]),
        (1, [(10, UP), (10, LINE_CUT), (20, UP), (4, LINE_CUT), (16, UP)]),
        (2, [(56, UP), (4, LINE_CUT)]),
        (3, [(56, UP), (4, LINE_CUT)]),
    )
    found = answer.document()["lines"]
    assert found == {
        "outages": 3,
        "longest_s": 600,
        "mttr_s": 420,
        "mtbf_s": (46 + 56 + 60) * 60 // 3,
    }


def test_the_table(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    _ask(town, (0, _for(LINE_CUT)), (1, _for(LINE_CUT)), (2, _for(NO_LEASE)))
    place = ("--city", str(town.folder), "--from", "2025-11-22T01:00", "--to", "2025-11-22T02:00")

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exited:
            fleet.cli.main(["fleet", "outages", *place, *arguments])
        assert exited.value.code == 0
        return capsys.readouterr().out

    lines = [" ".join(each.split()) for each in run().splitlines()]
    cut = "22 Nov 01:10:00 01:20:00 0:10:00"
    assert lines[2:] == [
        f"A, line {cut} internet: connect-timeout",
        "2 rooms",
        f"B 201 {cut} addressing: no-lease",
        "",
        "outages longest to repair between",
        "lines 1 0:10:00 0:10:00 2:50:00",
        "rooms 3 0:10:00 0:10:00 1:50:00",
        "boards 3 0:10:00 0:10:00 1:50:00",
    ]
    assert [" ".join(each.split()) for each in run("--effects").splitlines()][4:6] == [
        f"101 {cut} internet: connect-timeout",
        f"102 {cut} internet: connect-timeout",
    ]
    document = json.loads(run("--json"))
    assert [(each["kind"], each["outages"]) for each in document["causes"]] == [
        ("line", [0, 1, 2]), ("room", [3]),
    ]  # fmt: skip
