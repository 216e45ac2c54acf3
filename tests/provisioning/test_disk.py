"""The board's LittleFS: what goes in comes out, over whatever an earlier life left."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from littlefs import LittleFS, UserContext

from provisioning import disk
from provisioning.errors import DiskError, ImageError

BLOCKS = 64
SIZE = BLOCKS * disk.BLOCK_BYTES


class Partition:
    """A flash partition as bytes, and which blocks of it were fetched."""

    def __init__(self, content: bytes = b"\xff" * SIZE) -> None:
        self.content = bytearray(content)
        self.fetched: list[int] = []

    def fetch(self, block: int) -> bytes:
        self.fetched.append(block)
        return bytes(self.content[block * disk.BLOCK_BYTES :][: disk.BLOCK_BYTES])

    def apply(self, extents: list[disk.Extent]) -> None:
        for extent in extents:
            self.content[extent.offset : extent.offset + len(extent.content)] = extent.content


def board_littlefs(content: bytearray) -> LittleFS:
    """Open a partition with the figures that a board has."""
    return LittleFS(
        UserContext(buffer=content),
        block_size=4096,
        block_count=len(content) // 4096,
        read_size=32,
        prog_size=32,
        cache_size=128,
        lookahead_size=32,
    )


def read_files(content: bytes) -> dict[str, bytes]:
    """Read a partition as an independent reader does."""
    littlefs = board_littlefs(bytearray(content))
    found = {}
    for folder, _, names in littlefs.walk("/"):
        for name in names:
            path = f"{folder.rstrip('/')}/{name}"
            with littlefs.open(path, "rb") as stream:
                found[path.lstrip("/")] = stream.read()
    return found


def image(files: Mapping[str, bytes]) -> Partition:
    partition = Partition()
    partition.apply(disk.fresh(files, SIZE))
    return partition


_name = st.text("abcxyz09-_.", min_size=1, max_size=12).filter(lambda n: n.strip("."))
_path = st.tuples(st.sampled_from(["", "agent/", "agent/probes/", "identity/"]), _name)
_files = st.dictionaries(_path.map("".join), st.binary(max_size=9000), max_size=8).filter(
    lambda files: not any(f"{a}/" in b for a in files for b in files)
)


@settings(max_examples=30, deadline=None)
@given(_files)
def test_what_goes_in_comes_out(files: dict[str, bytes]) -> None:
    extents = disk.fresh(files, SIZE)
    partition = Partition()
    partition.apply(extents)
    assert read_files(bytes(partition.content)) == files
    assert disk.fresh(dict(reversed(files.items())), SIZE) == extents


@settings(max_examples=30, deadline=None)
@given(_files, st.lists(_files, min_size=1, max_size=4))
def test_nothing_of_an_earlier_life_comes_back(
    files: dict[str, bytes], earlier: list[dict[str, bytes]]
) -> None:
    partition = image(earlier[0])
    # A file system that has been used: its blocks have higher revisions than new ones.
    for life in earlier * 8:
        used = disk.Disk(SIZE, partition.fetch)
        for path in used.names():
            used.remove(path)
        try:
            for path, content in life.items():
                used.write(path, content)
        except DiskError:  # a name of one life is a folder of another
            continue
        partition.apply(used.changes())
    partition.apply(disk.fresh(files, SIZE))
    assert read_files(bytes(partition.content)) == files


@settings(max_examples=30, deadline=None)
@given(_files, _files)
def test_changes_are_all_that_changes(files: dict[str, bytes], others: dict[str, bytes]) -> None:
    partition = image(files)
    changed = disk.Disk(SIZE, partition.fetch)
    wanted = dict(files)
    for path, content in others.items():
        try:
            changed.write(path, content)
        except DiskError:  # a folder of the one is a file of the other
            continue
        wanted[path] = content
    partition.apply(changed.changes())
    assert read_files(bytes(partition.content)) == wanted


def test_a_changed_file_costs_few_blocks() -> None:
    files = {f"agent/{number}.mpy": bytes((number,)) * 3000 for number in range(30)}
    partition = image(files | {"config.json": b"a" * 900, "spool/00000001.seg": b"b" * 3000})
    partition.fetched.clear()
    changed = disk.Disk(SIZE, partition.fetch)
    changed.write("config.json", b"c" * 950)
    extents = changed.changes()
    assert sum(len(extent.content) for extent in extents) <= 3 * disk.BLOCK_BYTES
    assert len(set(partition.fetched)) == len(partition.fetched) <= 12
    partition.apply(extents)
    assert read_files(bytes(partition.content)) == files | {
        "config.json": b"c" * 950,
        "spool/00000001.seg": b"b" * 3000,
    }


@pytest.mark.parametrize("history", [0, 3, 90])
def test_power_that_goes_within_a_block_costs_no_report(history: int) -> None:
    """Whichever block is being written when the power goes: erased, or half written."""
    files = {f"agent/{n}.mpy": bytes([n]) * 900 * n for n in range(1, 9)} | {"main.py": b"main"}
    spool = {f"spool/{n}.seg": bytes([n]) * 3000 for n in range(6)}
    partition = image(files)
    for name, content in spool.items():
        _write(partition, name, content)
    for number in range(history):
        _write(partition, "boots.txt", b"%d" % number)
    board = disk.Disk(SIZE, partition.fetch)
    changed = {name: content + b"changed" for name, content in files.items()}
    for name, content in changed.items():
        board.write(name, content)
    for extent in board.changes():
        assert len(extent.content) == disk.BLOCK_BYTES
        for done in (0, 2048):
            cut = Partition(bytes(partition.content))
            part = extent.content[:done].ljust(disk.BLOCK_BYTES, b"\xff")
            cut.apply([disk.Extent(extent.offset, part)])
            found = read_files(bytes(cut.content))
            assert {name: found.get(name) for name in spool} == spool
            assert all(found[name] in (files[name], changed[name]) for name in files)
        partition.apply([extent])
    found = read_files(bytes(partition.content))
    assert {name: found[name] for name in changed | spool} == changed | spool


def _write(partition: Partition, name: str, content: bytes) -> None:
    """Write a file as a board does, which appends to blocks in use."""
    littlefs = board_littlefs(partition.content)
    folder = name.rpartition("/")[0]
    if folder:
        littlefs.makedirs(folder, exist_ok=True)
    with littlefs.open(name, "wb") as stream:
        stream.write(content)


def test_what_is_there_already_is_not_written() -> None:
    partition = image({"config.json": b"a" * 900})
    same = disk.Disk(SIZE, partition.fetch)
    same.write("config.json", b"a" * 900)
    assert same.changes() == []


def test_only_blocks_in_use_are_written() -> None:
    extents = disk.fresh({"main.py": bytes(5000)}, SIZE)
    assert sum(len(extent.content) for extent in extents) <= 6 * disk.BLOCK_BYTES


def test_a_missing_file_is_none() -> None:
    assert disk.Disk(SIZE, image({"a": b"b"}).fetch).read("folder/c") is None


@pytest.mark.parametrize(
    "content", [b"\xff" * SIZE, b"\0" * SIZE, bytes(range(256)) * (SIZE // 256)]
)
def test_what_is_no_file_system_is_told(content: bytes) -> None:
    with pytest.raises(DiskError):
        disk.Disk(SIZE, Partition(content).fetch)


def test_files_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ImageError, match="do not fit"):
        disk.fresh({"a": bytes(SIZE)}, SIZE)


def test_no_content_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        disk.fresh({"identity/report.key": b"geheim" * 10}, SIZE)
    assert "geheim" not in caplog.text
