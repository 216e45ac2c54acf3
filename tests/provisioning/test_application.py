"""The application image: whole, for this chip, or refused with the reason."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from provisioning import application
from provisioning.application import Partition
from provisioning.chip import CHIPS, ESP32, Chip
from provisioning.errors import ImageError


def _refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        application.load(path)
    assert ESP32.official in caught.value.hint
    return caught.value.message


def test_a_stand_in_is_read_and_named(stand_in: Path) -> None:
    loaded = application.load(stand_in)
    assert loaded.stand_in
    assert loaded.version == "stand-in, not MicroPython"
    assert loaded.sha256 == hashlib.sha256(stand_in.read_bytes()).hexdigest()
    files = loaded.file_system()
    assert (files.offset, files.size) == (0x200000, 0x200000)
    assert [(p.label, p.offset, p.size) for p in loaded.data] == [
        ("nvs", 0x9000, 0x6000),
        ("phy_init", 0xF000, 0x1000),
    ]
    content = stand_in.read_bytes()
    assert [(r.address, r.content) for r in loaded.regions] == [
        (0x1000, content[:0x8000]),
        (0x10000, content[0xF000:]),
    ]
    assert loaded.flash_bytes == 4 * 1024 * 1024


def test_files_are_where_the_table_says_or_behind_the_rest(
    stand_in: Path, older_stand_in: Path
) -> None:
    newer, older = application.load(stand_in), application.load(older_stand_in)
    assert [each.label for each in newer.partitions] == ["nvs", "phy_init", "factory"]
    assert older.partitions == (*newer.partitions, newer.file_system())
    assert newer.flash_bytes == older.flash_bytes == 4 << 20
    assert (older.data, older.regions[1].content) == (newer.data, newer.regions[1].content)
    for flash_mib in (4, 8, 16):
        files = newer.file_system(flash_mib << 20)
        assert (files.offset, files.size) == (2 << 20, (flash_mib - 2) << 20)
        assert older.file_system(flash_mib << 20).size == 2 << 20


def test_a_table_that_leaves_no_room_has_no_file_system() -> None:
    nvs = Partition("nvs", 1, 2, 0x9000, 0x6000)
    factory = Partition("factory", 0, 0, 0x10000, 0x3F0000)
    assert application.file_system([], 4 << 20) is None
    assert application.file_system([nvs], 4 << 20) is None
    assert application.file_system([nvs, factory], 4 << 20) is None
    other = Partition("ffat", 1, 0x81, 0x400000, 0x100000)
    assert application.file_system([nvs, factory, other], 16 << 20) == other


def image_for(chip: Chip, content: bytes) -> bytes:
    """Make the stand-in one for another chip."""
    made = bytearray(content)
    for at in (0, 0xF000):
        struct.pack_into("<H", made, at + 12, chip.image_id)
        end = 24
        for _ in range(made[at + 1]):
            end += 8 + struct.unpack_from("<II", made, at + end)[1]
        end += 16 - end % 16
        made[at + end : at + end + 32] = hashlib.sha256(made[at : at + end]).digest()
    return bytes(made[:0x7000].ljust(ESP32.start + 0x7000 - chip.start, b"\xff") + made[0x7000:])


@pytest.mark.parametrize("chip", CHIPS)
def test_each_chip_s_image_begins_where_its_rom_looks(
    stand_in: Path, tmp_path: Path, chip: Chip
) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(image_for(chip, stand_in.read_bytes()))
    loaded = application.load(path)
    assert loaded.chip == chip
    assert [region.address for region in loaded.regions] == [chip.start, 0x10000]
    assert loaded.regions[1].content[24:4096] == stand_in.read_bytes()[0xF018:0x10000]
    assert loaded.end == application.load(stand_in).end


def test_boot_loader_and_application_for_two_chips(stand_in: Path, tmp_path: Path) -> None:
    content = stand_in.read_bytes()
    mixed = content[:0xF000] + image_for(CHIPS[1], content)[0x10000:]
    assert "its application is for ESP32-S3, not ESP32" in _refused(tmp_path / "i.bin", mixed)


def test_without_an_image_both_ways_to_one_are_named() -> None:
    with pytest.raises(ImageError) as caught:
        application.load(None)
    assert "ESP32_GENERIC" in caught.value.hint
    assert "netzpuls lab image FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("at", "change", "reason"),
    [
        (0, b"\x7f", "no boot loader"),
        (12, b"\x02\x00", "its boot loader is for ESP32-S2"),
        (0x7001, b"\x51", "no partition table"),
        (0x7005, b"\x01", "its partition table is damaged"),
        (0xF000, b"\x00", "no application at 0xf000"),
        (0xF00C, b"\x09\x00", "its application is for ESP32-S3"),
        (0x50000, b"\x01\x02\x03\x04", "its application is damaged"),
        (0x1000, b"\x01\x02\x03\x04", "its boot loader is damaged"),
    ],
)
def test_a_damaged_image_is_refused(
    stand_in: Path, tmp_path: Path, at: int, change: bytes, reason: str
) -> None:
    content = bytearray(stand_in.read_bytes())
    assert content[at : at + len(change)] != change
    content[at : at + len(change)] = change
    assert reason in _refused(tmp_path / "image.bin", bytes(content))


@pytest.mark.parametrize("length", [0, 100, 0x7000, 0x8000, 0xF010, 0x80000, -1])
def test_an_image_cut_short_is_refused(stand_in: Path, tmp_path: Path, length: int) -> None:
    _refused(tmp_path / "image.bin", stand_in.read_bytes()[:length])


def test_a_device_without_end_is_no_image() -> None:
    with pytest.raises(ImageError, match="cannot be flashed"):
        application.load(Path("/dev/zero"))


def test_an_image_that_reaches_into_the_file_system_is_refused(
    stand_in: Path, tmp_path: Path
) -> None:
    content = stand_in.read_bytes().ljust(0x200000, b"\xff")
    assert "vfs" in _refused(tmp_path / "image.bin", content)


def test_an_image_without_digest_is_checked_by_its_checksum(stand_in: Path, tmp_path: Path) -> None:
    content = bytearray(stand_in.read_bytes())
    content[23] = 0
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    assert application.load(path).stand_in
    at = 24 + 8 + 100
    content[at] ^= 1
    assert "its boot loader is damaged" in _refused(path, bytes(content))


def test_a_partition_table_that_leaves_no_room_is_refused(
    older_stand_in: Path, tmp_path: Path
) -> None:
    content = bytearray(older_stand_in.read_bytes())
    entries = content[0x7000:0x7080].replace(b"vfs", b"abc")
    content[0x7000:0x7080] = entries
    content[0x7090:0x70A0] = hashlib.md5(entries, usedforsecurity=False).digest()
    assert "vfs" in _refused(tmp_path / "image.bin", bytes(content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.bin"):
        application.load(tmp_path / "nowhere.bin")


def test_layout_is_that_of_esp_idf() -> None:
    assert application._ENTRY.size == 32
    assert struct.calcsize(application._SEGMENT.format) == 8
