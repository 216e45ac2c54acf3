"""How the confusion matrix is written down; `make lab` makes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hil.lab import table
from hil.lab.fault import find
from hil.lab.matrix import Row


def _rows() -> list[Row]:
    right = Row(find("dns-dead"), "ap-monitor", "np-000000000001", Counter({"resolver-silent": 2}))
    right.cycles, right.seconds, right.back_cycles, right.back_seconds = 1, 7.5, 2, 9.0
    wrong = Row(find("dns-hangs"), "ap-monitor", "np-000000000001", Counter({"up": 5}))
    wrong.problem = "it never said resolver-silent"
    return [right, wrong]


def test_the_page_keeps_what_stands_around_the_matrix(tmp_path: Path) -> None:
    page = tmp_path / "verdicts.md"
    page.write_text(f"# Verdicts\n\n{table.BEGIN}\nwhat was there\n{table.END}\n\n## Radio\n")
    for _ in range(2):
        table.write(page, table.markdown(_rows(), 8))
    text = page.read_text()
    assert text.startswith(f"# Verdicts\n\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\n\n## Radio\n")
    assert "what was there" not in text
    assert "2 rows (fault and role), 1 right; boards report every 8 s." in text
    assert "| resolver | resolver-silent | up | verdict | back |\n|---|--:|--:|--:|--:|\n" in text
    assert "| `dns-dead` | **2** |  | 1 | 2 |\n" in text
    assert "| `dns-hangs` |  | 5 | – | – |\n" in text
    assert "- **wrong**: `dns-hangs`, ap-monitor: it never said resolver-silent\n" in text
    assert "- `dns-hangs` is not to be told from dns-dead" in text


def test_a_second_try_is_shown() -> None:
    row, _ = _rows()
    row.first_try = "it never said resolver-silent"
    assert "second try; first: it never said resolver-silent" in table.markdown([row], 8)
    assert row.document()["first_try"]
    assert "first try" in table.terminal([row]).rows[0][-1].plain


def test_a_page_without_marks_gets_the_matrix_at_its_end(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    table.write(page, table.markdown(_rows(), 8))
    assert page.read_text().startswith(table.BEGIN)
    page.write_text("# Page\n")
    table.write(page, table.markdown(_rows(), 8))
    assert page.read_text().startswith(f"# Page\n\n{table.BEGIN}")
