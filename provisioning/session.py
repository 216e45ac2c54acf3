"""One esptool session with one board; several may run in threads of one process.

esptool speaks through one logger for the whole process. `_Router` takes its place: what a
thread's session says goes to that session, and other threads' words where they went before.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import serial
from esp_pylib.logger import EspLog, EspLogBase
from esptool import cmds  # type: ignore[import-untyped]
from esptool.util import (  # type: ignore[import-untyped]
    FatalError,
    UnsupportedCommandError,
    flash_size_bytes,
)

from fleet.text import printable
from provisioning.errors import BoardSilentError, ChipError, VerifyError, WriteError
from provisioning.port import CONSOLE_BAUD, has_reset_line, reset

# What esptool and pyserial raise when a board is lost, refuses, or the line is bad.
LINE_ERRORS = (
    FatalError,
    UnsupportedCommandError,
    OSError,
    termios.error,
    struct.error,
    IndexError,
)

Advance = Callable[[int, int], None]

_local = threading.local()
_installing = threading.Lock()


class Session:
    """A board in the hands of esptool's stub, from identification to the last digest.

    Attributes: `chip`, `mac` ("24:0a:c4:…"), `flash_bytes`.
    """

    chip: str
    mac: str
    flash_bytes: int

    def __init__(self, port: serial.Serial, baud: int) -> None:
        self._port = port
        self._baud = baud
        self._loader: Any = None

    def __enter__(self) -> Self:
        """Identify the board and start the stub.

        Raises:
            BoardSilentError: nothing answers.
            ChipError: another chip than the ESP32.
        """
        with _heard(None):
            try:
                self._connect()
            except LINE_ERRORS as error:
                raise BoardSilentError(
                    f"no board answers on {self._port.port}: {_first_line(error)}",
                    hint="check cable and port; hold BOOT while you press EN, then run the same "
                    "command again; with a long cable try --baud 115200",
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._loader = None

    def _connect(self) -> None:
        rom = cmds.detect_chip(self._port, CONSOLE_BAUD)
        if rom.CHIP_NAME != "ESP32":
            raise ChipError(
                f"the board on {self._port.port} is an {printable(rom.CHIP_NAME)}, not an ESP32",
                hint="only boards with the plain ESP32 can be flashed",
            )
        self.chip = str(rom.get_chip_description())
        self.mac = ":".join(f"{byte:02x}" for byte in rom.read_mac())
        loader = cmds.run_stub(rom)
        # A cable pulled out is an error at once: esptool would wait for it to come back and
        # go on with a board that may be another one.
        loader.WRITE_FLASH_ATTEMPTS = 1
        if self._baud != CONSOLE_BAUD:
            loader.change_baud(self._baud)
        cmds.attach_flash(loader)
        self.flash_bytes = flash_size_bytes(cmds.detect_flash_size(loader)) or 0
        self._loader = loader

    def write(self, address: int, content: bytes, advance: Advance) -> None:
        """Write `content` to the flash from `address` on and compare digests.

        Args:
            address: on a sector's start.
            content: what to write; what else is in its sectors is erased.
            advance: told bytes sent and bytes to send, compressed.

        Raises:
            WriteError: the board was lost or refuses.
            VerifyError: the flash holds something else afterwards.
        """
        sent = _Sent(advance)
        with _heard(sent):
            try:
                cmds.write_flash(self._loader, [(address, content)])
            except LINE_ERRORS as error:
                if sent.complete and self._differs(address, content):
                    raise VerifyError(
                        f"the flash on {self._port.port} does not hold what was written at "
                        f"{address:#x}",
                        hint="run the same command again; if it happens twice, the board's flash "
                        "is worn out: take another board",
                    ) from None
                raise WriteError(
                    f"writing the board on {self._port.port} failed at {address:#x}: "
                    f"{_first_line(error)}",
                    hint="check the cable and run the same command again, with --baud 460800 or "
                    "less if it happens twice; the board does not work until then",
                ) from None

    def erase(self, address: int, size: int) -> None:
        """Erase whole sectors.

        Raises: WriteError: the board was lost or refuses.
        """
        with _heard(None):
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
        with _heard(None):
            try:
                if has_reset_line(self._port):
                    reset(self._port)
                else:
                    cmds.reset_chip(self._loader, "no-reset")
                    self._port.baudrate = CONSOLE_BAUD
            except LINE_ERRORS as error:
                raise WriteError(
                    f"the board on {self._port.port} was written and then lost: "
                    f"{_first_line(error)}",
                    hint="check the cable and run the same command again",
                ) from None

    def _differs(self, address: int, content: bytes) -> bool:
        expected = hashlib.md5(content, usedforsecurity=False).hexdigest()
        try:
            return bool(self._loader.flash_md5sum(address, len(content)) != expected)
        except LINE_ERRORS:
            return False


class _Sent:
    """What esptool says of one write."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self.complete = False

    def __call__(self, sent: int, total: int) -> None:
        self.complete = sent >= total
        self._advance(sent, total)


def _word(method: str) -> Callable[..., None]:
    def say(self: _Router, *args: Any, **kwargs: Any) -> None:
        if not getattr(_local, "in_session", False):
            getattr(self.otherwise, method)(*args, **kwargs)

    return say


class _Router(EspLogBase):
    """esptool's logger: progress goes to the thread's session, its words nowhere."""

    print = _word("print")
    err = _word("err")
    warn = _word("warn")
    note = _word("note")
    hint = _word("hint")
    debug = _word("debug")
    stage = _word("stage")
    set_verbosity = _word("set_verbosity")

    def __init__(self, otherwise: EspLogBase) -> None:
        self.otherwise = otherwise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.otherwise, name)

    def progress_bar(
        self,
        cur_iter: int,
        total_iters: int,
        prefix: str = "",
        suffix: str = "",
        bar_length: int = 30,
    ) -> None:
        if not getattr(_local, "in_session", False):
            self.otherwise.progress_bar(cur_iter, total_iters, prefix, suffix, bar_length)
        elif _local.listener is not None:
            _local.listener(cur_iter, total_iters)


@contextlib.contextmanager
def _heard(listener: Advance | None) -> Iterator[None]:
    """Take what esptool says in this thread."""
    with _installing:
        if not isinstance(EspLog.instance, _Router):
            EspLog.set_logger(_Router(EspLog.instance or EspLog()))
    _local.in_session, _local.listener = True, listener
    try:
        yield
    finally:
        _local.in_session, _local.listener = False, None


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0].rstrip("."))
