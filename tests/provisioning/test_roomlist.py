"""The list of rooms: what it says, and how what is wrong with it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import inventory
from provisioning import roomlist
from provisioning.errors import RoomsError
from provisioning.roomlist import Row


def _read(city: Path, content: str | bytes, role: str | None = "classroom-sensor") -> list[Row]:
    path = city / "rooms.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return roomlist.read(path, inventory.load(city), "school-north", role, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "room,board,usb,role,hardware\nR101,24:0A:C4:00:00:01,,,\n\nR102,,A50,ap-monitor,none\n",
        "\ufeffRoom;Board;USB;Role;Hardware\r\nR101;np-240ac4000001;;;\r\nR102;;A50;ap-monitor;none",
        'usb,role,room,hardware,board\n,,"R101",,24-0a-c4-00-00-01\nA50, ap-monitor ,R102,none,',
    ],
)
def test_a_list_however_a_spreadsheet_writes_it(city: Path, content: str) -> None:
    first, second = _read(city, content)
    assert (first.room, first.board, first.role) == ("R101", "np-240ac4000001", "classroom-sensor")
    assert (second.room, second.usb, second.role) == ("R102", "A50", "ap-monitor")
    assert (first.hardware, second.hardware) == (None, "none")
    assert not first.is_free
    assert not second.is_free


def test_only_the_room_must_be_there(city: Path) -> None:
    assert _read(city, "room\nR102\nR101") == [
        Row("R102", "classroom-sensor", line=2),
        Row("R101", "classroom-sensor", line=3),
    ]


def test_a_room_may_have_a_board_of_each_kind(city: Path) -> None:
    rows = _read(city, "room,role\nR101,ap-monitor\nR101,classroom-sensor\n", role=None)
    assert [row.role for row in rows] == ["ap-monitor", "classroom-sensor"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", ["it is empty", "room,board"]),
        ("room\n", ["line 1", "no room below it"]),
        ("raum\nR101\n", ["line 1", "'raum'", "room, board"]),
        ("usb\nA50\n", ["line 1", "no column room"]),
        ("room,room\nR101,R102\n", ["line 1", "twice"]),
        ("room\nR101\nR999\n", ["line 3, column room", "R999", "R101, R102", "inventory.toml"]),
        ("room,usb\nR101,\n,A50\n", ["line 3, column room", "empty"]),
        ("room\nR101\n\nR101\n", ["line 4, column room", "R101", "line 2"]),
        ("room,board\nR101,np-24\n", ["line 2, column board", "np-24", "MAC"]),
        (
            "room,board\nR101,24:0a:c4:00:00:01\nR102,np-240ac4000001\n",
            ["line 3, column board", "line 2"],
        ),
        ("room,usb\nR101,A50\nR102,A50\n", ["line 3, column usb", "line 2"]),
        ("room,role\nR101,toaster\n", ["line 2, column role", "toaster", "ap-monitor"]),
        ("room,hardware\nR101,lamp\n", ["line 2, column hardware", "lamp", "none"]),
        ("room\nR101,R102\n", ["line 2", "2 cells"]),
        ('room\n"R101\n', ["line 2", "end of data"]),
        (b"room\nR101\nB\xfcro\n", ["line 3", "UTF-8"]),
        ("room\n" + "R101\n" * 300_000, ["no list of rooms"]),
        ("room,role\nR999,toaster\nR998,\n", ["line 2, column room", "line 2, column role"]),
        ("room\nR9\x1b[2J\n", ["line 2", "\\x1b"]),
    ],
)
def test_what_is_wrong_is_told_by_line_and_column(
    city: Path, content: str | bytes, told: list[str]
) -> None:
    with pytest.raises(RoomsError) as caught:
        _read(city, content)
    said = caught.value.message + " " + caught.value.hint
    assert "rooms.csv" in caught.value.message
    assert [part for part in told if part not in said] == []
    assert "no board was touched" in caught.value.hint
    assert caught.value.exit_code == 2
    assert "\x1b" not in said


def test_a_role_must_come_from_somewhere(city: Path) -> None:
    with pytest.raises(RoomsError, match=r"line 3, column role.*--role"):
        _read(city, "room,role\nR101,ap-monitor\nR102,\n", role=None)


def test_a_list_that_cannot_be_read(city: Path) -> None:
    with pytest.raises(RoomsError, match=r"nowhere\.csv"):
        roomlist.read(
            city / "nowhere.csv", inventory.load(city), "school-north", "ap-monitor", None
        )
