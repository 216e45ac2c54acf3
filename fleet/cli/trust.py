"""`netzpuls gateway trust`: look at a host's key and record it on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fleet import inventory
from fleet import trust as trusting
from fleet.cli.login import unlock
from fleet.cli.output import city_option, emit, json_option, progress
from fleet.errors import HostKeyError, UsageError
from fleet.ssh import Shown
from fleet.trust import Hop

_TOLD = {
    "known": "is known",
    "recorded": "is recorded in known_hosts",
    "would-record": "would be recorded",
    "refused": "is not recorded",
}


@click.command("trust")
@click.argument("gateway_id", metavar="ID")
@city_option
@click.option(
    "--fingerprint",
    "fingerprints",
    multiple=True,
    metavar="SHA256:…",
    help="Record the key with this fingerprint without asking; repeat it for a jump host's.",
)
@click.option("--replace", is_flag=True, help="A changed key may take the place of the known one.")
@click.option("--dry-run", is_flag=True, help="Show the keys; record nothing.")
@json_option
def trust(
    gateway_id: str,
    *,
    city: Path,
    fingerprints: tuple[str, ...],
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show a gateway's host key and record it on purpose.

    Jump hosts on the way first. Compare each fingerprint with what the host itself says, by
    another way than this one. A changed key is shown as changed, and kept out without --replace.
    """
    known = inventory.load(city)
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if not fingerprints and not dry_run and (as_json or not terminal):
        raise UsageError(
            "there is no terminal on which to ask whether a key is the right one",
            hint="give its fingerprint with --fingerprint, or look first with --dry-run",
        )
    unlock(known, [gateway_id])
    agree = trusting.agreeing(fingerprints) if fingerprints else _ask
    hops: list[Hop] = []
    for hop in trusting.trust(known, gateway_id, agree, replace=replace, dry_run=dry_run):
        hops.append(hop)
        if not as_json:
            _show(hop, asked=not fingerprints and hop.outcome in {"recorded", "refused"})
    last = hops[-1]
    if last.outcome == "refused":
        host = last.shown.host
        raise HostKeyError(
            f"{host.label} ({host.name}) showed {last.shown.kind} {last.shown.fingerprint}, "
            "which nobody agreed to; it is not recorded",
            hint=last.shown.compare,
            details={"hops": [each.document() for each in hops]},
        )
    document = {"hops": [each.document() for each in hops], "dry_run": dry_run}
    emit(document, lambda: _end(last, gateway_id), as_json)


def _ask(shown: Shown) -> bool:
    _say(f"{shown.host.label} ({shown.host.name}) shows")
    _say(f"  {shown.kind} {shown.fingerprint}")
    if shown.state == "changed":
        _say(f"  CHANGED: known is {', '.join(shown.known)}")
    _say(f"  {shown.compare}")
    return click.confirm("Is it the same?", default=False, err=True)


def _show(hop: Hop, *, asked: bool) -> None:
    shown = hop.shown
    if not asked:
        changed = f" (CHANGED: known is {', '.join(shown.known)})" * (shown.state == "changed")
        _say(f"{shown.host.label} ({shown.host.name}): {shown.kind} {shown.fingerprint}{changed}")
    _say(f"  {_TOLD[hop.outcome]}")


def _end(last: Hop, gateway_id: str) -> None:
    if last.shown.host.id != gateway_id or last.shown.host.alias.startswith("jump/"):
        _say(f"{gateway_id} itself shows its key once this one is recorded")


def _say(text: str) -> None:
    progress.print(text, markup=False, soft_wrap=True)
