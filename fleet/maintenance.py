"""Maintenance windows: times that do not count, each with who entered it, when and why.

    <city>/maintenance.toml    written by `netzpuls fleet maintenance`, read by people and git

A window may be entered before or after its time. None is ever deleted: it is withdrawn, which
leaves it in the file with who did so, when and why.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import tomli_w
from pydantic import AfterValidator, Field, StringConstraints

from fleet import document, file
from fleet.document import Table
from fleet.errors import ConfigurationError, NetzpulsError, UsageError
from fleet.inventory import BoardId, Id, Inventory
from fleet.period import Period, check_year, iso
from fleet.text import printable

MAINTENANCE_FILE = "maintenance.toml"

_MOST = 500  # characters of a reason or a name

_HEAD = (
    "# Written by `netzpuls fleet maintenance`; windows are withdrawn, never deleted. "
    "Keep it in git.\n\n"
)


class MaintenanceError(NetzpulsError):
    """The city's maintenance windows cannot be written."""

    code = "maintenance"


def _whole_and_placed(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset from UTC, such as 2026-11-22T08:00:00+01:00")
    if moment.microsecond:
        raise ValueError("a time is of whole seconds")
    check_year(moment)
    return moment


def _can_be_shown(text: str) -> str:
    if printable(text, _MOST) != text:
        raise ValueError("it has characters that no terminal should get")
    return text


Said = Annotated[
    str,
    StringConstraints(min_length=1, max_length=_MOST, strip_whitespace=True),
    AfterValidator(_can_be_shown),
]
Moment = Annotated[datetime, AfterValidator(_whole_and_placed)]
Kind = Literal["site", "board", "access-point", "gateway"]


class Withdrawal(Table):
    """That a window no longer holds."""

    at: Moment
    by: Said
    reason: Said


class Maintenance(Table):
    """A window of one site, board, access point or gateway; a gateway's is for all its sites."""

    number: Annotated[int, Field(ge=1)]
    site: Id | None = None
    board: BoardId | None = None
    access_point: Id | None = None
    gateway: Id | None = None
    start: Moment
    end: Moment
    reason: Said
    entered: Moment
    entered_by: Said
    withdrawn: Withdrawal | None = None

    @property
    def subject(self) -> tuple[Kind, str]:
        """What it is for."""
        if self.site:
            return "site", self.site
        if self.access_point:
            return "access-point", self.access_point
        return ("board", self.board) if self.board else ("gateway", self.gateway or "")

    @property
    def period(self) -> Period:
        """Its time."""
        return Period(int(self.start.timestamp()), int(self.end.timestamp()))

    @property
    def afterwards(self) -> bool:
        """Whether it was entered when it had begun."""
        return self.entered > self.start

    def document(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        kind, name = self.subject
        withdrawn = self.withdrawn
        return {
            "number": self.number,
            "kind": kind,
            "subject": name,
            "from": _iso(self.start, zone),
            "to": _iso(self.end, zone),
            "reason": self.reason,
            "entered": _iso(self.entered, zone),
            "entered_by": self.entered_by,
            "afterwards": self.afterwards,
            "withdrawn": withdrawn
            and {
                "at": _iso(withdrawn.at, zone),
                "by": withdrawn.by,
                "reason": withdrawn.reason,
            },
        }


class _File(Table):
    version: Literal[1]
    window: list[Maintenance] = Field(default_factory=list)


@dataclass(frozen=True)
class Wish:
    """A window that somebody wants to enter."""

    kind: Kind
    subject: str
    period: Period
    reason: str
    by: str


def load(city: Inventory) -> list[Maintenance]:
    """Return all windows, also the withdrawn ones, as they were entered.

    Raises: ConfigurationError: the file cannot be read or is wrong, or a window that holds is
        for something that is not there.
    """
    path = city.folder / MAINTENANCE_FILE
    found = _read(path)
    faults = [
        f"window {each.number}: there is no {' '.join(each.subject)}"
        for each in found
        if each.withdrawn is None and not _is_there(city, *each.subject)
    ]
    if faults:
        number = next(iter(faults)).split(":")[0].removeprefix("window ")
        raise ConfigurationError(
            f"{path}: {faults[0]}",
            hint=f"mend it, or netzpuls fleet maintenance withdraw {number}",
        )
    return found


def holding(city: Inventory, period: Period) -> list[Maintenance]:
    """Return the windows that hold in a period, by their number.

    Raises: ConfigurationError: as `load`.
    """
    return [
        each
        for each in load(city)
        if each.withdrawn is None
        and each.period.start_s < period.end_s
        and each.period.end_s > period.start_s
    ]


def add(city: Inventory, wish: Wish, now: datetime, *, dry_run: bool = False) -> Maintenance:
    """Enter a window.

    Raises: UsageError: what it is for is not there, a text is empty, or one that holds says the
        same. ConfigurationError: the file is wrong. MaintenanceError: it cannot be written.
    """
    asks: dict[Kind, Callable[[str], object]] = {
        "site": city.site,
        "board": city.board,
        "access-point": city.access_point,
        "gateway": city.gateway,
    }
    asks[wish.kind](wish.subject)
    zone = ZoneInfo(city.city.timezone)

    def entered(found: list[Maintenance]) -> tuple[list[Maintenance], Maintenance]:
        for each in found:
            if each.withdrawn or each.subject != (wish.kind, wish.subject):
                continue
            if each.period == wish.period:
                raise UsageError(
                    f"window {each.number} is the same: {wish.kind} {wish.subject}, entered by "
                    f"{each.entered_by}",
                    hint="see netzpuls fleet maintenance list",
                )
        new = _checked(
            Maintenance,
            number=max((each.number for each in found), default=0) + 1,
            **{wish.kind.replace("-", "_"): wish.subject},
            start=datetime.fromtimestamp(wish.period.start_s, zone),
            end=datetime.fromtimestamp(wish.period.end_s, zone),
            reason=wish.reason,
            entered=now.astimezone(zone).replace(microsecond=0),
            entered_by=wish.by,
        )
        return [*found, new], new

    return _change(city.folder, entered, dry_run=dry_run)


def withdraw(
    city: Inventory, number: int, by: str, reason: str, now: datetime, *, dry_run: bool = False
) -> Maintenance:
    """Let a window no longer hold; it stays in the file.

    Raises: UsageError: there is no such window, it is withdrawn already, or a text is empty.
        ConfigurationError: the file is wrong. MaintenanceError: it cannot be written.
    """
    zone = ZoneInfo(city.city.timezone)

    def withdrawn(found: list[Maintenance]) -> tuple[list[Maintenance], Maintenance]:
        old = next((each for each in found if each.number == number), None)
        if old is None:
            raise UsageError(
                f"there is no window {number}", hint="see netzpuls fleet maintenance list"
            )
        if old.withdrawn:
            raise UsageError(
                f"window {number} was withdrawn already, by {old.withdrawn.by}",
                hint="see netzpuls fleet maintenance list --all",
            )
        end = _checked(
            Withdrawal, at=now.astimezone(zone).replace(microsecond=0), by=by, reason=reason
        )
        new = old.model_copy(update={"withdrawn": end})
        return [new if each is old else each for each in found], new

    return _change(city.folder, withdrawn, dry_run=dry_run)


def author(folder: Path) -> str:
    """Return who is at work: the name that git knows in a city's folder, else the login.

    Raises: UsageError: neither is there.
    """
    git = shutil.which("git")
    if git:
        asked = [git, "-C", str(folder), "config", "user.name"]
        done = subprocess.run(asked, capture_output=True, check=False)
        name = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode == 0 and name:
            return printable(name)
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise UsageError("it is not known who you are", hint="say it with --by") from None


def render(windows: list[Maintenance]) -> str:
    """Return the file's text: the same windows give the same text."""
    tables = [each.model_dump(exclude_none=True) for each in windows]
    return _HEAD + tomli_w.dumps({"version": 1, "window": tables})


def _change(
    folder: Path,
    decide: Callable[[list[Maintenance]], tuple[list[Maintenance], Maintenance]],
    *,
    dry_run: bool,
) -> Maintenance:
    """Change the file in one step, held against everybody else."""
    path = folder / MAINTENANCE_FILE
    if dry_run:
        return decide(_read(path))[1]
    try:
        with file.locked(folder):
            windows, changed = decide(_read(path))
            file.write(path, render(windows))
    except OSError as error:
        raise MaintenanceError(
            f"cannot change {path}: {error.strerror or error}",
            hint="nothing was changed: wait for that process, or see to rights and free space, "
            "then run the command again",
        ) from None
    return changed


def _read(path: Path) -> list[Maintenance]:
    if not os.path.lexists(path):  # a link that leads nowhere is not "no windows yet"
        return []
    found = document.load(_File, path).window
    faults = []
    numbers = [each.number for each in found]
    for each in found:
        place = f"window {each.number}"
        if numbers.count(each.number) > 1:
            faults.append(f"{place}: the number stands there twice")
        if [each.site, each.board, each.access_point, each.gateway].count(None) != 3:
            faults.append(f"{place}: it is for one site, board, access point or gateway")
        if each.end <= each.start:
            faults.append(f"{place}: it ends before it begins")
    if faults:
        raise document.faulty(path, faults)
    return found


def _is_there(city: Inventory, kind: Kind, name: str) -> bool:
    there: dict[Kind, Mapping[str, object]] = {
        "site": city.sites,
        "board": city.boards,
        "access-point": city.access_points,
        "gateway": city.gateways,
    }
    return name in there[kind]


def _checked(model: type[document.File], **values: Any) -> document.File:
    """Return a table of what a user said.

    Raises: UsageError: something does not fit.
    """
    try:
        return document.check(model, values, Path(MAINTENANCE_FILE))
    except ConfigurationError as error:
        said = error.message.removeprefix(f"{MAINTENANCE_FILE}: ")
        raise UsageError(said, hint=f"a reason and a name have 1 to {_MOST} characters") from None


def _iso(moment: datetime, zone: ZoneInfo) -> str:
    return iso(int(moment.timestamp()), zone)
