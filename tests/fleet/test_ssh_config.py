"""The user's ssh_config: what it says counts where the inventory is silent, and OpenSSH agrees."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

import pytest

from fleet import ssh
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Host gw-1\n  ProxyCommand nc %h %p\n", "ProxyCommand"),
        ('Host "gw-1\n  User y\n', "ssh_config"),
        ("Include config\n", "includes itself"),
    ],
)
def test_what_is_not_served_is_said(home: Path, text: str, told: str) -> None:
    (home / "config").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        ssh.lookup("gw-1")
    assert told in caught.value.message
