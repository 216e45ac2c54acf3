"""`netzpuls board move`, `replace`, `retire`: what the registry holds of them, and what is said."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import fleet.cli
from fleet import inventory
from fleet.errors import UsageError
from fleet.inventory import Board, Stay
from provisioning import assignment, registry
from tests.provisioning.conftest import INVENTORY

REPOSITORY = Path(__file__).parents[2]
OLD, NEW, THIRD = (f"np-24000000000{number}" for number in (1, 2, 3))
ENROLLED = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
T1, T2, T3 = (ENROLLED + timedelta(days=days) for days in (10, 20, 30))
SINCE = f"only since {T1.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m-%d %H:%M:%S}"


def _entry(site: str = "school-north", room: str = "R101", **values: Any) -> Board:
    fields: dict[str, Any] = {
        "site": site,
        "room": room,
        "role": "classroom-sensor",
        "key_id": 1,
        "chip": "ESP32",
        "mac": "24:00:00:00:00:01",
        "agent": "0.1.0",
        "enrolled": ENROLLED,
        "certificate_expires": datetime(2036, 6, 28, tzinfo=UTC),
    }
    return Board(**fields | values)


def _write(city: Path, **boards: Board) -> None:
    named = {{"old": OLD, "new": NEW, "third": THIRD}[name]: b for name, b in boards.items()}
    (city / "registry.toml").write_text(registry.render(named))


def _boards(city: Path) -> dict[str, Board]:
    return dict(inventory.load(city).boards)


def _run(
    capsys: pytest.CaptureFixture[str], city: Path, *arguments: str
) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", *arguments, "--city", str(city), "--json"])
    assert isinstance(exited.value.code, int)
    return exited.value.code, json.loads(capsys.readouterr().out)


def _says(capsys: pytest.CaptureFixture[str], city: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", *arguments, "--city", str(city)])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


def test_a_move_keeps_where_the_board_was(city: Path) -> None:
    _write(city, old=_entry())
    for room, moment in (("R102", T1), ("R101", T2)):
        registry.change(
            city,
            lambda known: assignment.move(known, OLD, "school-north", room, moment),  # noqa: B023
        )
    board = _boards(city)[OLD]
    assert (board.site, board.room, board.since) == ("school-north", "R101", T2)
    assert board.earlier == [
        Stay(site="school-north", room="R101", until=T1),
        Stay(site="school-north", room="R102", since=T1, until=T2),
    ]
    assert assignment.enrolled(inventory.load(city), OLD, _entry(key_id=2)).earlier == board.earlier


def test_a_stay_of_no_length_is_none(city: Path) -> None:
    _write(city, old=_entry())
    for room in ("R102", "R101"):
        registry.change(
            city,
            lambda known: assignment.move(known, OLD, "school-north", room, T1),  # noqa: B023
        )
    assert _boards(city)[OLD].earlier == [Stay(site="school-north", room="R101", until=T1)]


def test_a_board_that_is_flashed_elsewhere_keeps_its_past(city: Path) -> None:
    _write(city, old=_entry(since=T1, earlier=[Stay(site="market", room="Fountain", until=T1)]))
    before = assignment.now()
    entry = assignment.enrolled(inventory.load(city), OLD, _entry(room="R102", key_id=2))
    assert entry.since is not None
    assert entry.since >= before
    assert entry.earlier[1:] == [
        Stay(site="school-north", room="R101", since=T1, until=entry.since)
    ]
    _write(city, old=_entry(retired=T2, replaced_by=NEW))
    again = assignment.enrolled(inventory.load(city), OLD, _entry(key_id=2))
    assert (again.retired, again.replaced_by) == (None, None)
    assert again.earlier == [
        Stay(site="school-north", room="R101", until=T2, replaced_by=NEW),
    ]


def test_a_new_board_in_the_room_takes_over_from_its_beginning_there(city: Path) -> None:
    _write(city, old=_entry(since=T1), new=_entry(enrolled=T2))
    registry.change(city, lambda known: assignment.replace(known, OLD, NEW, None))
    boards = _boards(city)
    assert (boards[OLD].retired, boards[OLD].replaced_by) == (T2, NEW)
    assert (boards[NEW].since, boards[NEW].earlier) == (T2, [])


def test_a_board_from_elsewhere_takes_place_role_and_hardware(city: Path) -> None:
    (city / "inventory.toml").write_text(INVENTORY + "[hardware.lamp]\nled = 2\n")
    _write(city, old=_entry(hardware="lamp"), new=_entry("market", "Fountain", role="ap-monitor"))
    change = registry.change(city, lambda known: assignment.replace(known, OLD, NEW, T3))
    board = _boards(city)[NEW]
    assert (board.site, board.room, board.since) == ("school-north", "R101", T3)
    assert (board.role, board.hardware) == ("classroom-sensor", "lamp")
    assert board.earlier == [Stay(site="market", room="Fountain", until=T3)]
    assert change.differs == ["led", "role", "wlan"]
    assert change.command == (
        "netzpuls board flash --port PORT --site school-north --room 'R101' "
        "--role classroom-sensor --hardware lamp --micropython FILE"
    )


def test_what_was_retired_by_mistake_was_never_away(city: Path) -> None:
    _write(city, old=_entry(since=T1))
    before = _boards(city)
    registry.change(city, lambda known: assignment.retire(known, OLD, T2))
    assert _boards(city)[OLD].retired == T2
    assert inventory.load(city).boards_of_gateway("gw-north") == {}
    registry.change(city, lambda known: assignment.reinstate(known, OLD))
    assert _boards(city) == before


def test_a_replaced_board_that_comes_back_begins_anew(city: Path) -> None:
    _write(city, old=_entry(), new=_entry(enrolled=T2))
    registry.change(city, lambda known: assignment.replace(known, OLD, NEW, None))
    change = registry.change(city, lambda known: assignment.reinstate(known, OLD))
    board = _boards(city)[OLD]
    assert board.earlier == [Stay(site="school-north", room="R101", until=T2, replaced_by=NEW)]
    assert board.since == change.at
    assert NEW in change.notes[0]


def test_a_closed_site_does_not_lock_its_retired_boards_out(city: Path) -> None:
    _write(city, old=_entry(retired=T1), new=_entry("market", "Fountain", since=T1))
    text = (city / "inventory.toml").read_text().replace("school-north", "school-south")
    (city / "inventory.toml").write_text(text)
    assert list(inventory.load(city).boards_of_gateway("gw-north")) == [NEW]
    with pytest.raises(UsageError, match="no site 'school-north'"):
        assignment.reinstate(inventory.load(city), OLD)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["move", "np-240000000009", "--site", "market", "--room", "Fountain"], "did you mean"),
        (["move", OLD, "--site", "nowhere", "--room", "1"], "school-north"),
        (["move", OLD, "--site", "market", "--room", "1"], "Fountain"),
        (["move", OLD, "--site", "school-north", "--room", "R101"], "already"),
        (["move", OLD, "--site", "market", "--room", "Fountain", "--at", "2026-07-02"], SINCE),
        (["move", OLD, "--site", "market", "--room", "Fountain", "--at", "2199-01-01"], "future"),
        (["move", NEW, "--site", "market", "--room", "Fountain"], f"board retire {NEW} --undo"),
        (["move", THIRD, "--site", "market", "--room", "Fountain"], f"board revoke {THIRD} --undo"),
        (["replace", OLD, OLD], "itself"),
        (["replace", OLD, NEW], f"board retire {NEW} --undo"),
        (["replace", NEW, OLD], f"netzpuls board move {OLD} --site school-north --room 'R101'"),
        (
            ["replace", OLD, "np-ffffffffffff"],
            "netzpuls board flash --port PORT --site school-north --room 'R101'",
        ),
        (["retire", NEW], "--undo"),
        (["retire", OLD, "--undo"], "not retired"),
        (["retire", NEW, "--undo", "--at", "2026-08-01"], "leave out --at"),
    ],
)
def test_refusals_say_what_to_do(
    city: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    _write(city, old=_entry(since=T1), new=_entry(retired=T2), third=_entry(revoked=T2))
    before = (city / "registry.toml").read_bytes()
    code, document = _run(capsys, city, *arguments)
    assert (code, document["error"]["code"]) == (2, "usage")
    assert named in document["error"]["message"] + " " + document["error"]["hint"]
    assert document["error"]["hint"]
    assert (city / "registry.toml").read_bytes() == before


def test_a_dry_run_says_it_and_changes_nothing(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(city, old=_entry(), new=_entry(room="R102", enrolled=T2))
    before = (city / "registry.toml").read_bytes()
    for arguments in (
        ["move", OLD, "--site", "market", "--room", "Fountain"],
        ["replace", OLD, NEW],
        ["retire", OLD],
    ):
        code, document = _run(capsys, city, *arguments, "--dry-run")
        assert (code, document["ok"], document["dry_run"]) == (0, True, True)
        code, out, err = _says(capsys, city, *arguments, "--dry-run")
        assert (code, err) == (0, "")
        assert "Nothing was changed" in out
    assert (city / "registry.toml").read_bytes() == before


def test_a_technician_is_told_what_a_move_needs(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(city, old=_entry(), new=_entry(room="R102"))
    move = ["move", OLD, "--site", "school-north", "--room", "R102", "--at", "2026-08-01T10:00"]
    code, document = _run(capsys, city, *move)
    assert code == 0
    assert document["at"] == "2026-08-01T08:00:00+00:00"
    assert (document["must_flash"], document["next"]) == (False, None)
    assert document["notes"] == [
        f"school-north, R102 has other boards, too: {NEW} (classroom-sensor)"
    ]
    code, out, err = _says(capsys, city, "move", OLD, "--site", "market", "--room", "Fountain")
    assert (code, err) == (0, "")
    assert f"{OLD}: market, Fountain, classroom-sensor since " in out
    assert "it must be flashed again, because of its wlan: netzpuls board flash --port PORT" in out
    assert _boards(city)[OLD].earlier[1].since == datetime(2026, 8, 1, 8, 0, tzinfo=UTC)


def test_the_list_tells_who_is_out_of_service(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(city, old=_entry(retired=T2, replaced_by=NEW), new=_entry(), third=_entry(retired=T1))
    _, out, _ = _says(capsys, city, "list")
    assert f"{OLD} (replaced by {NEW})" in out
    assert f"{THIRD} (retired)" in out


_HOLDER = """
import sys, time
from pathlib import Path
from fleet import file
with file.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _held(city: Path, for_s: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(city), str(for_s)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_the_registry_is_waited_for(city: Path) -> None:
    _write(city, old=_entry())
    began = time.monotonic()
    with _held(city, 1.0):
        registry.change(city, lambda known: assignment.retire(known, OLD, T1))
    assert time.monotonic() - began >= 0.9
    assert _boards(city)[OLD].retired == T1


def test_who_holds_the_registry_for_too_long_is_named(
    city: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(city, old=_entry())
    before = (city / "registry.toml").read_bytes()
    monkeypatch.setattr("fleet.file.PATIENCE_S", 0.2)
    process = _held(city, 60)
    try:
        code, document = _run(capsys, city, "retire", OLD)
    finally:
        process.kill()
        process.communicate()
    assert (code, document["error"]["code"]) == (1, "registry")
    assert f"process {process.pid} of " in document["error"]["message"]
    assert "from fleet import file" in document["error"]["message"]  # its command line
    assert (city / "registry.toml").read_bytes() == before
    assert _run(capsys, city, "retire", OLD)[0] == 0


def test_two_technicians_at_once_lose_no_change(city: Path) -> None:
    boards = {f"np-{number:012x}": _entry() for number in range(12)}
    (city / "registry.toml").write_text(registry.render(boards))
    script = (
        "import sys; from pathlib import Path; from provisioning import assignment, registry\n"
        "for board in sys.argv[2:]:\n"
        "    registry.change(Path(sys.argv[1]), lambda city: assignment.move("
        "city, board, 'school-north', 'R102', None))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(city), *part], cwd=REPOSITORY)
        for part in (list(boards)[::2], list(boards)[1::2])
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert {board.room for board in _boards(city).values()} == {"R102"}


def test_the_list_tells_whose_certificate_ends(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = assignment.now() + timedelta(days=20)
    _write(
        city,
        old=_entry(certificate_expires=soon, retired=T1),
        new=_entry(certificate_expires=soon),
        third=_entry(certificate_expires=soon + timedelta(days=20)),
    )
    for days, expected in ((30, [NEW]), (10, []), (41, [NEW, THIRD])):
        code, document = _run(capsys, city, "list", "--expiring", str(days))
        assert code == 0
        assert [each["board"] for each in document["boards"]] == expected
    assert (
        "No board's certificate ends within 10 days."
        in _says(capsys, city, "list", "--expiring", "10")[1]
    )
