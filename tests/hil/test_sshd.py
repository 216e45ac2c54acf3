"""A real sshd and real logins by Fabric and by OpenSSH's own client."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from io import StringIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fabric import Config, Connection
from paramiko import AuthenticationException, Ed25519Key, HostKeys, RejectPolicy
from paramiko.ssh_exception import BadHostKeyException

from fleet.errors import BenchError
from hil.sshd import SshServer


def key_pair() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode(), public.decode()


def connect(server: SshServer, private: str, known: str) -> Connection:
    connection = Connection(
        server.host,
        user=server.user,
        port=server.port,
        config=Config(overrides={"load_ssh_configs": False}),
        connect_timeout=10,
        connect_kwargs={
            "pkey": Ed25519Key.from_private_key(StringIO(private)),
            "allow_agent": False,
            "look_for_keys": False,
        },
    )
    keys: HostKeys = connection.client.get_host_keys()
    kind, data = known.split()[:2]
    keys.add(f"[{server.host}]:{server.port}", kind, Ed25519Key(data=b64decode(data)))
    connection.client.set_missing_host_key_policy(RejectPolicy())
    return connection


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def ends(pid: int, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def keys() -> tuple[str, str]:
    return key_pair()


def test_fabric_logs_in_and_runs_our_own_command(tmp_path: Path, keys: tuple[str, str]) -> None:
    private, public = keys
    with (
        SshServer(tmp_path / "sshd", public, environment={"CITY": "Neustadt am See"}) as server,
        connect(server, private, server.host_key) as connection,
    ):
        answer = connection.run(
            'command -v netzpuls; echo "$CITY"; id -u', hide=True, in_stream=False
        )
        command, city, user_id = answer.stdout.splitlines()
        assert command == str(Path(sys.executable).parent / "netzpuls")
        assert city == "Neustadt am See"
        assert int(user_id) == os.geteuid()
        connection.put(StringIO("up\n"), str(tmp_path / "report"))
    assert (tmp_path / "report").read_text() == "up\n"


def test_openssh_itself_logs_in(tmp_path: Path, keys: tuple[str, str]) -> None:
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's client is not here: sudo apt install openssh-client")
    private, public = keys
    identity = tmp_path / "identity"
    identity.write_text(private)
    identity.chmod(0o600)
    with SshServer(tmp_path / "sshd", public) as server:
        (tmp_path / "known").write_text(f"[{server.host}]:{server.port} {server.host_key}\n")
        answer = subprocess.run(
            [
                *("ssh", "-F", "none", "-v", "-i", identity, "-p", str(server.port)),
                *("-o", f"UserKnownHostsFile={tmp_path}/known"),
                *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"),
                *(f"{server.user}@{server.host}", "echo in"),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert answer.stdout == "in\n"
    assert "kex: algorithm: curve25519-sha256" in answer.stderr


def test_another_key_is_refused(tmp_path: Path, keys: tuple[str, str]) -> None:
    with (
        SshServer(tmp_path, keys[1]) as server,
        connect(server, key_pair()[0], server.host_key) as connection,
        pytest.raises(AuthenticationException),
    ):
        connection.open()


def test_a_changed_host_key_is_noticed(tmp_path: Path, keys: tuple[str, str]) -> None:
    private, public = keys
    with SshServer(tmp_path, public) as first:
        before = first.host_key
    with SshServer(tmp_path, public) as again:
        assert again.host_key == before
    (tmp_path / "host_key").unlink()
    with SshServer(tmp_path, public) as changed:
        assert changed.host_key != before
        with (
            connect(changed, private, before) as connection,
            pytest.raises(BadHostKeyException),
        ):
            connection.open()


def test_no_process_outlives_stop(tmp_path: Path, keys: tuple[str, str]) -> None:
    private, public = keys
    server = SshServer(tmp_path, public)
    with server, connect(server, private, server.host_key) as connection:
        answer = connection.run(
            "sleep 60 >/dev/null 2>&1 & echo $!; setsid sleep 60 >/dev/null 2>&1 & echo $!",
            hide=True,
            in_stream=False,
        )
        started = [int(line) for line in answer.stdout.split()]
        assert all(alive(pid) for pid in started)
        server.stop()
        assert [pid for pid in started if alive(pid)] == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), 1)


def test_it_dies_with_its_parent(tmp_path: Path, keys: tuple[str, str]) -> None:
    script = (
        "import sys; from pathlib import Path; from hil.sshd import SshServer\n"
        "with SshServer(Path(sys.argv[1]), sys.argv[2]) as server:\n"
        "    print(server.port, server._process.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, keys[1]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    assert parent.stdin
    with parent:
        port, pid = map(int, parent.stdout.readline().split())
        socket.create_connection(("127.0.0.1", port), 5).close()
        parent.send_signal(signal.SIGKILL)
    assert ends(pid)


def test_a_taken_port_is_an_error_with_its_reason(tmp_path: Path, keys: tuple[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = SshServer(tmp_path, keys[1], port=port)
        with pytest.raises(BenchError, match=f"127.0.0.1:{port} does not start.*in use"):
            server.start()


def test_the_private_key_is_private(tmp_path: Path, keys: tuple[str, str]) -> None:
    with SshServer(tmp_path / "sshd", keys[1]):
        assert (tmp_path / "sshd" / "host_key").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "sshd").stat().st_mode & 0o777 == 0o700
