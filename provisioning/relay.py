"""A serial port carried over the stdin and stdout of one command, for a desk that is elsewhere.

    netzpuls board relay --port /dev/ttyUSB0        run on a gateway over SSH, see `remote`
    netzpuls board watch --all                      so is this; it says which ports there are

It speaks RFC 2217 (pyserial's own server), so that speed, DTR and RTS are the desk's to set. It
ends with its stdin, or when nothing came for a while: a line that died without a word must not
hold the port. If it was not told goodbye the board is started anew, so that none is left waiting
in its boot loader.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import termios
import threading
import time
from collections.abc import Sequence
from typing import Any

import serial
from serial import rfc2217

from provisioning import port
from provisioning.errors import RemoteError

READY = b"NETZPULS RELAY 1\n"
ALIVE = b"\xff\xf1"  # Telnet's NOP: both sides say it when they have nothing to say
GOODBYE = b"\xff\xec"  # Telnet's EOF
EVERY_S = 5.0
SILENCE_S = 20.0
LOOK_S = 1.0

_READ_BYTES = 64 * 1024
_LINE_S = 0.05
_LEAVE_S = 5.0


def serve(name: str, heard: int, told: int, silence_s: float = SILENCE_S) -> None:
    """Carry a port until the desk goes.

    Args:
        name: the port.
        heard: file descriptor from the desk.
        told: file descriptor to it.
        silence_s: after so long without a word from it, it is gone.

    Raises: BenchError: the port cannot be opened, or goes away.
    """
    line = port.open_port(name)
    line.timeout = _LINE_S
    desk = _Desk(told, silence_s)
    manager: _Manager | None = None
    ended = threading.Event()
    reader = threading.Thread(target=_carry, args=(line, desk, ended), daemon=True)
    try:
        desk.write(READY)
        manager = _Manager(line, desk)
        reader.start()
        while not ended.is_set() and not manager.said_goodbye:
            if not select.select([heard], [], [], silence_s)[0]:
                break
            data = os.read(heard, _READ_BYTES)
            if not data:
                break
            for byte in manager.filter(data):
                manager.pending += byte
            manager.flush()
    except (OSError, termios.error):
        ended.set()
    finally:
        went_away = ended.is_set() and not desk.is_gone
        ended.set()
        desk.leave()
        if reader.ident is not None:
            reader.join(_LEAVE_S)
        if not (manager and manager.said_goodbye) and not went_away:
            with contextlib.suppress(OSError, termios.error):
                if port.has_reset_line(line):
                    port.reset(line)
        with contextlib.suppress(OSError, termios.error):
            line.close()
    if went_away:
        raise RemoteError(f"the port {name} went away", hint="check the cable there")


def watch(named: Sequence[str], heard: int, told: int, *, others: bool) -> None:
    """Say which ports there are, one line of JSON when they change, until the desk goes.

    Args:
        named: ports that somebody named.
        heard: file descriptor from the desk.
        told: file descriptor to it.
        others: look for USB adapters that boards come with, too.
    """
    said, said_at = b"", -EVERY_S
    while True:
        listed = json.dumps(port.listed(port.plugged(named, others=others))).encode() + b"\n"
        now = time.monotonic()
        if listed != said or now - said_at >= EVERY_S:
            try:
                os.write(told, listed)
            except OSError:
                return
            said, said_at = listed, now
        if select.select([heard], [], [], LOOK_S)[0] and not os.read(heard, _READ_BYTES):
            return


def _carry(line: serial.Serial, desk: _Desk, ended: threading.Event) -> None:
    """Bring what the board says to the desk, and that this end lives."""
    quiet_s = 0.0
    while not ended.is_set():
        try:
            data = line.read(max(1, line.in_waiting))
            quiet_s = 0.0 if data else quiet_s + _LINE_S
            if data:
                desk.write(data.replace(b"\xff", b"\xff\xff"))
            elif quiet_s >= EVERY_S:
                quiet_s = 0.0
                desk.write(ALIVE)
        except (OSError, termios.error):
            ended.set()


class _Desk:
    """The way to the desk, for two threads. A desk that takes nothing for too long is gone."""

    def __init__(self, descriptor: int, silence_s: float) -> None:
        self.is_gone = False
        self._descriptor = descriptor
        self._silence_s = silence_s
        self._lock = threading.Lock()

    def leave(self) -> None:
        """Have whoever waits for the desk wait no longer."""
        self.is_gone = True

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises: OSError: the desk is gone.
        """
        with self._lock:
            rest = memoryview(data)
            while rest:
                self._await()
                try:
                    # No more than a pipe that has room is sure to take at once.
                    rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]
                except OSError:
                    self.is_gone = True
                    raise

    def _await(self) -> None:
        until = time.monotonic() + self._silence_s
        while not self.is_gone:
            if select.select([], [self._descriptor], [], _LINE_S)[1]:
                return
            self.is_gone = time.monotonic() > until
        raise BrokenPipeError


class _Manager(rfc2217.PortManager):
    """pyserial's server; what came before a change of speed or lines goes out before it."""

    def __init__(self, line: Any, desk: Any) -> None:
        self.pending = bytearray()
        self.said_goodbye = False
        super().__init__(line, desk)

    def flush(self) -> None:
        """Write what came for the board."""
        if self.pending:
            self.serial.write(bytes(self.pending))
            self.pending.clear()

    def check_modem_lines(self, force_notification: bool = False) -> None:
        """Do not look: no board drives them."""

    def _telnet_process_subnegotiation(self, suboption: bytes) -> None:
        if self.pending:
            self.flush()
            self.serial.flush()
        super()._telnet_process_subnegotiation(suboption)  # type: ignore[misc]

    def _telnet_process_command(self, command: Any) -> None:
        self.said_goodbye = self.said_goodbye or command == GOODBYE[1:]
