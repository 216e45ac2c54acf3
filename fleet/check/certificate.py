"""When certificates end: of boards, gateways, their collectors and the CA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from fleet import authority, visit
from fleet.authority import CERTIFICATE_FILE
from fleet.check.answer import Answer
from fleet.check.scope import Scope
from fleet.store import Store

PART = "certificates"
_DAY_S = 86_400


def look(scope: Scope, answer: Answer) -> None:
    """Look at the ends of all certificates; the CA's matters to the whole city."""
    for subject, end, hint in _ends(scope, answer):
        days = int((end.timestamp() - scope.now_s) // _DAY_S)
        when = "ended" if days < 0 else f"ends in {days} days,"
        message = f"certificate {when} on {end:%Y-%m-%d}: {hint}"
        answer.see(PART, "certificate_days", subject, message, days)


def _ends(scope: Scope, answer: Answer) -> Iterator[tuple[str, datetime, str]]:
    """Yield whose certificate ends when, and what to do about it."""
    path = scope.city.folder / CERTIFICATE_FILE
    if scope.whole and path.exists():
        end = authority.read_certificate(path).not_valid_after_utc
        yield "CA", end, "netzpuls board ca --renew, then flash the boards again"
    for board_id, board in scope.boards.items():
        hint = f"at the desk: netzpuls board renew ({board.site}, {board.room})"
        yield board_id, board.certificate_expires, hint
    visits = visit.load(Store(scope.city.folder).folder)
    for gateway_id in scope.gateways:
        said, last = scope.live.get(gateway_id), visits.get(gateway_id)
        found: Mapping[str, datetime] = last.certificates if last else {}
        if said:
            found = {str(name): end for name, end in said.certificates.items()}
        if not found:
            message = "its certificates are not known: was it prepared and collected?"
            answer.doubt(PART, gateway_id, message)
        for name in ("gateway", "collector"):
            if name in found:
                subject = gateway_id if name == "gateway" else f"collector of {gateway_id}"
                hint = f"netzpuls gateway prepare {gateway_id}, and copy what it names"
                yield subject, found[name], hint
