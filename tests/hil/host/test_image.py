"""Images of Debian: whole or not there, and never taken from under a running host."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import tool as program
from hil import tool
from hil.archive import Archive, FetchError
from hil.host import image
from tests.hil.host import conftest

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def folder(tmp_path: Path, hosts_possible: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a folder with the tools and without any image."""
    fetched = program.folder().resolve()
    for name in ("bin", tool.MMDEBSTRAP.name):
        if (fetched / name).exists():
            (tmp_path / name).symlink_to(fetched / name)
    monkeypatch.setenv("NETZPULS_TOOLS", str(tmp_path))
    return tmp_path / "host"


@pytest.fixture
def made_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have images made in no time, of one file with the given text; none: it fails half-way."""

    def set_text(text: str) -> None:
        def make(_mmdebstrap: Path, archive: Archive, scratch: Path) -> None:
            (scratch / "root").mkdir()
            if not text:
                raise FetchError(f"no {archive.suite}")
            (scratch / "root" / "file").write_text(text)

        monkeypatch.setattr(image, "_make", make)
        monkeypatch.setattr(image, "CACHED", (text,))

    return set_text


def test_a_killed_build_leaves_nothing_half_made(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hil.host.image"], stderr=subprocess.DEVNULL
    )
    lists = folder / "bookworm.new/root/var/lib/apt/lists"
    deadline = time.monotonic() + 300
    while not list(lists.glob("*InRelease")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert working(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while working(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert working(folder) == []
    assert not (folder / "bookworm").exists()
    assert str(folder) not in Path("/proc/mounts").read_text()


def working(folder: Path) -> list[str]:
    """Return the command lines of all processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_an_image_is_made_once_for_each_recipe(
    folder: Path, made_of: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    made_of("one")
    (folder / "bookworm.new").mkdir(parents=True)
    (folder / "bookworm.new" / "left").write_text("by a build that was killed")
    root = image.build("bookworm")
    assert root == folder / "bookworm"
    assert (root / "file").read_text() == "one"
    assert "making an image of Debian bookworm" in capfd.readouterr().err
    image.build("bookworm")
    assert capfd.readouterr().err == ""
    made_of("")
    with pytest.raises(FetchError, match="no bookworm"):
        image.build("bookworm")
    assert (root / "file").read_text() == "one"
    made_of("two")
    assert (image.build("bookworm") / "file").read_text() == "two"
    assert sorted(path.name for path in folder.iterdir()) == [
        "bookworm",
        "bookworm.lock",
        "bookworm.recipe",
    ]


def test_an_image_in_use_is_replaced_when_its_last_host_has_ended(
    folder: Path, made_of: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    made_of("one")
    root = image.build("trixie")
    host = os.open(root, os.O_RDONLY)
    fcntl.flock(host, fcntl.LOCK_SH)
    made_of("two")
    builder = threading.Thread(target=image.build, args=("trixie",))
    builder.start()
    said = ""
    while "waiting for their end" not in said:
        said += capfd.readouterr().err
        time.sleep(0.01)
    assert (root / "file").read_text() == "one"
    os.close(host)
    builder.join()
    assert (root / "file").read_text() == "two"


def test_where_no_host_can_be_had_tests_are_skipped_and_in_ci_fail(
    hosts_possible: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "refusal", lambda: "no namespaces")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^no namespaces$"):
        conftest.needs_hosts()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no host for tests may be missing: no names"):
        conftest.needs_hosts()


def test_another_user_than_root_is_told_so() -> None:
    ask = "import os; from hil.host.bed import refusal; os.setuid(65534); print(refusal())"
    if os.geteuid() != 0:
        ask = ask.replace("os.setuid(65534); ", "")
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "real hosts for tests need root: run the tests as root\n"
