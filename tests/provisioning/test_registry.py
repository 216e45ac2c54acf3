"""The registry: whole at every moment, the same text for the same boards, no secret in it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import file, inventory
from fleet.errors import ConfigurationError
from fleet.inventory import Board, Role
from provisioning import registry
from provisioning.errors import EnrolmentError

BOARD = "np-240ac4123456"
KEY = bytes(range(32))
REPOSITORY = Path(__file__).parents[2]


def _entry(key_id: int = 1, *, room: str = "R101") -> Board:
    return Board(
        site="school-north",
        room=room,
        role="classroom-sensor",
        key_id=key_id,
        chip="ESP32-D0WD-V3 (revision v3.0)",
        mac="24:0a:c4:12:34:56",
        agent="0.1.0",
        enrolled=datetime(2026, 7, 1, 12, 0, tzinfo=UTC),
        certificate_expires=datetime(2036, 6, 28, 12, 0, tzinfo=UTC),
    )


def _enrol(city: Path, board_id: str = BOARD, key_id: int = 1) -> None:
    _put(city, _entry(key_id), KEY, b"PEM\n", board_id)


def _put(city: Path, entry: Board, key: bytes, pem: bytes, board_id: str = BOARD) -> Board:
    return registry.enrol(
        city,
        board_id,
        lambda _: entry,
        admitted=inventory.load(city).boards.get(board_id),
        report_key=key,
        certificate_pem=pem,
    )


def _tree(city: Path) -> dict[str, bytes]:
    return {str(p.relative_to(city)): p.read_bytes() for p in city.rglob("*") if p.is_file()}


def test_an_enrolled_board(city: Path) -> None:
    _enrol(city)
    assert inventory.load(city).boards == {BOARD: _entry()}
    key = city / "secrets" / "keys" / f"{BOARD}.1.key"
    assert bytes.fromhex(key.read_text()) == KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert (city / "boards" / f"{BOARD}.pem").read_bytes() == b"PEM\n"
    assert KEY.hex() not in (city / "registry.toml").read_text()


def test_the_registry_is_sorted_and_says_who_writes_it(city: Path) -> None:
    for number in (3, 1, 2):
        _enrol(city, f"np-24000000000{number}")
    text = (city / "registry.toml").read_text()
    assert text.startswith("# Written by `netzpuls board`")
    assert list(tomllib.loads(text)["board"]) == [f"np-24000000000{n}" for n in (1, 2, 3)]


def test_a_second_life_has_the_next_key_and_keeps_the_old_one(city: Path) -> None:
    _enrol(city)
    assert registry.next_key_id(inventory.load(city), BOARD) == 2
    _enrol(city, key_id=2)
    assert sorted(p.name for p in (city / "secrets" / "keys").iterdir()) == [
        f"{BOARD}.1.key",
        f"{BOARD}.2.key",
    ]


def test_a_registry_from_a_backup_does_not_make_a_key_id_twice(city: Path) -> None:
    _enrol(city)
    (city / "registry.toml").unlink()
    assert registry.next_key_id(inventory.load(city), BOARD) == 2
    _enrol(city, key_id=2)
    assert inventory.load(city).boards[BOARD].key_id == 2


def test_key_ids_end(city: Path) -> None:
    (city / "secrets" / "keys").mkdir(exist_ok=True)
    (city / "secrets" / "keys" / f"{BOARD}.65535.key").write_text(KEY.hex())
    with pytest.raises(EnrolmentError):
        registry.next_key_id(inventory.load(city), BOARD)


def test_the_same_board_at_two_desks_is_enrolled_once(city: Path) -> None:
    _enrol(city)
    before = _tree(city)
    with pytest.raises(EnrolmentError, match=BOARD):
        _put(city, _entry(room="R102"), bytes(32), b"OTHER\n")
    assert _tree(city) == before


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"revoked": datetime(2026, 8, 1, tzinfo=UTC)}, "was revoked meanwhile"),
        ({"retired": datetime(2026, 8, 1, tzinfo=UTC)}, "was retired meanwhile"),
        ({"room": "R102"}, "was moved to school-north, R102 meanwhile"),
        ({"role": "ap-monitor"}, r"changed in the registry \(role\) meanwhile"),
        (None, "removed it, meanwhile"),
    ],
)
def test_what_somebody_else_did_meanwhile_stays(
    city: Path, update: dict[str, object] | None, told: str
) -> None:
    _enrol(city)
    admitted = inventory.load(city).boards[BOARD]
    changed = {} if update is None else {BOARD: admitted.model_copy(update=update)}
    (city / "registry.toml").write_text(registry.render(changed))
    before = _tree(city)
    with pytest.raises(EnrolmentError, match=told) as caught:
        registry.enrol(
            city, BOARD, lambda _: _entry(2), admitted=admitted, report_key=bytes(32),
            certificate_pem=b"NEW\n",
        )  # fmt: skip
    assert caught.value.hint
    assert _tree(city) == before


def test_what_nobody_asked_about_is_kept(city: Path) -> None:
    _enrol(city)
    admitted = inventory.load(city).boards[BOARD]
    meanwhile = admitted.model_copy(update={"revoked_because": "noted by another desk"})
    (city / "registry.toml").write_text(registry.render({BOARD: meanwhile}))

    def change(now: Board | None) -> Board:
        assert now == meanwhile
        return now.model_copy(update={"agent": "0.2.0"})

    entry = registry.enrol(
        city, BOARD, change, admitted=admitted, report_key=KEY, certificate_pem=b"PEM\n"
    )
    assert entry == meanwhile.model_copy(update={"agent": "0.2.0"})
    assert inventory.load(city).boards[BOARD] == entry


def test_enrolled_again_with_the_same_key_a_board_changes_as_told(city: Path) -> None:
    _enrol(city)
    before = _tree(city)
    _enrol(city)
    assert _tree(city) == before
    _put(city, _entry(room="R102"), KEY, b"PEM\n")
    assert inventory.load(city).boards[BOARD].room == "R102"


def test_a_run_that_was_cut_before_the_registry_is_made_good(city: Path) -> None:
    _enrol(city)
    (city / "registry.toml").unlink()
    _enrol(city)
    assert inventory.load(city).boards == {BOARD: _entry()}


def test_a_registry_that_is_broken_is_not_written_over(city: Path) -> None:
    (city / "registry.toml").write_text("version = 1\n<<<<<<< mine\n")
    before = _tree(city)
    with pytest.raises(ConfigurationError, match=r"registry\.toml"):
        _enrol(city)
    assert _tree(city) == before


def test_a_key_is_on_disk_before_the_registry_names_it(
    city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = file.write

    def note(path: Path, content: bytes | str, mode: int = file.PUBLIC) -> None:
        real(path, content, mode)
        written.append(path)

    monkeypatch.setattr(file, "write", note)
    _enrol(city)
    assert written == [
        city / "secrets" / "keys" / f"{BOARD}.1.key",
        city / "boards" / f"{BOARD}.pem",
        city / "registry.toml",
    ]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["registry.toml", f"{BOARD}.pem", ".key"])
def test_a_full_disk_takes_all_back(
    city: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, again: bool
) -> None:
    if again:
        _enrol(city)
    before = _tree(city)
    real = file.write

    def full(path: Path, content: bytes | str, mode: int = file.PUBLIC) -> None:
        if path.name.endswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content, mode)

    monkeypatch.setattr(file, "write", full)
    with pytest.raises(EnrolmentError, match="No space left") as caught:
        _put(city, _entry(1 + again), bytes(32), b"NEW\n")
    assert caught.value.hint
    assert _tree(city) == before


def test_a_folder_that_is_none(city: Path) -> None:
    (city / "boards").write_text("")
    with pytest.raises(EnrolmentError):
        _enrol(city)
    assert not (city / "registry.toml").exists()
    assert registry.next_key_id(inventory.load(city), BOARD) == 1


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from fleet.inventory import Board
from provisioning import registry
city, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    board = f"np-{number:012x}"
    entry = Board(
        site="school-north", room="R101", role="ap-monitor", key_id=1, chip="ESP32",
        mac=":".join(board[3:][i : i + 2] for i in range(0, 12, 2)), agent="0.1.0",
        enrolled=datetime(2026, 7, 1, tzinfo=UTC),
        certificate_expires=datetime(2036, 7, 1, tzinfo=UTC),
    )
    registry.enrol(
        city, board, lambda _: entry, admitted=None, report_key=bytes(32), certificate_pem=b"PEM"
    )
    print(board, flush=True)
"""


def _writer(city: Path, first: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(city), str(first), str(count)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_technicians_at_once_lose_no_board(city: Path) -> None:
    writers = [_writer(city, first, 15) for first in (100, 200)]
    said = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert [len(boards) for boards in said] == [15, 15]
    assert sorted(inventory.load(city).boards) == sorted(said[0] + said[1])


@pytest.mark.parametrize("boards", [1, 4, 9])
def test_a_kill_at_any_moment_leaves_a_whole_registry(city: Path, boards: int) -> None:
    writer = _writer(city, 1, 1000)
    assert writer.stdout is not None
    said = [writer.stdout.readline().strip() for _ in range(boards)]
    writer.send_signal(signal.SIGKILL)
    said += writer.communicate(timeout=60)[0].split()
    known = inventory.load(city).boards
    # One more may be enrolled than was said, and each has its key and certificate.
    assert set(said) <= set(known)
    assert len(known) - len(said) in (0, 1)
    for board_id in known:
        assert (city / "secrets" / "keys" / f"{board_id}.1.key").exists()
        assert (city / "boards" / f"{board_id}.pem").exists()
    _enrol(city, "np-ffffffffffff")
    assert set(inventory.load(city).boards) == set(known) | {"np-ffffffffffff"}


_text = st.text(st.characters(codec="utf-8"), max_size=20)
_when = st.datetimes(datetime(2024, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"\Anp-[0-9a-f]{12}\Z"),
        st.builds(
            Board,
            site=st.from_regex(r"\A[a-z]{1,9}\Z"),
            room=_text,
            role=st.sampled_from(get_args(Role)),
            key_id=st.integers(1, 65535),
            chip=_text,
            mac=st.just("24:0a:c4:12:34:56"),
            agent=_text,
            enrolled=_when,
            certificate_expires=_when,
            revoked=st.none() | _when,
        ),
        max_size=4,
    )
)
def test_round_trip(boards: dict[str, Board]) -> None:
    text = registry.render(boards)
    assert registry.render(dict(reversed(boards.items()))) == text
    tables = tomllib.loads(text)["board"]
    assert {board_id: Board.model_validate(table) for board_id, table in tables.items()} == boards


def test_times_keep_their_second(city: Path) -> None:
    _enrol(city)
    loaded = inventory.load(city).boards[BOARD]
    assert loaded.certificate_expires - loaded.enrolled == timedelta(days=3650)


def test_a_boards_earlier_certificates_stay_known(city: Path) -> None:
    for key_id, pem in ((1, b"FIRST\n"), (2, b"SECOND\n"), (2, b"SECOND\n")):
        _put(city, _entry(key_id), bytes([key_id]) * 32, pem)
    assert (city / "boards" / f"{BOARD}.pem").read_bytes() == b"SECOND\nFIRST\n"
