"""Namespaces: one set around the whole lab, and a network of its own for each of its hosts.

    code = enter()
    if code is not None:
        return code                      # outside: the lab has ended
    router, board = Namespace("router"), Namespace("board")
    router.pair("lan", board, "wl0")     # a cable between the two
    with board.inside():
        subprocess.Popen(…)              # lives there; sockets made here stay there

A network namespace is held by a file descriptor and nothing else, and all of the lab's processes
live in one PID namespace: when its first process ends, however it ends, the kernel ends the rest
and takes the networks down. No name in /run/netns, nothing to clean up.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from hil.lab.error import LabError, NamespaceError

_NEWNS, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1
_SIOCETHTOOL, _ETHTOOL_SET_TX_CHECKSUM = 0x8946, 0x17
_OWN = "/proc/thread-self/ns/net"
_FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> int | None:
    """Go on in new user, mount, PID and network namespaces, in a child of this process.

    Root needs no user namespace; any other user is root inside and owns all files as before.

    Returns: inside None; outside, after the inside has ended, its exit code.
    Raises: NamespaceError: the kernel does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    flags = _NEWNS | _NEWPID | _NEWNET
    if user != 0:
        flags |= _NEWUSER
    if _libc.unshare(flags) != 0:
        raise _refused(ctypes.get_errno(), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    alive, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        _begin(alive)
        return None
    os.close(alive)
    os.write(held, b"+")
    return _wait(child)


def _begin(parent_alive: int) -> None:
    """Become the first process of the PID namespace."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.read(parent_alive, 1) != b"+":  # it ended before the kernel was asked
        os._exit(1)
    os.close(parent_alive)
    os.setsid()  # the terminal's signals come once, through the parent
    none, proc = ctypes.c_char_p(b"none"), ctypes.c_char_p(b"proc")
    failed = _libc.mount(none, b"/", None, _MS_REC | _MS_PRIVATE, None)
    failed = failed or _libc.mount(proc, b"/proc", proc, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)
    if failed:
        raise _refused(ctypes.get_errno(), "mounting /proc")


def _wait(child: int) -> int:
    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, _FORWARDED[signal.Signals(number)])

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _refused(number: int, what: str) -> NamespaceError:
    hint = "run it as root, on a Linux machine or in a container with the right to namespaces"
    for path, allowed in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0"),
    ):
        with contextlib.suppress(OSError):
            if Path(path).read_text().strip() != allowed:
                hint = f"sudo sysctl {path[10:].replace('/', '.')}={allowed}, or run it as root"
    with contextlib.suppress(OSError):
        if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
            hint = "sudo sysctl user.max_user_namespaces=1000, or run it as root"
    if number == errno.ENOSPC:
        limits = " ".join(f"user.max_{kind}_namespaces=10000" for kind in ("mnt", "net", "pid"))
        hint = f"its limit on namespaces is reached; raise it: sudo sysctl {limits}"
    return NamespaceError(
        f"the lab needs namespaces, and this machine refuses them: {what}: {os.strerror(number)}",
        hint=hint,
    )


class Namespace:
    """One host's network; it is there as long as this object, a process or a socket in it.

    Raises: NamespaceError: the kernel has no more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        own = os.open(_OWN, os.O_RDONLY)
        try:
            if _libc.unshare(_NEWNET) != 0:
                raise _refused(ctypes.get_errno(), "unshare")
            self._file = os.open(_OWN, os.O_RDONLY)
            _setns(own)
        finally:
            os.close(own)
        self.ip("link set lo up")

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    def close(self) -> None:
        """Let it go: it ends when no process and no socket is left in it."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Put this thread into it: sockets made and programs started meanwhile live there."""
        own = os.open(_OWN, os.O_RDONLY)
        try:
            _setns(self._file)
            try:
                yield
            finally:
                _setns(own)
        finally:
            os.close(own)

    def ip(self, *lines: str) -> None:
        """Run commands of iproute2's `ip`, one a line, all or up to the first that fails.

        Raises: LabError: one failed.
        """
        self._run(["ip", "-batch", "-"], "\n".join(lines))

    def tc(self, *lines: str) -> None:
        """Run commands of iproute2's `tc`."""
        self._run(["tc", "-batch", "-"], "\n".join(lines))

    def pair(self, name: str, other: Namespace, other_name: str, mac: str = "") -> None:
        """Lay a cable: an interface here, one there. Both are down.

        Checksums are made before a packet enters it, as on a wire, so that whoever reads along
        or forwards frames by hand sees what a wire would carry.
        """
        address = f"address {mac} " if mac else ""
        peer = f"/proc/self/fd/{other._file}"
        line = f"link add name {name} {address}type veth peer name {other_name} netns {peer}"
        self._run(["ip", "-batch", "-"], line, pass_fds=(other._file,))
        self._checksum(name)
        other._checksum(other_name)

    def write(self, path: str, value: str) -> None:
        """Set a value below /proc/sys/net."""
        with self.inside():
            Path("/proc/sys/net", path).write_text(value)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket that stays here."""
        with self.inside():
            return socket.socket(family, kind, protocol)

    def _checksum(self, name: str) -> None:
        value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_SET_TX_CHECKSUM, 0))
        request = struct.pack("16sP", name.encode(), ctypes.addressof(value))
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)

    def _run(self, command: list[str], text: str, pass_fds: tuple[int, ...] = ()) -> None:
        with self.inside():
            try:
                done = subprocess.run(
                    command,
                    input=text.encode(),
                    capture_output=True,
                    check=False,
                    pass_fds=pass_fds,
                )
            except FileNotFoundError:
                raise NamespaceError(
                    f"the lab needs iproute2, and there is no `{command[0]}` on PATH",
                    hint="on Debian and Ubuntu: sudo apt install iproute2",
                ) from None
        if done.returncode != 0:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise LabError(f"{self.name}: `{command[0]} {text}` failed: {said}")


def _setns(file: int) -> None:
    if _libc.setns(file, _NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"setns in {threading.current_thread().name}")
