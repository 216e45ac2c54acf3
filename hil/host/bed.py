"""Real Debian hosts with systemd and an SSH server, started and broken by tests.

    with Bed(folder) as bed:
        one, two = bed.hosts("gw-a", "gw-b", suite="bookworm")
        with bed.hall.inside():          # city hall: the network that reaches the hosts
            subprocess.run(["ssh", "-i", bed.key_file, f"root@{one.address}", "true"])
        one.run("systemctl", "is-active", "ssh")
        one.power_off_hard()
        one.start()

A host is a container of systemd-nspawn. It has a kernel, a clock and a page cache in common with
this machine and nothing else: its own init, journal, users, network, host key and disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from fleet.errors import BenchError
from hil import tool
from hil.host import image
from hil.host.keeper import group
from hil.lab.namespace import Namespace
from hil.sshd import host_key

_BOOT_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0
_RUN_TIMEOUT_S = 60.0
_NETWORK = "10.77.0"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
}
_TRIAL = "mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup"


class BedError(BenchError):
    """A host for tests could not be started, or does not do what it was told."""

    code = "host-bed"


def refusal() -> str:
    """Return why this machine can have no such hosts; empty if nothing speaks against it."""
    if os.geteuid() != 0:
        return "real hosts for tests need root: run the tests as root"
    for program, package in _PROGRAMS.items():
        if not shutil.which(program):
            return f"there is no `{program}`: sudo apt install {package}"
    private = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-c", _TRIAL]
    done = subprocess.run(private, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"this machine allows root no namespaces or no cgroup2: {done.stderr.strip()}"
    return ""


class Bed:
    """Hosts, their network, and city hall in its middle; it ends with this process at the latest.

    Args:
        folder: for keys, disks and consoles, on a file system that overlayfs can write to; the
            disks are gone at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.key_file = self.folder / "key"
        self.key = ""
        self._hosts: list[Host] = []
        self._numbers = itertools.count(10)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = host_key(self.key_file)
        self.hall = Namespace("hall")
        self.hall.ip(
            "link add br0 type bridge",
            f"address add {_NETWORK}.1/24 dev br0",
            "link set br0 up",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and their network, and remove their disks."""
        for host in self._hosts:
            host.let_go()
        for host in self._hosts:
            host.close()
        self._hosts.clear()
        self.hall.close()

    def host(self, name: str, suite: str = "bookworm") -> Host:
        """Boot a host with a disk of its own; return when its SSH server answers.

        Raises:
            BedError: it does not boot; the message carries its last words.
            FetchError: there is no image of that Debian, and none can be made.
        """
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", name):
            raise BedError(f"{name!r} is no name for a host", hint="use [a-z0-9-]")
        system = image.build(suite)
        tool.demand(tool.NSPAWN)
        with self._lock:
            if any(each.name == name for each in self._hosts):
                raise BedError(f"there is a host {name} already", hint="give another name")
            made = Host(self, name, next(self._numbers), system)
            self._hosts.append(made)
        try:
            made.start()
        except BaseException:
            made.close()
            self._hosts.remove(made)
            raise
        return made

    def hosts(self, *names: str, suite: str = "bookworm") -> list[Host]:
        """Boot several hosts side by side."""
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            return list(pool.map(lambda name: self.host(name, suite), names))


class Host:
    """One Debian, made by `Bed.host`; `address` is where its SSH server listens, on port 22."""

    def __init__(self, bed: Bed, name: str, number: int, system: Path) -> None:
        self.bed = bed
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.folder = bed.folder / name
        self.console = self.folder / "console.log"
        self._system = system
        self._keeper: subprocess.Popen[bytes] | None = None
        self._network = Namespace(name)
        bed.hall.pair(f"host{number}", self._network, "eth0")
        bed.hall.ip(f"link set host{number} master br0 up")
        self._network.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")
        self.host_key = self._new_disk()

    def _new_disk(self) -> str:
        """Write what makes this host another than its siblings; return its public key."""
        disk = self.folder / "disk"
        shutil.rmtree(disk, ignore_errors=True)  # that of a process that was killed
        upper = disk / "upper"
        upper.mkdir(parents=True)
        for path, mode in (
            ("etc", 0o755),
            ("etc/ssh", 0o755),
            ("root", 0o700),
            ("root/.ssh", 0o700),
        ):
            (upper / path).mkdir()
            (upper / path).chmod(mode)
        key = upper / "etc/ssh/ssh_host_ed25519_key"
        public = host_key(key)
        for path, text in (
            ("etc/ssh/ssh_host_ed25519_key.pub", public),
            ("root/.ssh/authorized_keys", self.bed.key),
            ("etc/machine-id", uuid.uuid4().hex),
            ("etc/hostname", self.name),
            ("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}"),
        ):
            (upper / path).write_text(f"{text}\n")
            (upper / path).chmod(0o644)
        return public

    def start(self) -> None:
        """Boot it, with its disk as it is; return when its SSH server answers."""
        if self._keeper is not None:
            raise BedError(f"{self.name} is on already", hint="switch it off before")
        command = [sys.executable, "-P", "-m", "hil.host.keeper"]
        arguments = [str(self.folder), str(self._system), self.name]
        with (self.folder / "keeper.log").open("wb") as log, self._network.inside():
            # In a session of its own: a Ctrl-C is for the test, which then lets go of the pipe.
            self._keeper = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait("does not boot", self._answers, _BOOT_TIMEOUT_S)
        except BaseException:
            self._end()
            raise

    def run(
        self, *command: str, timeout_s: float = _RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root: not over SSH and not in its control groups.

        Raises: BedError: it is off, or the command takes longer than `timeout_s`.
        """
        enter = ["nsenter", f"--target={self.leader()}", "--mount", "--uts", "--ipc", "--net"]
        enter += ["--pid", "--cgroup", "--root", "--wd", "--", *command]
        try:
            return subprocess.run(
                enter,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=_ENVIRONMENT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BedError(
                f"{self.name}: `{' '.join(command)}` takes longer than {timeout_s} s",
                hint=f"see {self.console}",
            ) from None

    def reboot(self) -> None:
        """Have it shut down and boot in order; return when its SSH server answers again."""
        before = self.leader()
        self.run("systemctl", "reboot")
        self._wait("does not go down", lambda: not _runs(before), _BOOT_TIMEOUT_S)
        self._wait("does not come back", self._answers, _BOOT_TIMEOUT_S)

    def power_off_hard(self) -> None:
        """Kill its init and with it all of its processes at once: none can say goodbye.

        What they wrote stays written, synced or not, for the page cache is this machine's.
        """
        os.kill(self.leader(), signal.SIGKILL)
        self.thaw()
        self._end()

    def freeze(self) -> None:
        """Stop all of its processes where they are; its kernel goes on to acknowledge packets."""
        self._freezer("1")

    def thaw(self) -> None:
        """Let its processes go on."""
        self._freezer("0")

    def leader(self) -> int:
        """Return the process that is PID 1 in it, as this machine numbers it.

        Raises: BedError: it is off.
        """
        if self._keeper is not None:
            for pid in _descendants(self._keeper.pid, depth=4):
                # The keeper's PID namespace, then the host's own.
                numbers = _numbers(pid)
                if numbers[-1:] == ["1"] and len(numbers) >= len(_numbers(os.getpid())) + 2:
                    return pid
        raise BedError(f"{self.name} is off, or about to boot", hint="start it before")

    def let_go(self) -> None:
        """Tell its keeper that nobody wants it any more."""
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()

    def close(self) -> None:
        """End it, if it is on, and remove its disk."""
        self._end()
        self._network.close()
        shutil.rmtree(self.folder / "disk", ignore_errors=True)

    def _end(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        self.let_go()
        try:
            keeper.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        self._keeper = None

    def _freezer(self, value: str) -> None:
        keeper = self._keeper
        if keeper is None:
            raise BedError(f"{self.name} is off", hint="start it before")
        place = Path(f"/proc/{keeper.pid}/root") / group(keeper.pid).relative_to("/")
        (place / "cgroup.freeze").write_text(value)
        wanted = f"frozen {value}"
        self._wait(
            "does not freeze or thaw",
            lambda: wanted in (place / "cgroup.events").read_text().splitlines(),
            _STOP_TIMEOUT_S,
        )

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            self.bed.hall.inside(),
            socket.create_connection((self.address, 22), 1) as connection,
        ):
            return connection.recv(4) == b"SSH-"
        return False

    def _wait(self, trouble: str, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            ended = self._keeper is None or self._keeper.poll() is not None
            if ended or time.monotonic() > deadline:
                raise BedError(
                    f"{self.name} {trouble}"
                    + (": it is off" if ended else f" in {timeout_s} s")
                    + f"; its last words: {self._last_words()}",
                    hint=f"see {self.console}",
                )
            time.sleep(0.05)

    def _last_words(self) -> str:
        said = [
            line
            for path in (self.console, self.folder / "keeper.log")
            if path.exists()
            for line in path.read_text(errors="replace").splitlines()[-5:]
        ]
        return "; ".join(said) or "none"


def _descendants(pid: int, depth: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                if depth:
                    yield from _descendants(int(child), depth - 1)


def _numbers(pid: int) -> list[str]:
    """Return the numbers of a process, from our PID namespace inwards."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []


def _runs(pid: int) -> bool:
    return bool(_numbers(pid))
