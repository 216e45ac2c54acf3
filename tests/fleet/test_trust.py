"""`netzpuls gateway trust` against a real OpenSSH server, and what is refused without it."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fleet.cli
from fleet.collect import collect
from fleet.errors import HostError, HostKeyError
from fleet.inventory import Inventory
from fleet.ssh import Deadlines
from fleet.trust import agreeing, trust
from tests.fleet.conftest import Login, new_key
from tests.fleet.line import Line
from tests.fleet.town import DAY_S, Town, fill_gateway


@pytest.fixture
def town(tmp_path: Path, login: Login, monkeypatch: pytest.MonkeyPatch) -> Town:
    """A town of whose hosts no key is known."""
    monkeypatch.setenv("HOME", str(tmp_path))
    town = Town(tmp_path / "city")
    login.gateway(town, data_dir=str(tmp_path / "gateway"))
    del town.gateways["gw-1"]["host_key"]
    reports = [(board, board.report(DAY_S)) for board in town.boards]
    fill_gateway(tmp_path / "gateway", "gw-1", reports)
    return town


def _behind(town: Town, login: Login) -> None:
    hop = {"host": "127.0.0.1", "ssh_port": login.server.port, "user": login.server.user}
    town.jumps["vpn"] = hop
    town.gateway("gw-1", jump="vpn")


def _fingerprint(public: str) -> str:
    command = ["ssh-keygen", "-lf", "-"]
    done = subprocess.run(command, input=public, capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def _known(town: Town) -> list[str]:
    path = town.folder / "known_hosts"
    return path.read_text().splitlines() if path.exists() else []


def _run(capsys: pytest.CaptureFixture[str], town: Town, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        fleet.cli.main(["gateway", "trust", "gw-1", "--city", str(town.folder), *arguments])
    said = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, said.out, said.err


def _collects(city: Inventory) -> bool:
    (result,) = collect(city)
    assert isinstance(result.error, HostKeyError | None)
    return result.error is None


def test_a_key_is_recorded_on_purpose_and_then_holds(
    town: Town, login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    city, right = town.write(), _fingerprint(login.server.host_key)
    assert not _collects(city)
    code, _, err = _run(capsys, town, "--dry-run")
    assert code == 0
    assert f"ssh-ed25519 {right}" in err
    assert "would be recorded" in err
    assert _known(town) == []
    code, _, err = _run(capsys, town, "--fingerprint", "SHA256:" + "A" * 43)
    assert code == 1
    assert "which nobody agreed to" in err
    assert _known(town) == []
    code, _, err = _run(capsys, town, "--fingerprint", right)
    assert (code, "is recorded" in err) == (0, True)
    (line,) = _known(town)
    assert line.startswith(f"gw-1 {login.server.host_key} 127.0.0.1, ")
    assert _collects(city)
    code, out, _ = _run(capsys, town, "--json", "--fingerprint", right)
    assert code == 0
    (hop,) = json.loads(out)["hops"]
    assert (hop["host"], hop["state"], hop["outcome"]) == ("gw-1", "known", "known")
    assert len(_known(town)) == 1


def test_openssh_reads_what_was_recorded(
    town: Town, login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    town.write()
    _run(capsys, town, "--fingerprint", _fingerprint(login.server.host_key))
    done = subprocess.run(
        [
            *("ssh", "-F", "none", "-p", str(login.server.port), "-i", str(login.identity)),
            *("-o", f"UserKnownHostsFile={town.folder}/known_hosts", "-o", "BatchMode=yes"),
            *("-o", "HostKeyAlias=gw-1", "-o", "StrictHostKeyChecking=yes"),
            *(f"{login.server.user}@127.0.0.1", "true"),
        ],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_changed_key_is_shown_and_kept_out(
    town: Town, login: Login, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = new_key(tmp_path / "old")
    lines = ["# the city's hosts", f"gw-0 {old} other", f"gw-1 {old} before"]
    city, right = town.write(), _fingerprint(login.server.host_key)
    (town.folder / "known_hosts").write_text("\n".join(lines) + "\n")
    assert not _collects(city)
    code, out, _ = _run(capsys, town, "--fingerprint", right, "--json")
    assert code == 1
    error = json.loads(out)["error"]
    assert error["code"] == "host-key"
    assert "its host key has changed" in error["message"]
    assert error["known"] == [_fingerprint(old)]
    assert error["shown"] == right
    assert _known(town) == lines
    code, _, err = _run(capsys, town, "--replace", "--dry-run")
    assert (code, "CHANGED: known is" in err) == (0, True)
    assert _known(town) == lines
    code, _, _ = _run(capsys, town, "--replace", "--fingerprint", "SHA256:" + "A" * 43)
    assert (code, _known(town)) == (1, lines)
    code, _, _ = _run(capsys, town, "--replace", "--fingerprint", right)
    assert code == 0
    assert _known(town)[:2] == lines[:2]
    assert len(_known(town)) == 3
    assert _collects(city)


def test_the_inventorys_own_key_is_not_overwritten(
    town: Town, login: Login, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    town.gateway("gw-1", host_key=new_key(tmp_path / "old"))
    town.write()
    right = _fingerprint(login.server.host_key)
    code, _, err = _run(capsys, town, "--replace", "--fingerprint", right)
    assert code == 1
    assert "correct host_key in inventory.toml" in err
    assert _known(town) == []


def test_each_hop_is_shown_and_trusted_in_turn(
    town: Town, login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    _behind(town, login)
    city, right = town.write(), _fingerprint(login.server.host_key)
    code, _, err = _run(capsys, town, "--dry-run")
    assert code == 0
    assert "jump host vpn (" in err
    assert "gw-1 itself shows its key once this one is recorded" in err
    assert not _collects(city)
    # A jump host that is refused is not passed: nothing behind it is asked.
    hops = list(trust(city, "gw-1", lambda _: False))
    assert [(each.shown.host.record, each.outcome) for each in hops] == [("jump/vpn", "refused")]
    code, out, _ = _run(capsys, town, "--fingerprint", right, "--json")
    assert code == 0
    assert [(each["host"], each["outcome"]) for each in json.loads(out)["hops"]] == [
        ("jump/vpn", "recorded"),
        ("gw-1", "recorded"),
    ]
    assert [line.split()[0] for line in _known(town)] == ["jump/vpn", "gw-1"]
    assert _collects(city)


def test_the_same_address_behind_two_jump_hosts_is_two_hosts(
    town: Town, login: Login, tmp_path: Path
) -> None:
    city = town.write()
    other = new_key(tmp_path / "other")
    (town.folder / "known_hosts").write_text(
        f"gw-2 {other}\ngw-1 {login.server.host_key}\n[127.0.0.1]:{login.server.port} {other}\n"
    )
    assert _collects(city)


def test_without_a_terminal_nobody_can_be_asked(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    town.write()
    code, _, err = _run(capsys, town)
    assert code == 2
    assert "--fingerprint" in err


def _on_a_terminal(arguments: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run netzpuls on a terminal; type an answer when a prompt comes."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "fleet.cli", *arguments]
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.environ.pop("SSH_AUTH_SOCK", None)
        os.execv(command[0], command)  # noqa: S606 - a fixed program in a child of ours
    said, until, waiting = "", time.monotonic() + 60, dict(answers)
    try:
        while time.monotonic() < until:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            said += data.decode(errors="replace")
            for prompt, answer in list(waiting.items()):
                if prompt in said:
                    os.write(terminal, answer.encode() + b"\n")
                    del waiting[prompt]
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_somebody_at_a_terminal_is_asked(town: Town, login: Login, answer: str) -> None:
    town.write()
    arguments = ["gateway", "trust", "gw-1", "--city", str(town.folder)]
    code, said = _on_a_terminal(arguments, {"Is it the same?": answer})
    assert f"ssh-ed25519 {_fingerprint(login.server.host_key)}" in said
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in said
    assert (code, len(_known(town))) == ((0, 1) if answer == "y" else (1, 0))


def test_a_passphrase_is_asked_once_and_shown_nowhere(
    town: Town, login: Login, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(login.identity.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "öpen sesame", "-f", locked], check=True)
    login.gateway(town, identity_file=str(locked))
    login.gateway(town, "gw-2", **town.gateways["gw-1"])
    town.write()
    arguments = ["fleet", "collect", "--gateway", "gw-1", "--city", str(town.folder)]
    code, said = _on_a_terminal(arguments, {"Passphrase of": "öpen sesame"})
    assert code == 0, said
    assert said.count("Passphrase of") == 1
    assert "sesame" not in said
    arguments = ["board", "ports", "--on", "gw-1", "--city", str(town.folder)]
    code, said = _on_a_terminal(arguments, {"Passphrase of": "öpen sesame"})
    assert code == 0, said
    assert said.count("Passphrase of") == 1
    code, said = _on_a_terminal(arguments, {"Passphrase of": "wrong"})
    assert said.count("Passphrase of") >= 2  # and then the terminal was gone
    assert code != 0


@pytest.mark.parametrize("freeze_after", [0, 100, 1300])
def test_a_host_that_freezes_is_bounded(town: Town, login: Login, freeze_after: int) -> None:
    short = Deadlines(connect_s=1, banner_s=1, auth_s=1, channel_s=1, session_s=5)
    with Line(login.server.port, freeze_after=freeze_after) as line:
        town.gateway("gw-1", ssh_port=line.port)
        city = town.write()
        began = time.monotonic()
        if freeze_after < 1000:
            with pytest.raises(HostError):
                list(trust(city, "gw-1", agreeing([]), deadlines=short))
        else:  # its key came before it froze
            (hop,) = trust(city, "gw-1", agreeing([]), deadlines=short)
            assert hop.outcome == "refused"
        assert time.monotonic() - began < 10


def test_what_is_no_ssh_server_is_said(town: Town) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    town.gateway("gw-1", ssh_port=port)
    with pytest.raises(HostError) as caught:
        list(trust(town.write(), "gw-1", agreeing([])))
    assert "refuses the connection" in caught.value.message
