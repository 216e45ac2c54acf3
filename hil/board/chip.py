"""The chip in run mode: boot messages, the interpreter, and what outlives it.

Clock, reset cause, watchdog, NVS and the radio belong to the chip: the shims in the
interpreter ask for them, a soft reset does not touch them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from hil.board.antenna import NO_ADDRESSES
from hil.board.ethernet import Ethernet
from hil.board.flash import Flash
from hil.board.image import NotBootableError, Partition, check_bootable, file_system
from hil.board.line import Line
from hil.board.nvs import Nvs, NvsError
from hil.board.run import Interpreter, Request, RequestError
from hil.board.station import Station
from hil.board.wear import Wear
from hil.board.wiring import Wiring

EPOCH_2000_S = 946_684_800  # an ESP32's clock starts here when it has power again

_BOOT_S = 0.4  # ROM and boot loader until MicroPython starts
_FIFO_BYTES = 128  # of an ESP32's UART
_COMPLAINT_S = 1.0  # a chip without a program says so for ever
_CRASH_S = 1.0  # before a crashed interpreter is started again


class Cause(IntEnum):
    """machine.reset_cause()."""

    POWER_ON = 1
    HARD = 2
    WATCHDOG = 3
    DEEP_SLEEP = 4
    SOFT = 5


_ROM_RESET = {
    Cause.POWER_ON: "0x1 (POWERON_RESET)",
    Cause.HARD: "0xc (SW_CPU_RESET)",
    Cause.WATCHDOG: "0xc (SW_CPU_RESET)",
    Cause.DEEP_SLEEP: "0x5 (DEEPSLEEP_RESET)",
}


class Chip:
    """Runs what is in the flash, from `run` to `stop`.

    Attributes:
        bootloader: called when the program asks for the serial loader.
        wear: which sectors of the file system fail; outlives resets, as wear does.
    """

    def __init__(
        self,
        flash: Flash,
        line: Line,
        mac: bytes,
        *,
        station: Station,
        ethernet: Ethernet,
        wiring: Wiring,
        command: list[str],
        bootloader: Callable[[], None],
    ) -> None:
        self._flash = flash
        self._line = line
        self._station = station
        self._ethernet = ethernet
        self._wiring = wiring
        self.wear = Wear()
        self._mac = mac
        self._command = command
        self._bootloader = bootloader
        self._loop = asyncio.get_running_loop()
        self._interpreter: Interpreter | None = None
        self._fifo = b""
        self._timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._watchdog_s = 0.0
        self._partitions: list[Partition] = []
        self._nvs: Nvs | None = None
        self._cause = Cause.POWER_ON
        self._repl = "friendly"
        self._is_soft_reset = False
        self._clock_offset_us = 0
        self._rtc_memory = b""
        self._services: dict[str, Callable[[Request], Any]] = {
            "start": self._start_state,
            "mac": lambda _: self._mac.hex(),
            "resolver": self._resolver,
            "clock": self._clock,
            "rtc-memory": self._memory,
            "soft-reset": self._soft_reset,
            "reset": lambda _: self._later(self.run, Cause.HARD),
            "reset-cause": lambda _: int(self._cause),
            "bootloader": lambda _: self._later(self._bootloader),
            "deepsleep": self._deep_sleep,
            "watchdog": self._feed,
            "partitions": self._list_partitions,
            "nvs-open": lambda request: self._nvs_do(request, "open"),
            "nvs-get": lambda request: self._nvs_do(request, "get"),
            "nvs-set": lambda request: self._nvs_do(request, "set"),
            "nvs-erase": lambda request: self._nvs_do(request, "erase"),
        }
        line.drained = self._line_drained

    @property
    def is_running(self) -> bool:
        """Whether a program runs, as opposed to a boot ROM that finds none."""
        return self._interpreter is not None

    @property
    def reset_cause(self) -> Cause:
        """Why the chip started last."""
        return self._cause

    def run(self, cause: Cause) -> None:
        """Start as after a reset; say on the line what the ROM says.

        The clock and the RTC's memory are lost when the power was.
        """
        self.stop()
        self._cause = cause
        if cause is Cause.POWER_ON:
            self._clock_offset_us = EPOCH_2000_S * 1_000_000 - time.time_ns() // 1000
            self._rtc_memory = b""
        self._repl = "friendly"
        self._say(
            f"ets Jul 29 2019 12:21:46\n\nrst:{_ROM_RESET[cause]},boot:0x13 (SPI_FAST_FLASH_BOOT)\n"
            "configsip: 0, SPIWP:0xee\n"
            "clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\n"
            "mode:DIO, clock div:2\n"
        )
        try:
            self._partitions = check_bootable(self._flash)
        except NotBootableError as problem:
            self._complain(str(problem))
            return
        self._say("load:0x3fff0030\nentry 0x40080000\n")
        self._nvs = Nvs(self._flash, self._partitions)
        if self._line.is_paced:
            self._timer = self._loop.call_later(_BOOT_S, self._start)
        else:
            self._start()

    def stop(self) -> None:
        """Stop at once, as when the power goes or reset is pulled."""
        for timer in (self._timer, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._timer = self._watchdog = None
        self._is_soft_reset = False
        self._fifo = b""
        self._station.off()
        self._ethernet.off()
        self._wiring.reset()
        if self._interpreter is not None:
            self._interpreter.kill()
            self._interpreter = None

    def type(self, data: bytes) -> None:
        """Give bytes from the line to the program; while it starts, the UART's FIFO keeps them."""
        if self._interpreter is not None:
            self._interpreter.type(data)
        else:
            self._fifo = (self._fifo + data)[:_FIFO_BYTES]

    # Start and end of the interpreter

    def _start(self) -> None:
        self._timer = None
        self._interpreter = Interpreter(
            self._command,
            self._flash.file_number,
            self.wear.file_number,
            output=self._line.write,
            backlog=lambda: self._line.backlog_bytes,
            request=self._serve,
            ended=self._ended,
        )
        self._interpreter.start()
        typed, self._fifo = self._fifo, b""
        self._interpreter.type(typed)

    def _ended(self, status: int) -> None:
        if self._interpreter is None:
            return
        if self._is_soft_reset:
            self._is_soft_reset = False
            self._cause = Cause.SOFT
            self._interpreter.start()
            return
        self._say(f"\nvirtual board: MicroPython ended by itself, status {status}; rebooting\n")
        self._interpreter.kill()
        self._interpreter = None
        self._timer = self._loop.call_later(_CRASH_S, self.run, Cause.HARD)

    def _complain(self, text: str) -> None:
        self._say(text + "\n")
        self._timer = self._loop.call_later(_COMPLAINT_S, self._complain, text)

    def _line_drained(self) -> None:
        if self._interpreter is not None:
            self._interpreter.read_on()

    def _say(self, text: str) -> None:
        self._line.write(text.replace("\r\n", "\n").replace("\n", "\r\n").encode())

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon(action, *arguments)

    # What the shims ask for

    def _serve(self, operation: str, request: Request) -> Any:
        service = self._services.get(operation)
        if service is not None:
            return service(request)
        if self._wiring.knows(operation):
            return self._wiring.serve(operation, request)
        if self._ethernet.knows(operation):
            return self._ethernet.serve(operation, request)
        return self._station.serve(operation, request)

    def _resolver(self, _request: Request) -> str:
        """Return the resolver for all names: lwIP has one list for all interfaces."""
        stations = self._station.addresses[3]
        return stations if stations != NO_ADDRESSES[3] else self._ethernet.addresses[3]

    def _start_state(self, _request: Request) -> Request:
        disk = file_system(self._partitions)
        timing = self._flash.timing
        return {
            "address": disk.address if disk else 0,
            "size": disk.size if disk else 0,
            "timing": [
                timing.first_byte_us,
                timing.further_byte_us,
                timing.page_us,
                timing.sector_us,
            ],
            "repl": self._repl,
        }

    def _soft_reset(self, request: Request) -> None:
        self._is_soft_reset = True
        self._repl = "raw" if request.get("repl") == "raw" else "friendly"

    def _clock(self, request: Request) -> int:
        if "offset_us" in request:
            self._clock_offset_us = int(request["offset_us"])
        return self._clock_offset_us

    def _memory(self, request: Request) -> str:
        if "data" in request:
            self._rtc_memory = bytes.fromhex(request["data"])
        return self._rtc_memory.hex()

    def _deep_sleep(self, request: Request) -> None:
        self._later(self._sleep, int(request["time_ms"]) / 1000)

    def _sleep(self, duration_s: float) -> None:
        self.stop()
        if duration_s:
            self._timer = self._loop.call_later(duration_s, self.run, Cause.DEEP_SLEEP)

    def _feed(self, request: Request) -> None:
        if "timeout_ms" in request:
            self._watchdog_s = int(request["timeout_ms"]) / 1000
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = self._loop.call_later(self._watchdog_s, self._bite)

    def _bite(self) -> None:
        self._say(
            "\nE (0) task_wdt: Task watchdog got triggered. "
            "The following tasks/users did not reset the watchdog in time:\n"
            "E (0) task_wdt:  - mp_task (CPU 0)\nE (0) task_wdt: Aborting.\nRebooting...\n"
        )
        self.run(Cause.WATCHDOG)

    def _list_partitions(self, _request: Request) -> list[list[int | str]]:
        files = file_system(self._partitions)
        made = [files] if files and files not in self._partitions else []
        return [[p.kind, p.subtype, p.address, p.size, p.label] for p in [*self._partitions, *made]]

    def _nvs_do(self, request: Request, operation: str) -> Any:
        if self._nvs is None:
            raise RequestError("no NVS partition")
        try:
            return getattr(self._nvs, operation)(**request)
        except NvsError as error:
            raise RequestError(error.code) from error
