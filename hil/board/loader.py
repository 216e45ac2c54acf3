"""The serial loader of an ESP32: first the ROM's, after a stub was loaded the stub's.

The stub's code is accepted and never run; from then on its protocol is spoken. The loader
itself neither waits nor writes: each frame gives an `Answer` that says what to send and
how long the flash is busy before and after it.

Source: Espressif, "Serial Protocol" (esptool documentation); esptool's `loader.py`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from hil.board import slip
from hil.board.flash import BLOCK_BYTES, SECTOR_BYTES, SIZE_BYTES, Flash
from hil.board.register import Registers

SYNC_HEAD = bytes.fromhex("c0 00 08 24 00 00 00 00 00 07 07 12 20")
ROM_BAUD = 115200

_REQUEST, _RESPONSE = 0, 1
_FLASH_BEGIN, _FLASH_DATA, _FLASH_END = 0x02, 0x03, 0x04
_MEM_BEGIN, _MEM_END, _MEM_DATA = 0x05, 0x06, 0x07
_SYNC, _WRITE_REG, _READ_REG = 0x08, 0x09, 0x0A
_SPI_SET_PARAMS, _SPI_ATTACH, _READ_FLASH_SLOW = 0x0B, 0x0D, 0x0E
_CHANGE_BAUD = 0x0F
_DEFL_BEGIN, _DEFL_DATA, _DEFL_END = 0x10, 0x11, 0x12
_FLASH_MD5 = 0x13
_ERASE_FLASH, _ERASE_REGION, _READ_FLASH, _RUN = 0xD0, 0xD1, 0xD2, 0xD3

# Why a command failed: the ROM's codes, then the stub's.
_INVALID, _FAILED, _BAD_CHECKSUM, _BAD_INFLATE = 0x05, 0x06, 0x07, 0x0B
_STUB_CODE = {_INVALID: 0xFF, _FAILED: 0xC4, _BAD_CHECKSUM: 0xC1, _BAD_INFLATE: 0xC7}

_SYNC_REPLIES = 8
_SYNC_VALUE_ROM = 0x20120707
_SLOW_READ_BYTES = 64
_CHECKSUM_SEED = 0xEF


class CommandError(Exception):
    """A command that the loader answers with a failure code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"loader error 0x{code:02x}")
        self.code = code


@dataclass(frozen=True)
class Answer:
    """What follows from one frame.

    Attributes:
        data: bytes for the line, framed.
        before_us: how long the flash is busy before they are sent.
        after_us: how long it is busy afterwards, while the next frame may already come in.
        baud: speed of the line from now on, if it changes.
        reboot: the board leaves the loader and starts what is in its flash.
    """

    data: bytes = b""
    before_us: float = 0
    after_us: float = 0
    baud: int | None = None
    reboot: bool = False


@dataclass
class _Result:
    value: int = 0
    body: bytes = b""
    before_us: float = 0
    after_us: float = 0
    baud: int | None = None
    reboot: bool = False
    more: bytes = b""  # framed, behind the response


@dataclass
class _Write:
    """A write to flash in progress, erasing as it goes."""

    address: int
    remaining: int
    erased_to: int
    erase_end: int
    inflate: zlib._Decompress | None = None
    held: bytearray = field(default_factory=bytearray)


@dataclass
class _Read:
    """A read in progress: blocks go out ahead of their acknowledgements."""

    address: int
    size: int
    block_bytes: int
    ahead_blocks: int
    sent: int = 0


class Loader:
    """Answers esptool. One instance lives from a reset into the loader to the next reset."""

    def __init__(self, flash: Flash, mac: bytes) -> None:
        self.baud = ROM_BAUD
        self.is_stub = False
        self._flash = flash
        self._registers = Registers(mac)
        self._write: _Write | None = None
        self._read: _Read | None = None
        both: dict[int, Callable[[bytes, int], _Result]] = {
            _FLASH_BEGIN: self._flash_begin,
            _FLASH_DATA: self._flash_data,
            _FLASH_END: self._flash_end,
            _MEM_BEGIN: self._accept,
            _MEM_DATA: self._mem_data,
            _MEM_END: self._mem_end,
            _SYNC: self._sync,
            _WRITE_REG: self._write_register,
            _READ_REG: self._read_register,
            _SPI_SET_PARAMS: self._accept,
            _SPI_ATTACH: self._accept,
            _CHANGE_BAUD: self._change_baud,
            _DEFL_BEGIN: self._deflate_begin,
            _DEFL_DATA: self._deflate_data,
            _DEFL_END: self._flash_end,
            _FLASH_MD5: self._md5,
        }
        self._rom_commands = both | {_READ_FLASH_SLOW: self._read_slow}
        self._stub_commands = both | {
            _ERASE_FLASH: self._erase_flash,
            _ERASE_REGION: self._erase_region,
            _READ_FLASH: self._read_flash,
            _RUN: self._run,
        }

    def handle(self, frame: bytes) -> Answer | None:
        """Carry out one frame; None if it is noise that a real loader would not answer."""
        if self._read is not None:
            return self._acknowledge(frame)
        if len(frame) < 8:
            return None
        direction, command, size, checksum = struct.unpack_from("<BBHI", frame)
        body = frame[8:]
        if direction != _REQUEST or size != len(body):
            return None
        commands = self._stub_commands if self.is_stub else self._rom_commands
        was_stub = self.is_stub
        try:
            result = commands.get(command, self._refuse)(body, checksum)
        except CommandError as error:
            code = _STUB_CODE.get(error.code, error.code) if was_stub else error.code
            return Answer(_respond(command, 0, b"", was_stub, (1, code)))
        except (struct.error, ValueError):  # too short, or outside the flash
            code = 0xC0 if was_stub else _FAILED
            return Answer(_respond(command, 0, b"", was_stub, (1, code)))
        response = _respond(command, result.value, result.body, was_stub, (0, 0))
        if command == _SYNC:
            response *= _SYNC_REPLIES
        return Answer(
            response + result.more, result.before_us, result.after_us, result.baud, result.reboot
        )

    # Commands. Each takes the body and the checksum field of its frame.

    def _refuse(self, _body: bytes, _checksum: int) -> _Result:
        raise CommandError(_INVALID)

    def _accept(self, _body: bytes, _checksum: int) -> _Result:
        return _Result()

    def _sync(self, _body: bytes, _checksum: int) -> _Result:
        return _Result(value=0 if self.is_stub else _SYNC_VALUE_ROM)

    def _read_register(self, body: bytes, _checksum: int) -> _Result:
        (address,) = struct.unpack_from("<I", body)
        return _Result(value=self._registers.read(address, self.baud))

    def _write_register(self, body: bytes, _checksum: int) -> _Result:
        if not body or len(body) % 16:
            raise CommandError(_INVALID)
        for address, value, mask, _delay in struct.iter_unpack("<IIII", body):
            self._registers.write(address, value, mask)
        return _Result()

    def _mem_data(self, body: bytes, checksum: int) -> _Result:
        _payload(body, checksum)
        return _Result()

    def _mem_end(self, body: bytes, _checksum: int) -> _Result:
        stay, entry = struct.unpack_from("<II", body)
        if stay or not entry:
            return _Result()
        self.is_stub = True
        return _Result(more=slip.encode(b"OHAI"))

    def _change_baud(self, body: bytes, _checksum: int) -> _Result:
        baud, _old = struct.unpack_from("<II", body)
        if not baud:
            raise CommandError(_INVALID)
        self.baud = baud
        return _Result(baud=baud)

    def _flash_begin(self, body: bytes, _checksum: int) -> _Result:
        size, blocks, block_bytes, address = struct.unpack_from("<IIII", body)
        return self._begin(address, size if self.is_stub else blocks * block_bytes, size)

    def _deflate_begin(self, body: bytes, _checksum: int) -> _Result:
        size, _blocks, _block_bytes, address = struct.unpack_from("<IIII", body)
        result = self._begin(address, size, size)
        if self._write is not None:
            self._write.inflate = zlib.decompressobj()
        return result

    def _begin(self, address: int, size: int, erase_size: int) -> _Result:
        self._write = None
        if not size:
            return _Result()  # esptool's way to leave the loader: begin nothing, then end
        if address + size > SIZE_BYTES:
            raise ValueError("beyond the end of the flash")
        start = address - address % SECTOR_BYTES
        end = -(-(address + erase_size) // SECTOR_BYTES) * SECTOR_BYTES
        self._write = _Write(address, size, erased_to=start, erase_end=end)
        if self.is_stub:
            return _Result()
        self._write.erased_to = end
        return _Result(before_us=self._flash.erase_region(start, end - start))

    def _flash_data(self, body: bytes, checksum: int) -> _Result:
        data = _payload(body, checksum)
        write = self._writing()
        # The last block is padded beyond the size that was announced.
        return self._busy(self._program(write, data[: write.remaining]))

    def _deflate_data(self, body: bytes, checksum: int) -> _Result:
        data = _payload(body, checksum)
        write = self._writing()
        if write.inflate is None:
            raise CommandError(_FAILED)
        try:
            write.held += write.inflate.decompress(data, write.remaining + 1)
        except zlib.error as error:
            raise CommandError(_BAD_INFLATE) from error
        if len(write.held) > write.remaining:
            raise CommandError(_FAILED)
        # Whole sectors only, as the stub's buffer gives them; the rest comes with the end.
        usable = len(write.held)
        if not write.inflate.eof:
            usable -= (write.address + usable) % SECTOR_BYTES
        if usable <= 0:
            return _Result()
        ready = bytes(write.held[:usable])
        del write.held[:usable]
        return self._busy(self._program(write, ready))

    def _flash_end(self, body: bytes, _checksum: int) -> _Result:
        (stay,) = struct.unpack_from("<I", body)
        write, self._write = self._write, None
        if self.is_stub and write is not None and write.remaining:
            raise CommandError(_FAILED)
        return _Result(reboot=not stay)

    def _md5(self, body: bytes, _checksum: int) -> _Result:
        address, size = struct.unpack_from("<II", body)
        if address + size > SIZE_BYTES:
            raise ValueError("beyond the end of the flash")
        digest = hashlib.md5(self._flash.read(address, size), usedforsecurity=False)
        return _Result(body=digest.digest() if self.is_stub else digest.hexdigest().encode())

    def _erase_flash(self, _body: bytes, _checksum: int) -> _Result:
        return _Result(before_us=self._flash.erase_chip())

    def _erase_region(self, body: bytes, _checksum: int) -> _Result:
        address, size = struct.unpack_from("<II", body)
        return _Result(before_us=self._flash.erase_region(address, size))

    def _run(self, _body: bytes, _checksum: int) -> _Result:
        return _Result(reboot=True)

    def _read_slow(self, body: bytes, _checksum: int) -> _Result:
        address, size = struct.unpack_from("<II", body)
        if size > _SLOW_READ_BYTES or address + size > SIZE_BYTES:
            raise CommandError(_FAILED)
        return _Result(body=self._flash.read(address, size).ljust(_SLOW_READ_BYTES, b"\0"))

    def _read_flash(self, body: bytes, _checksum: int) -> _Result:
        address, size, block_bytes, ahead = struct.unpack_from("<IIII", body)
        if not size or not block_bytes or not ahead or address + size > SIZE_BYTES:
            raise CommandError(_FAILED)
        self._read = _Read(address, size, block_bytes, ahead)
        return _Result(more=self._read_blocks(acknowledged=0))

    # Parts of commands

    def _read_blocks(self, acknowledged: int) -> bytes:
        read, out = self._read, []
        while read is not None and read.sent < read.size:
            if read.sent - acknowledged >= read.ahead_blocks * read.block_bytes:
                break
            step = min(read.block_bytes, read.size - read.sent)
            out.append(slip.encode(self._flash.read(read.address + read.sent, step)))
            read.sent += step
        return b"".join(out)

    def _acknowledge(self, frame: bytes) -> Answer | None:
        read = self._read
        if read is None or len(frame) != 4:
            self._read = None  # the host gave up: it speaks of other things
            return self.handle(frame)
        (acknowledged,) = struct.unpack("<I", frame)
        if acknowledged < read.size:
            return Answer(self._read_blocks(acknowledged))
        self._read = None
        data = self._flash.read(read.address, read.size)
        return Answer(slip.encode(hashlib.md5(data, usedforsecurity=False).digest()))

    def _writing(self) -> _Write:
        if self._write is None:
            raise CommandError(0xC6 if self.is_stub else _FAILED)
        return self._write

    def _program(self, write: _Write, data: bytes) -> float:
        """Erase as far as `data` reaches, as the stub does; program it; return µs."""
        busy_us, end = 0.0, write.address + len(data)
        while write.erased_to < min(end, write.erase_end):
            whole = write.erased_to % BLOCK_BYTES == 0
            if whole and write.erase_end - write.erased_to >= BLOCK_BYTES:
                busy_us += self._flash.erase_block(write.erased_to)
                write.erased_to += BLOCK_BYTES
            else:
                busy_us += self._flash.erase_sector(write.erased_to)
                write.erased_to += SECTOR_BYTES
        busy_us += self._flash.program(write.address, data)
        write.address = end
        write.remaining -= len(data)
        return busy_us

    def _busy(self, busy_us: float) -> _Result:
        """The stub answers first and writes while the next block comes in; the ROM does not."""
        return _Result(after_us=busy_us) if self.is_stub else _Result(before_us=busy_us)


def _payload(body: bytes, checksum: int) -> bytes:
    (size,) = struct.unpack_from("<I", body)
    data = body[16:]
    if size != len(data):
        raise ValueError("wrong length of data")
    state = _CHECKSUM_SEED
    for byte in data:
        state ^= byte
    if state != checksum & 0xFF:
        raise CommandError(_BAD_CHECKSUM)
    return data


def _respond(
    command: int, value: int, body: bytes, is_stub: bool, status: tuple[int, int]
) -> bytes:
    tail = bytes(status) if is_stub else bytes((*status, 0, 0))
    data = body + tail
    head = struct.pack("<BBHI", _RESPONSE, command, len(data), value)
    return slip.encode(head + data)
