"""A board's file system in a process of its own: as at home, and whatever it holds, harmless."""

from __future__ import annotations

import contextlib
import functools

import pytest

from provisioning import content, disk
from provisioning.disk import BLOCK_BYTES, Disk
from provisioning.errors import DiskError, DiskFullError, ReadError
from provisioning.guard import GuardedDisk
from tests.provisioning import hostile
from tests.provisioning.test_disk import SIZE, Partition, read_files

FILES = {
    "main.py": b"import agent",
    "config.json": b"c" * 700,
    "agent/agent.mpy": b"M" * 9000,
    "agent/probes/dns.mpy": b"M" * 90,
    "identity/report.key": b"r" * 32,
    "spool/00000001.seg": b"s" * 5000,
}


@functools.cache
def good() -> bytes:
    partition = Partition()
    partition.apply(disk.fresh(FILES, SIZE))
    return bytes(partition.content)


def look(flash: bytes) -> int:
    """Do all that the desk does with a board's file system; return how many files it had."""
    board = GuardedDisk(SIZE, Partition(flash).fetch)
    names = board.names()
    for name in FILES:
        board.read(name)
    board.free_bytes()
    content.update(board, FILES | {"config.json": b"other" * 200})
    return len(names)


def test_it_does_what_a_disk_does() -> None:
    partition = Partition(good())
    guarded, plain = GuardedDisk(SIZE, partition.fetch), Disk(SIZE, Partition(good()).fetch)
    for board in (guarded, plain):
        board.write("agent/new.mpy", b"M\x06")
        board.remove("main.py")
    assert guarded.names() == plain.names()
    assert guarded.read("config.json") == FILES["config.json"]
    assert guarded.read("main.py") is None
    assert guarded.free_bytes() == plain.free_bytes()
    assert guarded.changes() == plain.changes()
    partition.apply(guarded.changes())
    changed = read_files(bytes(partition.content))
    assert changed == {n: c for n, c in FILES.items() if n != "main.py"} | {
        "agent/new.mpy": b"M\x06"
    }


@pytest.mark.parametrize("seed", [*range(12), 120, 146])
def test_a_file_system_that_lies_ends_in_an_error_at_most(seed: int) -> None:
    with contextlib.suppress(DiskError):
        assert look(hostile.lie(good(), seed)) < 1000


def test_names_that_are_no_text() -> None:
    partition = Partition(good())
    board = Disk(SIZE, partition.fetch)
    board._littlefs.filename_encoding = "latin-1"
    board.write("agent/\xff\x1b[2J\n", b"")
    partition.apply(board.changes())
    lying = bytes(partition.content)
    with pytest.raises(DiskError):
        look(lying)


def test_what_fetching_raises_comes_through() -> None:
    def lost(_block: int) -> bytes:
        raise ReadError("the board was lost", hint="the cable")

    with pytest.raises(ReadError):
        GuardedDisk(SIZE, lost)


def test_a_file_system_that_is_full_is_told_from_one_that_is_damaged() -> None:
    board = GuardedDisk(SIZE, Partition(good()).fetch)
    board.write("spool/00000002.seg", bytes(board.free_bytes() - 3 * BLOCK_BYTES))
    with pytest.raises(DiskFullError, match="full"):
        content.updated(board, FILES | {"agent/more.mpy": bytes(5 * BLOCK_BYTES)})
