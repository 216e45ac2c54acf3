"""The process that keeps one host: `python -P -m hil.host.keeper FOLDER IMAGE NAME`.

It is started in the host's network namespace, with a pipe as its stdin whose other end the test
holds. When that end closes, however the test ended, or when the host is off, the host is gone:
it lives in a PID namespace whose first process is ours, its mounts in a mount namespace of ours,
and its control group, the one thing that has a name, is removed by the half that stays outside.

    FOLDER/disk    what the host wrote; laid over IMAGE, which stays as it is
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import subprocess
import sys
from pathlib import Path

from fleet.errors import NetzpulsError
from hil import tool
from hil.lab.namespace import enter

REBOOT = 133  # systemd-nspawn's exit code when its host wants to be started again
_GROUPS = Path("/sys/fs/cgroup")
_OPTIONS = (
    "--boot",
    "--register=no",
    "--keep-unit",
    "--settings=no",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--console=pipe",
)
_IN_GROUP = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
_libc = ctypes.CDLL(None, use_errno=True)


def group(keeper: int) -> Path:
    """Return the control group of the host that a keeper keeps, as the keeper's mounts show it."""
    line = next(
        each
        for each in Path("/proc/self/cgroup").read_text().splitlines()
        if each.startswith("0::/")
    )
    return _GROUPS / line[4:] / f"netzpuls-host-{keeper}"


def _mount(source: str, target: Path, kind: str, options: str = "") -> None:
    words = (source.encode(), os.fsencode(target), kind.encode(), 0, options.encode())
    if _libc.mount(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {kind}: {os.strerror(number)}", str(target))


def _escaped(path: Path) -> str:
    text = str(path)
    for sign in "\\:,":
        text = text.replace(sign, f"\\{sign}")
    return text


def _mount_disk(disk: Path, image: Path, root: Path) -> None:
    for each in (disk / "upper", disk / "work", root):
        each.mkdir(exist_ok=True)
    layers = (("lowerdir", image), ("upperdir", disk / "upper"), ("workdir", disk / "work"))
    _mount("overlay", root, "overlay", ",".join(f"{n}={_escaped(path)}" for n, path in layers))


def _keep(folder: Path, image: Path, name: str, group: Path, network: int) -> int:
    nspawn = tool.find("systemd-nspawn")
    root = folder / "root"
    # nspawn's names and locks are nobody else's either.
    _mount("none", Path("/run"), "tmpfs", "mode=755")
    _mount("none", _GROUPS, "cgroup2")
    _mount_disk(folder / "disk", image, root)
    group.mkdir()
    command = [
        *["sh", "-c", _IN_GROUP, "sh", str(group), str(nspawn), *_OPTIONS],
        f"--directory={root}",
        f"--machine={name}",
        f"--network-namespace-path=/proc/1/fd/{network}",
    ]
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    code = REBOOT
    while code == REBOOT:
        with (folder / "console.log").open("ab") as console:
            host = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment
            )
        ended = os.pidfd_open(host.pid)
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        waiting.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
        if any(file != ended for file, _ in waiting.poll()):
            return 0  # with this process the kernel ends all others of its namespace
        os.close(ended)
        code = host.wait()
    return code


def _remove(group: Path) -> None:
    inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for each in (*inner, group):
        with contextlib.suppress(FileNotFoundError):
            each.rmdir()


def main() -> int:
    """Keep a host until it is off or nobody wants it any more."""
    folder, image, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    place = group(os.getpid())
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    fcntl.flock(os.open(image, os.O_RDONLY), fcntl.LOCK_SH)  # it stays as long as this process
    code = enter()
    if code is None:
        try:
            return _keep(folder, image, name, place, network)
        except (OSError, NetzpulsError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    _remove(place)
    return code


if __name__ == "__main__":
    sys.exit(main())
