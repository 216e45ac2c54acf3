"""A line between city hall and a host that can be cut or frozen at a byte, on loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from types import TracebackType
from typing import Self


class Line:
    """Forwards TCP connections to `port`; what comes back can be limited.

    Attributes:
        cut_after: bytes from the host after which each connection breaks.
        freeze_after: bytes from the host after which nothing moves any more, either way.
        delay_s: how long each piece is held up.
    """

    def __init__(
        self,
        port: int,
        *,
        cut_after: int | None = None,
        freeze_after: int | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.delay_s = delay_s
        self._to = port
        self.cut_after = cut_after
        self.freeze_after = freeze_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._frozen: set[threading.Thread] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def freeze_open(self) -> None:
        """Let nothing move any more on connections that are open now; new ones work."""
        self._frozen.update(self._threads)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                thread = threading.Thread(target=self._forward, args=(self._listener.accept()[0],))
                self._threads.append(thread)
                thread.start()

    def _forward(self, near: socket.socket) -> None:
        passed = 0
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            while not self._ended.is_set():
                if threading.current_thread() in self._frozen or (
                    self.freeze_after is not None and passed >= self.freeze_after
                ):
                    self._ended.wait(0.05)
                    continue
                for source in select.select([near, far], [], [], 0.05)[0]:
                    with contextlib.suppress(ConnectionError):
                        data = source.recv(4096)
                        passed += len(data) if source is far else 0
                        if not data or (self.cut_after is not None and passed >= self.cut_after):
                            return
                        time.sleep(self.delay_s)
                        (near if source is far else far).sendall(data)
