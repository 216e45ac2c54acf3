"""A board's flash in memory, as LittleFS uses it there, and a week of reports to put on it."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from typing import Any

from littlefs import LittleFS, LittleFSError, UserContext

from firmware.linkreport import block, report
from provisioning import disk, image

# The OTA layout of a 4 MB flash leaves so much to the file system.
SIZE = 960 * 1024
WEEK = 7 * 1440
_START_S = 1_790_000_000


class Flash(UserContext):
    """Flash that counts what wears it, and takes nothing where it was not erased."""

    def __init__(self, content: bytes) -> None:
        super().__init__(len(content))
        self.buffer[:] = content
        self.erases = [0] * (len(content) // disk.BLOCK_BYTES)
        self.programmed_bytes = 0
        self.overwritten = 0

    def read(self, cfg: Any, block: int, off: int, size: int) -> bytearray:
        start = block * disk.BLOCK_BYTES + off
        return self.buffer[start : start + size]

    def prog(self, cfg: Any, block: int, off: int, data: bytes) -> int:
        start = block * disk.BLOCK_BYTES + off
        place = slice(start, start + len(data))
        self.overwritten += any(old != 0xFF for old in self.buffer[place])
        self.buffer[place] = data
        self.programmed_bytes += len(data)
        return 0

    def erase(self, cfg: Any, block: int) -> int:
        start = block * disk.BLOCK_BYTES
        self.buffer[start : start + disk.BLOCK_BYTES] = b"\xff" * disk.BLOCK_BYTES
        self.erases[block] += 1
        return 0


class LittleFiles:
    """What `agent.segment.Files` does, on LittleFS as MicroPython sets it up."""

    def __init__(self, flash: Flash) -> None:
        self._count = len(flash.erases)
        self.fs = LittleFS(
            flash,
            mount=False,
            block_size=disk.BLOCK_BYTES,
            block_count=self._count,
            read_size=32,
            prog_size=32,
            cache_size=128,
            lookahead_size=32,
        )
        self.fs.mount()
        self.fs.makedirs("/spool", exist_ok=True)

    def names(self) -> list[str]:
        return [str(name) for name in self.fs.listdir("/spool")]

    def write(self, name: str, offset: int, content: bytes) -> None:
        with errors(), self.fs.open(f"/spool/{name}", "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(content)

    def open(self, name: str) -> Any:
        return self.fs.open(f"/spool/{name}", "rb")

    def remove(self, name: str) -> None:
        with errors():
            self.fs.remove(f"/spool/{name}")

    def free_bytes(self) -> int:
        return int(self._count - self.fs.used_block_count) * disk.BLOCK_BYTES


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Let an error of LittleFS be what MicroPython makes of it."""
    try:
        yield
    except LittleFSError as error:
        raise OSError(-error.code, error.name) from None


class Numbers:
    """What NVS holds."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def recall(self, name: str) -> int | None:
        return self.held.get(name)

    def remember(self, name: str, number: int) -> None:
        self.held[name] = number


def furnished() -> bytes:
    """Return the file system of a board as it leaves the technician's desk."""
    files = dict(image.agent_files())
    files["config.json"] = b"{" + b"x" * 1500 + b"}"
    for name, size in (("ca", 420), ("board", 500), ("board.key", 140), ("roots", 2400)):
        files[f"identity/{name}.der"] = b"\x30" + bytes(size)
    files["identity/report.key"] = bytes(32)
    content = bytearray(b"\xff" * SIZE)
    for extent in disk.fresh(files, SIZE):
        content[extent.offset : extent.offset + len(extent.content)] = extent.content
    return bytes(content)


class Week:
    """Reports of one room: plain ones, or such that hold every block and move in every field."""

    def __init__(self, *, is_restless: bool, seed: int = 7) -> None:
        self._chance = random.Random(seed)
        self._is_restless = is_restless
        self._uptime_cs = 900
        self._hashes: list[tuple[bytes, int, int]] = []

    def _near(self, middle: float, spread: float, least: int = 0) -> int:
        return max(least, round(self._chance.gauss(middle, spread)))

    def values(self, seq: int, oldest_seq: int, waiting: int) -> report.Report:
        near, chance = self._near, self._chance
        self._uptime_cs += 6000 + chance.randrange(-3, 4)
        blocks = self._blocks(seq) if self._is_restless else b""
        return report.Report(
            1, 0, 1, seq, oldest_seq, 7, 60, self._uptime_cs,
            _START_S + self._uptime_cs // 100, 3, 1, 0, 1, 100, bytes((1,) * 9),
            near(-61, 2, -120), 6, bytes(range(6)), 812, 341, near(2300, 400),
            chance.choice((0, 0, 0, 5)), 1, near(14, 4), near(21, 5), near(23, 5), 204,
            near(61_000, 400), min(waiting, 0xFFFE), 0, blocks,
        )  # fmt: skip

    def _blocks(self, seq: int) -> bytes:
        near, chance, pack = self._near, self._chance, struct.pack
        if (seq - 1) % 1440 == 0:  # the hashes rotate with the day
            self._hashes = [
                (chance.randbytes(4), chance.choice((1, 6, 11)), -58 - chance.randrange(32))
                for _ in range(16)
            ]
        contents = [
            (block.OWN, b"".join(
                pack(block.OWN_FORMAT, bytes((2, 0, 0, 0, 0, n)), near(-60 - 8 * n, 2, -120), 6, 2)
                for n in range(3)
            )),
            (block.LEASE, pack(block.LEASE_FORMAT, 3600, b"\x0a\x01\0\x01", 1, near(300, 120))),
            (block.PATH, pack(
                block.PATH_FORMAT, 20, near(1800, 150), near(6000, 2500), near(900, 300)
            )),
            (block.SENSOR, pack(
                block.SENSOR_FORMAT, 0, near(700, 10) + seq % 500, 2100 + near(60, 3), near(450, 4)
            )),
            (block.TARGET, b"".join(
                pack(block.TARGET_FORMAT, 1, near(25, 6), near(80, 20), 67) for _ in range(2)
            )),
            (block.SERVICE, b"".join(
                pack(block.SERVICE_FORMAT, 1, near(150, 40), 200, 50) for _ in range(3)
            )),
            (block.REFERENCE, pack(block.REFERENCE_FORMAT, 0, near(18, 4))),
        ]  # fmt: skip
        if seq % 60 == 0:
            contents.append((block.THROUGHPUT, pack(block.THROUGHPUT_FORMAT, near(5000, 800), 128)))
        channels = bytes(chance.choice((0x10, 0x11, 0x20)) for _ in range(7))
        air = pack(block.AIR_FORMAT, 3, near(14, 1), near(5, 1), near(-70, 3, -120), channels)
        contents.append((block.AIR, air))
        blocks = b"".join(report.extension(*each) for each in contents)
        room = (183 - len(blocks) - 2) // 6
        heard = sorted((near(dbm, 2, -120), name, channel) for name, channel, dbm in self._hashes)
        told = sorted(
            pack(block.FOREIGN_FORMAT, name, channel, dbm) for dbm, name, channel in heard[-room:]
        )
        return blocks + report.extension(block.FOREIGN, b"".join(told))
