"""Collecting over a real OpenSSH server with the real `netzpuls gateway read` behind it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fleet.cli
from fleet import collect as module
from fleet import ssh, store
from fleet.collect import Collected, collect
from fleet.errors import HostError, HostKeyError, StoreError
from fleet.gateway.transfer import TransferError
from fleet.store import Store
from fleet.text import printable
from tests.fleet.conftest import Login, new_key
from tests.fleet.line import Line
from tests.fleet.town import DAY_S, TestBoard, Town, fill_gateway

NETZPULS = Path(sys.executable).parent / "netzpuls"


@pytest.fixture
def town(tmp_path: Path, login: Login) -> Town:
    town = Town(tmp_path / "city")
    login.gateway(town, data_dir=str(tmp_path / "gateway"))
    return town


def _fill(town: Town, reports: int, gateway_id: str = "gw-1") -> None:
    """Put so many new reports into a gateway, half of them from each board."""
    folder = Path(town.gateways[gateway_id]["data_dir"])
    fill_gateway(
        folder,
        gateway_id,
        [
            (board, raw)
            for board in town.boards
            for raw in board.series(DAY_S + 60 * board.seq, reports // len(town.boards))
        ],
    )


def _stored(town: Town) -> int:
    with Store(town.folder).reading() as connection:
        return sum(store.count_reports(connection).values())


def _fails(town: Town, **options: float) -> HostError:
    (result,) = collect(town.write(), **options)
    assert isinstance(result.error, HostError)
    assert result.error.hint
    return result.error


def test_only_what_is_new_is_pulled(town: Town) -> None:
    _fill(town, 40)
    city = town.write()
    (first,) = collect(city)
    assert first.error is None
    assert (first.rows, first.new, first.duplicates, first.lost) == (40, 40, 0, 0)
    (second,) = collect(city)
    assert (second.rows, second.new) == (0, 0)
    _fill(town, 6)
    (third,) = collect(city)
    assert (third.rows, third.new) == (6, 6)
    (again,) = collect(city, again=True)
    assert (again.rows, again.new, again.duplicates) == (46, 0, 46)
    assert _stored(town) == 46


def test_a_gateway_with_a_new_database_is_read_from_its_beginning(town: Town) -> None:
    _fill(town, 40)
    city = town.write()
    collect(city)
    folder = Path(town.gateways["gw-1"]["data_dir"])
    for path in folder.glob("reports.db*"):
        path.unlink()
    _fill(town, 6)
    (result,) = collect(city)
    assert (result.rows, result.new) == (6, 6)
    assert _stored(town) == 46


def test_what_is_refused_is_counted_and_never_stored(town: Town) -> None:
    good, bad = town.boards
    stranger = TestBoard("np-ffffffffffff", "nowhere", "x")
    # A key is found by a board's id, not by a path that leads to it.
    escaping = TestBoard(f"../keys/{good.id}", "nowhere", "x", key=good.key)
    forger = TestBoard(bad.id, bad.site, bad.room, key=b"\0" * 32)
    folder = Path(town.gateways["gw-1"]["data_dir"])
    reports = [(board, board.report(DAY_S)) for board in (good, forger, stranger, escaping)]
    fill_gateway(folder, "gw-1", [*reports, (good, good.report(DAY_S + 60, oldest_seq=9))])
    city = town.write()
    (result,) = collect(city)
    assert result.error is None
    assert (result.rows, result.new) == (5, 1)
    assert result.refused == {"seal-wrong": 1, "key-unknown": 2, "sequence-invalid": 1}
    assert _stored(town) == 1
    # With the key back, reading again brings what was refused.
    (city.secrets / "keys" / f"{stranger.id}.1.key").write_text(stranger.key.hex())
    (again,) = collect(city, again=True)
    assert (again.new, again.duplicates) == (1, 1)


def test_a_line_cut_in_the_middle_costs_one_piece(town: Town, login: Login) -> None:
    _fill(town, 10_000)
    with Line(login.server.port, cut_after=250_000) as line:
        login.gateway(town, ssh_port=line.port, host_key=login.server.host_key)
        (broken,) = collect(town.write())
        assert isinstance(broken.error, HostError | TransferError)
        assert "what came is kept" in broken.error.hint
        assert broken.new == broken.rows == 4096
        assert _stored(town) == 4096
        line.cut_after = None
        (rest,) = collect(town.write())
    assert rest.error is None
    assert (rest.rows, rest.new, rest.duplicates) == (5904, 5904, 0)
    assert _stored(town) == 10_000


def test_a_host_that_freezes_in_the_middle_is_bounded(
    town: Town, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Deadlines", lambda **k: ssh.Deadlines(silence_s=0.6, **k))
    _fill(town, 10_000)
    with Line(login.server.port, freeze_after=100_000) as line:
        login.gateway(town, ssh_port=line.port)
        began = time.monotonic()
        error = _fails(town)
        assert time.monotonic() - began < 6
    assert "has been silent for 0.6 s" in error.message


def test_a_host_that_freezes_anywhere_is_bounded(town: Town, login: Login) -> None:
    # Among these is the wait for the answer to the command, which Paramiko does not bound.
    _fill(town, 2)
    del town.gateways["gw-1"]
    with contextlib.ExitStack() as stack:
        for freeze_after in (100, *range(1200, 2050, 50)):
            line = stack.enter_context(Line(login.server.port, freeze_after=freeze_after))
            login.gateway(town, f"gw-{freeze_after}", ssh_port=line.port)
        town.sites["goethe-schule"]["gateway"] = "gw-100"
        began = time.monotonic()
        results = collect(town.write(), timeout_s=1.5, parallel=18)
        assert time.monotonic() - began < 6
    for result in results:
        assert result.error is not None, result.gateway
        assert "did not finish within 1.5 s" in result.error.message


def test_a_host_that_never_speaks_is_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    short = ssh.Deadlines(connect_s=0.5, banner_s=0.5)
    monkeypatch.setattr(module, "Deadlines", lambda **_: short)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        town.gateway("gw-1", ssh_port=mute.getsockname()[1])
        began = time.monotonic()
        error = _fails(town)
        assert time.monotonic() - began < 5
    assert "no answer within" in error.message


def test_a_hanging_host_does_not_hold_back_the_others(
    town: Town, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(town, 4)
    patient = ssh.Deadlines(connect_s=90, banner_s=90, auth_s=90, session_s=90)
    monkeypatch.setattr(module, "Deadlines", lambda **_: patient)
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        login.gateway(town, "gw-0", ssh_port=mute.getsockname()[1])

        def on_progress(result: Collected) -> None:
            if result.done:
                seen.append(result.gateway)
                mute.close()  # not before the other is done does it stop to hang

        results = collect(town.write(), parallel=2, on_progress=on_progress)
    assert seen == ["gw-1", "gw-0"]
    assert [result.error is None for result in results] == [False, True]


def test_an_unreachable_host_is_named(town: Town) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    town.gateway("gw-1", ssh_port=port)
    error = _fails(town)
    assert f"gateway gw-1 ([127.0.0.1]:{port}): refuses the connection" in error.message
    town.gateway("gw-1", host="no-such-host.invalid")
    assert "the name is not known" in _fails(town).message


def test_an_unknown_host_key_is_refused_and_not_remembered(
    town: Town, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    known = tmp_path / ".ssh" / "known_hosts"
    known.write_text("")
    del town.gateways["gw-1"]["host_key"]
    for _ in range(2):
        error = _fails(town)
        assert isinstance(error, HostKeyError)
        assert "its host key is not known" in error.message
        assert error.details["shown"] == _fingerprint(login)
        shown = f"netzpuls gateway trust gw-1 --fingerprint {_fingerprint(login)}"
        assert error.hint.endswith(shown)
        assert known.read_text() == ""
    known.write_text(f"[127.0.0.1]:{login.server.port} {login.server.host_key}\n")
    _fill(town, 2)
    (result,) = collect(town.write())
    assert result.error is None


def test_a_changed_host_key_is_refused_with_both_fingerprints(
    town: Town, login: Login, tmp_path: Path
) -> None:
    town.gateway("gw-1", host_key=new_key(tmp_path / "other"))
    error = _fails(town)
    assert isinstance(error, HostKeyError)
    assert "has changed" in error.message
    assert error.message.count("SHA256:") == 2
    assert _fingerprint(login) in error.message


def _fingerprint(login: Login) -> str:
    answer = subprocess.run(
        ["ssh-keygen", "-lf", "-"],
        input=login.server.host_key,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split()[1]


def test_a_host_key_that_is_none_is_a_configuration_error(town: Town) -> None:
    town.gateway("gw-1", host_key="ssh-ed25519 nonsense")
    (result,) = collect(town.write())
    assert result.error is not None
    assert result.error.code == "configuration"
    assert "host_key" in result.error.message


def test_a_known_hosts_file_that_is_none_is_named(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text("host ssh-ed25519 A\n")
    del town.gateways["gw-1"]["host_key"]
    (result,) = collect(town.write())
    assert result.error is not None
    assert "known_hosts has a line that is no host key" in result.error.message


def test_a_host_that_is_none_is_an_error_not_a_defect(town: Town) -> None:
    town.gateway("gw-1", host="root@127.0.0.1")
    assert "gateway gw-1" in _fails(town).message


@pytest.mark.parametrize("known", [True, False])
def test_a_jump_host_proves_itself_too(
    town: Town, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _fill(town, 2)
    hop = {"host": "127.0.0.1", "ssh_port": login.server.port, "user": login.server.user}
    town.jumps["vpn"] = hop | ({"host_key": login.server.host_key} if known else {})
    town.gateway("gw-1", jump="vpn")
    (result,) = collect(town.write())
    if known:
        assert (result.error, result.new) == (None, 2)
    else:
        assert isinstance(result.error, HostKeyError)
        assert "jump host vpn (" in result.error.message
        assert not (tmp_path / ".ssh").exists()


def test_a_jump_host_that_cannot_go_on(town: Town, login: Login) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    town.jumps["vpn"] = {
        "host": "127.0.0.1",
        "ssh_port": login.server.port,
        "user": login.server.user,
        "host_key": login.server.host_key,
    }
    town.gateway("gw-1", jump="vpn", ssh_port=port)
    assert "the jump host cannot reach it" in _fails(town).message


def test_a_key_that_is_not_let_in(town: Town, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    town.gateway("gw-1", identity_file=str(tmp_path / "other"))
    error = _fails(town)
    assert "does not let" in error.message
    town.gateway("gw-1", identity_file=str(tmp_path / "none"))
    (result,) = collect(town.write())
    assert result.error is not None
    assert "cannot read the key" in result.error.message


def test_a_key_with_a_passphrase_comes_from_the_agent(
    town: Town, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = [shutil.which(name) for name in ("ssh-agent", "ssh-add", "ssh-keygen")]
    if not all(tools):
        pytest.skip("needs OpenSSH's client: sudo apt install openssh-client")
    locked = tmp_path / "locked"
    shutil.copy(login.identity, locked)
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True)
    town.gateway("gw-1", identity_file=str(locked))
    _fill(town, 2)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    error = _fails(town)
    assert f"{locked} has a passphrase and is not in an ssh-agent" in error.message
    assert error.hint == f"ssh-add {locked}"
    socket_path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
    try:
        _wait_for(socket_path.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
        subprocess.run(["ssh-add", "-q", login.identity], check=True)
        (result,) = collect(town.write())
    finally:
        agent.terminate()
        agent.wait()
    assert (result.error, result.new) == (None, 2)


def test_a_host_without_netzpuls(town: Town) -> None:
    town.gateway("gw-1", command="/opt/no-such/netzpuls")
    error = _fails(town)
    assert "cannot run '/opt/no-such/netzpuls'" in error.message
    assert "command" in error.hint


def test_what_the_host_says_of_its_failure_reaches_the_user(town: Town) -> None:
    error = _fails(town)  # the gateway's folder is not there
    assert "gateway.toml" in error.message
    assert error.hint.startswith("on that host: ")


def _script(folder: Path, text: str) -> str:
    path = folder / "fake-netzpuls"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_a_flood_on_stderr_neither_blocks_nor_fills_nor_paints(town: Town, tmp_path: Path) -> None:
    flood = "head -c 6000000 /dev/zero | tr '\\0' x >&2; printf '\\n\\033[31mred\\n' >&2; exit 9"
    town.gateway("gw-1", command=_script(tmp_path, flood))
    error = _fails(town)
    assert error.message.endswith(r"\x1b[31mred")
    assert len(error.message) < 600
    assert error.message == printable(error.message, 10_000)


def test_a_host_that_is_another_gateway(town: Town) -> None:
    _fill(town, 2)
    town.gateway("gw-2", **town.gateways["gw-1"])
    first, second = collect(town.write())
    assert (first.error, first.new) == (None, 2)
    assert isinstance(second.error, HostError)
    assert "there lives 'gw-1'" in second.error.message
    assert second.rows == 0


def test_boards_that_are_unknown_fill_no_memory(town: Town) -> None:
    seals = module.Seals(town.write().secrets)
    for key_id in range(1, 1000):
        assert seals.seal("np-ffffffffffff", key_id) is None
    assert not seals._seals
    assert seals.seal(town.boards[0].id, 1) is seals.seal(town.boards[0].id, 1)


def test_a_host_that_talks_before_it_answers(town: Town, tmp_path: Path) -> None:
    town.gateway("gw-1", command=_script(tmp_path, "echo Welcome to gw-1"))
    (result,) = collect(town.write())
    assert isinstance(result.error, TransferError)
    assert "Welcome to gw-1" in result.error.message


def test_a_host_that_talks_without_end(town: Town, tmp_path: Path) -> None:
    town.gateway("gw-1", command=_script(tmp_path, "exec yes Welcome to gw-1"))
    (result,) = collect(town.write())
    assert isinstance(result.error, TransferError)
    assert "Welcome to gw-1" in result.error.message


def test_a_partial_failure_says_who_and_why_and_keeps_the_rest(
    town: Town, login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(town, 4)
    login.gateway(town, "gw-2", command="/opt/no-such/netzpuls")
    town.write()
    place = ("fleet", "collect", "--city", str(town.folder))
    with pytest.raises(SystemExit, match="1"):
        fleet.cli.main([*place, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["error"]["code"] == "gateways-failed"
    good, bad = document["gateways"]
    assert (good["ok"], good["new"]) == (True, 4)
    assert (bad["ok"], bad["error"]["code"]) == (False, "host-failed")
    with pytest.raises(SystemExit, match="1"):
        fleet.cli.main(list(place))
    said = capsys.readouterr()
    assert [line.split()[-1] for line in said.out.splitlines()[1:]] == ["good", "failed"]
    assert "cannot run '/opt/no-such/netzpuls'" in said.err
    assert "error: 1 of 2 gateways failed: gw-2" in said.err


def test_ctrl_c_ends_the_command_on_the_host(town: Town, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    waiting = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 300"
    town.gateway("gw-1", command=_script(tmp_path, waiting))
    town.write()
    process = subprocess.Popen(
        [NETZPULS, "fleet", "collect", "--city", str(town.folder), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(pid_file.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    pid = int(pid_file.read_text())
    _wait_for(lambda: not _runs(pid))
    # The lock went with the process.
    with Store(town.folder).writing():
        pass


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_two_collections_at_once_do_not_mix(town: Town) -> None:
    city = town.write()
    with Store(town.folder).writing(), pytest.raises(StoreError) as caught:
        collect(city)
    assert f"process {os.getpid()} is writing" in caught.value.message
