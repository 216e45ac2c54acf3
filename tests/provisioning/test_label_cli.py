"""`netzpuls board label`: which boards, which files, and what is refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fleet.cli
from fleet import authority
from fleet.errors import UsageError
from provisioning import enrolment, journal
from provisioning.enrolment import EnrolmentId
from provisioning.journal import Pending
from tests.provisioning.labelsheet import (
    Drawing,
    board,
    enrol,
    picture,
    read,
    rename,
)

GONE = datetime(2026, 8, 1, tzinfo=UTC)
FIRST, SECOND, THIRD, REVOKED, RETIRED = (f"np-24000000000{n}" for n in (1, 2, 3, 8, 9))


@pytest.fixture
def boards(city: Path) -> Path:
    enrol(
        city,
        {
            FIRST: board("school-north", "R102", 2),
            SECOND: board("school-north", "R101"),
            THIRD: board("market", "Fountain"),
            REVOKED: board("school-north", "R101", revoked=GONE),
            RETIRED: board("closed-school", "Attic", retired=GONE),
        },
    )
    return city


def _run(city: Path, *arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["board", "label", "--city", str(city), *map(str, arguments)])
    assert isinstance(exited.value.code, int)
    return exited.value.code


def _codes(path: Path) -> list[str]:
    return [seen.text for seen in read(picture(path.read_bytes()))]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("chosen", "codes"),
    [
        ([SECOND, THIRD, SECOND], [f"{SECOND}/1", f"{THIRD}/1"]),
        ([f" {FIRST.upper()}/2 "], [f"{FIRST}/2"]),
        ([REVOKED, RETIRED], [f"{REVOKED}/1", f"{RETIRED}/1"]),
        (["--site", "school-north"], [f"{SECOND}/1", f"{FIRST}/2"]),
        (["--all"], [f"{THIRD}/1", f"{SECOND}/1", f"{FIRST}/2"]),
        (
            ["--all", "--copies", "2"],
            [f"{i}/{k}" for i, k in ((THIRD, 1), (SECOND, 1), (FIRST, 2)) for _ in "ab"],
        ),
    ],
)
def test_the_boards_that_were_chosen(
    boards: Path, tmp_path: Path, chosen: list[str], codes: list[str]
) -> None:
    output = tmp_path / "sheet.pdf"
    assert _run(boards, *chosen, "--output", output) == 0
    assert _codes(output) == codes


def test_both_files_or_the_one_that_the_suffix_says(
    boards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "printed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert _run(boards, "--all") == 0
    assert _files(folder) == ["labels.html", "labels.pdf"]
    codes = [seen.text for seen in read(Drawing(Path("labels.html").read_text()).pages[0])]
    assert codes == _codes(Path("labels.pdf"))
    assert _run(boards, "--all", "--output", "one.HTML") == 0
    assert _run(boards, "--all", "--output", folder / "two.pdf") == 0
    assert _files(folder) == ["labels.html", "labels.pdf", "one.HTML", "two.pdf"]
    assert Path("one.HTML").read_text() == Path("labels.html").read_text()


def test_what_is_printed_is_told(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "sheet.pdf"
    arguments = ("--all", "--output", output, "--stock", "L7160", "--skip", "20")
    assert _run(boards, *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert (document["stock"], document["sheets"]) == ("L7160", 2)
    assert document["files"] == [str(output)]
    assert document["labels"][0] == {
        "board": THIRD,
        "site": "market",
        "room": "Fountain",
        "enrolment_id": f"{THIRD}/1",
        "sheet": 1,
        "row": 7,
        "column": 3,
    }
    assert [document["labels"][1][key] for key in ("sheet", "row", "column")] == [2, 1, 1]
    gone = f"{REVOKED} (revoked since 2026-08-01), {RETIRED} (retired since 2026-08-01)"
    assert document["notes"] == [f"without 2 that left service: {gone}"]

    assert _run(boards, *arguments) == 0
    said = capsys.readouterr()
    assert "3 labels on 2 sheets L7160" in said.out
    assert f"note: without 2 that left service: {gone}" in said.err
    assert "100 %" in said.err


def test_a_dry_run_tells_the_same_and_writes_nothing(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(tmp_path)
    arguments = ("--all", "--output", tmp_path / "sheet.pdf")
    assert _run(boards, *arguments, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert _run(boards, *arguments, "--dry-run") == 0
    said = capsys.readouterr()
    assert FIRST in said.out
    assert "Nothing was written" in said.err
    assert _files(tmp_path) == before

    assert _run(boards, *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == told | {"dry_run": False}


def test_notes_on_boards_and_names(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rename(boards, "学校 \x1b[31m", ["R101", "R102"])
    output = tmp_path / "sheet.pdf"
    assert _run(boards, f"{FIRST}/1", REVOKED, RETIRED, "--output", output) == 0
    said = capsys.readouterr().err
    assert f"{FIRST}: the label that was scanned is for key 1, the registry has key 2" in said
    assert f"{REVOKED} is revoked since 2026-08-01" in said
    assert f"{RETIRED} is retired since 2026-08-01" in said
    assert "? stands for '学校'" in said
    assert "\x1b[31m" not in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--site"),
        ([FIRST, "--all"], "--site"),
        (["--site", "market", "--all"], "--site"),
        (["np-24000000000f"], "np-24000000000f"),
        ([f"{FIRST}/0"], "no board"),
        (["bo\x1b[31mard"], "no board"),
        (["--site", "nowhere"], "school-north"),
        (["--site", "hall"], "no boards in service at site 'hall'"),
        (["--all", "--skip", "48"], "48 labels"),
        (["--all", "--skip", "-1"], "--skip"),
        (["--all", "--copies", "0"], "--copies"),
        (["--all", "--stock", "A4"], "L4736"),
        (["--all", "--language", "fr"], "de"),
        (["--all", "--output", "labels.docx"], "labels.docx"),
        (["--all", "--output", "/nowhere/labels.pdf"], "no folder /nowhere"),
        (["--all", "--output", "/proc"], "/proc is a folder"),
    ],
)
def test_refusals(
    boards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _files(tmp_path)
    assert _run(boards, *arguments, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert named in error["message"] + error["hint"]
    assert error["hint"]
    assert "\x1b" not in error["message"]
    assert _files(tmp_path) == before


def test_no_boards_at_all_and_only_revoked_ones(
    city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(city, "--all", "--output", tmp_path / "sheet.pdf") == 2
    assert "board flash" in capsys.readouterr().err
    enrol(city, {REVOKED: board("school-north", "R101", revoked=GONE)})
    assert _run(city, "--all", "--output", tmp_path / "sheet.pdf") == 2
    assert "no boards in service in" in (said := capsys.readouterr().err)
    assert f"there is {REVOKED} (revoked" in said
    assert not (tmp_path / "sheet.pdf").exists()


@pytest.mark.parametrize("output", ["/proc/sheet.pdf", f"/tmp/{'long' * 80}.pdf"])  # noqa: S108
def test_a_file_that_cannot_be_written(
    boards: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(boards, "--all", "--output", output, "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "output"
    assert output in error["message"]
    assert error["hint"]


def test_a_disk_that_is_full_leaves_the_old_sheet(boards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "printed"
    folder.mkdir()
    output = folder / "sheet.pdf"
    output.write_bytes(b"the old sheet")
    made = subprocess.run(
        [
            *(sys.executable, "-m", "fleet.cli", "board", "label", "--all", "--json"),
            *("--city", boards, "--output", output),
        ],
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        check=False,
    )
    assert made.returncode == 1, made.stderr
    assert json.loads(made.stdout)["error"]["code"] == "output"
    assert output.read_bytes() == b"the old sheet"
    assert _files(folder) == ["sheet.pdf"]


def test_an_enrolment_id_is_what_is_scanned_copied_or_typed() -> None:
    text = str(EnrolmentId("np-240ac4123456", 65535))
    assert text == "np-240ac4123456/65535"
    assert enrolment.parse(text) == ("np-240ac4123456", 65535)
    assert enrolment.parse(" NP-240AC4123456/7\n") == ("np-240ac4123456", 7)
    assert enrolment.parse("np-240ac4123456") == ("np-240ac4123456", None)
    for wrong in (
        "",
        "np-",
        "np-240ac412345",
        "np-240ac4123456/",
        "np-240ac4123456/01",
        "np-240ac4123456/x",
    ):
        with pytest.raises(UsageError):
            enrolment.parse(wrong)


def _under_way(city: Path, board_id: str, problem: str) -> None:
    identity = authority.ensure(city, "exampleville").issue_board(board_id)
    begun = Pending(board_id, 1, bytes(32), identity.certificate_der, identity.key_der)
    journal.save(city, begun.at("join").failed(problem))


def test_a_board_that_has_not_passed_gets_no_label(
    boards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _under_way(boards, FIRST, "its radio does not see the WLAN")
    _under_way(boards, "np-24000000000a", "no lease")
    output = tmp_path / "labels.pdf"
    assert _run(boards, FIRST, "--output", output) == 1
    said = capfd.readouterr().err
    assert f"{FIRST}: work on it is not finished: join: its radio does not see" in said
    assert "--untested" in said
    assert _run(boards, "np-24000000000a", "--output", output) == 1
    assert "np-24000000000a is not enrolled, so it gets no label" in capfd.readouterr().err
    assert not output.exists()
    assert _run(boards, "--site", "school-north", "--json", "--output", output) == 0
    document = json.loads(capfd.readouterr().out)
    assert [each["board"] for each in document["labels"]] == [SECOND]
    assert any(note.startswith(f"without {FIRST}: ") for note in document["notes"])
    assert _run(boards, FIRST, "--untested", "--json", "--output", output) == 0
    assert json.loads(capfd.readouterr().out)["labels"][0]["board"] == FIRST


def test_where_there_is_a_bench_a_board_must_have_passed_it(
    boards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    enrol(
        boards,
        {
            FIRST: board("school-north", "R102", tested="alone"),
            SECOND: board("school-north", "R101", tested="bench"),
            THIRD: board("market", "Fountain"),  # from before that was noted
        },
    )
    output = tmp_path / "labels.pdf"
    assert _run(boards, FIRST, "--output", output) == 0
    path = boards / "inventory.toml"
    path.write_text(path.read_text() + '[bench]\nwlan = "open"\nbroker_host = "10.201.0.2"\n')
    capfd.readouterr()
    assert _run(boards, FIRST, "--output", output) == 1
    assert f"{FIRST}: it was tested alone" in capfd.readouterr().err
    assert _run(boards, "--all", "--json", "--output", output) == 0
    document = json.loads(capfd.readouterr().out)
    assert [each["board"] for each in document["labels"]] == [THIRD, SECOND]
