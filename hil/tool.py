"""The programs that a bench without hardware needs, and how they get here without root.

`python -m hil.tool` (run by `make setup`) looks for MicroPython, mosquitto, OpenSSH's sshd and
dnsmasq on PATH; what is missing or too old is fetched by apt as the user who runs it: with a
private state, from the mirrors that the machine's own sources name, accepted only with the
signature of the distribution's archive key, unpacked into .tools/ and started by wrappers in
.tools/bin/. The 32-bit MicroPython, whose pointers are as small as an ESP32's, always comes this
way. What only real hosts for tests need (hil/host/) comes when the first of them is made, and Java
with `python -m hil.tool java` (run by `make scale`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fleet import tool
from fleet.errors import NetzpulsError, ToolMissingError
from fleet.tool import JAVA, MOSQUITTO, Tool, dotted
from hil.archive import Apt, Archive, FetchError, known_sources, output, read_archive, unpack

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
DNSMASQ = Tool(
    name="dnsmasq",
    title="the DHCP and DNS server dnsmasq",
    minimum=(2, 80),
    probe=("--version",),
    pattern=r"Dnsmasq version (\d+(?:\.\d+)+)",
    hint=f"on Debian and Ubuntu: sudo apt install dnsmasq-base; {_FETCH}",
)
NSPAWN = Tool(
    name="systemd-nspawn",
    title="systemd-nspawn",
    minimum=(250,),
    probe=("--version",),
    pattern=r"systemd (\d+(?:\.\d+)*)",
    hint="on Debian: sudo apt install systemd-container",
)
MMDEBSTRAP = Tool(
    name="mmdebstrap",
    title="mmdebstrap",
    minimum=(1, 3),
    probe=("--version",),
    pattern=r"mmdebstrap (\d+(?:\.\d+)+)",
    hint="on Debian: sudo apt install mmdebstrap",
)
ON_DEMAND = (NSPAWN, MMDEBSTRAP, JAVA)
TOOLS = {
    each.name: each for each in (MICROPYTHON, MICROPYTHON32, MOSQUITTO, SSHD, DNSMASQ, *ON_DEMAND)
}
PACKAGES = {
    "micropython": "micropython",
    "micropython32": "micropython",
    "mosquitto": "mosquitto",
    "sshd": "openssh-server",
    "dnsmasq": "dnsmasq-base",
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "java": "openjdk-21-jre-headless",
}


def find(name: str) -> Path:
    """Return the absolute path of a tool of `TOOLS`, such as `micropython`.

    Raises: ToolMissingError: it is not here; the hint says how to get it.
    """
    return tool.find(TOOLS[name])


def missing() -> list[Tool]:
    """Return the tools that this machine still lacks and could have, but for those on demand."""
    wanted = [each for each in TOOLS.values() if each is not MICROPYTHON32 or _x86_64()]
    return [each for each in wanted if each not in ON_DEMAND and not _present(each)]


def demand(each: Tool) -> Path:
    """Return the absolute path of a tool, which is fetched now if it is missing.

    Raises: FetchError: see `fetch`.
    """
    if not _present(each):
        fetch([each], os.environ.get("DEBIAN_MIRROR", ""))
        tool.find.cache_clear()
    return tool.find(each)


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
        raise FetchError(
            f"missing, and there is no apt to fetch it: {names}", hint=_install_hint(wanted)
        )
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
        error.hint = error.hint or _install_hint(wanted)
        raise


def _install_hint(wanted: list[Tool]) -> str:
    needs = (f"{each.title} {dotted(each.minimum)}+" for each in wanted if each.on_path)
    return f"install these by hand, so that they are on PATH: {', '.join(needs)}"


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
    native = output("dpkg", "--print-architecture").strip()
    by_tree: dict[str, list[Tool]] = {}
    for each in wanted:
        by_tree.setdefault(_tree(each, native), []).append(each)
    for tree, tools in by_tree.items():
        # What was fetched before stays: a tree is renewed as a whole.
        tools += [
            each
            for each in TOOLS.values()
            if each not in tools and (folder / tree / f"{each.name}.ok").exists()
        ]
    names = ", ".join(each.name for tools in by_tree.values() for each in tools)
    _say(f"fetching {names} from {archive.distribution.capitalize()} {archive.suite} (up to 40 MB)")
    for tree, tools in by_tree.items():
        architecture = "i386" if tree == "i386" else native
        try:
            _fetch_from_any(archive, architecture, tools, scratch / tree)
        except FetchError as error:
            if architecture == native or archive.distribution == "debian":
                raise
            _say(f"no 32-bit MicroPython, the tests that use it are skipped: {error.message}")
            continue
        _install(scratch / tree, folder)


def _tree(each: Tool, native: str) -> str:
    """Return the folder of a tool: one an architecture, and one each for what is on demand."""
    if each in ON_DEMAND:
        return each.name
    return "i386" if each is MICROPYTHON32 else native


def _fetch_from_any(archive: Archive, architecture: str, tools: list[Tool], tree: Path) -> None:
    """Fetch one tree; if a mirror is out of step, from the release that follows."""
    first: FetchError | None = None
    for candidate in (archive, *archive.successors()):
        apt = Apt(tree.with_name(f"apt-{tree.name}-{candidate.suite}"), candidate, (architecture,))
        apt.update()
        try:
            _fetch_tree(apt, architecture, tools, tree)
        except FetchError as error:
            first = first or error
            if not apt.warnings:  # the lists are whole: another release would only hide the reason
                break
            _say(f"  {candidate.suite} ({architecture}) is out of step on this mirror")
        else:
            return
    if first:
        raise first


def _fetch_tree(apt: Apt, architecture: str, tools: list[Tool], tree: Path) -> None:
    packages = [PACKAGES[each.name] for each in tools]
    closure = apt.closure(architecture, packages)
    if tools == [MMDEBSTRAP]:  # a script: the machine's own Perl runs it
        closure = {name: closure[name] for name in packages}
    for each in tools:
        version = closure[PACKAGES[each.name]].partition(":")
        offered = tool.parse(version[2] or version[0])
        if offered < each.minimum:
            raise FetchError(
                f"{each.title} {dotted(each.minimum)} or newer is needed, and this machine's "
                f"archive has {dotted(offered)}",
                hint=f"{each.hint}, naming a Debian mirror: make setup DEBIAN_MIRROR=…",
            )
    debs = tree.with_name(f"{tree.name}-debs")
    apt.download(architecture, closure, debs)
    unpack(debs, tree)
    _settle(tree)
    for surplus in ("usr/share", "etc", "var"):
        shutil.rmtree(tree / surplus, ignore_errors=True)
    for each in tools:
        (tree / f"{each.name}.ok").touch()


def _settle(tree: Path) -> None:
    """Put what a Java of Debian links to below /etc in the place of its links."""
    for link in [path for path in tree.glob("usr/lib/jvm/**/*") if path.is_symlink()]:
        target = link.readlink()
        if not target.is_absolute():
            continue
        there = tree / target.relative_to("/")
        if there.is_file():
            link.unlink()
            shutil.copy(there, link)
        elif there.is_dir():
            link.unlink()
            shutil.copytree(there, link, symlinks=True)


_PROGRAMS = {
    "micropython": {"micropython": "usr/bin/micropython"},
    "micropython32": {"micropython32": "usr/bin/micropython"},
    "mosquitto": {"mosquitto": "usr/sbin/mosquitto"},
    "sshd": {
        "sshd": "usr/sbin/sshd",
        "sshd-session": "usr/lib/openssh/sshd-session",
        "sshd-auth": "usr/lib/openssh/sshd-auth",
    },
    "dnsmasq": {"dnsmasq": "usr/sbin/dnsmasq"},
    "systemd-nspawn": {"systemd-nspawn": "usr/bin/systemd-nspawn"},
    "mmdebstrap": {"mmdebstrap": "usr/bin/mmdebstrap", "mmtarfilter": "usr/bin/mmtarfilter"},
    "java": {"java": "usr/lib/jvm/java-21-*/bin/java"},
}


def _install(tree: Path, folder: Path) -> None:
    """Put a finished tree in its place, and wrappers that start its programs into bin/."""
    home = folder / tree.name
    if home.exists():
        home.rename(tree.parent / f"{tree.name}-old")
    tree.rename(home)
    start = _start(home)
    (folder / "bin").mkdir(exist_ok=True)
    for name, programs in _PROGRAMS.items():
        if not (home / f"{name}.ok").exists():
            continue
        for command, pattern in programs.items():
            program = next((each.relative_to(home) for each in home.glob(pattern)), None)
            if program is None:
                continue
            text = (
                f'#!/bin/sh\ntree="${{0%/*}}/../{home.name}"\nexec {start}"$tree/{program}" "$@"\n'
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


def _start(home: Path) -> str:
    """Return how a wrapper starts a program of a tree: with the tree's own loader and libraries."""
    loaders = sorted(home.glob("**/ld-linux*.so.*"), key=lambda path: path.is_symlink())
    if not loaders:  # no libraries: it is a script
        return ""
    folders = ("lib/*-linux-gnu*", "usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/systemd")
    libraries = ":".join(
        f"$tree/{path.relative_to(home)}" for each in folders for path in home.glob(each)
    )
    # argv[0] names the wrapper, so that sshd, which starts itself anew, comes back to it.
    loader = loaders[0].relative_to(home)
    return f'"$tree/{loader}" --argv0 "$0" --library-path "{libraries}" '


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(names: Sequence[str] = ()) -> int:
    """Fetch what is missing, or those named of what is on demand; return the exit code."""
    demanded = {each.name: each for each in ON_DEMAND}
    if unknown := [name for name in names if name not in demanded]:
        _say(f"error: there is no tool {', '.join(unknown)} on demand")
        _say(f"hint: it is one of {', '.join(demanded)}")
        return 2
    try:
        for name in names:
            demand(demanded[name])
        wanted = [] if names else missing()
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
    sys.exit(main(sys.argv[1:]))
