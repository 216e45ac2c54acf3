"""Running one command on many gateways, for what nobody foresaw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fleet import audit, runner
from fleet.errors import NetzpulsError, StoreError, UsageError
from fleet.inventory import Inventory
from fleet.login import host_of
from fleet.runner import Stop
from fleet.ssh import Deadlines, Pool, Session
from fleet.text import printable

DEFAULT_PARALLEL = 16
DEFAULT_TIMEOUT_S = 60.0
# What is kept of a host's output; what comes after is read and counted, for it must not end.
MOST_OUTPUT_BYTES = 1 << 18

_READ_BYTES = 1 << 16
_MOST_IN_A_LINE = 4096


class RunError(NetzpulsError):
    """On some hosts, or all, the command failed or could not be run."""

    code = "hosts-failed"


@dataclass(frozen=True)
class Ran:
    """What became of the command on one host.

    Attributes:
        exit_code: the command's own; None where it did not come to that.
        output: stdout and stderr as they came, lines made safe to show, at most so much.
        omitted_bytes: how much came beyond that.
        error: why there is no exit code.
    """

    host: str
    exit_code: int | None = None
    output: str = ""
    omitted_bytes: int = 0
    duration_s: float = 0.0
    error: NetzpulsError | None = None

    @property
    def good(self) -> bool:
        """Whether the command said so."""
        return self.exit_code == 0

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        document = {
            "host": self.host,
            "ok": self.good,
            "exit_code": self.exit_code,
            "output": self.output,
            "omitted_bytes": self.omitted_bytes,
            "duration_s": round(self.duration_s, 3),
        }
        return document | (self.error.document() if self.error else {})


def choose(city: Inventory, sites: Sequence[str], limits: Sequence[str]) -> list[str]:
    """Return the gateways that are meant: all, or those of sites, or whose ids fit a pattern.

    Args:
        city: whose gateways.
        sites: only gateways of these sites; all if none is named.
        limits: only those that fit one of these patterns (`gw-*`), and none that fits one that
            begins with `!`; a text may hold several with commas between.

    Raises: UsageError: there is no such site, or nothing is left.
    """
    chosen = sorted({city.site(each).gateway for each in sites} if sites else city.gateways)
    patterns = [each.strip() for text in limits for each in text.split(",") if each.strip()]
    wanted = [each for each in patterns if not each.startswith("!")]
    unwanted = [each[1:] for each in patterns if each.startswith("!")]
    for pattern in wanted:
        if not _fitting(chosen, [pattern]):
            raise UsageError(
                f"no gateway fits {pattern!r}", hint=f"there are {', '.join(chosen) or 'none'}"
            )
    if wanted:
        chosen = _fitting(chosen, wanted)
    left = set(chosen) - set(_fitting(chosen, unwanted))
    if not left:
        raise UsageError("no gateway is left to run that on", hint="see --site and --limit")
    return sorted(left)


def _fitting(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, each) for each in patterns)]


def run(
    city: Inventory,
    gateways: Sequence[str],
    command: Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    parallel: int = DEFAULT_PARALLEL,
    on_done: Callable[[Ran], None] = lambda _: None,
) -> list[Ran]:
    """Run a command on gateways, side by side; the audit log hears of it before and after.

    Args:
        city: whose gateways and log.
        gateways: which of them.
        command: one text is a line for the shell there, several are a program and its arguments.
        timeout_s: how long it may take on one host, the login included; then it is ended there.
        parallel: how many at a time.
        on_done: called as each host is done, in this thread.

    Returns: one entry per gateway, in the order given.
    Raises: StoreError: the audit log cannot be written. Before the start nothing is run then.
    """
    arguments = ["sh", "-c", command[0]] if len(command) == 1 else list(command)
    hosts = {each: host_of(city, each) for each in gateways}
    log = audit.Run(city.folder)
    log.begin(command, gateways)
    done: dict[str, Ran] = {}
    unwritten: StoreError | None = None
    interrupted = True
    try:
        with Pool() as pool:

            def work(gateway_id: str, stop: Stop) -> Ran:
                deadlines = Deadlines(silence_s=timeout_s, session_s=timeout_s)
                began = time.monotonic()
                session = Session(hosts[gateway_id], deadlines, pool=pool)
                with stop.closing(session), session:
                    return _run(gateway_id, session, arguments, began)

            # closing: an interrupt keeps the loop's frame alive, and work would go on behind it.
            with closing(runner.run(gateways, work, parallel)) as outcomes:
                for each in outcomes:
                    ran = each.value or Ran(each.target, error=each.error)
                    done[each.target] = ran
                    try:
                        log.host(ran.host, **_noted(ran))
                    except StoreError as error:
                        unwritten = error  # what runs elsewhere is not cut off for that
                    on_done(ran)
        interrupted = False
    finally:
        good = sum(ran.good for ran in done.values())
        log.end(good, len(gateways) - good, interrupted=interrupted)
    if unwritten:
        raise unwritten
    return [done[each] for each in gateways]


def _noted(ran: Ran) -> dict[str, Any]:
    noted: dict[str, Any] = {"exit_code": ran.exit_code, "duration_s": round(ran.duration_s, 3)}
    return noted | ({"error": ran.error.message} if ran.error else {})


def _run(gateway_id: str, session: Session, arguments: Sequence[str], began: float) -> Ran:
    kept, omitted = bytearray(), 0
    with session.command(arguments, merged=True) as command:
        command.send(b"")  # it has no stdin: what asks for something there hears that at once
        while data := command.read(_READ_BYTES):
            room = MOST_OUTPUT_BYTES - len(kept)
            kept += data[:room]
            omitted += len(data) - len(data[:room])
        code = command.wait()
    lines = bytes(kept).decode("utf-8", "backslashreplace").splitlines()
    output = "\n".join(printable(line.expandtabs(), _MOST_IN_A_LINE) for line in lines)
    return Ran(gateway_id, code, output, omitted, time.monotonic() - began)
