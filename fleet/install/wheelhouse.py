"""The wheelhouse: all Python packages that a gateway needs, so that its site needs no index.

    wheelhouse.json      what belongs to it, by SHA-256, for which Python and architecture
    requirements.txt     requirements/gateway.lock, by which it was made
    wheel/*.whl          packages of others as the lock file pins them, and Netzpuls' own

It is made in a checkout, by pip. The packages of others are fetched once; Netzpuls' own wheel is
made anew each time, in a second or two, and is the same to the byte as long as its sources are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints, ValidationError

from fleet import file, tool
from fleet.document import Table
from fleet.errors import READABLE, ConfigurationError, NetzpulsError
from fleet.install.layout import MACHINE_OF, PYTHON_OF
from fleet.text import printable

LOCK_FILE = "requirements/gateway.lock"
_MANIFEST = "wheelhouse.json"
_REQUIREMENTS = "requirements.txt"
_WHEELS = "wheel"
_PIP_TIMEOUT_S = 900
# Wheels are zips, whose times must not depend on when they were made; a zip begins in 1980.
_SOURCE_DATE = "315532800"
_GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+\.whl$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class WheelhouseError(NetzpulsError):
    """The wheelhouse cannot be made, or is not whole."""

    code = "wheelhouse"


@dataclass(frozen=True, order=True)
class Target:
    """What a host runs: `3.11`, `amd64`."""

    python: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.python}-{self.architecture}"


TARGETS = tuple(Target(python, each) for python in PYTHON_OF.values() for each in MACHINE_OF)


class _Manifest(Table):
    version: str
    lock: _Digest
    wheels: dict[_Name, _Digest]
    targets: dict[str, list[_Name]]


@dataclass(frozen=True)
class Wheel:
    """One package."""

    path: Path
    digest: str

    @property
    def name(self) -> str:
        """Its file's name."""
        return self.path.name

    @property
    def requirement(self) -> str:
        """The line that has pip install exactly this file's content."""
        name, version = self.name.split("-")[:2]
        return f"{name}=={version} --hash=sha256:{self.digest}"


@dataclass(frozen=True)
class Release:
    """What one host gets.

    Attributes:
        version: Netzpuls' version.
        wheels: the packages, Netzpuls' own among them.
    """

    version: str
    wheels: tuple[Wheel, ...]

    @cached_property
    def id(self) -> str:
        """Its name: the version, and a digest of all that belongs to it."""
        listed = "\n".join(each.requirement for each in self.wheels)
        return f"{self.version}-{hashlib.sha256(listed.encode()).hexdigest()[:12]}"

    @property
    def requirements(self) -> str:
        """What pip is given: each package by its hash."""
        return "".join(f"{each.requirement}\n" for each in self.wheels)


class Wheelhouse:
    """A wheelhouse that is there.

    Raises: ConfigurationError: there is none in the folder, or it is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / _MANIFEST
        try:
            self._manifest = _Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no wheelhouse in {folder}",
                hint=f"make one, in a checkout: netzpuls gateway wheelhouse --dir {folder}",
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {path}: {error.strerror}", hint=READABLE
            ) from None
        except ValidationError:
            raise ConfigurationError(
                f"{path} is damaged",
                hint=f"make it again: netzpuls gateway wheelhouse --dir {folder}",
            ) from None

    @property
    def lock(self) -> str:
        """The SHA-256 of the lock file by which it was made."""
        return self._manifest.lock

    @property
    def targets(self) -> list[str]:
        """For which hosts it has packages."""
        return sorted(self._manifest.targets)

    def release(self, target: Target) -> Release:
        """Return what a host of this kind gets.

        Raises: ConfigurationError: the wheelhouse is not for such hosts, or a file of it was lost
            or changed.
        """
        names = self._manifest.targets.get(str(target))
        if names is None:
            raise ConfigurationError(
                f"the wheelhouse in {self.folder} has nothing for Python {target.python} on "
                f"{target.architecture}, only for {', '.join(self.targets)}",
                hint="make it anew: netzpuls gateway wheelhouse "
                f"--dir {self.folder} --target {target}",
            )
        wheels = tuple(self._wheel(name) for name in sorted(names))
        return Release(self._manifest.version, wheels)

    def _wheel(self, name: str) -> Wheel:
        path, expected = self.folder / _WHEELS / name, self._manifest.wheels.get(name)
        try:
            found = _digest(path)
        except OSError:
            found = None
        if expected is None or found != expected:
            raise ConfigurationError(
                f"the wheelhouse in {self.folder} is not whole: {name} is missing or was changed",
                hint=f"make it again: netzpuls gateway wheelhouse --dir {self.folder}",
            )
        return Wheel(path, expected)


def checkout() -> Path | None:
    """Return the checkout that this code runs from, None if it was installed."""
    folder = Path(__file__).absolute().parent.parent.parent
    return folder if (folder / LOCK_FILE).is_file() else None


def default_folder() -> Path:
    """Return where the wheelhouse is if none is named."""
    return tool.folder() / "wheelhouse"


def make(
    folder: Path,
    targets: Sequence[Target] = TARGETS,
    tell: Callable[[str], None] = lambda _: None,
) -> Wheelhouse:
    """Make a wheelhouse or renew it; the old one stays until the new one is whole.

    Args:
        folder: where; made if it is not there.
        targets: for which hosts.
        tell: hears what takes a while.

    Raises: WheelhouseError: this is no checkout, or pip failed.
    """
    source = checkout()
    if source is None:
        raise WheelhouseError(
            "a wheelhouse is made in a checkout of Netzpuls, and this one was installed",
            hint="copy a wheelhouse from where it was made, and name it with --wheelhouse",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.locked(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
            for left in folder.glob(".new-*"):  # of a run that was killed
                if left.name != Path(name).name:
                    shutil.rmtree(left, ignore_errors=True)
            _make(source, folder, targets, Path(name), tell)
    except OSError as error:
        raise WheelhouseError(
            f"cannot write the wheelhouse in {folder}: {error.strerror or error}",
            hint="make room or name another folder",
        ) from None
    return Wheelhouse(folder)


def _make(
    source: Path,
    folder: Path,
    targets: Sequence[Target],
    scratch: Path,
    tell: Callable[[str], None],
) -> None:
    lock = source / LOCK_FILE
    lock_digest = _digest(lock)
    own = _own_wheel(source, scratch)
    foreign = _kept(folder, lock_digest)
    wheels = folder / _WHEELS
    wheels.mkdir(exist_ok=True)
    digests: dict[str, str] = {}
    for target in targets:
        if str(target) not in foreign:
            tell(f"fetching the packages for Python {target.python} on {target.architecture}")
            into = scratch / str(target)
            _download(lock, target, into)
            foreign[str(target)] = {each.name: _digest(each) for each in into.glob("*.whl")}
            for each in into.glob("*.whl"):
                each.replace(wheels / each.name)
        digests |= foreign[str(target)]
    digests[own.name] = _digest(own)
    own.replace(wheels / own.name)
    shutil.copy(lock, folder / _REQUIREMENTS)
    manifest = {
        "version": metadata.version("netzpuls"),
        "lock": lock_digest,
        "wheels": dict(sorted(digests.items())),
        "targets": {
            str(target): sorted([*foreign[str(target)], own.name]) for target in sorted(targets)
        },
    }
    file.write(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    for each in wheels.iterdir():
        if each.name not in digests:
            each.unlink()


def _kept(folder: Path, lock: str) -> dict[str, dict[str, str]]:
    """Return the packages of others that are there and right, by target."""
    kept: dict[str, dict[str, str]] = {}
    with contextlib.suppress(ConfigurationError):
        present = Wheelhouse(folder)
        if present.lock != lock:
            return {}
        for target in TARGETS:
            with contextlib.suppress(ConfigurationError):
                release = present.release(target)
                kept[str(target)] = {
                    each.name: each.digest
                    for each in release.wheels
                    if not each.name.startswith("netzpuls-")
                }
    return kept


def _own_wheel(source: Path, scratch: Path) -> Path:
    into = scratch / "own"
    # setuptools builds in the source tree, which may be read-only or in use by another one.
    copy = scratch / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, copy / name)
    for name in ("fleet", "provisioning", "hil", "firmware"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source / name, copy / name, ignore=ignored)
    _pip(
        ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", into, copy],
        "make Netzpuls' own wheel",
    )
    (wheel,) = into.glob("netzpuls-*.whl")
    return wheel


def _download(lock: Path, target: Target, into: Path) -> None:
    machine, short = MACHINE_OF[target.architecture], target.python.replace(".", "")
    abis = (f"cp{short}", "abi3", "none")
    _pip(
        [
            *("download", "--dest", into, "--require-hashes", "--no-deps", "--requirement", lock),
            *("--only-binary", ":all:", "--python-version", target.python),
            *("--implementation", "cp"),
            *(argument for abi in abis for argument in ("--abi", abi)),
            *(argument for glibc in _GLIBC for argument in ("--platform", f"{glibc}_{machine}")),
        ],
        f"fetch the packages for Python {target.python} on {target.architecture}",
    )


def _pip(arguments: Sequence[str | Path], purpose: str) -> None:
    environment: Mapping[str, str] = {**os.environ, "SOURCE_DATE_EPOCH": _SOURCE_DATE}
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_PIP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WheelhouseError(
            f"pip could not {purpose} within {_PIP_TIMEOUT_S} s", hint="check the network"
        ) from None
    if answer.returncode:
        said = list(_errors(answer.stderr)) or ["no reason given"]
        raise WheelhouseError(
            f"pip could not {purpose}: {said[-1]}",
            hint="check the network and the space on the disk, then run it again",
        )


def _errors(stderr: str) -> Iterator[str]:
    for line in stderr.splitlines():
        if line.startswith("ERROR: "):
            yield printable(line.removeprefix("ERROR: "), 300)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
