"""A cable with faults: frames between two interfaces, late, jittered or lost.

Stands in for the kernel's netem where that is missing. The frames are real and whole; only when,
and whether, they go on is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hil.lab.loop import Loop
from hil.lab.namespace import Namespace

ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_FRAME_BYTES = 65535
_BURST = 64


@dataclass(frozen=True)
class Impairment:
    """What happens to the frames of one direction: half of what a round trip suffers.

    Attributes: `delay_ms`, plus up to `jitter_ms` more or less; `loss`: the share that is lost.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0


def packet_socket(
    namespace: Namespace, interface: str, *, both_ways: bool = False
) -> socket.socket:
    """Return a socket that sees and sends the frames of one interface.

    It sees what comes in; with `both_ways` also what goes out.
    """
    found = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)  # deaf until it is bound
    if not both_ways:
        found.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    found.bind((interface, ETH_P_ALL))
    found.setblocking(False)
    return found


def drained(sock: socket.socket) -> Iterator[bytes]:
    """Yield the frames that wait."""
    for _ in range(_BURST):
        try:
            yield sock.recv(_FRAME_BYTES)
        except OSError:  # no more, or the interface is down
            return


class Relay:
    """Joins two interfaces of a namespace from its start to `close`."""

    def __init__(
        self, loop: Loop, namespace: Namespace, ends: tuple[str, str], impairment: Impairment
    ) -> None:
        self._loop = loop
        self._impairment = impairment
        self._sockets = [packet_socket(namespace, end) for end in ends]
        self._random = random.Random(ends[0])  # noqa: S311 - chance that repeats, not a secret
        loop.call(self._start)

    def _start(self) -> None:
        one, other = self._sockets
        running = asyncio.get_running_loop()
        for source, sink in ((one, other), (other, one)):
            running.add_reader(source, self._reader(source, sink))

    def _reader(self, source: socket.socket, sink: socket.socket) -> Callable[[], None]:
        running = asyncio.get_running_loop()
        last_s = 0.0

        def read() -> None:
            nonlocal last_s
            for frame in drained(source):
                if self._random.random() < self._impairment.loss:
                    continue
                spread_ms = self._impairment.jitter_ms
                late_ms = self._impairment.delay_ms + self._random.uniform(-spread_ms, spread_ms)
                # A cable keeps the order.
                last_s = max(last_s, running.time() + late_ms / 1000)
                running.call_at(last_s, self._send, sink, frame)

        return read

    @staticmethod
    def _send(sink: socket.socket, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile, down, full: lost, as frames are
            sink.send(frame)

    def close(self) -> None:
        """Stop; what is on the way is lost."""
        self._loop.call(self._stop)

    def _stop(self) -> None:
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
