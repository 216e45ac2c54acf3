"""The lab's namespaces: what ends when, who may have them, what a cable carries."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("namespaces")

_HEAD = """
import os, socket, subprocess, sys, time
from pathlib import Path
from hil.lab.namespace import Namespace, enter
code = enter()
if code is not None:
    sys.exit(code)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _HEAD + body],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_inside_is_the_first_process_and_its_code_comes_out() -> None:
    done = run("print(os.getpid(), os.geteuid(), os.listdir('/proc/self/fd') != []); sys.exit(7)")
    assert done.stdout.split() == ["1", "0", "True"], done.stderr
    assert done.returncode == 7


def test_a_cable_joins_two_networks_and_sockets_stay_where_they_were_made() -> None:
    done = run("""
one, other = Namespace("one"), Namespace("other")
one.pair("left", other, "right")
one.ip("addr add 10.9.0.1/24 dev left", "link set left up")
other.ip("addr add 10.9.0.2/24 dev right", "link set right up")
server = other.socket(socket.AF_INET, socket.SOCK_STREAM)
server.bind(("10.9.0.2", 80)); server.listen()
client = one.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect(("10.9.0.2", 80))
print(server.accept()[1][0])
outside = socket.socket()
try:
    outside.connect(("10.9.0.2", 80))
except OSError as error:
    print(error.strerror)
""")
    assert done.stdout.splitlines() == ["10.9.0.1", "Network is unreachable"], done.stderr


def test_a_command_that_fails_says_which_where_and_why() -> None:
    done = run("""
from hil.lab.error import LabError
try:
    Namespace("router 1").ip("link set nowhere up")
except LabError as error:
    print(error.message)
""")
    assert "router 1" in done.stdout, done.stderr
    assert "link set nowhere up" in done.stdout
    assert "Cannot find device" in done.stdout


def test_what_was_started_inside_ends_with_the_outside() -> None:
    """SIGKILL: nobody can clean up, the kernel does."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _HEAD
            + """
ns = Namespace("host")
with ns.inside():
    child = subprocess.Popen(["sleep", "1234.5"], start_new_session=True)
print(Path("/proc/sys/kernel/random/boot_id").read_text() and "ready", flush=True)
time.sleep(60)
""",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert _running("sleep 1234.5")
    process.kill()
    process.wait()
    process.stdout.read()  # closed when the last of them is gone
    process.stdout.close()
    assert not _running("sleep 1234.5")


def _running(command: str) -> bool:
    table = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True)
    return command in table.stdout.splitlines()


def test_a_machine_that_refuses_is_named_with_what_to_do() -> None:
    done = subprocess.run(
        [
            "unshare",
            "-Ur",
            sys.executable,
            "-c",
            """
import sys
from pathlib import Path
from fleet.cli import main
Path("/proc/sys/user/max_net_namespaces").write_text("0")
main(["lab", "up", "--json"])
""",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done
    assert '"code": "namespace"' in done.stdout
    assert "the lab needs namespaces, and this machine refuses them" in done.stdout
    assert "sudo sysctl user.max_mnt_namespaces=10000 user.max_net_namespaces=10000" in done.stdout
