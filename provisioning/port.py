"""The serial port: taken for one program at a time; its reset line, if it has one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import serial
from serial import rfc2217
from serial.tools import list_ports

from fleet.text import printable
from provisioning.errors import PortBusyError, PortDeniedError, PortMissingError

CONSOLE_BAUD = 115200

READ_S = 3.0
# Also what a port on a gateway is called: rfc2217://gw-mitte/dev/ttyUSB0, see `remote`. esptool
# tells by this beginning that there is no file behind it.
RFC2217 = "rfc2217://"

_RESET_S = 0.1
_BOARDS_VIDS = {
    0x10C4,  # Silicon Labs: CP210x
    0x1A86,  # WCH: CH34x
    0x0403,  # FTDI
    0x303A,  # Espressif: the chips' own USB
}
_LIKE = "a port is like /dev/ttyUSB0 or rfc2217://host:port"


@dataclass(frozen=True)
class Adapter:
    """A serial port that is plugged in.

    Attributes:
        usb: the adapter's serial number, "" if it has none or is not on USB.
        name: what the adapter calls itself.
    """

    port: str
    usb: str = ""
    name: str = ""


def plugged(named: Sequence[str], *, others: bool) -> list[Adapter]:
    """Return the ports that are there, each once.

    Args:
        named: ports that somebody named; one by a URL counts as there.
        others: look for USB adapters that boards come with, too.
    """
    known = {each.device: each for each in list_ports.comports()}
    found: dict[str, Adapter] = {}
    for name in named:
        if "://" in name or Path(name).exists():
            device = os.path.realpath(name)
            found.setdefault(device, _adapter(name, known.get(device)))
    if others:
        for device in sorted(known, key=_in_order):
            if known[device].vid in _BOARDS_VIDS:
                found.setdefault(device, _adapter(device, known[device]))
    return list(found.values())


def listed(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """Return ports as `--json` prints them."""
    return {
        "ports": [
            {"port": each.port, "usb": each.usb or None, "name": each.name or None}
            for each in adapters
        ]
    }


def _in_order(device: str) -> list[tuple[int, str]]:
    """Return a key that puts ttyUSB10 behind ttyUSB9."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", device)]


def _adapter(port: str, info: Any | None) -> Adapter:
    if info is None:
        return Adapter(port)
    return Adapter(port, printable(info.serial_number or ""), printable(info.product or ""))


def check(name: str) -> None:
    """Check a port as far as that goes without opening it.

    Opening would raise DTR and RTS, which restarts some boards.

    Raises: PortMissingError, PortDeniedError: it is not there, or is not for this user.
    """
    if "://" in name:
        return
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.EACCES:
            raise _denied(name) from None
        there = ", ".join(sorted(port.device for port in list_ports.comports()))
        raise PortMissingError(
            f"there is no port {name}",
            hint=f"ports there: {there}" if there else "plug the board in: there is no serial port",
        ) from None
    if not stat.S_ISCHR(mode):
        raise PortDeniedError(f"{name} is no serial port", hint=_LIKE)
    if not os.access(path, os.R_OK | os.W_OK):
        raise _denied(name)


def open_port(name: str) -> serial.Serial:
    """Open a port for this program alone.

    Raises: PortMissingError, PortDeniedError, PortBusyError: as they say.
    """
    check(name)
    try:
        port = _closed_port(name)
        port.baudrate = CONSOLE_BAUD
        port.timeout = READ_S
        port.open()
    except serial.SerialException as error:
        raise _cannot_open(name, error) from None
    except (ValueError, OSError, termios.error) as error:
        raise PortMissingError(f"cannot open the port {name}: {error}", hint=_LIKE) from None
    return port


def reset(port: serial.Serial) -> None:
    """Start the board behind an open port anew by its reset line.

    Raises: OSError, termios.error: the port went away.
    """
    port.baudrate = CONSOLE_BAUD
    # RTS pulls EN low; with DTR released IO0 says "run" when EN rises.
    port.dtr = False
    port.rts = True
    time.sleep(_RESET_S)
    port.reset_input_buffer()
    port.rts = False


def has_reset_line(port: serial.Serial) -> bool:
    """Tell whether DTR and RTS reach a board, as far as the port knows."""
    if "://" in str(port.port):
        return str(port.port).startswith(RFC2217)
    try:
        fcntl.ioctl(port.fileno(), termios.TIOCMGET, bytes(4))
    except OSError:
        return False
    return True


class RemotePort(rfc2217.Serial):
    """A port by RFC 2217 that negotiates with its server only what has changed.

    pyserial negotiates everything anew, with pauses of 50 ms, when a timeout is set, and
    esptool sets one around each command: the board would take a minute instead of seconds.
    """

    _negotiated: tuple[object, ...] | None = None

    def open(self) -> None:
        """Open it; raises as pyserial does."""
        self._negotiated = None
        super().open()

    def close(self) -> None:
        """Close it, also where the server was first, which pyserial forgets."""
        opened = getattr(self, "_socket", None)
        super().close()
        if opened is not None:
            opened.close()

    def _reconfigure_port(self) -> None:
        wanted = (self.baudrate, self.bytesize, self.parity, self.stopbits)
        if wanted != self._negotiated or self.write_timeout is not None:
            super()._reconfigure_port()  # type: ignore[misc]
            self._negotiated = wanted


def reach(gateway_id: str, make: Callable[[], serial.Serial]) -> None:
    """Say how ports behind a gateway are made, from now on and in this process."""
    _gateways[gateway_id] = make


_gateways: dict[str, Callable[[], serial.Serial]] = {}


def _closed_port(name: str) -> serial.Serial:
    gateway_id = name.removeprefix(RFC2217).partition("/")[0]
    if name.startswith(RFC2217) and gateway_id in _gateways:
        made = _gateways[gateway_id]()
        made.port = name
        return made
    if not name.startswith(RFC2217):
        return serial.serial_for_url(name, do_not_open=True, exclusive=True)
    port: Any = RemotePort()
    port.port = name
    return cast("serial.Serial", port)


def _denied(name: str) -> PortDeniedError:
    return PortDeniedError(
        f"you may not open the port {name}",
        hint="sudo usermod -aG dialout $USER, then log in again",
    )


def _cannot_open(name: str, error: serial.SerialException) -> Exception:
    if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
        return PortBusyError(
            f"the port {name} is in use by another program",
            hint="close the terminal, mpremote or esptool that has it open",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return _denied(name)
    cause = error.__context__
    if isinstance(cause, termios.error) and cause.args[0] == errno.ENOTTY:
        return PortDeniedError(f"{name} is no serial port", hint=_LIKE)
    if error.errno == errno.ENOENT:
        return PortMissingError(f"there is no port {name}", hint="plug the board in")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return PortMissingError(
        f"cannot open the port {name}: {reason}", hint="is the board plugged in?"
    )
