"""What is on a host: the first step, which changes nothing.

What a host answers is not trusted: each line is checked before it is used, and none of it is ever
part of a command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.errors import HostError
from fleet.install.layout import PACKAGES, PYTHON_OF, SERVICES
from fleet.install.shell import Shell, script
from fleet.install.wheelhouse import Target
from fleet.text import printable

_RELEASE = re.compile(r"[A-Za-z0-9.+-]{1,80}")


@dataclass(frozen=True)
class Service:
    """One of the two services as it is.

    Attributes:
        running: the release that its process was started from.
        unit: the digest of the unit that it was started by.
    """

    enabled: bool = False
    active: bool = False
    running: str = ""
    unit: str = ""


@dataclass(frozen=True)
class PresentFile:
    """A file that is there."""

    digest: str
    owner: str
    mode: int


@dataclass
class Survey:
    """What a host has.

    Attributes:
        releases: those that are whole, by name; `begun` are the others.
        wheels: SHA-256 of the packages that were sent, by name.
        files: of those that were asked for, those that are there.
        authorized: the lines of the user's authorized_keys.
        reload: a unit was written and systemd has not read it yet.
    """

    distribution: str = ""
    release: str = ""
    title: str = ""
    architecture: str = ""
    init: str = ""
    time_s: int = 0
    free_bytes: int = 0
    packages: set[str] = field(default_factory=set)
    foreign_service: str = ""
    home: str = ""
    data: PresentFile | None = None
    tls: PresentFile | None = None
    current: str = ""
    previous: str = ""
    command: str = ""
    releases: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    wheels: dict[str, str] = field(default_factory=dict)
    files: dict[str, PresentFile] = field(default_factory=dict)
    authorized: list[str] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    reload: bool = False

    @property
    def target(self) -> Target | None:
        """Which packages it needs; None if it is none that is served."""
        python = PYTHON_OF.get(self.release) if self.distribution == "debian" else None
        return Target(python, self.architecture) if python else None

    @property
    def installed(self) -> bool:
        """Whether a release was ever made to run here."""
        return bool(self.current)


def take(shell: Shell, label: str, user: str, data: str, paths: Sequence[str]) -> Survey:
    """Ask a host what it has.

    Args:
        shell: on the host.
        label: what errors call it.
        user: the gateway's user.
        data: the gateway's folder.
        paths: files whose content matters.

    Raises: HostError: it does not answer, or not as a Linux with systemd and dpkg does.
    """
    answer = shell.run(script("survey.sh"), user, data, *paths)
    found = Survey()
    ended = False
    for line in answer.splitlines():
        name, _, value = line.partition("\t")
        try:
            _read(found, name, value.strip())
        except ValueError:
            raise HostError(
                f"{label} answers what makes no sense: {printable(line, 80)}",
                hint="is it a Debian with systemd? log in there and look",
            ) from None
        ended = ended or name == "end"
    if not ended:
        raise HostError(
            f"{label} did not answer to the end", hint="the line may have broken; run it again"
        )
    return found


def _read(found: Survey, name: str, value: str) -> None:  # noqa: PLR0912 - one case a line
    match name:
        case "distribution" | "release" | "title" | "architecture" | "init" | "foreign_service":
            setattr(found, name, printable(value, 80))
        case "time":
            found.time_s = int(value)
        case "free_kib":
            found.free_bytes = int(value) << 10
        case "package" if value in PACKAGES:
            found.packages.add(value)
        case "user":
            found.home = value
        case "data" | "tls":
            owner, mode = value.split(" ")
            setattr(found, name, PresentFile("", owner, int(mode, 8)))
        case "current" | "previous":
            setattr(found, name, _release(value))
        case "command":
            found.command = value
        case "venv":
            release, state = value.split(" ")
            (found.releases if state == "complete" else found.begun).add(_release(release))
        case "wheel":
            digest, wheel = value.split(" ", 1)
            found.wheels[wheel] = digest
        case "file":
            digest, owner, mode, path = value.split(" ", 3)
            found.files[path] = PresentFile(digest, owner, int(mode, 8))
        case "authorized":
            found.authorized.append(value)
        case "service":
            service, enabled, active, running, unit = value.split(" ")
            if service in SERVICES:
                found.services[service] = Service(
                    enabled == "enabled",
                    active == "active",
                    "" if running == "-" else running,
                    "" if unit == "-" else unit,
                )
        case "reload":
            found.reload = int(value) > 0


def _release(name: str) -> str:
    if not _RELEASE.fullmatch(name):
        raise ValueError(name)
    return name
