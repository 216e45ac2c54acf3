"""`netzpuls gateway install --login USER`: who logs in is not root, but may become it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import inventory
from fleet.errors import HostError
from fleet.install import wheelhouse
from fleet.install.layout import SERVICES
from fleet.install.shell import Shell
from fleet.install.wheelhouse import TARGETS
from fleet.login import host_of
from fleet.ssh import Deadlines, Session
from hil.host.bed import Bed, Host
from tests.hil.host.hall import Hall, write_city

pytestmark = pytest.mark.timeout(600)

ADMIN = "admin"
_NEW_USER = f"""
apt-get install --yes --no-install-recommends sudo >/dev/null
useradd --create-home --shell /bin/bash {ADMIN}
cp -r /root/.ssh /home/{ADMIN}/.ssh
chown -R {ADMIN}: /home/{ADMIN}/.ssh
passwd --lock root >/dev/null
rm -r /root/.ssh
"""


@pytest.fixture
def host(hosts_possible: None, tmp_path: Path) -> Iterator[Host]:
    """A host on which nobody logs in as root."""
    with Bed(tmp_path / "bed") as bed:
        made = bed.host("gw-a")
        done = made.run("sh", "-euc", _NEW_USER)
        assert done.returncode == 0, done
        yield made


def may(host: Host, what: str) -> None:
    line = f"{ADMIN} ALL=(ALL) {what}ALL"
    host.run("sh", "-euc", f"echo '{line}' >/etc/sudoers.d/admin; chmod 0440 /etc/sudoers.d/admin")


def test_a_sudoer_installs_a_gateway(host: Host, tmp_path: Path) -> None:
    targets = [each for each in TARGETS if each.architecture == "amd64"]
    house = wheelhouse.make(wheelhouse.default_folder(), targets)
    hall = Hall(host.bed, write_city(tmp_path / "city", host.bed, host), house)
    may(host, "")
    code, told = hall.gateway("install", host.name, "--login", ADMIN)
    (found,) = told["gateways"]
    assert code == 1
    assert "cannot become root by sudo without a password" in found["error"]["message"], told
    assert "NOPASSWD" in found["error"]["hint"], told

    may(host, "NOPASSWD:")
    code, told = hall.gateway("install", host.name, "--login", ADMIN)
    assert code == 0, told
    assert host.run("systemctl", "is-active", *SERVICES).stdout.split() == ["active", "active"]
    code, told = hall.gateway("install", host.name, "--login", ADMIN)
    assert (code, told["gateways"][0]["steps"]) == (0, [])
    code, told = hall.run("fleet", "collect")  # as the gateway's own user
    assert code == 0, told
    code, told = hall.gateway("remove", host.name, "--login", ADMIN, "--yes")
    assert code == 0, told
    assert host.run("test", "-e", "/opt/netzpuls").returncode == 1


def test_what_sudo_runs_ends_with_its_deadline(host: Host, tmp_path: Path) -> None:
    may(host, "NOPASSWD:")
    city = inventory.load(write_city(tmp_path / "city", host.bed, host))
    there = replace(host_of(city, host.name), user=ADMIN)

    def work() -> None:
        with (
            host.bed.hall.inside(),
            suppress(HostError),
            Session(there, Deadlines(session_s=8)) as session,
        ):
            Shell(session).run("exec sleep 543")

    def runs() -> bool:
        look = "grep -la '^sleep.543' /proc/[0-9]*/cmdline 2>/dev/null || true"
        return bool(host.run("sh", "-c", look).stdout)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while not runs():
            assert not working.done(), "it never ran"
        working.result()
    until = time.monotonic() + 20
    while runs():
        assert time.monotonic() < until, "it runs on"
        time.sleep(0.2)
