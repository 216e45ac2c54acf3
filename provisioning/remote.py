"""The desk's serial ports that are on a gateway: carried here over SSH, and used like any other.

    gateway = reach(city, "gw-mitte")
    port.open_port(gateway.name("/dev/ttyUSB0"))      # rfc2217://gw-mitte/dev/ttyUSB0

All work is done here, and CA, registry and journal stay here. At the gateway runs only
`netzpuls board relay`, on the stdin and stdout of its own SSH channel: no port is opened there for
others to connect to. Here it is a port on loopback that takes one connection, this process's own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import split
from typing import Any, cast

import serial

from fleet import inventory, login
from fleet.errors import HostError, HostKeyError, NetzpulsError
from fleet.ssh import Deadlines, Host, Session
from fleet.text import printable
from provisioning import port, session
from provisioning.errors import RemoteError
from provisioning.port import Adapter, RemotePort
from provisioning.relay import ALIVE, EVERY_S, GOODBYE, READY, SILENCE_S

SESSION_S = 3600.0
ROUND_TRIP_S = 0.5  # of a line that boards are still worked on over

_END_S = 3.0
_POLL_S = 0.005
_ACCEPT_S = 10.0
_READ_BYTES = 64 * 1024
_MOST_LISTED_BYTES = 256 * 1024
_AGAIN_S = 5.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Gateway:
    """A gateway whose ports can be used.

    Attributes:
        command: how Netzpuls is called there.
    """

    host: Host
    command: tuple[str, ...]

    def name(self, there: str) -> str:
        """Return what a port of the gateway is called here."""
        return f"{port.RFC2217}{self.host.id}/{there.removeprefix('/')}"

    def ports(self, named: Sequence[str] = (), *, others: bool) -> Ports:
        """Return what finds the ports there, as `port.plugged` does those that are here."""
        return Ports(self, named, others=others)


class Ports:
    """The ports of a gateway, which says whenever they change.

    A line that is cut is made again; what was there last counts meanwhile.
    """

    def __init__(self, gateway: Gateway, named: Sequence[str], *, others: bool) -> None:
        self._gateway = gateway
        self._named = named
        options = [part for each in named for part in ("--port", each)]
        self._asked = ["board", "watch", *options, *(["--all"] if others else [])]
        self._found: list[Adapter] = []
        self._error: NetzpulsError | None = None
        self._heard = threading.Event()
        self._ended = threading.Event()
        self._session: Session | None = None
        self._thread: threading.Thread | None = None

    def now(self) -> list[Adapter]:
        """Return the ports that are there; waits for the first word.

        Raises: HostError, RemoteError: the gateway cannot be asked, or its answer is unusable.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="ports", daemon=True)
            self._thread.start()
        self._heard.wait()
        if self._error:
            raise self._error
        return self._found

    def close(self) -> None:
        """Ask no longer."""
        self._ended.set()
        if self._session:
            self._session.close()
        if self._thread:
            self._thread.join(_END_S)

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except NetzpulsError as error:
                if not self._heard.is_set():
                    self._error = error
                    self._heard.set()
                    return
            except Exception:  # whatever it is: nobody waits in vain
                if not self._heard.is_set():
                    self._error = self._unclear()
                    self._heard.set()
                raise
            self._ended.wait(_AGAIN_S)

    def _listen(self) -> None:
        gateway = self._gateway
        with Session(gateway.host, _deadlines()) as there:
            self._session = there
            with there.command([*gateway.command, *self._asked]) as command:
                while line := command.stdout.readline(_MOST_LISTED_BYTES):
                    self._found = self._listed(line)
                    self._heard.set()
                command.finish()
        raise self._unclear()

    def _listed(self, line: bytes) -> list[Adapter]:
        try:
            return [
                Adapter(
                    self._gateway.name(self._path(each["port"])),
                    _text(each["usb"]),
                    _text(each["name"]),
                )
                for each in json.loads(line)["ports"]
            ]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._unclear() from None

    def _path(self, value: object) -> str:
        if not isinstance(value, str) or value != printable(value):
            raise ValueError
        if value not in self._named and not value.startswith("/dev/"):
            raise ValueError
        return value

    def _unclear(self) -> RemoteError:
        return RemoteError(
            f"{self._gateway.host.label} does not say which ports it has",
            hint="is Netzpuls there as new as here?",
        )


def reach(city: Path, gateway_id: str) -> Gateway:
    """Make a gateway's ports known to `port.open_port`.

    Raises: NetzpulsError: the inventory has no such gateway.
    """
    known = inventory.load(city)
    command = tuple(split(known.gateway(gateway_id).command))
    gateway = Gateway(login.host_of(known, gateway_id), command)
    session.be_patient(ROUND_TRIP_S)
    port.reach(gateway_id, lambda: cast("serial.Serial", _GatewayPort(gateway)))
    return gateway


def _deadlines() -> Deadlines:
    return Deadlines(silence_s=SILENCE_S, session_s=SESSION_S)


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""


class _GatewayPort(RemotePort):
    """A port by RFC 2217 whose server is at the other end of an SSH session."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._relay: _Relay | None = None
        self._alive = threading.Event()
        super().__init__()

    def open(self) -> None:
        there = str(self.port).removeprefix(f"{port.RFC2217}{self._gateway.host.id}/")
        self._relay = relay = _Relay(
            self._gateway, there if "://" in there else f"/{there}", self._own_address
        )
        relay.start()
        try:
            super().open()
        except BaseException:
            relay.close()
            raise
        self._alive.clear()
        threading.Thread(target=self._say_alive, daemon=True).start()

    def from_url(self, _url: str) -> tuple[str, int]:
        """Return where the relay is on this machine."""
        assert self._relay is not None  # noqa: S101 - `open` has just made it
        return self._relay.address

    def _own_address(self) -> tuple[str, int] | None:
        connected: Any = getattr(self, "_socket", None)
        with contextlib.suppress(OSError):
            return cast("tuple[str, int]", connected.getsockname()) if connected else None
        return None

    def close(self) -> None:
        self._alive.set()
        if self.is_open:
            with contextlib.suppress(OSError, AttributeError):
                self._tell(GOODBYE)
        super().close()
        if self._relay:
            self._relay.close()
            self._relay = None

    def _tell(self, command: bytes) -> None:
        """Tell the relay something, never in the midst of what is for the board."""
        write: Any = self._internal_raw_write  # type: ignore[attr-defined]
        write(command)

    def _say_alive(self) -> None:
        while not self._alive.wait(EVERY_S):
            with contextlib.suppress(OSError, AttributeError):
                self._tell(ALIVE)


class _Relay:
    """One port's way over SSH, from a loopback port of this user to the command at the gateway."""

    def __init__(
        self, gateway: Gateway, there: str, own: Callable[[], tuple[str, int] | None]
    ) -> None:
        """Take the gateway, the port there, and what tells where our connection comes from."""
        self._gateway = gateway
        self._there = there
        self._own = own
        self._stack = contextlib.ExitStack()
        self._command: Any = None
        self._near: socket.socket | None = None
        self.address = (_LOOPBACK, 0)

    def start(self) -> None:
        """Log in, have the port opened there, and wait for a connection here.

        Raises:
            HostError: the gateway cannot be reached.
            RemoteError: it refuses the port.
        """
        host = self._gateway.host
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(Session(host, _deadlines()))
            asked = ["board", "relay", "--port", self._there, "--silence", f"{SILENCE_S:g}"]
            command = stack.enter_context(there.command([*self._gateway.command, *asked]))
            self._command = command
            if command.stdout.readline(len(READY)) != READY:
                self._explain(command)
            listener = stack.enter_context(socket.create_server((_LOOPBACK, 0)))
            self.address = listener.getsockname()
            threading.Thread(target=self._serve, args=(listener, command), daemon=True).start()
            self._stack = stack.pop_all()

    def _explain(self, command: Any) -> None:
        host = self._gateway.host
        try:
            command.finish()
        except HostKeyError:
            raise
        except HostError as error:
            raise RemoteError(error.message, hint=error.hint) from None
        raise RemoteError(
            f"{host.label} does not carry its port {self._there}",
            hint="is Netzpuls there as new as here?",
        )

    def close(self) -> None:
        """End it: the port at the gateway is free when this returns, if the line still carries."""
        if self._near:
            with contextlib.suppress(OSError):
                self._near.shutdown(socket.SHUT_RDWR)
        if self._command:
            self._command.end(_END_S)
        self._stack.close()

    def _serve(self, listener: socket.socket, command: Any) -> None:
        listener.settimeout(_ACCEPT_S)
        try:
            near, address = listener.accept()
            while address != self._expected():
                near.close()  # another user of this machine
                near, address = listener.accept()
        except OSError:
            return
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._near = near
        with near:
            back = threading.Thread(target=self._bring, args=(near, command), daemon=True)
            back.start()
            with contextlib.suppress(OSError, HostError):
                while data := near.recv(_READ_BYTES):
                    command.write(data)
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)
            back.join(_END_S)

    def _expected(self) -> tuple[str, int] | None:
        """Wait until our own end has connected; return its address, None if it does not."""
        until = time.monotonic() + _ACCEPT_S
        while self._own() is None and time.monotonic() < until:
            time.sleep(_POLL_S)
        return self._own()

    @staticmethod
    def _bring(near: socket.socket, command: Any) -> None:
        """Bring what comes from the gateway; where that ends, the port does."""
        with contextlib.suppress(OSError, HostError, ValueError):
            while data := command.stdout.read1(_READ_BYTES):
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
