"""A real OpenSSH server for one user on loopback, without root and without a trace.

    with SshServer(folder, authorized_key="ssh-ed25519 AAAA…") as server:
        connect(server.host, server.port, user=server.user, known=server.host_key)

It lets the user who runs it log in as themselves. Run by root, it lives in a mount namespace of
its own, because sshd then insists on a user `sshd` and a folder /run/sshd that the machine may
not have.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import tool as program
from fleet.errors import BenchError, ToolMissingError
from hil import tool

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_PORT_TRIES = 5
_MARK = "NETZPULS_SSHD"
_NO_SHELL = {"/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false"}
# Only this process and its children see the mounts; sshd then looks for what it needs in vain no
# more: a user `sshd` to drop to and an empty folder of root's to lock that user in.
_PRIVATE_MOUNTS = """
mount --bind "$1" /etc/passwd && mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd || exit 3
shift
exec "$@"
"""


class SshServer:
    """One sshd in the foreground of a child process; ends with this process at the latest.

    Start it from a thread that lives as long as the server shall: the kernel ends it with the
    thread that started it.

    Args:
        folder: where configuration, host key and log are kept; the same folder keeps its host key.
        authorized_key: public keys in OpenSSH's form, one per line, that may log in.
        environment: what remote commands find in their environment besides PATH.
        port: 0 takes a free one.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        authorized_key: str,
        *,
        environment: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.folder = folder.absolute()
        self.authorized_key = authorized_key.strip() + "\n"
        self.environment = dict(environment or {})
        self.port = port
        self.user = ""
        self.host_key = ""
        self.log = self.folder / "sshd.log"
        self._wanted_port = port
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it accepts connections.

        Raises:
            ToolMissingError: there is no sshd, or nothing that keeps its needs private.
            BenchError: it does not start; the message carries its own last words.
        """
        sshd = tool.find("sshd")
        self.user = _account()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.host_key = host_key(self.folder / "host_key")
        (self.folder / "authorized_keys").write_text(self.authorized_key)
        for _ in range(_PORT_TRIES):
            self.port = self._wanted_port or _free_port()
            configuration = self.folder / "sshd_config"
            configuration.write_text(self._configuration(sshd))
            if self._launch([str(sshd), "-D", "-e", "-f", str(configuration)]):
                return
            if self._wanted_port or not _taken(self.port):
                break
        words = self.log.read_text(errors="replace").strip().splitlines()
        raise BenchError(
            f"the SSH server on {self.host}:{self.port} does not start: "
            + ("; ".join(words[-3:]) or "it said nothing"),
            hint=f"see {self.log}",
        )

    def stop(self) -> None:
        """End the server, its sessions and whatever they started."""
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        # The server first, so that no session is added; then its sessions, which it leaves behind.
        left = _family(process.pid, f"{_MARK}={self._mark}")
        process.terminate()
        process.wait()
        while left and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            left = {pid for pid in left if _runs(pid)} | _marked(f"{_MARK}={self._mark}")

    def _launch(self, command: list[str]) -> bool:
        if os.geteuid() == 0:
            command = _in_private_mounts(self.folder, command)
        # setpriv: a parent that dies, however, takes the server with it.
        command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        environment = {**os.environ, _MARK: self._mark}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        try:
            if self._answers(self._process):
                return True
        except BaseException:
            self.stop()
            raise
        self.stop()
        return False

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server shows its banner; False when it ended or kept silent."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.host, self.port), 1) as connection,
            ):
                connection.settimeout(1)
                # Another program may have taken the port meanwhile: ours must still be alive.
                if connection.recv(4) == b"SSH-" and process.poll() is None:
                    return True
            time.sleep(0.02)
        return False

    def _configuration(self, sshd: Path) -> str:
        version = program.version_of(tool.SSHD, sshd)
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "/bin")))
        # SHLVL keeps bash from the user's own ~/.bashrc, which may take long, or for ever where a
        # test killed it while it held a lock.
        environment = {"PATH": path, "SHLVL": "1", _MARK: self._mark, **self.environment}
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.host}",
            f'HostKey "{self.folder}/host_key"',
            f'AuthorizedKeysFile "{self.folder}/authorized_keys"',
            "PidFile none",
            f"AllowUsers {self.user}",
            "AuthenticationMethods publickey",
            "PermitRootLogin prohibit-password",
            # The folder may lie below one that others can write, such as /tmp.
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "PrintLastLog no",
            "X11Forwarding no",
            # What is measured shall be the work, not the key exchange.
            "KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org",
            "MaxStartups 200",
            "MaxSessions 100",
            "Subsystem sftp internal-sftp",
            "SetEnv " + " ".join(f"{name}={_quoted(value)}" for name, value in environment.items()),
            "LogLevel VERBOSE",
        ]
        if version >= (9, 8):
            # Tests fail to log in on purpose; the next login must not wait for that.
            lines.append("PerSourcePenalties no")
        for part, since in (("session", (9, 8)), ("auth", (10,))):
            helper = sshd.with_name(f"sshd-{part}")
            if version >= since and helper.exists():
                lines.append(f"Sshd{part.capitalize()}Path {helper}")
        return "\n".join(lines) + "\n"


def _account() -> str:
    """Return the login name of the user who runs this.

    Raises: BenchError: an account without a name or without a shell cannot log in.
    """
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise BenchError(
            f"user id {os.geteuid()} has no entry in /etc/passwd, so nobody can log in as it",
            hint="run this as a user with a name and a login shell",
        ) from None
    if entry.pw_shell in _NO_SHELL:
        raise BenchError(
            f"the user {entry.pw_name} has no login shell ({entry.pw_shell})",
            hint="run this as a user with a login shell",
        )
    return entry.pw_name


def host_key(path: Path) -> str:
    """Return the public half of the server's key, made on first use."""
    if path.exists():
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    else:
        key = Ed25519PrivateKey.generate()
        data = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(fresh, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        fresh.replace(path)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return public.decode()


def _in_private_mounts(folder: Path, command: list[str]) -> list[str]:
    accounts = Path("/etc/passwd").read_text()
    if not any(line.startswith("sshd:") for line in accounts.splitlines()):
        accounts = accounts.rstrip("\n") + "\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    (folder / "passwd").write_text(accounts)
    private = ["unshare", "--mount", "--propagation", "private"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*private, "true"], capture_output=True, check=False).returncode
    ):
        raise ToolMissingError(
            "root's sshd needs a mount namespace of its own, and this machine allows none",
            hint="run this as an ordinary user",
        )
    return [*private, "sh", "-c", _PRIVATE_MOUNTS, "sh", str(folder / "passwd"), *command]


def _quoted(value: str) -> str:
    return f'"{value}"' if any(sign.isspace() for sign in value) else value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((SshServer.host, 0))
        port: int = probe.getsockname()[1]
        return port


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((SshServer.host, port))
        except OSError:
            return True
    return False


def _processes() -> Iterator[tuple[int, int]]:
    """Yield every process and its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold anything, spaces and brackets too.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])


def _family(pid: int, mark: str) -> set[int]:
    """Return the descendants of a process, those included that left their parents."""
    processes = dict(_processes())
    found = _marked(mark)
    grown = True
    while grown:
        children = {child for child, parent in processes.items() if parent in found | {pid}}
        grown = not children <= found
        found |= children
    return found - {pid}


def _marked(mark: str) -> set[int]:
    """Return the processes of ours that carry the mark in their environment."""
    found = set()
    for pid, _ in _processes():
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
