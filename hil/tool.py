"""The programs that a bench without hardware needs, and how they get here without root.

`python -m hil.tool` (run by `make setup`) looks for MicroPython, mosquitto and OpenSSH's sshd on
PATH; what is missing or too old is fetched by apt as the user who runs it: with a private state,
from the mirrors that the machine's own sources name, accepted only with the signature of the
distribution's archive key, unpacked into .tools/ and started by wrappers in .tools/bin/. The
32-bit MicroPython, whose pointers are as small as an ESP32's, always comes this way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet import tool
from fleet.errors import NetzpulsError, ToolMissingError
from fleet.tool import MOSQUITTO, Tool, dotted

_FETCH = "in the checkout: make setup"
_SPACE_NEEDED = 400 << 20
# Everything is asked for that the virtual board uses: an interpreter built without it is no use.
_MICROPYTHON_PROBE = (
    "import sys, asyncio, tls, _thread; from vfs import VfsLfs2; "
    "print('MicroPython', '.'.join(str(n) for n in sys.implementation[1][:3]))"
)

MICROPYTHON = Tool(
    name="micropython",
    title="MicroPython",
    minimum=(1, 24),
    probe=("-c", _MICROPYTHON_PROBE),
    pattern=r"MicroPython (\d+(?:\.\d+)+)",
    hint=f"put a MicroPython (unix, standard variant) on PATH, or {_FETCH}",
)
MICROPYTHON32 = Tool(
    name="micropython32",
    title="32-bit MicroPython",
    minimum=(1, 24),
    probe=MICROPYTHON.probe,
    pattern=MICROPYTHON.pattern,
    hint=f"{_FETCH} (Debian on x86-64)",
    on_path=False,
)
SSHD = Tool(
    name="sshd",
    title="OpenSSH's sshd",
    minimum=(8, 4),
    probe=("-V",),
    pattern=r"OpenSSH_(\d+(?:\.\d+)+)",
    hint=f"on Debian and Ubuntu: sudo apt install openssh-server; {_FETCH}",
)
TOOLS = {each.name: each for each in (MICROPYTHON, MICROPYTHON32, MOSQUITTO, SSHD)}
PACKAGES = {
    "micropython": "micropython",
    "micropython32": "micropython",
    "mosquitto": "mosquitto",
    "sshd": "openssh-server",
}


class FetchError(NetzpulsError):
    """A tool could not be fetched; nothing half-made is left."""

    code = "tool-fetch"
    exit_code = 3


def find(name: str) -> Path:
    """Return the absolute path of `micropython`, `micropython32`, `mosquitto` or `sshd`.

    Raises: ToolMissingError: it is not here; the hint says how to get it.
    """
    return tool.find(TOOLS[name])


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
        raise FetchError(f"{name} is neither Debian nor Ubuntu", hint=_install_hint())
    raise FetchError(
        "no source of the distribution's own packages is among apt's sources", hint=_install_hint()
    )


def known_sources() -> str:
    """Return the machine's package sources as apt itself reads them, in either of their styles."""
    return _output("apt-get", "update", "--print-uris")


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


def _install_hint() -> str:
    needs = ", ".join(f"{t.title} {dotted(t.minimum)}+" for t in (MICROPYTHON, MOSQUITTO, SSHD))
    return f"install these by hand, so that they are on PATH: {needs}"


class _Apt:
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
            _connection_settings()
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

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
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
        self.warnings = _complaints(self.run("update").stderr)

    def closure(self, architecture: str, packages: list[str]) -> dict[str, str]:
        """Return the packages with the libraries they need: name → version.

        Maintainer tools that an installation would need, but no running program, are left out.
        """
        native = ("-o", f"APT::Architecture={architecture}")
        answer = self.run(*native, "install", "--simulate", *packages)
        listed = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", answer.stdout, re.MULTILINE)
        if answer.returncode or not listed:
            raise FetchError(
                f"apt found no {', '.join(packages)} ({architecture}) that it could verify: "
                + (self.warnings or _complaints(answer.stderr) or "no reason given"),
                hint="check the network and that `sudo apt update` works here, then run it again; "
                f"or {_install_hint()}",
            )
        return {
            name.partition(":")[0]: version
            for name, version in listed
            if name.startswith("lib") or name in packages
        }

    def download(self, architecture: str, closure: Mapping[str, str], into: Path) -> None:
        into.mkdir()
        wanted = [f"{name}:{architecture}={version}" for name, version in closure.items()]
        answer = self.run("download", *wanted, cwd=into)
        if answer.returncode:
            raise FetchError(
                f"apt could not download {architecture} packages: {_complaints(answer.stderr)}",
                hint="check the network, then run it again",
            )


def _connection_settings() -> str:
    """Return apt's own settings for proxies, certificates and the age of signatures."""
    dump = _output("apt-config", "dump")
    kept = ("Acquire::http", "Acquire::https", "Acquire::ForceIPv", "Acquire::Check-", "Dir::Etc ")
    return "\n".join(line for line in dump.splitlines() if line.startswith(kept))


def _complaints(stderr: str) -> str:
    lines = [line[3:] for line in stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return "; ".join(dict.fromkeys(lines))


def _output(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    answer = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, check=False
    )
    if answer.returncode:
        raise FetchError(
            f"{' '.join(command)} fails: {_complaints(answer.stderr) or answer.stderr.strip()}",
            hint="apt itself does not work on this machine: see what `sudo apt update` says",
        )
    return answer.stdout


def missing() -> list[Tool]:
    """Return the tools that this machine still lacks and could have."""
    wanted = [each for each in TOOLS.values() if each is not MICROPYTHON32 or _x86_64()]
    return [each for each in wanted if not _present(each)]


def _present(each: Tool) -> bool:
    try:
        tool.find(each)
    except ToolMissingError:
        return False
    return True


def _x86_64() -> bool:
    return platform.machine() == "x86_64"


def fetch(wanted: list[Tool], mirror: str = "") -> None:
    """Fetch tools into the tool folder: all of them or, on any failure, none.

    Raises: FetchError: no Debian or Ubuntu, no network, a wrong signature, no space.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        names = ", ".join(each.title for each in wanted if each.on_path)
        if not names:
            _say("no 32-bit MicroPython without apt: the tests that use it are skipped")
            return
        raise FetchError(f"missing, and there is no apt to fetch it: {names}", hint=_install_hint())
    folder = tool.folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder), tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as scratch:
            _fetch(wanted, folder, Path(scratch), mirror)
    except (OSError, FetchError) as error:
        if _free(folder) < _SPACE_NEEDED:
            raise FetchError(
                f"not enough space in {folder}: {_free(folder) >> 20} MiB are free",
                hint=f"make {_SPACE_NEEDED >> 20} MiB free, then run it again",
            ) from error
        if isinstance(error, OSError):
            raise FetchError(
                f"cannot write the tools: {error}", hint=f"check the folder {folder}"
            ) from error
        raise


def _free(folder: Path) -> int:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(existing).free


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob("fetch-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield


def _fetch(wanted: list[Tool], folder: Path, scratch: Path, mirror: str) -> None:
    archive = read_archive(platform.freedesktop_os_release(), known_sources(), mirror)
    native = _output("dpkg", "--print-architecture").strip()
    by_architecture: dict[str, list[Tool]] = {}
    for each in wanted:
        by_architecture.setdefault("i386" if each is MICROPYTHON32 else native, []).append(each)
    for architecture, tools in by_architecture.items():
        # What was fetched before stays: a tree is renewed as a whole.
        tools += [
            each
            for each in TOOLS.values()
            if each not in tools and (folder / architecture / f"{each.name}.ok").exists()
        ]
    titles = ", ".join(each.title for tools in by_architecture.values() for each in tools)
    _say(f"fetching {titles} from {archive.distribution.capitalize()} {archive.suite} (40 MB)")
    apt = _Apt(scratch / "apt", archive, (native, *(by_architecture.keys() - {native})))
    apt.update()
    for architecture, tools in by_architecture.items():
        try:
            _fetch_tree(apt, architecture, tools, scratch)
        except FetchError as error:
            if architecture == native or archive.distribution == "debian":
                raise
            _say(f"no 32-bit MicroPython, the tests that use it are skipped: {error.message}")
            continue
        _install(scratch / architecture, folder)


def _fetch_tree(apt: _Apt, architecture: str, tools: list[Tool], scratch: Path) -> None:
    packages = [PACKAGES[each.name] for each in tools]
    closure = apt.closure(architecture, packages)
    for each in tools:
        version = closure[PACKAGES[each.name]].partition(":")
        offered = tool.parse(version[2] or version[0])
        if offered < each.minimum:
            raise FetchError(
                f"{each.title} {dotted(each.minimum)} or newer is needed, and this machine's "
                f"archive has {dotted(offered)}",
                hint=f"{each.hint}, naming a Debian mirror: make setup DEBIAN_MIRROR=…",
            )
    debs = scratch / f"{architecture}-debs"
    apt.download(architecture, closure, debs)
    tree = scratch / architecture
    tree.mkdir()
    for deb in sorted(debs.glob("*.deb")):
        unpacked = subprocess.run(
            ["dpkg", "-x", deb, tree], capture_output=True, text=True, check=False
        )
        if unpacked.returncode:
            raise FetchError(f"cannot unpack {deb.name}: {unpacked.stderr.strip()}")
    for surplus in ("usr/share", "etc", "var"):
        shutil.rmtree(tree / surplus, ignore_errors=True)
    for each in tools:
        (tree / f"{each.name}.ok").touch()


_PROGRAMS = {
    "micropython": {"micropython": "usr/bin/micropython"},
    "micropython32": {"micropython32": "usr/bin/micropython"},
    "mosquitto": {"mosquitto": "usr/sbin/mosquitto"},
    "sshd": {
        "sshd": "usr/sbin/sshd",
        "sshd-session": "usr/lib/openssh/sshd-session",
        "sshd-auth": "usr/lib/openssh/sshd-auth",
    },
}


def _install(tree: Path, folder: Path) -> None:
    """Put a finished tree in its place, and wrappers that start its programs into bin/."""
    home = folder / tree.name
    if home.exists():
        home.rename(tree.parent / f"{tree.name}-old")
    tree.rename(home)
    loader = next(iter(sorted(home.glob("**/ld-linux*.so.*"), key=lambda path: path.is_symlink())))
    libraries = ":".join(
        f"$tree/{path.relative_to(home)}"
        for path in (*home.glob("lib/*-linux-gnu*"), *home.glob("usr/lib/*-linux-gnu*"))
    )
    (folder / "bin").mkdir(exist_ok=True)
    for name, programs in _PROGRAMS.items():
        if not (home / f"{name}.ok").exists():
            continue
        for command, program in programs.items():
            if not (home / program).exists():
                continue
            # argv[0] names the wrapper, so that sshd, which starts itself anew, comes back to it.
            text = (
                f'#!/bin/sh\ntree="${{0%/*}}/../{home.name}"\n'
                f'exec "$tree/{loader.relative_to(home)}" --argv0 "$0" '
                f'--library-path "{libraries}" "$tree/{program}" "$@"\n'
            )
            fresh = tree.parent / command
            fresh.write_text(text)
            fresh.chmod(0o755)
            fresh.replace(folder / "bin" / command)
        each = TOOLS[name]
        version = tool.version_of(each, folder / "bin" / name)
        if version < each.minimum:
            (folder / "bin" / name).unlink()
            raise FetchError(
                f"{each.title} was fetched and does not run on this machine", hint=each.hint
            )
        _say(f"  {each.title} {dotted(version)}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    """Fetch what is missing; return the exit code."""
    try:
        wanted = missing()
        if wanted:
            fetch(wanted, os.environ.get("DEBIAN_MIRROR", ""))
            tool.find.cache_clear()
    except NetzpulsError as error:
        _say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted: nothing half-made is left")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
