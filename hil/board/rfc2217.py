"""A serial port over TCP with DTR and RTS (RFC 2217, Telnet Com Port Control Option).

esptool --port rfc2217://127.0.0.1:PORT flash-id
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable

from hil.board import task
from hil.board.error import PortError
from hil.board.line import DEFAULT_BAUD, Line

_IAC, _SE, _SB = 0xFF, 0xF0, 0xFA
_WILL, _WONT, _DO, _DONT = 0xFB, 0xFC, 0xFD, 0xFE
_BINARY, _SUPPRESS_GO_AHEAD, _COM_PORT = 0, 3, 44
_AGREED = (_BINARY, _SUPPRESS_GO_AHEAD, _COM_PORT)

_SIGNATURE, _SET_BAUD, _SET_CONTROL, _PURGE = 0, 1, 5, 12
_SERVER = 100  # the server's answer to command n is n + 100
_DTR_ON, _DTR_OFF, _RTS_ON, _RTS_OFF = 8, 9, 11, 12
_SUBOPTION_LIMIT_BYTES = 256
_SUBOPTION_END = re.compile(rb"(?:[^\xff]|\xff\xff)*?\xff\xf0")  # escaped 0xFF inside


class TelnetDecoder:
    """Splits a Telnet stream into data, negotiations and suboptions."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, stream: bytes) -> list[tuple[str, bytes]]:
        """Return what came, in order: ("data" | "negotiate" | "suboption", bytes)."""
        items: list[tuple[str, bytes]] = []
        self._rest += stream
        while self._rest:
            item, used = _first_item(self._rest)
            if not used:
                if len(self._rest) > _SUBOPTION_LIMIT_BYTES:
                    self._rest = b""  # a suboption without end
                break
            self._rest = self._rest[used:]
            if item is not None:
                items.append(item)
        return items


def _first_item(stream: bytes) -> tuple[tuple[str, bytes] | None, int]:
    """Return the first item and how many bytes it takes; 0 while it is not complete."""
    start = stream.find(_IAC)
    if start:  # data up to the first command
        data = stream if start < 0 else stream[:start]
        return ("data", data), len(data)
    if len(stream) < 2:
        return None, 0
    command = stream[1]
    if command == _IAC:
        return ("data", stream[:1]), 2
    if command in (_WILL, _WONT, _DO, _DONT):
        return (("negotiate", stream[1:3]), 3) if len(stream) > 2 else (None, 0)
    if command != _SB:
        return None, 2
    end = _SUBOPTION_END.search(stream, 2)
    if end is None:
        return None, 0
    return ("suboption", stream[2 : end.end() - 2].replace(b"\xff\xff", b"\xff")), end.end()


class Rfc2217Port:
    """Serves one host at a time on loopback; tells the board when DTR or RTS change.

    Raises: PortError: the TCP port is in use.
    """

    def __init__(self, line: Line, port: int, lines_changed: Callable[[bool, bool], None]) -> None:
        self._line = line
        self._lines_changed = lines_changed
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            self._listener.close()
            raise PortError(
                f"TCP port {port} of 127.0.0.1 is not free: {error}",
                hint="choose another one, or 0 for any free one: --rfc2217 0",
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._host: socket.socket | None = None
        self._task = task.start(self._serve(), "rfc2217")

    @property
    def pending_bytes(self) -> int:
        """Nothing: what the host's socket does not take at once is lost, as on a real line."""
        return 0

    def close(self) -> None:
        """Stop serving."""
        self._task.cancel()
        self._listener.close()
        if self._host is not None:
            self._host.close()

    def write(self, data: bytes) -> None:
        """Hand bytes to the host, or drop them if none is connected or it does not read."""
        self._send(data.replace(b"\xff", b"\xff\xff"))

    def _send(self, data: bytes) -> None:
        if self._host is not None:
            try:
                self._host.send(data)
            except OSError:
                return  # its reader will learn that it is gone

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._host, _ = await loop.sock_accept(self._listener)
            self._host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await self._talk(self._host)
            except ConnectionError:
                pass  # a host that goes away in the middle is as good as one that closes
            finally:
                self._host.close()
                self._host = None

    async def _talk(self, host: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        decoder = TelnetDecoder()
        self._dtr = self._rts = False
        self._line.baud = DEFAULT_BAUD
        while stream := await loop.sock_recv(host, 4096):
            for kind, item in decoder.feed(stream):
                if kind == "data":
                    await self._receive(item)
                elif kind == "negotiate":
                    self._negotiate(item[0], item[1])
                elif len(item) >= 2 and item[0] == _COM_PORT:
                    self._com_port(item[1], item[2:])

    async def _receive(self, data: bytes) -> None:
        step = self._line.slice_bytes
        for start in range(0, len(data), step):
            wait_s = self._line.incoming(data[start : start + step])
            if wait_s:
                await asyncio.sleep(wait_s)

    def _negotiate(self, verb: int, option: int) -> None:
        agree = option in _AGREED
        if verb == _DO:
            self._send(bytes((_IAC, _WILL if agree else _WONT, option)))
        elif verb == _WILL:
            self._send(bytes((_IAC, _DO if agree else _DONT, option)))

    def _com_port(self, command: int, value: bytes) -> None:
        if command == _SIGNATURE:
            value = b"Netzpuls virtual board"
        elif command == _SET_BAUD and len(value) == 4:
            self._line.baud = int.from_bytes(value, "big") or self._line.baud
            value = self._line.baud.to_bytes(4, "big")
        elif command == _SET_CONTROL and len(value) == 1:
            self._control(value[0])
        answer = bytes((_COM_PORT, command + _SERVER & 0xFF)) + value
        escaped = answer.replace(b"\xff", b"\xff\xff")
        self._send(bytes((_IAC, _SB)) + escaped + bytes((_IAC, _SE)))

    def _control(self, value: int) -> None:
        if value in (_DTR_ON, _DTR_OFF):
            self._dtr = value == _DTR_ON
        elif value in (_RTS_ON, _RTS_OFF):
            self._rts = value == _RTS_ON
        else:
            return
        self._lines_changed(self._dtr, self._rts)
