"""The real esptool's command line on the board's pseudo-terminal."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from esptool.cmds import attach_flash, detect_chip, run_stub
from esptool.util import FatalError

from hil.board.flash import INSTANT, SIZE_BYTES, Flash
from hil.board.image import check_image
from tests.hil.board.desk import Desk

BAUD = ("--baud", 921600)


@pytest.fixture(scope="module")
def blank(start: Callable[..., Desk]) -> Desk:
    return start(flash=None, mac=bytes.fromhex("240ac4c0ffee"))


def flash_of(desk: Desk) -> bytes:
    return Path(desk.control.state()["flash"]).read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(random.Random(7).randbytes(50_000) + bytes(50_001))
    return path


def test_flash_id(blank: Desk) -> None:
    said = blank.esptool("flash-id")
    assert "ESP32-D0WD-V3 (revision v3.0)" in said
    assert "24:0a:c4:c0:ff:ee" in said
    assert "Manufacturer: ef" in said
    assert "Device: 4016" in said
    assert "Detected flash size: 4MB" in said


@pytest.mark.parametrize("how", [(), ("--no-compress",), ("--erase-all",)])
def test_write_verify_and_read(blank: Desk, data: Path, tmp_path: Path, how: tuple[str]) -> None:
    said = blank.esptool(*BAUD, "write-flash", *how, "0x12000", data)
    assert "Hash of data verified" in said
    content = data.read_bytes()
    assert flash_of(blank)[0x12000:][: len(content)] == content
    assert "Verification successful" in blank.esptool("verify-flash", "0x12000", data)
    read = tmp_path / "read.bin"
    blank.esptool(*BAUD, "read-flash", "0x12000", len(content), read)
    assert read.read_bytes() == content


def test_verify_finds_a_difference(blank: Desk, data: Path) -> None:
    blank.esptool(*BAUD, "write-flash", "0x40000", data)
    data.write_bytes(b"other" + data.read_bytes()[5:])
    assert "failed" in blank.esptool("verify-flash", "0x40000", data, ok=False)


def test_erase_region_and_flash(blank: Desk, data: Path) -> None:
    blank.esptool(*BAUD, "write-flash", "0x3df000", data)
    before = flash_of(blank)
    blank.esptool("erase-region", "0x3e0000", "0x2000")
    after = flash_of(blank)
    assert after[0x3E0000:0x3E2000] == b"\xff" * 0x2000
    assert after[:0x3E0000] + after[0x3E2000:] == before[:0x3E0000] + before[0x3E2000:]
    blank.esptool("erase-flash")
    assert flash_of(blank) == b"\xff" * SIZE_BYTES


def test_without_stub_the_rom_does_it_all(blank: Desk, tmp_path: Path) -> None:
    path = tmp_path / "small.bin"
    path.write_bytes(random.Random(8).randbytes(5_000))
    said = blank.esptool("--no-stub", *BAUD, "write-flash", "0x1F000", path)
    assert "Hash of data verified" in said
    said = blank.esptool("--no-stub", "write-flash", "--no-compress", "0x2F000", path)
    assert "Hash of data verified" in said
    read = tmp_path / "read.bin"
    blank.esptool("--no-stub", "read-flash", "0x1F000", 300, read)
    assert read.read_bytes() == path.read_bytes()[:300]


def test_a_write_beyond_the_end_is_refused(blank: Desk, data: Path) -> None:
    assert "will not fit" in blank.esptool("write-flash", "0x3ff000", data, ok=False)


def test_the_stand_in_passes_esptools_checks_and_starts(
    blank: Desk, image: bytes, tmp_path: Path
) -> None:
    assert blank.control.state()["running"] is False
    path = tmp_path / "image.bin"
    path.write_bytes(image)
    said = blank.esptool("image-info", path)
    assert "(valid)" in said
    assert "invalid" not in said
    blank.esptool(*BAUD, "write-flash", "0x1000", path)
    assert blank.run("print(2 + 2)") == "4\n"
    assert blank.control.state()["running"] is True


def test_a_program_that_talks_all_the_time_does_not_keep_esptool_out(
    start: Callable[..., Desk],
) -> None:
    desk = start()
    desk.put("main.py", "while True: print('noise' * 20)")
    desk.mpremote("reset")
    assert "Detected flash size: 4MB" in desk.esptool("flash-id")


def test_power_lost_in_the_middle_of_a_write_leaves_no_program(
    start: Callable[..., Desk],
) -> None:
    desk = start()
    assert desk.run("print('up')") == "up\n"
    with detect_chip(desk.link) as rom:
        chip = run_stub(rom)
        attach_flash(chip)
        chip.flash_begin(0x100000, 0x10000)
        for number in range(4):
            chip.flash_block(bytes(range(256)) * 64, number)
        desk.control.power(on=False)
        with pytest.raises(FatalError, match="data"):
            chip.flash_block(bytes(0x4000), 4, timeout=0.1)
    written = flash_of(desk)[0x10000:0x20000]
    assert written == bytes(range(256)) * 256
    desk.control.power(on=True)
    state = desk.control.state()
    assert (state["power"], state["running"]) == (True, False)


def test_check_image_names_what_is_wrong(image: bytes, tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash.bin", INSTANT)
    flash.program(0x1000, image)
    assert check_image(flash, 0x10000, 0x200000) is None
    end = 0x1000 + len(image)
    flash.program(end - 1, b"\0")
    assert "hash" in str(check_image(flash, 0x10000, 0x200000))
    flash.program(0x50000, bytes(16))
    assert "Checksum" in str(check_image(flash, 0x10000, 0x200000))
    assert "invalid length" in str(check_image(flash, 0x10000, 0x20000))
    flash.program(0x10000, b"\0")
    assert "magic" in str(check_image(flash, 0x10000, 0x200000))
    flash.close()
