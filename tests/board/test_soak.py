"""Some hours of a soak, with each fault once; `make soak` is the week."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.board.soak import __main__ as command
from tests.board.soak.fault import FAULTS
from tests.board.soak.plan import plan
from tests.board.soak.soak import HEAP_KIB, SAMPLES, Soak, peaks

CYCLES = 360
WEEK_CYCLES = 7 * 24 * 60
LONG = {"time-server-silent"}  # longer than these hours


@pytest.mark.timeout(300)
def test_memory_stays_flat_and_every_report_is_accounted_for(tmp_path: Path) -> None:
    document = Soak(tmp_path, CYCLES, HEAP_KIB, seed=1).run()
    assert document["failures"] == []
    assert document["reports"]["made"] > CYCLES * 0.9


@pytest.mark.parametrize(("cycles", "missing"), [(CYCLES, LONG), (WEEK_CYCLES, set())])
def test_a_plan_has_each_fault_and_calm_hours(cycles: int, missing: set[str]) -> None:
    for seed in range(20):
        made = plan(cycles, seed)
        planned = {event.fault.name for event in made.events}
        assert planned == {fault.name for fault in FAULTS} - missing, seed
        for life in made.lives:
            ends = [life.start + made.calm_cycles] + [life.end] * life.ends_calmly
            for end in ends:
                assert all(map(made.is_calm, range(end - SAMPLES, end))), (seed, life)


def test_peaks_are_told_by_the_modules_on_loan() -> None:
    started = {"agent.agent", "probes"}
    left = {
        frozenset({"setup"}): 900,
        frozenset(started): 1000,
        frozenset(started | {"radio"}): 700,
        frozenset(started | {"portal", "web"}): 500,
    }
    assert list(peaks(left, 1000).items()) == [
        ("portal web", 500),
        ("radio", 300),
        ("setup", 100),
        ("", 0),
    ]


def test_ctrl_c_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_soak: Soak) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Soak, "run", interrupted)
    monkeypatch.setattr("sys.argv", ["soak", "--cycles", "1"])
    assert command.main() == 130
    assert capsys.readouterr().err == "error: interrupted\n"
