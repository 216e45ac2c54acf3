from __future__ import annotations

import os
from pathlib import Path

import pytest

from hil.board.error import FlashFileError
from hil.board.flash import INSTANT, SIZE_BYTES, TYPICAL, Flash


def test_a_new_flash_is_blank_and_private(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    Flash(path).close()
    assert path.read_bytes() == b"\xff" * SIZE_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


def test_programming_only_clears_bits_and_erasing_sets_a_sector(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash.bin")
    flash.program(0x1FFE, b"\xf0\x0f\x33\x55")
    flash.program(0x1FFE, b"\x3c\xff\xff\x0f")
    assert flash.read(0x1FFE, 4) == b"\x30\x0f\x33\x05"
    flash.erase_sector(0x1FFF)
    assert flash.read(0x1FFE, 4) == b"\xff\xff\x33\x05"
    flash.close()


def test_content_is_kept(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash.bin")
    flash.program(SIZE_BYTES - 3, b"end")
    flash.close()
    flash = Flash(tmp_path / "flash.bin")
    assert flash.read(SIZE_BYTES - 3, 10) == b"end"
    flash.close()


def test_what_is_no_file_is_no_flash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(FlashFileError, match="is no file"):
            Flash(path)


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash.bin")
    for address, data in ((SIZE_BYTES - 1, b"ab"), (-1, b"a"), (SIZE_BYTES, b"a")):
        with pytest.raises(ValueError, match="outside"):
            flash.program(address, data)
    with pytest.raises(ValueError, match="outside"):
        flash.erase_region(SIZE_BYTES, 4096)
    with pytest.raises(ValueError, match="sector"):
        flash.erase_region(100, 4096)
    flash.close()


@pytest.mark.parametrize("size", [1, 4095, SIZE_BYTES + 1])
def test_a_file_of_another_size_is_refused_untouched(tmp_path: Path, size: int) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(b"a" * size)
    with pytest.raises(FlashFileError, match=f"{size} bytes"):
        Flash(path)
    assert path.read_bytes() == b"a" * size


def test_a_file_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FlashFileError, match="No such file"):
        Flash(tmp_path / "missing" / "flash.bin")


@pytest.mark.parametrize(
    ("address", "size", "expected_us"),
    [
        (0, 0, 0),
        (0, 1, 30),
        (0, 32, 30 + 31 * 2.5),
        (0, 256, 400),
        (200, 256, 30 + 55 * 2.5 + 400),  # 56 bytes, then 200: more than 148 take as long as all
        (0, 1 << 20, 4096 * 400),
    ],
)
def test_program_time_is_the_datasheets(address: int, size: int, expected_us: float) -> None:
    assert TYPICAL.program_us(address, size) == expected_us


def test_erase_time_uses_blocks_where_they_fit(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash.bin")
    assert flash.erase_region(0xF000, 0x22000) == 2 * 150_000 + 2 * 45_000
    assert flash.erase_chip() == 10_000_000
    flash.close()
    instant = Flash(tmp_path / "flash.bin", INSTANT)
    assert instant.erase_chip() + instant.program(0, bytes(4096)) == 0
    instant.close()
