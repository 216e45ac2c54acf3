"""docs/verdicts.md explains every reason and every trouble of the uplink, with the right state."""

from __future__ import annotations

import re
from pathlib import Path

from firmware.linkreport import table, term

DOCUMENT = (Path(__file__).parents[1] / "docs" / "verdicts.md").read_text(encoding="utf-8")
ANY_LAYER = 10  # reasons below are those that any layer can have


def rows() -> dict[str, str]:
    """Return the state that the document gives, by reason."""
    found = re.findall(r"^\| `([a-z-]+)` \| ([a-z]+) \|", DOCUMENT, re.MULTILINE)
    assert len(found) == len(dict(found)), "a reason is explained twice"
    return dict(found)


def test_every_reason_of_a_layer_is_explained_with_its_state() -> None:
    states = {
        name: term.STATES[table.reason_state(number)]
        for number, name in term.REASONS.items()
        if number >= ANY_LAYER
    }
    assert rows() == states


def test_reasons_stand_under_their_layer() -> None:
    for section in DOCUMENT.split("\n## ")[1:]:
        layer = section.splitlines()[0].lower()
        if layer not in term.LAYERS:
            continue
        numbers = {name: number for number, name in term.REASONS.items()}
        for reason in re.findall(r"^\| `([a-z-]+)` \| [a-z]+ \|", section, re.MULTILINE):
            assert term.LAYERS[numbers[reason] // 10 % 10] == layer, reason


def test_reasons_of_any_layer_and_troubles_are_named() -> None:
    for name in [term.REASONS[number] for number in range(2, 5)] + list(term.TROUBLES[1:]):
        assert f"`{name}`" in DOCUMENT, name
