"""Who gets which room."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import UsageError
from fleet.inventory import Board
from provisioning import registry
from provisioning.errors import NoRoomError, ReassignError
from provisioning.flash import Found
from provisioning.room import Question, Rooms
from provisioning.roomlist import Row

SENSOR, MONITOR = "classroom-sensor", "ap-monitor"
ROWS = [Row("R101", SENSOR, line=2), Row("R102", SENSOR, line=3)]


def _found(number: int) -> Found:
    board = f"np-24{number:010x}"
    return Found(f"/dev/ttyUSB{number}", board, "ESP32-D0WD-V3", "24:00:00:00:00:01")


def _enrol(city: Path, number: int, room: str, site: str = "school-north", **more: Any) -> str:
    """Put a board into the registry; return its id."""
    entry = Board(
        site=site,
        room=room,
        role=more.pop("role", SENSOR),
        key_id=1,
        chip="ESP32",
        mac="24:00:00:00:00:01",
        agent="0.1.0",
        enrolled=datetime(2026, 7, 1, tzinfo=UTC),
        certificate_expires=datetime(2036, 7, 1, tzinfo=UTC),
        **more,
    )
    board = _found(number).board
    known = registry.inventory.load(city).boards
    (city / "registry.toml").write_text(registry.render({**known, board: entry}))
    return board


def _rooms(city: Path, rows: list[Row] | None = ROWS, **more: Any) -> Rooms:
    return Rooms(city, "school-north", rows, **more)


def test_rooms_in_the_order_in_which_boards_come(city: Path) -> None:
    rooms = _rooms(city)
    assert [rooms.take(_found(n), "").room for n in (5, 3)] == ["R101", "R102"]
    assert rooms.left == 0
    with pytest.raises(NoRoomError, match="no room is left for np-240000000007 on /dev/ttyUSB7"):
        rooms.take(_found(7), "")
    rooms.give_back(_found(5).board)
    assert rooms.left == 1
    assert rooms.take(_found(7), "").room == "R101"


def test_a_row_that_belongs_to_a_board_or_an_adapter(city: Path) -> None:
    rows = [
        Row("R101", SENSOR, line=2, board=_found(1).board),
        Row("R102", SENSOR, line=3, usb="A50"),
        Row("R102", MONITOR, line=4),
    ]
    rooms = _rooms(city, rows)
    assert rooms.take(_found(3), "").line == 4
    assert rooms.take(_found(2), "A50").line == 3
    assert rooms.take(_found(1), "A50").line == 2
    with pytest.raises(NoRoomError, match=f"{_found(2).board} .*serial number A50"):
        rooms.take(_found(4), "A50")


def test_a_board_that_is_enrolled_keeps_its_room(city: Path) -> None:
    _enrol(city, 1, "R102", role=MONITOR)
    rooms = _rooms(city, [*ROWS, Row("R102", MONITOR, "none", line=4)])
    row = rooms.take(_found(1), "")
    assert (row.room, row.role, row.hardware) == ("R102", MONITOR, "none")
    _enrol(city, 2, "R101")
    assert rooms.take(_found(3), "").room == "R102"
    assert rooms.left == 0


def test_a_room_that_has_its_board_is_given_to_no_other(city: Path) -> None:
    _enrol(city, 1, "R101")
    rooms = _rooms(city)
    assert rooms.left == 1
    assert rooms.take(_found(2), "").room == "R102"
    # It keeps its room although it is on no list.
    assert _rooms(city, ROWS[1:]).take(_found(1), "").room == "R101"


def test_a_room_of_an_adapter_waits_for_nobody_when_it_has_its_board(city: Path) -> None:
    _enrol(city, 1, "R102")
    rooms = _rooms(city, [Row("R101", SENSOR, line=2), Row("R102", SENSOR, line=3, usb="A50")])
    assert rooms.left == 1
    assert rooms.take(_found(2), "A50").room == "R102"  # the adapter's next board


def test_boards_that_left_their_room_do_not_hold_it(city: Path) -> None:
    gone = datetime(2026, 8, 1, tzinfo=UTC)
    _enrol(city, 1, "R101", retired=gone)
    _enrol(city, 2, "R102", revoked=gone)
    assert _rooms(city).left == 2


def test_a_board_from_elsewhere_is_refused_before_it_takes_a_room(city: Path) -> None:
    _enrol(city, 1, "Fountain", site="market")
    _enrol(city, 2, "R102", revoked=datetime(2026, 8, 1, tzinfo=UTC))
    rooms = _rooms(city)
    _enrol(city, 3, "R101", retired=datetime(2026, 8, 1, tzinfo=UTC))
    for number, told in ((1, "market, Fountain"), (2, "revoked"), (3, "retired")):
        with pytest.raises(ReassignError, match=told) as caught:
            rooms.take(_found(number), "")
        assert "--reassign" in caught.value.hint
    assert rooms.left == 2
    taking = _rooms(city, reassign=True)
    assert taking.take(_found(1), "").room == "R101"
    assert taking.take(_found(2), "").room == "R102"


def test_the_technician_is_asked_one_board_after_the_other(city: Path) -> None:
    asked: list[Question] = []
    answers = iter(["", "R101", "R999", " R102 "])
    busy = threading.Lock()

    def ask(question: Question) -> str:
        assert busy.acquire(blocking=False)
        asked.append(question)
        answer = next(answers)
        busy.release()
        return answer

    rooms = _rooms(city, None, role=SENSOR, ask=ask)
    first = rooms.take(_found(1), "")
    assert (first.room, asked[0].proposed, asked[0].refusal) == ("R101", "R101", "")
    taken: list[Row] = []
    thread = threading.Thread(target=lambda: taken.append(rooms.take(_found(2), "")))
    thread.start()
    thread.join(10)
    assert taken == [Row("R102", SENSOR)]
    assert [q.proposed for q in asked[1:]] == ["R102"] * 3
    assert f"R101 has {_found(1).board} already" in asked[2].refusal
    assert "R999" in asked[3].refusal
    assert rooms.left is None


def test_nobody_answers(city: Path) -> None:
    with pytest.raises(NoRoomError, match="nobody said") as caught:
        _rooms(city, None, role=SENSOR).take(_found(1), "")
    assert "--rooms" in caught.value.hint
    with pytest.raises(UsageError, match="what the boards are for"):
        _rooms(city, None).take(_found(1), "")


def test_two_desks_with_one_list_give_no_room_twice(city: Path) -> None:
    ours, theirs = _rooms(city), _rooms(city)
    assert ours.take(_found(1), "").room == "R101"
    assert theirs.take(_found(2), "").room == "R102"
    with pytest.raises(NoRoomError, match="another desk is giving 1 of the list"):
        ours.take(_found(3), "")
    theirs.give_back(_found(2).board)
    assert ours.take(_found(3), "").room == "R102"
    _enrol(city, 1, "R101")
    _enrol(city, 3, "R102")
    ours.close()
    # What the other desk enrolled meanwhile is known when its places are free again.
    with pytest.raises(NoRoomError, match="no room is left for"):
        theirs.take(_found(4), "")


def test_a_desk_that_asks_is_told_what_another_one_gives(city: Path) -> None:
    asked: list[Question] = []

    def answer(question: Question) -> str | None:
        asked.append(question)
        return {1: "R101", 2: ""}.get(len(asked))

    theirs = _rooms(city)
    theirs.take(_found(1), "")
    ours = _rooms(city, None, role=SENSOR, ask=answer)
    assert ours.take(_found(3), "").room == "R102"
    assert [each.proposed for each in asked] == ["R102", "R102"]
    assert asked[1].refusal == "another desk is giving R101 to a board"
    with pytest.raises(NoRoomError):
        ours.take(_found(4), "")
    assert asked[2].proposed is None


def test_a_desk_that_is_killed_leaves_its_places(city: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from provisioning.claim import Claims; "
        "print(Claims(Path(sys.argv[1]), 'school-north').hold('R101', 'classroom-sensor'), "
        "flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(city)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as desk:
        assert desk.stdout is not None
        assert desk.stdout.readline().strip() == "True"
        rooms = _rooms(city)
        assert rooms.take(_found(1), "").room == "R102"
        desk.kill()
        desk.wait()
        assert rooms.take(_found(2), "").room == "R101"
