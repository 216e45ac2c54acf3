"""Real hosts: they boot, break and go as real ones do, and leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hil.host import bed as beds
from hil.host.bed import Bed, BedError, Host

# Each may have to make both images first.
pytestmark = pytest.mark.timeout(600)

_UNIT = """
[Service]
ExecStart=sleep infinity
ExecStop=touch /var/goodbye
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def three(bed: Bed) -> list[Host]:
    """Give three hosts that were booted side by side, one of them with another Debian."""
    suites = {"gw-a": "bookworm", "gw-b": "bookworm", "gw-c": "trixie"}
    with ThreadPoolExecutor() as pool:
        return list(pool.map(bed.host, suites, suites.values()))


@pytest.fixture
def host(three: list[Host]) -> Iterator[Host]:
    """Give the first of them; whatever a test did to it, the next finds it running."""
    yield three[0]
    three[0].thaw()


def ssh(host: Host, command: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command as city hall does: through the network, with the host's known key."""
    known = host.folder / "known_hosts"
    known.write_text(f"{host.address} {host.host_key}\n")
    options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    with host.bed.hall.inside():
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(host.bed.key_file)),
                *(word for option in options for word in ("-o", option)),
                *(f"root@{host.address}", command),
            ],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def said(host: Host, *command: str) -> str:
    done = host.run(*command)
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_each_is_a_whole_debian_of_its_own(three: list[Host]) -> None:
    versions = []
    for host in three:
        assert said(host, "systemctl", "is-system-running", "--wait") == "running"
        release = dict(
            line.split("=", 1) for line in said(host, "cat", "/etc/os-release").splitlines()
        )
        versions.append(release["VERSION_ID"].strip('"'))
        assert ssh(host, "hostname").stdout.strip() == host.name
        assert said(host, "stat", "-fc", "%T", "/sys/fs/cgroup") == "cgroup2fs"
        for missing in ("python3", "mosquitto"):
            assert host.run("which", missing).returncode == 1
    assert versions == ["12", "12", "13"]
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert len({said(host, "cat", file) for host in three}) == 3
    for host in three:
        assert host.host_key == said(host, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")


def test_the_hosts_do_not_see_each_other_s_processes_and_groups(three: list[Host]) -> None:
    one, other = three[:2]
    said(one, "systemd-run", "--unit=only-here", "sleep", "600")
    assert said(one, "systemctl", "is-active", "only-here") == "active"
    assert other.run("systemctl", "is-active", "only-here").stdout.strip() == "inactive"
    assert "only-here.service" in said(one, "ls", "/sys/fs/cgroup/system.slice")
    assert "only-here.service" not in said(other, "ls", "/sys/fs/cgroup/system.slice")
    other.freeze()
    try:
        assert ssh(one, "true").returncode == 0
    finally:
        other.thaw()


def test_without_a_network_apt_installs_what_its_cache_holds(three: list[Host]) -> None:
    def install(host: Host) -> None:
        update = host.run(
            *("apt-get", "update", "-o", "APT::Update::Error-Mode=any"),
            *("-o", "Acquire::Retries=0"),
        )
        assert update.returncode == 100
        done = host.run(
            *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"),
            *("--no-install-recommends", "mosquitto", "python3-venv"),
            timeout_s=300,
        )
        assert done.returncode == 0, done
        assert said(host, "systemctl", "is-active", "mosquitto") == "active"
        assert said(host, "python3", "-c", "import ensurepip; print(ensurepip.version())")

    with ThreadPoolExecutor() as pool:
        list(pool.map(install, three[1:]))


def test_a_reboot_is_in_order_and_keeps_the_disk(host: Host) -> None:
    before = said(host, "cat", "/proc/sys/kernel/random/boot_id")
    said(host, "sh", "-c", "echo kept > /var/kept; echo lost > /run/lost")
    host.reboot()
    assert said(host, "cat", "/proc/sys/kernel/random/boot_id") != before
    assert said(host, "cat", "/var/kept") == "kept"
    assert host.run("test", "-e", "/run/lost").returncode == 1
    assert ssh(host, "true").returncode == 0


def test_a_power_cut_asks_nobody_and_keeps_the_disk(host: Host) -> None:
    said(host, "sh", "-c", f"echo '{_UNIT}' > /etc/systemd/system/stays.service")
    said(host, "sh", "-c", "echo written > /var/written; sync")
    said(host, "systemctl", "enable", "--now", "stays")
    host.power_off_hard()
    with pytest.raises(BedError, match="gw-a is off"):
        host.run("true")
    assert ssh(host, "true").returncode == 255
    host.start()
    assert said(host, "cat", "/var/written") == "written"
    assert host.run("test", "-e", "/var/goodbye").returncode == 1
    assert said(host, "systemctl", "is-active", "stays") == "active"


def test_a_frozen_host_is_silent_and_then_goes_on(host: Host) -> None:
    host.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        ssh(host, "true", timeout_s=3)
    host.thaw()
    assert ssh(host, "echo back").stdout == "back\n"


def test_a_frozen_host_can_lose_its_power(host: Host) -> None:
    host.freeze()
    host.power_off_hard()
    host.start()
    assert ssh(host, "true").returncode == 0


def test_a_host_that_cannot_boot_says_why(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beds.image, "build", lambda _suite: tmp_path)
    for _ in range(2):  # and takes its name with it
        with pytest.raises(BedError, match=r"gw-x does not boot: it is off; .*os-release"):
            bed.host("gw-x")


_TEST_THAT_DIES = """
import sys, time
from pathlib import Path
from hil.host.bed import Bed
with Bed(Path(sys.argv[1])) as bed:
    host = bed.host("gw-d")
    print(host.leader(), bed._hosts[0]._keeper.pid, flush=True)
    if sys.argv[2] == "frozen":
        host.freeze()
    print("ready", flush=True)
    time.sleep(600)
"""


def traces(folder: Path, keeper: int) -> list[str]:
    """Return what the machine knows by name of a bed's only host."""
    places = (Path("/run/netns"), Path("/var/lib/machines"), Path("/run/systemd/nspawn"))
    return [
        *(str(path) for path in Path("/sys/fs/cgroup").rglob(f"netzpuls-host-{keeper}")),
        *(str(path) for place in places for path in place.rglob("*gw-d*")),
        *(line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line),
    ]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
@pytest.mark.parametrize("state", ["running", "frozen"])
def test_nothing_is_left_of_a_bed_whose_process_ends(
    three: list[Host], tmp_path: Path, end: signal.Signals, state: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _TEST_THAT_DIES, str(tmp_path), state],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process.stdout:
        init, keeper = (int(word) for word in process.stdout.readline().split())
        assert process.stdout.readline() == "ready\n"
    try:
        assert beds._runs(init)
        assert beds._runs(keeper)
        assert len(traces(tmp_path, keeper)) == 1  # the control group
    finally:
        process.send_signal(end)
        process.wait()
    deadline = time.monotonic() + 20
    while (beds._runs(init) or beds._runs(keeper)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not beds._runs(init)
    assert not beds._runs(keeper)
    assert traces(tmp_path, keeper) == []


def test_a_host_and_its_bed_may_be_closed_twice(tmp_path: Path) -> None:
    with Bed(tmp_path / "bed") as own:
        host = own.host("gw-a")
        host.close()
        host.close()
        own.close()
    with pytest.raises(BedError):
        host.leader()
