"""Mending: what is kept of damaged boards is laid anew from their reports."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from fleet import cli, uptime
from fleet.inventory import Inventory
from fleet.period import Period
from fleet.store import Cursor, Store
from fleet.verify import verify
from tests.fleet.town import DAY_S, LINE_CUT, Town, ingest, verified

DAYS = Period(DAY_S, DAY_S + 9 * 86_400)


@pytest.fixture
def city(tmp_path: Path) -> Inventory:
    town = Town(tmp_path / "city")
    city = town.write()
    with Store(city.folder).writing() as writer:
        for board in town.boards:
            for day in range(9):
                start_s = DAY_S + 86_400 * day
                raws = board.series(start_s, 50) + board.series(start_s + 3000, 10, **LINE_CUT)
                ingest(writer, Cursor("database", 1), [verified(board, raw) for raw in raws])
    return city


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fleet", "verify", *arguments])
    return int(ended.value.code or 0)


def _damage(city: Inventory) -> None:
    """Do to one board's intervals what a fault of memory does, and lose a stretch of another's."""
    with duckdb.connect(str(Store(city.folder).path)) as connection:
        devices = connection.execute("SELECT DISTINCT device FROM interval ORDER BY 1").fetchall()
        (first,), (second,), *_ = devices
        latest = "start_s > (SELECT max(end_s) FROM interval) - 90000"
        connection.execute(
            "UPDATE interval SET start_s = CASE WHEN state = 1 THEN -7160448577894671829 END "  # noqa: S608
            f"WHERE device = $1 AND {latest}",
            [first],
        )
        connection.execute(f"DELETE FROM interval WHERE device = $1 AND {latest}", [second])  # noqa: S608


@pytest.mark.parametrize("expired_days", [0, 1])
def test_what_was_damaged_is_laid_anew_from_the_reports(
    city: Inventory, capsys: pytest.CaptureFixture[str], expired_days: int
) -> None:
    if expired_days:
        with Store(city.folder).writing() as writer:
            writer.pack(least=1, before_s=None)
            writer.expire(raw_before_s=DAY_S + expired_days * 86_400)
    said = uptime.find(city, DAYS).document()
    _damage(city)
    damaged = Store(city.folder).path.read_bytes()
    assert uptime.find(city, DAYS).document() != said
    arguments = ("--city", str(city.folder), "--json")
    assert _run(*arguments) == 1
    document = json.loads(capsys.readouterr().out)
    assert "verify --mend" in document["error"]["hint"]
    boards = {each["board"] for each in document["differences"]}
    assert len(boards) == 2
    assert Store(city.folder).path.read_bytes() == damaged
    assert _run(*arguments, "--mend") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    assert set(document["mended"]) == boards
    assert Path(document["before"]).read_bytes() == damaged
    assert verify(city.folder).differing() == []
    assert uptime.find(city, DAYS).document() == said
    # What comes later goes on from there.
    assert _run(*arguments, "--mend") == 0
    assert "mended" not in json.loads(capsys.readouterr().out)
