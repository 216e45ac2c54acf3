"""`netzpuls fleet uptime --explain`: which reports led to a state, in words."""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

from rich.text import Text

from firmware.linkreport.table import DEGRADED, DOWN, EXCLUDED, UP
from firmware.linkreport.term import STATES, reason_name
from fleet import explain as explanation
from fleet.cli.maintenance import show_maintenance
from fleet.cli.output import emit, result
from fleet.explain import Explanation, Told, Word
from fleet.inventory import Inventory
from fleet.period import moment, shown
from fleet.report import layer_name

_STYLES = {UP: "green", DEGRADED: "yellow", DOWN: "bold red", EXCLUDED: "dim"}


def explain(city: Inventory, what: str, when: str, calendar: str | None, *, as_json: bool) -> None:
    """Print why a subject was in its state in a second.

    Raises: UsageError: there is no such subject, or the text is no time that has passed.
    """
    zone = ZoneInfo(city.city.timezone)
    moment_s = moment(when, zone, "--explain", int(time.time()))
    answer = explanation.explain(city, city.subject(what), moment_s, calendar)
    emit(answer.document(), lambda: _show(answer), as_json)


def _show(answer: Explanation) -> None:
    zone = answer.zone
    head = f"{answer.subject} at {shown(answer.moment_s, zone)}, {zone.key}"
    if answer.state is None:
        _line(Text(head, "bold"))
    else:
        _line(
            Text.assemble(
                (f"{head}: ", "bold"),
                _state(answer.state),
                f", {_cause(answer.layer, answer.reason)}" * bool(answer.reason),
            )
        )
    if answer.outside:
        _line(f"5: it does not count, by calendar {answer.calendar}: {answer.outside}")
    if answer.maintenance:
        _line("5: it does not count, because of")
        show_maintenance(answer.maintenance, zone)
    if answer.state == EXCLUDED and (answer.words or answer.rule):
        _line("without that:")
    if answer.rule:
        _line(answer.rule)
    for site, state in answer.lines.items():
        _line(Text.assemble(f"line/{site}: ", _state(state)))
    for word in answer.words:
        _show_word(word, zone)
    if answer.subject.kind == "board" and not answer.words:
        _line("7: it hung in no room then, so that its reports count for nobody")


def _show_word(word: Word, zone: ZoneInfo) -> None:
    _line(Text.assemble(f"{word.room}  {word.board}: ", _state(word.state)))
    for rule in word.rules():
        _line(f"  {rule}")
    if word.hearing:
        _line(f"  {word.hearing.rule()}")
    elif word.evidence != "none":
        verb = "reached" if word.reaches else "missed"
        _line(f"  6: it {verb} the internet")
    for name, told in (("", word.holds), ("before: ", word.before), ("after: ", word.after)):
        if told and (told is not word.holds or not name):
            _line(f"  {name}{_told(told, zone)}")
    for told in word.beaten:
        _line(f"  beaten: {_told(told, zone)}")


def _told(told: Told, zone: ZoneInfo) -> str:
    own = ""
    if told.time_s is None:
        own = ", without a time of its own"
    elif told.time_s != told.at_s:
        own = f", by its own clock {shown(told.time_s, zone)}"
    state = STATES[told.state] if told.state < len(STATES) else "unknown"
    return (
        f"report {told.seq} (key {told.key_id}, boot {told.boot}) made {shown(told.at_s, zone)}"
        f"{own}: {state}, {_cause(told.layer, told.reason)}; {told.gateway} had "
        f"it at {shown(told.received_s, zone)}"
    )


def _cause(layer: int, reason: int) -> str:
    return f"{layer_name(layer)}: {reason_name(reason)}" if layer else reason_name(reason)


def _state(state: int) -> tuple[str, str]:
    return STATES[state], _STYLES.get(state, "")


def _line(text: str | Text) -> None:
    result.print(text, markup=False, soft_wrap=True)
