"""What is to be done on a host: the second step, which only compares.

A plan is data: what will be done, and the scripts that do it. Nothing secret stands in a script or
its arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet import file
from fleet.errors import HostError, UsageError
from fleet.install import unit
from fleet.install.layout import (
    JOURNAL,
    PACKAGES,
    PROGRAM,
    PYTHON_OF,
    SERVICES,
)
from fleet.install.survey import PresentFile, Service, Survey
from fleet.install.wheelhouse import Release, Target

_ROOM_BYTES = 300 << 20
# What a roster brings (`fleet.gateway.roster`), which sees to it that nothing older comes; and the
# settings, which belong to the host. Once there, they are left alone.
_ONCE = ("gateway.toml", "boards.toml", "tls/ca.pem", "tls/revoked.pem")


@dataclass(frozen=True)
class Call:
    """One script to run on the host: its name in remote/, `$1` and on, and its stdin."""

    script: str
    arguments: tuple[str, ...] = ()
    stdin: bytes | Path = b""

    @property
    def content(self) -> bytes:
        """What the script may read."""
        return self.stdin.read_bytes() if isinstance(self.stdin, Path) else self.stdin


@dataclass(frozen=True)
class Step:
    """One thing that changes; `restores` is done if it fails."""

    name: str
    what: str
    calls: tuple[Call, ...]
    restores: tuple[Call, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {"step": self.name, "what": self.what}


@dataclass
class Plan:
    """The steps for one host, in order; none if all is as it should be."""

    gateway: str
    title: str
    release: str
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "gateway": self.gateway,
            "host": self.title,
            "release": self.release,
            "steps": [each.document() for each in self.steps],
            "notes": self.notes,
        }


@dataclass(frozen=True)
class FolderFile:
    """A file of the gateway's folder, by its path in there."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class Wanted:
    """What belongs on a gateway's host.

    Attributes:
        label: what errors call the host.
        user: whom the services run as and city hall logs in as.
        data: the gateway's folder there.
        folder: its files; keys come before their certificates.
        authorized: the line by which city hall may log in; "" if no key of its is known.
        broker_port: where boards report to.
    """

    gateway: str
    label: str
    user: str
    data: str
    folder: Sequence[FolderFile]
    authorized: str
    broker_port: int

    @property
    def paths(self) -> list[str]:
        """All files whose content matters."""
        return [*(f"{self.data}/{each.path}" for each in self.folder), *self.system]

    @property
    def system(self) -> Mapping[str, bytes]:
        """The files that systemd reads."""
        return unit.files(self.user, self.data)


def install(survey: Survey, wanted: Wanted, release: Release) -> Plan:
    """Return what a host lacks.

    Raises: HostError: it is none that can be a gateway, or has no room.
    """
    _check(survey, wanted)
    plan = Plan(wanted.gateway, survey.title, release.id)
    plan.steps += _ground(survey, wanted)
    plan.steps += _release(survey, release)
    plan.steps += _files(survey, wanted)
    plan.steps += _running(survey, wanted, release)
    plan.steps += _tidy(survey, release)
    plan.notes += _notes(survey, wanted)
    return plan


def rollback(survey: Survey, wanted: Wanted) -> Plan:
    """Return how to go back to the release that ran before.

    Raises: UsageError: none did.
    """
    if not survey.previous or survey.previous == survey.current:
        raise UsageError(
            f"{wanted.label} has no release to go back to: {survey.current or 'none'} is the only "
            "one that ran there",
            hint="install another one: netzpuls gateway upgrade, with --wheelhouse",
        )
    if survey.previous not in survey.releases:
        raise UsageError(
            f"{wanted.label} no longer has {survey.previous} whole",
            hint="install it again: netzpuls gateway upgrade, with its --wheelhouse",
        )
    plan = Plan(wanted.gateway, survey.title, survey.previous)
    plan.steps.append(
        Step(
            "release",
            f"run {survey.previous} instead of {survey.current}",
            (_switch(survey.previous, survey.current), Call("start.sh", SERVICES)),
            (_switch(survey.current, survey.previous), Call("start.sh", SERVICES)),
        )
    )
    return plan


def remove(survey: Survey, wanted: Wanted, *, erase: bool) -> Plan:
    """Return how to take Netzpuls off a host; what boards reported stays unless it is to go."""
    plan = Plan(wanted.gateway, survey.title, survey.current)
    present = bool(
        survey.current
        or survey.releases
        or survey.begun
        or survey.wheels
        or any(path in survey.files for path in wanted.system)
    )
    if present or (erase and (survey.data or survey.home)):
        what = "stop and remove the services and /opt/netzpuls"
        if erase:
            what += f"; erase {wanted.data} with all reports that were not collected, and the user"
        call = Call("remove.sh", (wanted.user, wanted.data, "erase" if erase else "keep"))
        plan.steps.append(Step("remove", what, (call,)))
    if survey.data and not erase:
        plan.notes.append(
            f"{wanted.data} stays, with its reports and keys; --erase-data removes it"
        )
    if survey.packages:
        plan.notes.append(f"Debian's {', '.join(sorted(survey.packages))} stay")
    return plan


def target(survey: Survey, wanted: Wanted) -> Target:
    """Return which packages a host needs.

    Raises: HostError: it is no system that can be a gateway.
    """
    if survey.target is None:
        raise HostError(
            f"{wanted.label} runs {survey.title or 'an unknown system'}; a gateway is installed on "
            f"Debian {' or '.join(PYTHON_OF)}",
            hint="other systems by hand: docs/gateway.md",
        )
    return survey.target


def _check(survey: Survey, wanted: Wanted) -> None:
    target(survey, wanted)
    if survey.init != "systemd":
        raise HostError(
            f"{wanted.label} is not run by systemd but by {survey.init or 'something unknown'}",
            hint="a container without systemd cannot be a gateway",
        )
    if survey.free_bytes < _ROOM_BYTES:
        raise HostError(
            f"{wanted.label} has {survey.free_bytes >> 20} MiB free, and {_ROOM_BYTES >> 20} MiB "
            "are needed",
            hint="make room in /opt and /var there",
        )


def _ground(survey: Survey, wanted: Wanted) -> Iterator[Step]:
    if survey.home and survey.home != wanted.data:
        raise HostError(
            f"{wanted.label} has a user {wanted.user} already, whose home is {survey.home} and not "
            f"{wanted.data}",
            hint="choose another `user` or `data_dir` for this gateway in inventory.toml",
        )
    missing = [each for each in PACKAGES if each not in survey.packages]
    if missing:
        what = f"install Debian's {' and '.join(missing)}"
        yield Step("packages", what, (Call("packages.sh", tuple(missing)),))
    owned = [
        found is not None and found.owner == wanted.user and found.mode == mode
        for found, mode in ((survey.data, 0o750), (survey.tls, 0o700))
    ]
    if not survey.home or not all(owned):
        what = f"make the user {wanted.user} and {wanted.data}"
        yield Step("user", what, (Call("user.sh", (wanted.user, wanted.data)),))


def _release(survey: Survey, release: Release) -> Iterator[Step]:
    if release.id in survey.releases:
        return
    missing = [each for each in release.wheels if survey.wheels.get(each.name) != each.digest]
    if missing:
        size = sum(each.path.stat().st_size for each in missing)
        yield Step(
            "wheels",
            f"send {len(missing)} of {len(release.wheels)} packages ({size / 1e6:.1f} MB)",
            tuple(Call("wheel.sh", (each.name, each.digest), each.path) for each in missing),
        )
    call = Call("venv.sh", (release.id,), release.requirements.encode())
    yield Step("venv", f"make the virtual environment of {release.id}", (call,))


def _files(survey: Survey, wanted: Wanted) -> Iterator[Step]:
    calls, names = [], []
    for each in wanted.folder:
        path = f"{wanted.data}/{each.path}"
        found = survey.files.get(path)
        if _as_wanted(found, each.content, each.mode, wanted.user):
            continue
        if found and each.path in _ONCE and (found.owner, found.mode) == (wanted.user, each.mode):
            continue
        if found and each.path in _ONCE:
            raise HostError(
                f"{wanted.label}: {path} belongs to {found.owner} with mode {found.mode:o}, not to "
                f"{wanted.user} with {each.mode:o}",
                hint=f"there: chown {wanted.user}: {path}; chmod {each.mode:o} {path}",
            )
        calls.append(Call("put.sh", (path, f"{each.mode:o}", wanted.user), each.content))
        names.append(each.path)
    if calls:
        yield Step("folder", f"write {', '.join(names)} in {wanted.data}", tuple(calls))
    if wanted.authorized and wanted.authorized not in survey.authorized:
        call = Call("authorize.sh", (wanted.user, wanted.data), f"{wanted.authorized}\n".encode())
        yield Step("login", f"let city hall log in as {wanted.user}", (call,))
    system = [
        Call("put.sh", (path, f"{file.PUBLIC:o}", "root"), content)
        for path, content in wanted.system.items()
        if not _as_wanted(survey.files.get(path), content, file.PUBLIC, "root")
    ]
    if system:
        written = [each.arguments[0] for each in system]
        if str(JOURNAL) in written:
            system.append(Call("journal.sh"))
        names = [path.rpartition("/")[2] for path in written]
        names = ["the journal's limits" if each == JOURNAL.name else each for each in names]
        yield Step("units", f"write {', '.join(names)}", tuple(system))


def _as_wanted(found: PresentFile | None, content: bytes, mode: int, owner: str) -> bool:
    digest = hashlib.sha256(content).hexdigest()
    return found is not None and (found.digest, found.mode, found.owner) == (digest, mode, owner)


def _running(survey: Survey, wanted: Wanted, release: Release) -> Iterator[Step]:
    old = survey.current
    switched = old != release.id or survey.command != str(PROGRAM)
    units = unit.units(wanted.user, wanted.data)
    late = [
        name
        for name in SERVICES
        if survey.services.get(name) != Service(True, True, release.id, units[name][1])
    ]
    if survey.reload or switched:
        late = list(SERVICES)
    if not switched and not late:
        return
    calls: list[Call] = []
    restores: list[Call] = []
    what = f"run {release.id}" if not old else f"run {release.id} instead of {old}"
    if switched:
        calls.append(_switch(release.id, old if old != release.id else ""))
        if old != release.id and old in survey.releases:
            restores += [_switch(old, survey.previous), Call("start.sh", SERVICES)]
    else:
        what = f"start {' and '.join(late)} anew"
    calls.append(Call("start.sh", tuple(late)))
    yield Step("start", what, tuple(calls), tuple(restores))


def _switch(release: str, previous: str) -> Call:
    return Call("switch.sh", (release, previous))


def _tidy(survey: Survey, release: Release) -> Iterator[Step]:
    """Keep the release that runs and the one before; go on with what an earlier run left."""
    before = survey.current if survey.current != release.id else survey.previous
    keep = {release.id, before}
    stale = sorted((survey.releases | survey.begun) - keep)
    wheels = {each.name for each in release.wheels}
    surplus = set(survey.wheels) - wheels
    if stale or surplus:
        what = []
        if stale:
            what.append(f"release{'s' * (len(stale) > 1)} {', '.join(stale)}")
        if surplus:
            what.append(f"{len(surplus)} packages")
        arguments = (*sorted(each for each in keep if each), "--", *sorted(wheels))
        yield Step("tidy", f"remove old {' and '.join(what)}", (Call("tidy.sh", arguments),))


def _notes(survey: Survey, wanted: Wanted) -> Iterator[str]:
    if not wanted.authorized:
        yield (
            f"city hall cannot log in as {wanted.user} yet: name its key with identity_file in "
            "inventory.toml"
        )
    if survey.foreign_service == "enabled":
        yield (
            "Debian's own mosquitto.service is enabled there and was left alone; if it is not "
            "needed: systemctl disable --now mosquitto"
        )
    if not survey.installed:
        yield (
            f"boards report to TCP port {wanted.broker_port}; where a firewall runs, open it "
            "(docs/gateway.md)"
        )
