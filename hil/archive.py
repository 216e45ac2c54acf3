"""Packages of Debian and Ubuntu without root: verified, unpacked into a folder, not installed.

A private apt reads the machine's own sources, keeps its state in a folder of ours and accepts only
what the distribution's archive key signed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.errors import NetzpulsError

_SUCCESSORS = {"trixie": "forky"}


class FetchError(NetzpulsError):
    """Packages could not be fetched; nothing half-made is left."""

    code = "tool-fetch"
    exit_code = 3


@dataclass(frozen=True)
class Archive:
    """A distribution's archive as this machine knows it."""

    distribution: str
    suite: str
    components: str
    keyring: Path
    sources: tuple[tuple[str, str], ...]  # mirror, suite

    def lines(self, architectures: Iterable[str]) -> str:
        """Write the sources for a private apt: signed by the archive's key or not used at all."""
        options = f"arch={','.join(architectures)} signed-by={self.keyring}"
        return "".join(
            f"deb [{options}] {mirror} {suite} {self.components}\n"
            for mirror, suite in self.sources
        )

    def successors(self) -> tuple[Archive, ...]:
        """Return the releases that come after this one and are signed by the same key."""
        following = _SUCCESSORS.get(self.suite)
        if following is None:
            return ()
        sources = tuple(
            (mirror, following) for mirror, suite in self.sources if suite == self.suite
        )
        return (replace(self, suite=following, sources=sources),)

    def at(self, suite: str) -> Archive:
        """Return another of the distribution's releases as the same mirrors have it."""
        sources = tuple(
            (mirror, suite + name.removeprefix(self.suite)) for mirror, name in self.sources
        )
        return replace(self, suite=suite, sources=sources)


def read_archive(os_release: Mapping[str, str], known: str, mirror: str = "") -> Archive:
    """Find out where this machine's distribution keeps its packages.

    Args:
        os_release: /etc/os-release.
        known: what `known_sources` returned.
        mirror: a Debian mirror to use instead of the machine's own sources.
    Raises: FetchError: no Debian and no Ubuntu, or no source that could serve.
    """
    debian = os_release.get("DEBIAN_CODENAME") or (
        os_release.get("VERSION_CODENAME") if os_release.get("ID") == "debian" else None
    )
    ubuntu = os_release.get("UBUNTU_CODENAME") or (
        os_release.get("VERSION_CODENAME") if os_release.get("ID") == "ubuntu" else None
    )
    if mirror:
        suites = ("trixie", "trixie-updates")
        sources = tuple((mirror, suite) for suite in suites)
        return Archive("debian", "trixie", "main", _keyring("debian"), sources)
    if debian and not ubuntu:
        # Debian 12 has no MicroPython; its own archive key signs its successor as well.
        suite = "trixie" if debian in {"bullseye", "bookworm"} else debian
        names = {debian, "stable", "oldstable", "testing", "unstable", "sid"}
        found = _sources(known, names, suite)
        if found:
            return Archive("debian", suite, "main", _keyring("debian"), found)
    elif ubuntu:
        found = _sources(known, {ubuntu}, ubuntu)
        if found:
            return Archive("ubuntu", ubuntu, "main universe", _keyring("ubuntu"), found)
    else:
        name = os_release.get("PRETTY_NAME") or platform.system()
        raise FetchError(f"{name} is neither Debian nor Ubuntu")
    raise FetchError("no source of the distribution's own packages is among apt's sources")


def known_sources() -> str:
    """Return the machine's package sources as apt itself reads them, in either of their styles."""
    return output("apt-get", "update", "--print-uris")


def _sources(known: str, names: set[str], suite: str) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for mirror, name in re.findall(r"^'(.+?)/*/dists/(\S+)/(?:In)?Release'", known, re.MULTILINE):
        base, _, pocket = name.partition("-")
        usable = base in names and pocket in {"", "updates", "security"}
        if usable and not mirror.startswith("cdrom:"):
            found[mirror, f"{suite}-{pocket}".rstrip("-")] = None
    return tuple(found)


def _keyring(distribution: str) -> Path:
    for suffix in ("pgp", "gpg"):
        path = Path(f"/usr/share/keyrings/{distribution}-archive-keyring.{suffix}")
        if path.exists():
            return path
    package = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}[distribution]
    raise FetchError(
        f"the archive key of {distribution.capitalize()} is not on this machine, so nothing that "
        "is fetched could be verified",
        hint=f"sudo apt install {package}",
    )


class Apt:
    """A private apt in a folder of its own: no root, nothing of the machine's state is touched."""

    def __init__(self, folder: Path, archive: Archive, architectures: tuple[str, ...]) -> None:
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial", "state", "empty"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(archive.lines(architectures))
        listed = " ".join(f'"{each}";' for each in architectures)
        # The machine's hooks stay out; how it reaches its mirrors (proxies, certificates) stays in.
        (folder / "apt.conf").write_text(
            connection_settings()
            + f"""
            Dir::Etc::main "{folder}/empty/none";
            Dir::Etc::parts "{folder}/empty";
            Dir::Etc::sourcelist "{folder}/sources.list";
            Dir::Etc::sourceparts "{folder}/empty";
            Dir::Etc::trusted "{folder}/empty/none";
            Dir::Etc::trustedparts "{folder}/empty";
            Dir::Etc::preferences "{folder}/empty/none";
            Dir::Etc::preferencesparts "{folder}/empty";
            Dir::State "{folder}/state";
            Dir::State::lists "{folder}/lists";
            Dir::State::status "{folder}/status";
            Dir::Cache "{folder}/cache";
            APT::Architecture "{architectures[0]}";
            APT::Architectures {{ {listed} }};
            APT::Install-Recommends "false";
            APT::Sandbox::User "root";
            APT::Get::AllowUnauthenticated "false";
            Acquire::AllowInsecureRepositories "false";
            Acquire::AllowWeakRepositories "false";
            Acquire::AllowDowngradeToInsecureRepositories "false";
            Acquire::Languages "none";
            Acquire::Retries "3";
            """
        )
        (folder / "apt.conf").chmod(0o600)
        self.warnings = ""

    def _run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        return subprocess.run(
            ["apt-get", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            cwd=cwd or self.folder,
            check=False,
        )

    def update(self) -> None:
        """Fetch the package lists; a source that the archive's key did not sign is left out."""
        self.warnings = complaints(self._run("update").stderr)

    def closure(self, architecture: str, packages: list[str]) -> dict[str, str]:
        """Return the packages with the libraries they need: name → version.

        Maintainer tools that an installation would need, but no running program, are left out.
        """
        native = ("-o", f"APT::Architecture={architecture}")
        answer = self._run(*native, "install", "--simulate", *packages)
        listed = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", answer.stdout, re.MULTILINE)
        if answer.returncode or not listed:
            raise FetchError(
                f"apt found no {', '.join(packages)} ({architecture}) that it could verify: "
                + (self.warnings or complaints(answer.stderr) or "no reason given"),
                hint="check the network and that `sudo apt update` works here, then run it again",
            )
        return {
            name.partition(":")[0]: version
            for name, version in listed
            if name.startswith("lib") or name in packages
        }

    def download(self, architecture: str, closure: Mapping[str, str], into: Path) -> None:
        """Download packages, by name and version, into a new folder."""
        into.mkdir()
        wanted = [f"{name}:{architecture}={version}" for name, version in closure.items()]
        answer = self._run("download", *wanted, cwd=into)
        if answer.returncode:
            raise FetchError(
                f"apt could not download {architecture} packages: {complaints(answer.stderr)}",
                hint="check the network, then run it again",
            )


def connection_settings() -> str:
    """Return apt's own settings for proxies, certificates and the age of signatures."""
    dump = output("apt-config", "dump")
    kept = ("Acquire::http", "Acquire::https", "Acquire::ForceIPv", "Acquire::Check-", "Dir::Etc ")
    return "\n".join(line for line in dump.splitlines() if line.startswith(kept))


def complaints(stderr: str) -> str:
    """Return apt's errors and warnings, each once."""
    lines = [line[3:] for line in stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return "; ".join(dict.fromkeys(lines))


def output(*command: str) -> str:
    """Return what a command prints, in English.

    Raises: FetchError: it failed; the message carries its complaint.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    answer = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    if answer.returncode:
        raise FetchError(
            f"{' '.join(command)} fails: {complaints(answer.stderr) or answer.stderr.strip()}",
            hint="apt itself does not work on this machine: see what `sudo apt update` says",
        )
    return answer.stdout


def unpack(debs: Path, tree: Path) -> None:
    """Unpack every package in a folder into one tree."""
    tree.mkdir()
    for deb in sorted(debs.glob("*.deb")):
        unpacked = subprocess.run(
            ["dpkg", "-x", deb, tree], capture_output=True, text=True, check=False
        )
        if unpacked.returncode:
            raise FetchError(f"cannot unpack {deb.name}: {unpacked.stderr.strip()}")
