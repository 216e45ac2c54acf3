"""One esptool session with one board; several may run in threads of one process.

esptool's own `write_flash` compresses again for every board and tells a failed digest only in
words, so the few steps that it takes with the stub are taken here.

esptool speaks through one logger for the whole process. `_Router` takes its place: sessions
are quiet, other threads' words go where they went before.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import termios
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import serial
from esp_pylib.logger import EspLog, EspLogBase
from esptool import cmds  # type: ignore[import-untyped]
from esptool import loader as loader_module
from esptool.util import (  # type: ignore[import-untyped]
    FatalError,
    UnsupportedCommandError,
    flash_size_bytes,
)

from fleet.text import printable
from provisioning.chip import CHIPS
from provisioning.errors import BoardSilentError, ChipError, ReadError, VerifyError, WriteError
from provisioning.port import CONSOLE_BAUD, has_reset_line, reset
from provisioning.region import Region

# What esptool and pyserial raise when a board is lost, refuses, or the line is bad.
LINE_ERRORS = (
    FatalError,
    UnsupportedCommandError,
    OSError,
    termios.error,
    struct.error,
    IndexError,
)

# Speeds that adapters and the ESP32 share, the best first.
BAUDS = (2_000_000, 1_500_000, 921_600, 460_800, CONSOLE_BAUD)
SURE_BAUD = 460_800  # a line that carries no more than this is not tried out beforehand

_CONNECT_ATTEMPTS = 7
_AGAIN_ATTEMPTS = 2
_TRIAL_BYTES = 16 * 1024
_FRAME_MARK = b"\xc0"
_ERASE_BLOCK_BYTES = 64 * 1024
SECTOR_BYTES = 4096

Advance = Callable[[int, int], None]


@dataclass
class _Patience:
    """How long a board's answer may take where nothing is erased or written."""

    answer_s: float = 0.3


_patience = _Patience()
_local = threading.local()
_installing = threading.Lock()


def speeds(asked: int | None, known: int | None) -> list[int]:
    """Return the speeds to try, the best first: the one asked for, or from the known one down."""
    if asked:
        return [asked]
    return [baud for baud in BAUDS if known not in BAUDS or baud <= known]


def be_patient(round_trip_s: float) -> None:
    """Give answers so much more time, in all of this process: the boards are far away."""
    _patience.answer_s += round_trip_s
    loader_module.SYNC_TIMEOUT += round_trip_s
    loader_module.MEM_END_ROM_TIMEOUT += round_trip_s


class Session:
    """A board in the hands of esptool's stub, from identification to the last digest.

    Attributes: `chip`, `chip_name`, `mac` ("24:0a:c4:…"), `flash_bytes`, `baud`.
    """

    chip: str
    chip_name: str
    mac: str
    flash_bytes: int

    def __init__(self, port: serial.Serial, bauds: Sequence[int]) -> None:
        """Take an open port and the speeds to try, the best first; `baud` is the one in use."""
        self._port = port
        self._bauds = list(bauds)
        self._loader: Any = None

    @property
    def baud(self) -> int:
        """The line's speed, as far as it has proved good."""
        return self._bauds[0]

    def __enter__(self) -> Self:
        """Identify the board, start the stub and find the line's speed.

        Raises:
            BoardSilentError: nothing answers, or not at a speed asked for.
            ChipError: a chip that the agent does not run on, or one that is locked.
        """
        with _quiet():
            self._begin(_CONNECT_ATTEMPTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loader = None

    def _begin(self, attempts: int) -> None:
        """Bring the board from whatever it does to a stub that speaks at a speed that is good."""
        while True:
            try:
                rom = self._identify(attempts)
            except LINE_ERRORS as error:
                raise BoardSilentError(
                    f"no board answers on {self._port.port}: {_first_line(error)}",
                    hint="check cable and port; hold BOOT while you press EN, then run the same "
                    "command again",
                ) from None
            try:
                self._start_stub(rom)
            except LINE_ERRORS as error:
                if len(self._bauds) == 1 or _is_gone(error):
                    raise BoardSilentError(
                        f"the board on {self._port.port} answers, but not at {self.baud} baud: "
                        f"{_first_line(error)}",
                        hint="run the same command again with --baud 460800, then with "
                        "--baud 115200",
                    ) from None
            else:
                return
            del self._bauds[0]

    def _identify(self, attempts: int) -> Any:
        mode = "default-reset" if has_reset_line(self._port) else "no-reset"
        self._port.baudrate = CONSOLE_BAUD
        rom = cmds.detect_chip(self._port, CONSOLE_BAUD, mode, connect_attempts=attempts)
        names = [chip.name for chip in CHIPS]
        if rom.CHIP_NAME not in names:
            raise ChipError(
                f"the board on {self._port.port} is an {printable(rom.CHIP_NAME)}",
                hint=f"the agent runs on: {', '.join(names)}",
            )
        self.chip_name = str(rom.CHIP_NAME)
        if rom.get_secure_boot_enabled() or rom.get_flash_encryption_enabled():
            raise ChipError(
                f"the board on {self._port.port} is locked: secure boot or flash encryption",
                hint="it only takes its maker's software; take another board",
            )
        self.chip = str(rom.get_chip_description())
        mac = ":".join(f"{byte:02x}" for byte in rom.read_mac())
        if self._loader is not None and mac != self.mac:
            raise ChipError(
                f"another board answers on {self._port.port}: {mac}, not {self.mac}",
                hint="leave the board on its cable and run the same command again",
            )
        self.mac = mac
        return rom

    def _start_stub(self, rom: Any) -> None:
        loader = cmds.run_stub(rom)
        if self.baud != CONSOLE_BAUD:
            loader.change_baud(self.baud)
            # A line that does not carry this speed at all shows at once.
            loader.command(
                loader.ESP_CMDS["READ_REG"],
                struct.pack("<I", loader.CHIP_DETECT_MAGIC_REG_ADDR),
                timeout=_patience.answer_s,
            )
        cmds.attach_flash(loader)
        self.flash_bytes = flash_size_bytes(cmds.detect_flash_size(loader)) or 0
        if self.flash_bytes:
            loader.flash_set_parameters(self.flash_bytes)
        if self.baud > SURE_BAUD:
            loader.read_flash(0, _TRIAL_BYTES)  # which compares digests
        self._loader = loader

    def _slow_down(self) -> bool:
        """Go on at a lower speed, from the beginning; tell whether there is one.

        Raises: NetzpulsError: the board does not come back.
        """
        if len(self._bauds) == 1:
            return False
        del self._bauds[0]
        with _quiet():
            self._begin(_AGAIN_ATTEMPTS)
        return True

    def read(self, address: int, size: int) -> bytes:
        """Read the flash.

        Raises: ReadError: the board was lost, or what came was garbled.
        """
        with _quiet():
            try:
                content: bytes = self._loader.read_flash(address, size)
            except LINE_ERRORS as error:
                raise ReadError(
                    f"reading the board on {self._port.port} failed at {address:#x}: "
                    f"{_first_line(error)}",
                    hint="check the cable and run the same command again, with --baud 460800 or "
                    "less if it happens twice; nothing was written",
                ) from None
        return content

    def holds(self, region: Region) -> bool:
        """Tell whether the flash holds a region's content already.

        Its first sector is asked for alone: most boards differ there, and a digest over all
        of an image takes the board a second.

        Raises: ReadError: the board was lost.
        """
        sizes = sorted({min(SECTOR_BYTES, len(region.content)), len(region.content)})
        return all(self._digest(region, size) == _md5(region.content[:size]) for size in sizes)

    def _digest(self, region: Region, size: int) -> str:
        with _quiet():
            try:
                return str(self._loader.flash_md5sum(region.address, size))
            except LINE_ERRORS as error:
                raise ReadError(
                    f"the board on {self._port.port} was lost: {_first_line(error)}",
                    hint="check the cable and run the same command again",
                ) from None

    def write(self, region: Region, advance: Advance) -> None:
        """Write a region and compare digests; if the line proves bad, again at a lower speed.

        Args:
            region: on a sector's start; what else is in its sectors is erased.
            advance: told bytes sent and bytes to send.

        Raises:
            WriteError: the board was lost or refuses.
            VerifyError: the flash holds something else afterwards.
        """
        while True:
            try:
                self._write(region, advance)
            except (WriteError, VerifyError) as failure:
                is_gone = failure.__context__ is not None and _is_gone(failure.__context__)
                if is_gone or not self._slow_down():
                    raise
            else:
                return

    def _write(self, region: Region, advance: Advance) -> None:
        content = region.content
        with _quiet():
            try:
                self._send(region, advance)
                digest = self._loader.flash_md5sum(region.address, len(content))
            except LINE_ERRORS as error:
                raise WriteError(
                    f"writing the board on {self._port.port} failed at {region.address:#x}: "
                    f"{_first_line(error)}",
                    hint="check the cable and run the same command again, with --baud 460800 or "
                    "less if it happens twice; the board does not work until then",
                ) from None
        if digest != _md5(content):
            raise VerifyError(
                f"the flash of the board on {self._port.port} does not hold what was written at "
                f"{region.address:#x}",
                hint="run the same command again; if it happens twice, the flash is worn out: "
                "take another board",
            )

    def _send(self, region: Region, advance: Advance) -> None:
        loader, sent, total = self._loader, 0, len(region.deflated)
        inflate = zlib.decompressobj()
        timeout_s = loader_module.DEFAULT_TIMEOUT
        advance(0, total)
        loader.flash_defl_begin(len(region.content), total, region.address)
        for seq, start in enumerate(range(0, total, loader.FLASH_WRITE_SIZE)):
            block = region.deflated[start : start + loader.FLASH_WRITE_SIZE]
            loader.flash_defl_block(block, seq, timeout=timeout_s)
            # The stub answers, then erases and programs while it takes the next block: what
            # this block inflates to decides how long the next answer may take.
            erased = 3 * len(inflate.decompress(block)) + _ERASE_BLOCK_BYTES
            timeout_s = loader_module.timeout_per_mb(
                loader_module.ERASE_WRITE_TIMEOUT_PER_MB, erased
            )
            sent += len(block)
            advance(sent, total)
        # Answered when the last block is in the flash.
        loader.flash_defl_finish(timeout=timeout_s)

    def erase(self, address: int, size: int) -> None:
        """Erase whole sectors.

        Raises: WriteError: the board was lost or refuses.
        """
        with _quiet():
            try:
                self._loader.erase_region(address, size)
            except LINE_ERRORS as error:
                raise WriteError(
                    f"erasing the board on {self._port.port} failed: {_first_line(error)}",
                    hint="check the cable and run the same command again",
                ) from None

    def restart(self) -> None:
        """Start what is in the flash, and listen at the console's speed. Ends the session.

        A port without reset line (a pty) asks the stub to do it. Real boards then wait for
        EN to be pressed.

        Raises: WriteError: the board was lost.
        """
        with _quiet():
            try:
                if has_reset_line(self._port):
                    reset(self._port)
                else:
                    self._restart_by_stub()
            except LINE_ERRORS as error:
                raise WriteError(
                    f"the board on {self._port.port} was written and then lost: "
                    f"{_first_line(error)}",
                    hint="check the cable and run the same command again",
                ) from None

    def _restart_by_stub(self) -> None:
        loader = self._loader
        loader.flash_begin(0, 0)
        # esptool would read on behind the answer, into the console, and lose that.
        loader.command(loader.ESP_CMDS["FLASH_END"], struct.pack("<I", 0), wait_response=False)
        for _ in ("begin", "end"):
            self._port.read_until(_FRAME_MARK)
        self._port.baudrate = CONSOLE_BAUD


def _word(method: str) -> Callable[..., None]:
    def say(self: _Router, *args: Any, **kwargs: Any) -> None:
        if not getattr(_local, "is_quiet", False):
            getattr(self.otherwise, method)(*args, **kwargs)

    return say


class _Router(EspLogBase):
    """esptool's logger, mute in threads that are in a session."""

    print = _word("print")
    err = _word("err")
    warn = _word("warn")
    note = _word("note")
    hint = _word("hint")
    debug = _word("debug")
    stage = _word("stage")
    progress_bar = _word("progress_bar")
    set_verbosity = _word("set_verbosity")

    def __init__(self, otherwise: EspLogBase) -> None:
        self.otherwise = otherwise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.otherwise, name)


class _HexDump(loader_module.HexFormatter):  # type: ignore[misc]
    """esptool's hex dump for traces, which it makes of every byte whether traced or not."""

    def __str__(self) -> str:
        return "" if getattr(_local, "is_quiet", False) else str(super().__str__())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what esptool says in this thread off the terminal."""
    with _installing:
        if not isinstance(EspLog.instance, _Router):
            EspLog.set_logger(_Router(EspLog.instance or EspLog()))
            loader_module.HexFormatter = _HexDump
    _local.is_quiet = True
    try:
        yield
    finally:
        _local.is_quiet = False


def _is_gone(error: BaseException) -> bool:
    """Tell whether it is the port that is gone, which no lower speed brings back."""
    return isinstance(error, OSError | termios.error)


def _md5(content: bytes) -> str:
    """Return the digest that the loader offers; it guards against damage, not against attack."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0].rstrip("."))
