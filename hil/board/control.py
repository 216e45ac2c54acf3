"""The control socket: changes the air around a board and its power while it runs.

A unix-domain socket, JSON lines. One request, one answer: {"ok": true, …} or
{"ok": false, "error": "…"}.

    {"op": "state"}
    {"op": "radio", "set": {"access_points": […]}}
    {"op": "access-point", "ssid": "school-north", "change": {"rssi_dbm": -85, "up": true}}
    {"op": "line", "ssid": "school-north", "up": false}
    {"op": "kick", "ssid": "school-north", "reason": 6}
    {"op": "power", "on": false}
    {"op": "sensor", "name": "air", "change": {"co2_ppm": 1450}}
    {"op": "wear", "failing": true, "percent": 20}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from fleet.errors import NetzpulsError
from hil.board.error import ControlError, PortError

OPERATIONS = ("state", "radio", "access-point", "line", "kick", "power", "sensor", "wear")
_LINE_LIMIT_BYTES = 1 << 20
_PATH_LIMIT_BYTES = 107  # of a unix socket
_ANSWER_S = 10.0


class ControlServer:
    """Serves requests from the moment it is entered.

    Raises: PortError: the socket cannot be made.
    """

    def __init__(self, path: Path, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        if len(os.fsencode(self._path)) > _PATH_LIMIT_BYTES:
            raise PortError(
                f"the path of the control socket is too long: {self._path}",
                hint=f"name one of at most {_PATH_LIMIT_BYTES} bytes: --control PATH",
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError as error:
            listener.close()
            raise PortError(
                f"the control socket {self._path} cannot be made: {error.strerror}",
                hint="choose another one, or remove it if its board is gone: --control PATH",
            ) from error
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=_LINE_LIMIT_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError) as error:  # a line without end; a client gone
            with contextlib.suppress(ConnectionError):
                writer.write(json.dumps({"ok": False, "error": str(error)}).encode() + b"\n")
        finally:
            self._clients.discard(writer)
            writer.close()

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = request["op"]
            if operation not in OPERATIONS:
                raise ControlError(
                    f"no operation {operation!r}; there are: {', '.join(OPERATIONS)}"
                )
            return {"ok": True} | self._answer(operation, request)
        except NetzpulsError as error:
            return {"ok": False, "error": error.message}
        except KeyError as error:
            return {"ok": False, "error": f"the request lacks the key {error}"}
        except (ValueError, TypeError, RecursionError) as error:
            return {"ok": False, "error": f"not a request: {error}"}


class ControlClient:
    """Steers a board from another process; each call is one request.

    Raises: ControlError: the board is not there, or refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Send one request; return its answer."""
        document = json.dumps({"op": operation} | request).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_ANSWER_S)
                channel.connect(str(self._path))
                channel.sendall(document)
                with channel.makefile("rb") as answers:
                    answer = json.loads(answers.readline())
        except (OSError, ValueError) as error:
            raise ControlError(
                f"no board answers at {self._path}: {error}", hint="is it running?"
            ) from error
        if not answer.pop("ok"):
            raise ControlError(f"the board at {self._path} refused {operation}: {answer['error']}")
        return dict(answer)

    def state(self) -> dict[str, Any]:
        """Return what the board says of itself."""
        return dict(self.call("state")["state"])

    def set_radio(self, document: dict[str, Any]) -> None:
        """Replace the radio model."""
        self.call("radio", set=document)

    def change(self, ssid: str, **change: Any) -> None:
        """Change all access points of a name: rssi_dbm=-85, up=False, network={…}."""
        self.call("access-point", ssid=ssid, change=change)

    def line(self, ssid: str, *, up: bool) -> None:
        """Cut or restore the internet line behind an access point."""
        self.call("line", ssid=ssid, up=up)

    def kick(self, ssid: str, reason: int = 7) -> bool:
        """Let an access point deauthenticate the board; tell whether it was there."""
        return bool(self.call("kick", ssid=ssid, reason=reason)["kicked"])

    def power(self, *, on: bool) -> None:
        """Switch the board's power."""
        self.call("power", on=on)

    def sensor(self, name: str, **change: Any) -> None:
        """Change the air that sensors measure ("air": co2_ppm=1450), or a fault of one."""
        self.call("sensor", name=name, change=change)

    def wear(self, *, failing: bool, percent: int = 100) -> None:
        """Let a share of the file system's sectors refuse writes, or mend them."""
        self.call("wear", failing=failing, percent=percent)
