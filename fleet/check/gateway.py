"""Gateways, asked over SSH right now: do broker and collector live, what waits, disk, clock.

A gateway's answer is the word of a host that may be broken or hostile: see fleet/gateway/status.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from shlex import split

from fleet import runner
from fleet.check.answer import Answer
from fleet.check.report import silent_s
from fleet.errors import ConfigurationError, HostError, HostKeyError, NetzpulsError, StoreError
from fleet.gateway import status
from fleet.gateway.status import Status
from fleet.inventory import Inventory
from fleet.login import host_of
from fleet.period import duration
from fleet.runner import Stop
from fleet.ssh import Deadlines, Pool, Session
from fleet.store import Cursor, Store

PART = "gateways"
# With less time than this nobody is asked any more.
_LEAST_S = 0.5
_CONNECT_S = 10.0


@dataclass(frozen=True)
class Asked:
    """What a gateway answered.

    Attributes:
        offset_s: by how much its clock differs at least, seconds; what the way there and back may
            account for is no difference.
        took_s: how long that was, from the login on.
    """

    status: Status
    offset_s: float
    took_s: float


class NotAskedError(NetzpulsError):
    """There was no time left to ask a gateway."""

    code = "not-asked"


def ask(
    city: Inventory, gateways: Sequence[str], pool: Pool, *, timeout_s: float, parallel: int
) -> dict[str, Asked | NetzpulsError]:
    """Ask gateways how they are, side by side, and be done in time.

    Args:
        city: whose gateways.
        gateways: which of them.
        pool: connections that are there, and where they are kept.
        timeout_s: how long all of them may take together.
        parallel: how many at a time.

    Returns: each one's answer, or why there is none.
    """
    until = time.monotonic() + timeout_s
    cursors = _cursors(city)

    def work(gateway_id: str, stop: Stop) -> Asked:
        left_s = until - time.monotonic()
        if left_s < _LEAST_S:
            raise NotAskedError(
                f"{gateway_id} was not asked: the time was used up",
                hint="give it more time with -t, or ask for fewer with --site",
            )
        deadlines = Deadlines(connect_s=min(_CONNECT_S, left_s), silence_s=left_s, session_s=left_s)
        session = Session(host_of(city, gateway_id), deadlines, pool=pool)
        with stop.closing(session), session:
            return _ask(city, gateway_id, session, cursors.get(gateway_id))

    found: dict[str, Asked | NetzpulsError] = {}
    with closing(runner.run(gateways, work, parallel)) as outcomes:
        for each in outcomes:
            if each.value is not None:
                found[each.target] = each.value
            elif each.error is not None:
                found[each.target] = each.error
    return found


def _ask(city: Inventory, gateway_id: str, session: Session, cursor: Cursor | None) -> Asked:
    gateway = city.gateways[gateway_id]
    arguments = [*split(gateway.command), "gateway", "status", "--json", "--dir", gateway.data_dir]
    arguments += ["--silent-after", str(silent_s(city))]
    if cursor:
        arguments += ["--after", str(cursor.row), "--database", cursor.database]
    began, sent_s = time.monotonic(), time.time()
    with session.command(arguments) as command:
        said = command.stdout.read(status.MAX_BYTES + 1)
        received_s = time.time()
        if not said:
            command.finish()
    if len(said) > status.MAX_BYTES:
        said = said[:80]  # whatever it is, no status has so much
    found = status.parse(said, gateway_id)
    if found.gateway != gateway_id:
        raise HostError(
            f"{session.host.label} ({session.host.name}): in {gateway.data_dir} there lives "
            f"{found.gateway!r}",
            hint="correct its host, ssh_port or data_dir in inventory.toml",
        )
    theirs_s = found.time_ms / 1000
    offset_s = max(0.0, theirs_s - received_s, sent_s - theirs_s)
    return Asked(found, offset_s, time.monotonic() - began)


def _cursors(city: Inventory) -> dict[str, Cursor]:
    """Return how far each gateway was read; nothing if that cannot be told now."""
    try:
        with Store(city.folder).reading() as connection:
            found = connection.execute('SELECT gateway, database, "row" FROM cursor').fetchall()
    except StoreError:
        return {}  # the reports' part says why
    return {gateway: Cursor(database, row) for gateway, database, row in found}


def look(answer: Answer, asked: Mapping[str, Asked | NetzpulsError]) -> None:
    """Look at what gateways answered, or that they did not."""
    counts = {"gateways_unreachable", "gateways_stopped", "gateways_outdated"}
    answer.measured |= counts
    for gateway_id, found in asked.items():
        if isinstance(found, Asked):
            _look_at(answer, gateway_id, found)
            continue
        subject, message = f"gateway {gateway_id}", f"{found.message}; {found.hint}"
        if _is_ours(found):
            answer.doubt(PART, subject, message)
        else:
            answer.see(PART, "gateways_unreachable", subject, message)


def _is_ours(error: NetzpulsError) -> bool:
    """Tell whether an error says nothing about the gateway: it lies with us, or with the check."""
    if isinstance(error, HostKeyError):
        return error.details.get("known") is None
    return isinstance(error, ConfigurationError | NotAskedError | status.StatusError)


def _look_at(answer: Answer, gateway_id: str, asked: Asked) -> None:
    found, subject = asked.status, f"gateway {gateway_id}"
    now_s = found.time_ms / 1000
    stopped = ["the broker does not answer"] * (not found.broker)
    stopped += ["the collector does not run"] * (not found.collector)
    if stopped:
        message = f"{' and '.join(stopped)}; log in there and look: systemctl status 'netzpuls*'"
        answer.see(PART, "gateways_stopped", subject, message)
    free = 100 * found.disk_free_bytes / max(1, found.disk_total_bytes)
    room = f"{found.disk_free_bytes / 1e9:,.1f} GB"
    answer.see(PART, "disk_free", subject, f"{free:.1f} % of its disk are free ({room})", free)
    offset = f"its clock is {asked.offset_s:.1f} s off: does a time server reach it?"
    answer.see(PART, "clock_offset", subject, offset, round(asked.offset_s, 3))
    answer.see(PART, "queue", subject, f"{found.waiting:,} reports wait", found.waiting)
    ages = (
        ("queue_age", found.waiting_since_s, "reports wait for collection for {}"),
        ("unacknowledged_age", found.unacknowledged_since_s, "reports wait behind a hole for {}"),
    )
    for metric, since_s, words in ages:
        age_s = 0 if since_s is None else max(0, int(now_s - since_s))
        answer.see(PART, metric, subject, words.format(duration(age_s)), age_s)
    here = metadata.version("netzpuls")
    if found.version != here:
        message = f"has Netzpuls {found.version}, here is {here}"
        answer.see(PART, "gateways_outdated", subject, message)
    runs = "runs" if found.broker and found.collector else "does not run"
    answer.notes.append(
        f"{subject}: Netzpuls {found.version} {runs}, {found.boards} boards, "
        f"{found.silent_count} silent, {found.waiting:,} reports wait, disk {free:.0f} % free, "
        f"answered in {asked.took_s:.2f} s"
    )
