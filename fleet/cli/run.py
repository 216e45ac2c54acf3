"""`netzpuls fleet run`: one command on many gateways, for what nobody foresaw."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from fleet import inventory
from fleet.audit import AUDIT_FILE
from fleet.cli import table
from fleet.cli.login import unlock
from fleet.cli.output import bounds, city_option, emit, json_option, progress, result
from fleet.errors import UsageError
from fleet.run import DEFAULT_PARALLEL, DEFAULT_TIMEOUT_S, Ran, RunError, choose, run


@click.command(
    "run",
    epilog="One word after -- is a line for the shell there: -- 'df -h / | tail -1'. Several are a "
    "program and its arguments, as they are: -- systemctl restart netzpuls.",
)
@city_option
@click.option("--site", "sites", multiple=True, metavar="ID", help="Only its gateway; repeatable.")
@click.option(
    "-l",
    "--limit",
    "limits",
    multiple=True,
    metavar="PATTERN",
    help="Only gateways whose id fits, such as gw-goethe or 'gw-*,!gw-test'; repeatable.",
)
@bounds(
    DEFAULT_TIMEOUT_S,
    "Seconds on one gateway; then the command is ended there.",
    DEFAULT_PARALLEL,
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before it runs on more than one.")
@click.option("--dry-run", is_flag=True, help="Say what would run where; run nothing.")
@json_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(
    *,
    city: Path,
    sites: tuple[str, ...],
    limits: tuple[str, ...],
    timeout_s: float,
    parallel: int,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND on all gateways, or on some.

    Output is shown per gateway, and once where it is the same. It runs as the user that city hall
    logs in as, without a terminal and without stdin. audit.jsonl in the city's folder says who ran
    what where. Exits with 1 if it failed anywhere.
    """
    known = inventory.load(city)
    gateways = choose(known, sites, limits)
    line = command[0] if len(command) == 1 else shlex.join(command)
    document: dict[str, Any] = {"command": list(command), "dry_run": dry_run}
    if dry_run:
        emit(
            document | {"gateways": gateways},
            lambda: _announce("would run", line, gateways),
            as_json,
        )
        return 0
    if len(gateways) > 1 and not yes:
        _confirm(line, gateways, as_json=as_json)
    unlock(known, gateways)
    count = 0

    def on_done(ran: Ran) -> None:
        nonlocal count
        count += 1
        if not as_json:
            _show_done(ran, f"{count}/{len(gateways)}")

    found = run(known, gateways, command, timeout_s=timeout_s, parallel=parallel, on_done=on_done)
    document["gateways"] = [each.document() for each in found]
    failed = [each.host for each in found if not each.good]
    if not failed:
        emit(document, lambda: _show(found), as_json)
        return 0
    error = RunError(
        f"it failed on {len(failed)} of {table.count(len(found), 'gateway')}: {', '.join(failed)}",
        hint=f"what to do about each stands above; {city / AUDIT_FILE} has them all",
    )
    emit(error.document() | document, lambda: _show(found), as_json)
    if not as_json:
        raise error
    return error.exit_code


def _announce(what: str, line: str, gateways: Sequence[str]) -> None:
    where = table.count(len(gateways), "gateway")
    _say(f"{what} on {where}: {', '.join(gateways)}")
    _say(f"  {line}")


def _confirm(line: str, gateways: Sequence[str], *, as_json: bool) -> None:
    if as_json or sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError(
            f"that would run on {len(gateways)} gateways, and there is no terminal to ask on",
            hint="say --yes if that is meant, or choose with --limit; see what with --dry-run",
        )
    _announce("this is going to run", line, gateways)
    if not click.confirm("Go on?", default=False, err=True):
        raise click.Abort


def _show_done(ran: Ran, count: str) -> None:
    if ran.error:
        progress.print(
            f"{count} error: {ran.error.message}", style="red", markup=False, soft_wrap=True
        )
        if ran.error.hint:
            _say(f"hint: {ran.error.hint}")
    else:
        _say(f"{count} {ran.host}: exit code {ran.exit_code} in {ran.duration_s:.1f} s")


def _show(found: Sequence[Ran]) -> None:
    """Print each output once, with all gateways that gave it; most of them first."""
    alike: dict[tuple[int | None, str, int], list[str]] = {}
    for each in found:
        if each.error is None:
            alike.setdefault((each.exit_code, each.output, each.omitted_bytes), []).append(
                each.host
            )
    for (code, output, omitted), hosts in sorted(alike.items(), key=lambda each: -len(each[1])):
        many = f" ({len(hosts)} gateways)" if len(hosts) > 1 else ""
        failed = f", exit code {code}" if code else ""
        title = Text(f"── {', '.join(hosts)}{many}{failed}", "bold red" if code else "bold")
        result.print(title, soft_wrap=True)
        if output:
            result.print(output, markup=False, soft_wrap=True)
        if omitted:
            result.print(Text(f"… {omitted:,} bytes more are not shown", "dim"), soft_wrap=True)


def _say(text: str) -> None:
    progress.print(text, markup=False, soft_wrap=True)
