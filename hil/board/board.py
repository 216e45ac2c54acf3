"""A virtual ESP32: line, loader, chip, radio and control socket in one process.

settings = Settings(link=Path("/tmp/np0"), radio=Path("radio.json"))
asyncio.run(serve(settings, ready=print))
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fleet.errors import ToolMissingError
from hil import tool
from hil.board import flash, slip, task
from hil.board.antenna import Antenna
from hil.board.chip import Cause, Chip
from hil.board.control import ControlServer
from hil.board.error import ControlError, FlashFileError, PortError
from hil.board.ethernet import Ethernet
from hil.board.flash import Flash
from hil.board.i2c import I2cBus
from hil.board.line import Line, LogPort, PtyPort
from hil.board.loader import SYNC_HEAD, Loader
from hil.board.netlink import Netlink
from hil.board.radio import Radio
from hil.board.relay import RelayAntenna
from hil.board.rfc2217 import Rfc2217Port
from hil.board.run import HEAP_BYTES
from hil.board.station import INSTANT, REAL, Delays, Station
from hil.board.wire import WireAntenna
from hil.board.wiring import Wiring

DEFAULT_MAC = bytes.fromhex("240ac4000001")  # 24:0a:c4 is one of Espressif's ranges

_CLASS_3_FRAME = 7  # what an access point says that has started anew
_REASONS_END = 200  # from here on they are ESP-IDF's own
_NEAR_S = 0.0015  # sooner than a timer can be trusted; the debt is kept
_DOWNLOAD_LOG = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),"
    b"boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\nwaiting for download\r\n"
)


@dataclass(frozen=True)
class Settings:
    """What a board is made of.

    Attributes:
        link: where the symbolic link to the pseudo-terminal is made.
        rfc2217: TCP port on 127.0.0.1 with DTR and RTS; 0 for any, None for no such port.
        log: file that takes all that the board sends over its serial line; None for none.
        flash: flash file that is kept; None for a blank one that goes with the board.
        radio: file with the radio model; None for an empty air.
        interfaces: the board's own WLAN interfaces, in the network namespace that it runs in;
            none: its networks are relays on loopback.
        sensors: what is wired to its I2C bus, by names of `hil.board.i2c`.
        lan: the interface of its Ethernet; None for a board without.
        control: path of the control socket; None for the link's path with ".control".
        instant: no line speed, no flash times, no radio delays.
        micropython: the unix MicroPython; None for the one on PATH or in .tools/.
        heap_bytes: its garbage-collected heap.
    """

    link: Path
    rfc2217: int | None = None
    log: Path | None = None
    flash: Path | None = None
    radio: Path | None = None
    interfaces: tuple[str, ...] = ()
    lan: str | None = None
    sensors: tuple[str, ...] = ()
    control: Path | None = None
    mac: bytes = DEFAULT_MAC
    instant: bool = False
    micropython: Path | None = None
    heap_bytes: int = HEAP_BYTES

    @property
    def control_path(self) -> Path:
        """Where the control socket is."""
        return self.control or self.link.with_name(self.link.name + ".control")


class Board:
    """A board that is there from `async with` to its end.

    Raises: FlashFileError, PortError, RadioError, ToolMissingError on entering.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.flash_path = Path()
        self.rfc2217_port: int | None = None
        self._mode = "off"
        self._sync_seen = b""
        self._loader_task: asyncio.Task[None] | None = None
        self._loader_free_at = 0.0

    async def __aenter__(self) -> Self:
        settings = self.settings
        command = [
            str(_micropython(settings.micropython)),
            "-X",
            f"heapsize={settings.heap_bytes}",
        ]
        own = settings.interfaces
        if settings.lan is not None and not own:
            raise PortError(
                f"the interface {settings.lan} cannot be the board's LAN beside relays on loopback",
                hint="name the interfaces of its WLAN, too: --interface NAME",
            )
        radio = Radio.load(settings.radio, own) if settings.radio else Radio(None, own)
        async with contextlib.AsyncExitStack() as stack:
            self.flash_path = settings.flash or self._temporary_flash(stack)
            timing = flash.INSTANT if settings.instant else flash.TYPICAL
            self._flash = Flash(self.flash_path, timing)
            stack.callback(self._flash.close)
            self._reserve_flash()
            self._line = Line(not settings.instant, self._receive)
            stack.callback(self._line.close)
            self._line.ports.append(PtyPort(self._line, settings.link, self._port_closed))
            if settings.log is not None:
                self._line.ports.append(LogPort(settings.log))
            if settings.rfc2217 is not None:
                port = Rfc2217Port(self._line, settings.rfc2217, self._lines_changed)
                self._line.ports.append(port)
                self.rfc2217_port = port.port
            delays = INSTANT if settings.instant else REAL
            netlink = Netlink() if own else None
            if netlink is not None:
                stack.callback(netlink.close)
            self.ethernet = Ethernet(netlink, settings.lan, settings.mac, delays.dhcp)
            stack.callback(self.ethernet.close)
            self.station = Station(radio, self._antenna(netlink, delays), settings.mac, delays)
            stack.callback(self.station.close)
            self.wiring = Wiring(I2cBus(settings.sensors))
            self._chip = Chip(
                self._flash,
                self._line,
                settings.mac,
                station=self.station,
                ethernet=self.ethernet,
                wiring=self.wiring,
                command=command,
                bootloader=self._enter_loader,
            )
            stack.callback(self._chip.wear.close)
            stack.callback(self._halt)
            control = ControlServer(settings.control_path, self._control)
            await stack.enter_async_context(control)
            self.power(on=True)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def power(self, *, on: bool) -> None:
        """Switch the power; off means at once, in the middle of whatever it does."""
        if on == (self._mode != "off"):
            return
        self._halt()
        if on:
            self._run(Cause.POWER_ON)
        else:
            self.wiring.bus.power_off()

    def state(self) -> dict[str, Any]:
        """Describe the board for the control socket."""
        return {
            "power": self._mode != "off",
            "mode": self._mode,
            "running": self._chip.is_running,
            "reset_cause": int(self._chip.reset_cause),
            "mac": self.settings.mac.hex(":"),
            "flash": str(self.flash_path),
            "rfc2217": self.rfc2217_port,
            "station": self.station.state(),
            "ethernet": self.ethernet.state(),
            "wear_percent": self._chip.wear.percent,
            "wiring": self.wiring.state(),
            "sensor": self.wiring.bus.state(),
            "radio": self.station.radio.document(),
        }

    def _antenna(self, netlink: Netlink | None, delays: Delays) -> Antenna:
        if netlink is None:
            return RelayAntenna(delays.lease_s)
        return WireAntenna(netlink, self.settings.interfaces, self.settings.mac, delays.dhcp)

    def _temporary_flash(self, stack: contextlib.AsyncExitStack) -> Path:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="netzpuls-board-"))
        return Path(folder) / "flash.bin"

    def _reserve_flash(self) -> None:
        try:
            fcntl.flock(self._flash.file_number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FlashFileError(
                f"flash file {self.flash_path} is in use by another board",
                hint="give each board a file of its own: --flash FILE",
            ) from error

    # Modes

    def _halt(self) -> None:
        """Stop whatever runs."""
        self._mode = "off"
        self._chip.stop()
        self._line.clear()
        if self._loader_task is not None:
            self._loader_task.cancel()
            self._loader_task = None

    def _run(self, cause: Cause) -> None:
        self._halt()
        self._mode = "run"
        self._sync_seen = b""
        self._chip.run(cause)

    def _enter_loader(self) -> None:
        self._halt()
        self._mode = "loader"
        self._decoder = slip.Decoder()
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        loader = Loader(self._flash, self.settings.mac)
        self._loader_task = task.start(self._serve_loader(loader), "loader")

    async def _serve_loader(self, loader: Loader) -> None:
        self._loader_free_at = 0.0
        while True:
            frame = await self._frames.get()
            await self._until_free()
            answer = loader.handle(frame)
            if answer is None:
                continue
            await self._busy(answer.before_us)
            self._line.write(answer.data)
            if answer.reboot:
                asyncio.get_running_loop().call_soon(self._run, Cause.POWER_ON)
                return
            self._add_busy(answer.after_us)

    def _add_busy(self, duration_us: float) -> None:
        now = asyncio.get_running_loop().time()
        self._loader_free_at = max(self._loader_free_at, now) + duration_us / 1e6

    async def _busy(self, duration_us: float) -> None:
        if duration_us:
            self._add_busy(duration_us)
            await self._until_free()

    async def _until_free(self) -> None:
        """Wait while the flash is busy; what is too short for a timer is added up."""
        left_s = self._loader_free_at - asyncio.get_running_loop().time()
        if left_s > _NEAR_S:
            await asyncio.sleep(left_s)

    # What comes from the line

    def _receive(self, data: bytes) -> None:
        if self._mode == "run":
            data = self._look_for_sync(data)
        if self._mode == "loader":
            for frame in self._decoder.feed(data):
                self._frames.put_nowait(frame)
        elif self._mode == "run":
            self._chip.type(data)

    def _look_for_sync(self, data: bytes) -> bytes:
        """Enter the loader when esptool calls: a pty has no lines that could say so."""
        seen = self._sync_seen + data
        at = seen.find(SYNC_HEAD)
        if at < 0:
            self._sync_seen = seen[1 - len(SYNC_HEAD) :]
            return data
        self._enter_loader()
        return seen[at:]

    def _port_closed(self) -> None:
        """Start the program when esptool has gone: a pty has no lines that could say so."""
        if self._mode == "loader":
            self._run(Cause.POWER_ON)

    def _lines_changed(self, dtr: bool, rts: bool) -> None:
        """Follow the usual circuit: RTS without DTR pulls EN, DTR at its end pulls IO0."""
        if self._mode == "off":
            return
        if rts and not dtr:
            self._halt()
            self._mode = "reset"
        elif self._mode == "reset" and not rts:
            if dtr:
                self._enter_loader()
                self._line.write(_DOWNLOAD_LOG)
            else:
                self._run(Cause.POWER_ON)

    # What comes from the control socket

    def _control(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._operations[operation](request)
        self.station.refresh()
        return answer or {}

    @property
    def _operations(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]]:
        radio = self.station.radio
        return {
            "state": lambda _: {"state": self.state()},
            "radio": lambda request: radio.set(request["set"]),
            "access-point": self._change_point,
            "line": self._switch_line,
            "kick": self._kick,
            "power": self._switch_power,
            "sensor": lambda request: self.wiring.bus.change(request["name"], request["change"]),
            "wear": self._wear_out,
        }

    def _change_point(self, request: dict[str, Any]) -> None:
        self.station.radio.change(request["ssid"], request["change"], request.get("bssid"))

    def _switch_line(self, request: dict[str, Any]) -> None:
        self.station.radio.change(request["ssid"], {"network": {"line_up": request["up"]}})

    def _switch_power(self, request: dict[str, Any]) -> None:
        self.power(on=_flag(request, "on"))

    def _wear_out(self, request: dict[str, Any]) -> None:
        percent = request.get("percent", 100)
        if type(percent) is not int or not 0 < percent <= 100:
            raise ControlError("percent must be a whole number from 1 to 100")
        self._chip.wear.set(percent if _flag(request, "failing") else 0)

    def _kick(self, request: dict[str, Any]) -> dict[str, Any]:
        reason = request.get("reason", _CLASS_3_FRAME)
        if type(reason) is not int or not 0 < reason < _REASONS_END:
            raise ControlError(f"reason must be a whole number from 1 to {_REASONS_END - 1}")
        return {"kicked": self.station.kick(request["ssid"], request.get("bssid"), reason)}


def _flag(request: dict[str, Any], name: str) -> bool:
    value = request[name]
    if not isinstance(value, bool):
        raise ControlError(f"{name} must be true or false")
    return value


async def serve(settings: Settings, ready: Callable[[Board], None]) -> None:
    """Run a board until cancelled or until it fails; call `ready` once it can be used."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def fail(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not failed.done():
            failed.set_exception(context.get("exception") or RuntimeError(context["message"]))

    async with Board(settings) as board:
        loop.set_exception_handler(fail)
        ready(board)
        await failed


def _micropython(path: Path | None) -> Path:
    if path is None:
        return tool.find("micropython")
    if not os.access(path, os.X_OK) or path.is_dir():
        raise ToolMissingError(
            f"{path} is no program that can be run", hint="name a unix MicroPython: --micropython"
        )
    return path
