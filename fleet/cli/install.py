"""`netzpuls gateway install`, `upgrade`, `rollback`, `remove`, `wheelhouse`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeVar

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from fleet import inventory
from fleet.cli.output import bounds, city_option, emit, json_option, progress
from fleet.errors import UsageError
from fleet.install import operation, wheelhouse
from fleet.install.layout import MACHINE_OF, PYTHON_OF
from fleet.install.operation import (
    DEFAULT_PARALLEL,
    DEFAULT_TIMEOUT_S,
    Done,
    InstallationError,
    Options,
)
from fleet.install.wheelhouse import TARGETS, Target, Wheelhouse
from fleet.inventory import Inventory

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _hosts(command: _Command) -> _Command:
    """Add what all verbs take that work on hosts."""
    options: tuple[Callable[[_Command], _Command], ...] = (
        click.argument("gateways", metavar="ID…", nargs=-1),
        click.option("--all", "every", is_flag=True, help="All gateways of the inventory."),
        city_option,
        click.option(
            "--login",
            default="root",
            show_default=True,
            metavar="USER",
            help="Who logs in: root, or one who may sudo without a password.",
        ),
        click.option("--dry-run", is_flag=True, help="Show the plan; change nothing."),
        bounds(
            DEFAULT_TIMEOUT_S, "Seconds that one host may take in all.", DEFAULT_PARALLEL, "hosts"
        ),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


_wheelhouse_option = click.option(
    "--wheelhouse",
    "house",
    type=click.Path(path_type=Path, file_okay=False),
    help="The packages to install.  [default: in a checkout made by itself]",
)


@click.command("install")
@_hosts
@_wheelhouse_option
def install(*, house: Path | None, as_json: bool, **asked: Any) -> int:
    """Make bare Debian hosts into gateways.

    A user of its own, Netzpuls from a wheelhouse (the site needs no package index), hardened
    services of systemd for broker and collector, certificates, limits for the journal. What is
    there already is left alone; run it again whenever you like, also after it was interrupted.
    """
    return _install(house, as_json=as_json, anew=True, **asked)


@click.command("upgrade")
@_hosts
@_wheelhouse_option
def upgrade(*, house: Path | None, as_json: bool, **asked: Any) -> int:
    """Bring gateways to the release of this Netzpuls, or of a wheelhouse.

    If it does not start on a host, that one goes back to what it ran.
    """
    return _install(house, as_json=as_json, anew=False, **asked)


def _install(house: Path | None, *, as_json: bool, anew: bool, **asked: Any) -> int:
    city, gateways, options = _asked(**asked)
    packages = _wheelhouse(house)
    with _Display(options) as display:
        found = operation.install(city, gateways, packages, options, display.show, anew=anew)
    return _conclude(found, options, as_json)


@click.command("rollback")
@_hosts
def rollback(*, as_json: bool, **asked: Any) -> int:
    """Have gateways run the release that they ran before; once more undoes it."""
    city, gateways, options = _asked(**asked)
    with _Display(options) as display:
        found = operation.rollback(city, gateways, options, display.show)
    return _conclude(found, options, as_json)


@click.command("remove")
@_hosts
@click.option(
    "--erase-data", "erase", is_flag=True, help="Also what was not collected, keys and user."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(*, erase: bool, yes: bool, as_json: bool, **asked: Any) -> int:
    """Take Netzpuls off hosts; what boards reported stays there."""
    city, gateways, options = _asked(**asked)
    if not options.dry_run and not yes:
        what = "and erase what was not collected " if erase else ""
        if as_json or not sys.stdin.isatty():
            raise UsageError(
                f"this would remove Netzpuls {what}from {', '.join(gateways)}",
                hint="say --yes if that is meant, or --dry-run to see the plan",
            )
        click.confirm(f"Remove Netzpuls {what}from {', '.join(gateways)}?", abort=True, err=True)
    with _Display(options) as display:
        found = operation.remove(city, gateways, options, display.show, erase=erase)
    return _conclude(found, options, as_json)


@click.command("wheelhouse")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where.  [default: .tools/wheelhouse of the checkout]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="PYTHON-ARCHITECTURE",
    help=f"Only for such hosts, as {TARGETS[0]}; repeatable.  [default: all that are served]",
)
@json_option
def wheelhouse_command(*, folder: Path | None, targets: tuple[str, ...], as_json: bool) -> None:
    """Make the packages that gateways need, for sites without a package index.

    In a checkout, with the network. Packages of others are fetched as requirements/gateway.lock
    pins them, by their hashes. Take the folder to where `gateway install --wheelhouse` is run.
    """
    place = folder or wheelhouse.default_folder()
    made = wheelhouse.make(place, [_target(each) for each in targets] or TARGETS, progress.print)
    releases = {each: made.release(_target(each)).id for each in made.targets}

    def render() -> None:
        for each, release in releases.items():
            progress.print(f"{each}: {release}", markup=False)
        progress.print(f"in {place}", markup=False, soft_wrap=True)

    emit({"folder": str(place), "releases": releases}, render, as_json)


def _target(text: str) -> Target:
    python, _, architecture = text.partition("-")
    if python not in PYTHON_OF.values() or architecture not in MACHINE_OF:
        raise UsageError(
            f"no gateway is installed on {text!r}",
            hint=f"there are {', '.join(map(str, TARGETS))}",
        )
    return Target(python, architecture)


def _asked(
    *,
    gateways: tuple[str, ...],
    every: bool,
    city: Path,
    login: str,
    dry_run: bool,
    timeout_s: float,
    parallel: int,
) -> tuple[Inventory, Sequence[str], Options]:
    if every == bool(gateways):
        raise UsageError(
            "name the gateways, or --all" if not every else "either gateways by name, or --all",
            hint="netzpuls gateway install gw-mitte",
        )
    known = inventory.load(city)
    chosen = tuple(sorted(known.gateways)) if every else tuple(dict.fromkeys(gateways))
    for each in chosen:
        known.gateway(each)
    return known, chosen, Options(login, timeout_s, parallel, dry_run)


def _wheelhouse(folder: Path | None) -> Wheelhouse:
    if folder is None and wheelhouse.checkout() is not None:
        progress.print("making the packages", markup=False)
        return wheelhouse.make(wheelhouse.default_folder(), tell=progress.print)
    return Wheelhouse(folder or wheelhouse.default_folder())


class _Display:
    """Says what was done as it is done, one line each; on a terminal a bar for each host, too."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._told: dict[str, list[str]] = {}
        self._tasks: dict[str, TaskID] = {}
        self._lock = Lock()
        self._bars = Progress(
            TextColumn("{task.fields[gateway]}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", markup=False, table_column=Column(no_wrap=True)),
            console=progress,
            transient=True,
            disable=not progress.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, done: Done) -> None:
        """Hear how far one host is; hosts are worked on side by side."""
        with self._lock:
            told = self._told.setdefault(done.gateway, [])
            self._bar(done)
            if done.plan is not None and "plan" not in told:
                told.append("plan")
                self._plan(done)
            for step, took_s in done.done[len(told) - 1 :]:
                told.append(step.name)
                self._say(done, f"{step.what}: done in {took_s:.1f} s")
            if done.finished and done.error is not None:
                self._say(done, f"failed: {done.error.message}")
                if done.error.hint:
                    self._say(done, f"  to do: {done.error.hint}")

    def _bar(self, done: Done) -> None:
        if done.plan is None or done.finished:
            if done.gateway in self._tasks:
                self._bars.remove_task(self._tasks.pop(done.gateway))
            return
        now = f"{done.step.what} {done.detail}" if done.step else ""
        if done.gateway not in self._tasks:
            self._tasks[done.gateway] = self._bars.add_task("", gateway=done.gateway, now=now)
        total = len(done.plan.steps)
        task = self._tasks[done.gateway]
        self._bars.update(task, total=total, completed=len(done.done), now=now)

    def _plan(self, done: Done) -> None:
        plan = done.plan
        if plan is None:
            return
        if not plan.steps:
            self._say(done, f"nothing to do: {plan.title} runs {plan.release or 'no Netzpuls'}")
        elif self._options.dry_run:
            self._say(done, f"{plan.title}: {len(plan.steps)} steps")
            for number, step in enumerate(plan.steps, 1):
                self._say(done, f"  {number}. would {step.what}")
        else:
            self._say(done, f"{plan.title}: {len(plan.steps)} steps")
        for note in plan.notes:
            self._say(done, f"note: {note}")

    def _say(self, done: Done, text: str) -> None:
        progress.print(f"{done.gateway}: {text}", markup=False, soft_wrap=True)


def _conclude(found: Sequence[Done], options: Options, as_json: bool) -> int:
    failed = [each.gateway for each in found if each.error]
    document = {"gateways": [each.document(dry_run=options.dry_run) for each in found]}
    if not failed:
        changed = sum(bool(each.done) for each in found)
        verb = "would change" if options.dry_run else "changed"
        if options.dry_run:
            changed = sum(bool(each.plan and each.plan.steps) for each in found)
        emit(
            document,
            lambda: progress.print(
                f"{changed} of {len(found)} gateway{'s' * (len(found) != 1)} {verb}", markup=False
            ),
            as_json,
        )
        return 0
    error = InstallationError(
        f"{len(failed)} of {len(found)} gateways failed: {', '.join(failed)}",
        hint="what to do about each stands above; the same command goes on where each stopped",
    )
    if as_json:
        emit(error.document() | document, lambda: None, as_json)
        return error.exit_code
    raise error
