"""Connections that are kept: one login per host and run, one per jump host for all behind it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import HostError
from fleet.ssh import Deadlines, Host, Pool, Session
from hil.sshd import SshServer
from tests.fleet.conftest import Login, new_key
from tests.fleet.line import Line


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Login]:
    """A server whose log nobody else writes to."""
    identity = tmp_path / "identity"
    with SshServer(tmp_path / "server", new_key(identity)) as server:
        yield Login(server, identity)


def _host(login: Login, name: str = "gw-1", *, port: int = 0, jump: Host | None = None) -> Host:
    server = login.server
    return Host(
        name, f"gateway {name}", server.host, port or server.port, server.user, server.host_key,
        login.identity, jump,
    )  # fmt: skip


def _logins(login: Login) -> int:
    return login.server.log.read_text().count("Accepted publickey")


def _says(session: Session, word: str) -> bytes:
    with session.command(["echo", word]) as command:
        said = command.stdout.read()
        command.finish()
    return said


def test_one_login_serves_a_whole_run(own: Login) -> None:
    with Pool() as pool:
        for number in range(3):
            with Session(_host(own), pool=pool) as session:
                assert _says(session, str(number)) == f"{number}\n".encode()
        assert _logins(own) == 1
    with Session(_host(own)) as session:
        _says(session, "without a pool")
    assert _logins(own) == 2


def test_hosts_behind_a_jump_host_share_the_way_there(own: Login) -> None:
    jump = _host(own, "vpn")
    # Two names of one server are two hosts, and not the jump host either.
    hosts = [
        Host(name, name, address, own.server.port, own.server.user, own.server.host_key,
             own.identity, jump, alias=name)
        for name, address in (("a", "127.0.0.1"), ("b", "127.0.0.1"), ("c", "127.0.0.1"))
    ]  # fmt: skip
    said: list[bytes] = []

    def work(host: Host) -> None:
        with Session(host, pool=pool) as session:
            said.append(_says(session, host.id))

    with Pool() as pool:
        threads = [threading.Thread(target=work, args=(host,)) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(said) == [b"a\n", b"b\n", b"c\n"]
    assert _logins(own) == 1 + 3


def test_a_jump_host_that_cannot_be_reached_fails_all_at_once(own: Login) -> None:
    short = Deadlines(connect_s=1, banner_s=1)
    errors: list[str] = []

    def work(name: str) -> None:
        try:
            with Session(_host(own, name, jump=jump), short, pool=pool):
                pass
        except HostError as error:
            errors.append(error.message)

    with Line(own.server.port, freeze_after=0) as line, Pool() as pool:
        jump = _host(own, "vpn", port=line.port)
        threads = [threading.Thread(target=work, args=(str(n),)) for n in range(6)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 4
    assert len(errors) == 6
    assert all("gateway vpn" in each for each in errors)


def test_a_connection_that_died_meanwhile_is_made_anew(own: Login) -> None:
    with Line(own.server.port) as line, Pool() as pool:
        host = _host(own, port=line.port)
        with Session(host, pool=pool) as session:
            assert _says(session, "1") == b"1\n"
        line.cut_after = 0  # with the next byte it breaks, as a VPN's does over night
        with pytest.raises(HostError), Session(host, pool=pool) as session:
            _says(session, "2")
        line.cut_after = None
        with Session(host, pool=pool) as session:
            assert _says(session, "3") == b"3\n"


def test_a_kept_connection_that_is_silent_is_not_waited_for_long(own: Login) -> None:
    short = Deadlines(channel_s=1)
    with Line(own.server.port) as line, Pool() as pool:
        host = _host(own, port=line.port)
        with Session(host, short, pool=pool) as session:
            assert _says(session, "1") == b"1\n"
        line.freeze_open()
        began = time.monotonic()
        with Session(host, short, pool=pool) as session:
            assert _says(session, "2") == b"2\n"
        assert 1 <= time.monotonic() - began < 5
    assert _logins(own) == 2


def test_what_failed_is_not_kept(own: Login) -> None:
    with Pool() as pool:
        with (
            pytest.raises(HostError),
            Session(_host(own), pool=pool) as session,
            session.command(["false"]) as command,
        ):
            command.finish()
        with Session(_host(own), pool=pool) as session:
            assert _says(session, "good") == b"good\n"
    assert _logins(own) == 2


def test_a_remote_command_dies_with_its_deadline(own: Login, tmp_path: Path) -> None:
    """Also one that hears no TERM, and though its line is frozen so that nobody can tell it."""
    mark = tmp_path / "mark"
    script = f"trap '' TERM; while :; do date +%s%N > {mark}; sleep 0.1; done"
    with (
        Line(own.server.port, freeze_after=4000) as line,
        pytest.raises(HostError),
        Session(_host(own, port=line.port), Deadlines(session_s=2)) as session,
        session.command(["sh", "-c", script]) as command,
    ):
        command.stdout.read()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        before = mark.read_text() if mark.exists() else ""
        time.sleep(1)
        if mark.exists() and mark.read_text() == before:
            return
    pytest.fail("it lives on")


def test_many_threads_begin_at_once(own: Login) -> None:
    """Fabric's configuration is no thing to share: threads read it while another one merges it."""
    errors: list[BaseException] = []
    before = sys.getswitchinterval()
    ready = threading.Barrier(24)

    def work(number: int) -> None:
        ready.wait()
        for _ in range(20):
            try:
                with Session(_host(own, f"gw-{number}", port=1)):
                    pass
            except HostError:
                pass  # nobody listens there: it is how it begins that counts
            except BaseException as error:
                errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []


def test_a_connection_that_breaks_at_any_moment_is_an_error_of_its_host(own: Login) -> None:
    """Paramiko says EOFError then, which Click takes for somebody who gives up."""
    with Session(_host(own)) as session, session.command(["cat"]) as command:
        connection = session._connection
        assert connection is not None
        packetizer = connection.client.get_transport().packetizer
        packetizer.close()
        with pytest.raises(EOFError):
            packetizer.write_all(b"x")
        with pytest.raises(HostError, match="the connection broke"):
            command.write(b"x")
        command.send(b"x")  # why it is gone, `finish` tells
        with pytest.raises(HostError, match="the connection broke"):
            command.finish()
