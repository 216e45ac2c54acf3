"""The user's ssh_config: what it says counts where the inventory is silent, and OpenSSH agrees."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import pytest

from fleet import ssh, trust
from fleet.collect import collect
from fleet.errors import ConfigurationError, HostKeyError
from fleet.login import host_of
from tests.fleet.conftest import Login, new_key
from tests.fleet.town import DAY_S, Town, fill_gateway


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    return folder


def test_what_is_said_is_what_openssh_says(home: Path) -> None:
    new_key(home / "city")
    (home / "conf.d").mkdir()
    (home / "conf.d" / "10-vpn").write_text("Host vpn\n  HostName vpn.example\n  User jumper\n")
    (home / "config").write_text(
        "Include conf.d/*\n"
        "Host gw-*\n"
        "  User netzpuls\n"
        "  IdentityFile ~/.ssh/city\n"
        "Host gw-1\n"
        "  HostName 10.0.0.7\n"
        "  Port 2222\n"
        "  ProxyJump vpn,other@10.9.9.9:2200\n"
        "Match host gw-2\n"
        "  HostName gw-2.example\n"
        "Host *\n"
        "  Port 22022\n"
    )
    for name in ("gw-1", "gw-2", "elsewhere"):
        said = ssh.lookup(name)
        done = subprocess.run(
            ["ssh", "-G", "-F", home / "config", name], capture_output=True, text=True, check=True
        )
        theirs = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        assert said.address == theirs["hostname"]
        assert str(said.port) == theirs["port"]
        assert (said.user or getpass.getuser()) == theirs["user"]
    found = ssh.lookup("gw-1")
    assert found.identity_file == home / "city"
    assert [(hop.user, hop.host, hop.port) for hop in found.jumps] == [
        (None, "vpn", None),
        ("other", "10.9.9.9", 2200),
    ]
    assert ssh.lookup("vpn").user == "jumper"


def test_the_inventory_goes_first_and_hops_follow(home: Path, tmp_path: Path) -> None:
    (home / "config").write_text(
        "Host gw-1\n  HostName 10.0.0.7\n  Port 2222\n  User me\n  ProxyJump a,b\n"
        "Host a\n  HostName a.example\n  User anna\n"
        "Host b\n  HostName b.example\n  Port 2200\n"
    )
    town = Town(tmp_path / "city")
    town.gateway("gw-1", host="gw-1")
    host = host_of(town.write(), "gw-1")
    assert [(each.address, each.port, each.user) for each in host.way] == [
        ("a.example", 22, "anna"),
        ("b.example", 2200, getpass.getuser()),
        ("10.0.0.7", 2222, "me"),
    ]
    town.jumps["vpn"] = {"host": "vpn.example", "user": "jumper"}
    town.gateway("gw-1", ssh_port=22, user="netzpuls", jump="vpn")
    host = host_of(town.write(), "gw-1")
    assert [(each.address, each.port, each.user) for each in host.way] == [
        ("vpn.example", 22, "jumper"),
        ("10.0.0.7", 22, "netzpuls"),
    ]


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_host_is_reached_as_ssh_config_says_and_still_must_prove_itself(
    home: Path, tmp_path: Path, login: Login, hops: int
) -> None:
    lines = ["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"]
    for number in range(hops + 1):
        lines += [
            f"Host hop-{number}",
            "  HostName 127.0.0.1",
            f"  Port {login.server.port}",
            f"  User {login.server.user}",
            f"  IdentityFile {login.identity}",
        ]
    if hops:
        lines.append("  ProxyJump " + ",".join(f"hop-{number}" for number in range(hops)))
    (home / "config").write_text("\n".join(lines) + "\n")
    town = Town(tmp_path / "city")
    town.gateways["gw-1"] = {
        "host": f"hop-{hops}",
        "broker_host": "10.1.0.2",
        "data_dir": str(tmp_path / "gateway"),
    }
    fill_gateway(
        tmp_path / "gateway", "gw-1", [(board, board.report(DAY_S)) for board in town.boards]
    )
    (result,) = collect(town.write())
    assert isinstance(result.error, HostKeyError)
    (home / "known_hosts").write_text(f"[127.0.0.1]:{login.server.port} {login.server.host_key}\n")
    (result,) = collect(town.write())
    assert (result.error, result.new) == (None, 2)


_PIPE = """
import os, socket, sys, threading
open(sys.argv[3], "a").write(f"{os.getpid()}\\n")
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def send():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""


def test_a_proxy_command_is_a_wire_and_the_host_still_must_prove_itself(
    home: Path, tmp_path: Path, login: Login
) -> None:
    pipe, pids = tmp_path / "pipe.py", tmp_path / "pids"
    pipe.write_text(_PIPE)
    (home / "config").write_text(
        "StrictHostKeyChecking no\nHost gw-1\n  HostName 127.0.0.1\n  Port 1\n"
        f"  User {login.server.user}\n  IdentityFile {login.identity}\n"
        f"  ProxyCommand {sys.executable} {pipe} %h %p {pids}\n"
    )
    town = Town(tmp_path / "city")
    town.gateways["gw-1"] = {
        "host": "gw-1",
        "broker_host": "10.1.0.2",
        "data_dir": str(tmp_path / "gateway"),
        "ssh_port": login.server.port,  # goes before ssh_config's, in the command, too
    }
    folder = tmp_path / "gateway"
    fill_gateway(folder, "gw-1", [(board, board.report(DAY_S)) for board in town.boards])
    city = town.write()
    (result,) = collect(city)
    assert isinstance(result.error, HostKeyError)
    (shown,) = trust.trust(city, "gw-1", lambda _: True)
    assert shown.outcome == "recorded"
    (result,) = collect(city)
    assert (result.error, result.new) == (None, 2)
    ended = [int(pid) for pid in pids.read_text().split()]
    assert len(ended) == 3
    assert not [pid for pid in ended if Path(f"/proc/{pid}").exists()]


def test_a_proxy_command_that_cannot_be_run_is_said(home: Path, tmp_path: Path) -> None:
    (home / "config").write_text("Host gw-1\n  ProxyCommand /no/such/program %h\n")
    town = Town(tmp_path / "city")
    town.gateway("gw-1", host="gw-1")
    (result,) = collect(town.write())
    assert result.error is not None
    assert "no SSH session" in result.error.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Host "gw-1\n  User y\n', "ssh_config"),
        ("Include config\n", "includes itself"),
    ],
)
def test_what_is_not_served_is_said(home: Path, text: str, told: str) -> None:
    (home / "config").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        ssh.lookup("gw-1")
    assert told in caught.value.message
