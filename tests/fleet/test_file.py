"""Files that are whole or not there, and secrets that stay out of git."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from fleet import file

if TYPE_CHECKING:
    from pathlib import Path


def test_git_never_sees_what_lies_in_a_secret_folder(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    secrets = file.secret_folder(tmp_path / "secrets")
    file.write(secrets / "ca.key", "secret", file.PRIVATE)
    file.write(tmp_path / "inventory.toml", "version = 1")
    seen = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == "?? inventory.toml\n"


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    file.private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registry.toml"
    file.write(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["registry.toml"]


def test_only_one_holds_a_folder(tmp_path: Path) -> None:
    with file.locked(tmp_path), pytest.raises(BlockingIOError), file.locked(tmp_path, wait=False):
        pass
    with file.locked(tmp_path, wait=False):
        pass
