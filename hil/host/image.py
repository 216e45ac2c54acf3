"""Debian as a bare host has it, as a folder that hosts for tests are booted from.

`python -m hil.host.image` builds them all; the first test that needs one builds it otherwise. It
takes root, and packages from the mirrors that the machine's own sources name. An image lies in
.tools/host/SUITE/ and has systemd, D-Bus, an SSH server and apt. What a gateway needs is not
installed but lies in apt's cache, so that a host without any network installs it as one with a
mirror would.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fleet import tool as program
from fleet.errors import NetzpulsError
from hil import tool
from hil.archive import (
    Archive,
    FetchError,
    complaints,
    connection_settings,
    known_sources,
    read_archive,
)

SUITES = ("bookworm", "trixie")
INSTALLED = ("systemd", "systemd-sysv", "dbus", "openssh-server", "ca-certificates", "iproute2")
CACHED = ("python3", "python3-venv", "mosquitto", "sudo")
_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
)
_SOURCES = "etc/apt/sources.list"
# What is the machine's own and no other's: each host gets its own; a host's apt asks nobody of
# this machine's proxies; and no timer of apt's holds the lock that a test waits for.
_CLEAN = """
set -e
cd "$1"
rm -f etc/ssh/ssh_host_* etc/hostname etc/resolv.conf etc/apt/apt.conf.d/99mmdebstrap
for unit in apt-daily apt-daily-upgrade; do
  ln -sf /dev/null etc/systemd/system/$unit.timer
done
"""
_CACHE = """
set -e
apt-get clean
apt-get install --yes --download-only --no-install-recommends {packages}
"""


def build(suite: str) -> Path:
    """Return the root folder of a Debian, made now if it is not there or its recipe has changed.

    Raises: FetchError: no root, no mirror of Debian's, no network, no space.
    """
    folder = program.folder().resolve() / "host"
    final = folder / suite
    recipe = _recipe(suite)
    if _made(final) == recipe:
        return final
    if os.geteuid() != 0:
        raise FetchError(
            f"an image of Debian {suite} is made by root only", hint="run this as root"
        )
    mmdebstrap = tool.demand(tool.MMDEBSTRAP)
    mirror = os.environ.get("DEBIAN_MIRROR", "")
    known = "" if mirror else known_sources()
    archive = read_archive(platform.freedesktop_os_release(), known, mirror)
    if archive.distribution != "debian":
        raise FetchError(
            f"the sources of this machine are {archive.distribution.capitalize()}'s, not Debian's",
            hint="name a mirror of Debian's: DEBIAN_MIRROR=…",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder, suite) as scratch:
        if _made(final) == recipe:  # by whoever held the lock
            return final
        began = time.monotonic()
        _say(f"making an image of Debian {suite} in {final} (a minute or two)")
        _make(mmdebstrap, archive.at(suite), scratch)
        (scratch / "recipe").write_text(recipe)
        _replace(final, scratch)
        _say(f"  Debian {suite}: {time.monotonic() - began:.0f} s")
    return final


def _replace(final: Path, scratch: Path) -> None:
    """Put what was made in its place as soon as no host runs from what is there."""
    with contextlib.ExitStack() as stack:
        if final.exists():
            old = os.open(final, os.O_RDONLY)
            stack.callback(os.close, old)
            try:
                fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"  hosts still run from the old {final}: waiting for their end")
                fcntl.flock(old, fcntl.LOCK_EX)
            final.rename(scratch / "old")
        (scratch / "root").rename(final)
        (scratch / "recipe").replace(_note(final))


def _note(final: Path) -> Path:
    """Return the file that says that an image is whole, and what it was made from."""
    return final.with_name(f"{final.name}.recipe")


def _made(final: Path) -> str:
    with contextlib.suppress(OSError):
        if final.is_dir():
            return _note(final).read_text()
    return ""


def _recipe(suite: str) -> str:
    parts = (suite, INSTALLED, CACHED, _DPKG_OPTIONS, _CLEAN, _CACHE)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@contextlib.contextmanager
def _only_one(folder: Path, suite: str) -> Iterator[Path]:
    """Give a scratch folder to one process at a time, and clear what a killed one left."""
    scratch = folder / f"{suite}.new"
    with (folder / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o755)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _make(mmdebstrap: Path, archive: Archive, scratch: Path) -> None:
    root = scratch / "root"
    native = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (scratch / "apt.conf").write_text(connection_settings())
    (scratch / "apt.conf").chmod(0o600)
    (scratch / "clean.sh").write_text(_CLEAN)
    (scratch / "cache.sh").write_text(_CACHE.format(packages=" ".join(CACHED)))
    for name in ("clean.sh", "cache.sh"):
        (scratch / name).chmod(0o755)
    # Whoever kills this process takes the build along: all of it is in one PID namespace.
    leash = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"]
    command = [
        *[*leash, "--kill-child", "--mount-proc", "--"],
        *[str(mmdebstrap), "--mode=root", "--format=directory", "--variant=minbase"],
        f"--architectures={native}",
        f"--include={','.join(INSTALLED)}",
        f"--aptopt={scratch}/apt.conf",
        "--aptopt=Acquire::Languages none",
        *[f"--dpkgopt={each}" for each in _DPKG_OPTIONS],
        "--skip=cleanup/apt",
        f"--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG {scratch}/cache.sh",
        f"--customize-hook={scratch}/clean.sh",
        *[archive.suite, str(root), "-"],
    ]
    path = f"{mmdebstrap.parent}:{os.environ.get('PATH', os.defpath)}"  # for its mmtarfilter
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", "TMPDIR": str(scratch)}
    done = subprocess.run(
        command,
        input=archive.lines([native]),
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        words = complaints(done.stderr) or " ".join(done.stderr.split()[-60:])
        raise FetchError(
            f"mmdebstrap could make no Debian {archive.suite}: {words}",
            hint="check the network, the space on the disk and that `apt update` works here",
        )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    """Build all images; return the exit code."""
    try:
        for suite in SUITES:
            build(suite)
    except NetzpulsError as error:
        _say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted: nothing half-made is left")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
