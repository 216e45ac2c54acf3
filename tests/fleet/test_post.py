"""Moved and replaced boards: each report counts for the room in which it was made."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import fleet.cli
from firmware.linkreport import table
from fleet import inventory, report, uptime
from fleet.inventory import Inventory
from fleet.period import Period
from fleet.post import Post, active, posts
from fleet.stint import FOREVER_S, Stint
from tests.fleet.town import DAY_S, LINE_CUT, TestBoard, Town, fill_store, layers

HOUR = Period(DAY_S, DAY_S + 3600)
LATER_S = DAY_S + 86_400
NO_LEASE = {
    "state": table.DOWN,
    "layer": table.ADDRESSING,
    "reason": table.NO_LEASE,
    "layer_reasons": layers(addressing=table.NO_LEASE, gateway=0, resolver=0, internet=0),
}


class Moving(Town):
    """A town whose boards may have a past: what the registry says besides, by board."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["goethe-schule", "hotspot"])
        self.past: dict[str, dict[str, Any]] = {}

    def _registered(self, board: TestBoard) -> dict[str, Any]:
        return super()._registered(board) | self.past.get(board.id, {})


def _at(minute: int) -> datetime:
    return datetime.fromtimestamp(DAY_S + 60 * minute, UTC)


def _s(minute: int) -> int:
    return DAY_S + 60 * minute


@pytest.fixture
def town(tmp_path: Path) -> Moving:
    return Moving(tmp_path / "city")


@pytest.fixture
def replaced(town: Moving) -> tuple[Inventory, TestBoard, TestBoard]:
    """Board 0 hung in goethe-schule 101 until minute 30, then board 2, from the hotspot."""
    old, _, new, _ = town.boards
    new.site, new.room = old.site, old.room
    town.past[old.id] = {"retired": _at(30), "replaced_by": new.id}
    town.past[new.id] = {
        "since": _at(30),
        "earlier": [{"site": "hotspot", "room": "201", "until": _at(30)}],
    }
    return town.write(), old, new


def test_a_room_goes_on_with_the_board_that_replaced_another(
    replaced: tuple[Inventory, TestBoard, TestBoard],
) -> None:
    city, old, new = replaced
    fill_store(
        city,
        [
            # The old one goes on reporting after it was replaced: that counts for nobody.
            (old, [*old.series(_s(0), 30), *old.series(_s(30), 30, **NO_LEASE)]),
            (new, [*new.series(_s(0), 30, **LINE_CUT), *new.series(_s(30), 30)]),
        ],
    )
    goethe, hotspot = uptime.find(city, HOUR).sites
    room, _ = goethe.boards
    assert (room.board, room.room) == (new.id, "101")
    assert room.tally.seconds[table.UP] == 3600
    assert room.stints == (
        Stint(new.id, old.id, "goethe-schule", 0, _s(30)),
        Stint(new.id, new.id, "goethe-schule", _s(30), FOREVER_S),
    )
    assert goethe.line.seconds[table.UP] == 3600
    before = hotspot.boards[0]
    assert (before.board, before.room, before.stints[0].end_s) == (new.id, "201", _s(30))
    assert before.tally.seconds[table.DOWN] == 1800
    assert before.tally.seconds[table.UNKNOWN] == 1800
    assert hotspot.line.seconds[table.DOWN] == 1800
    # Later nobody hangs there: the place is no more, and not "unknown" for ever.
    assert [b.room for b in uptime.find(city, Period(_s(30), LATER_S)).sites[1].boards] == ["202"]


def test_a_moved_board_takes_none_of_its_past_along(town: Moving) -> None:
    board, _, _, other = town.boards
    board.site, board.room = other.site, other.room
    town.past[board.id] = {
        "since": _at(20),
        "earlier": [{"site": "goethe-schule", "room": "101", "until": _at(20)}],
    }
    city = town.write()
    fill_store(city, [(board, [*board.series(_s(0), 20, **LINE_CUT), *board.series(_s(20), 40)])])
    goethe, hotspot = uptime.find(city, HOUR).sites
    assert [(b.room, b.tally.seconds[table.DOWN]) for b in goethe.boards] == [
        ("101", 1200),
        ("102", 0),
    ]
    assert goethe.line.seconds[table.DOWN] == 1200
    assert hotspot.line.seconds[table.UP] == 2400
    found = report.outages(city, HOUR, now_s=LATER_S, with_evidence=True).found
    assert [(e.outage.kind, e.site, e.room, e.board) for e in found] == [
        ("line", "goethe-schule", "", ""),
        ("board", "goethe-schule", "101", board.id),
    ]
    assert all(each.evidence and each.evidence.board == board.id for each in found)


def test_an_outage_across_a_replacement_is_one(
    replaced: tuple[Inventory, TestBoard, TestBoard],
) -> None:
    city, old, new = replaced
    fill_store(
        city,
        [
            (old, [*old.series(_s(0), 20), *old.series(_s(20), 10, **NO_LEASE)]),
            # Down elsewhere, at a time in which it has nothing to do with that room.
            (new, [*new.series(_s(0), 30, **NO_LEASE), *new.series(_s(30), 10, **NO_LEASE)]),
            (new, new.series(_s(40), 10)),
        ],
    )
    found = report.outages(city, HOUR, "goethe-schule", now_s=LATER_S, with_evidence=True).found
    (outage,) = found
    assert (outage.outage.start_s, outage.outage.end_s) == (_s(20), _s(40))
    assert (outage.room, outage.alone_in_room) == ("101", True)
    document = outage.document(report.outages(city, HOUR, now_s=LATER_S).zone)
    assert (document["board"], document["boards"]) == (new.id, [old.id, new.id])
    assert document["evidence"]["board"] == old.id
    assert document["evidence"]["time"] == "2025-11-22T01:21:00+01:00"


def test_tables_name_all_that_held_a_place(
    replaced: tuple[Inventory, TestBoard, TestBoard], capsys: pytest.CaptureFixture[str]
) -> None:
    city, old, new = replaced
    fill_store(city, [(old, old.series(_s(0), 10)), (new, new.series(_s(30), 10))])
    period = ["--from", "2025-11-22T01:00", "--to", "2025-11-22T02:00", "--city", str(city.folder)]
    said = []
    for option in ([], ["--json"]):
        with pytest.raises(SystemExit):
            fleet.cli.main(["fleet", "uptime", *period, *option])
        said.append(capsys.readouterr().out)
    assert f"101  {new.id} (until 22 Nov 01:30:00 {old.id})" in said[0]
    assert f"201  {new.id} (until 22 Nov 01:30:00)" in said[0]
    boards = json.loads(said[1])["sites"][0]["boards"]
    assert boards[0]["held_by"] == [
        {"board": old.id, "since": None, "until": "2025-11-22T01:30:00+01:00"},
        {"board": new.id, "since": "2025-11-22T01:30:00+01:00", "until": None},
    ]


def test_posts_follow_a_line_of_replacements(town: Moving) -> None:
    """First, second, first again after a repair: one place all the time."""
    first, second, *_ = town.boards
    second.room = first.room
    stay = {"site": first.site, "room": first.room}
    town.past[first.id] = {
        "since": _at(20),
        "earlier": [stay | {"until": _at(10), "replaced_by": second.id}],
    }
    town.past[second.id] = {"since": _at(10), "retired": _at(20), "replaced_by": first.id}
    city = town.write()
    (place,) = (each for each in posts(city) if each.room == "101")
    assert place == Post(
        first.id,
        first.site,
        first.room,
        (
            Stint(first.id, first.id, first.site, 0, _s(10)),
            Stint(first.id, second.id, first.site, _s(10), _s(20)),
            Stint(first.id, first.id, first.site, _s(20), FOREVER_S),
        ),
    )
    assert first.id in active(city, HOUR)


def test_a_registry_that_goes_in_circles_is_no_trap(town: Moving) -> None:
    first, second, *_ = town.boards
    second.room = first.room
    for one, other in ((first, second), (second, first)):
        town.past[one.id] = {"since": _at(5), "retired": _at(5), "replaced_by": other.id}
    city = town.write()
    assert {post.room for post in posts(city)} == {"101", "201", "202"}


def test_a_registry_without_a_past_reads_as_before(town: Moving) -> None:
    city = town.write()
    assert [post.stints for post in posts(city)] == [
        (Stint(board.id, board.id, board.site),) for board in town.boards
    ]
    (town.folder / "registry.toml").write_text(tomli_w.dumps({"version": 1}))
    assert posts(inventory.load(town.folder)) == []
