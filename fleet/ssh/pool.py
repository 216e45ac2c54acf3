"""Connections that are kept for as long as a run lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeoutError
from types import TracebackType
from typing import Any, Self

from fabric import Connection  # type: ignore[import-untyped]

from fleet.ssh.host import Host


def alive(connection: Connection) -> bool:
    """Tell whether a connection still is one, as far as that is known without asking."""
    transport = connection.client.get_transport()
    return transport is not None and transport.is_active()


class Pool:
    """Open connections, by host; used from many threads.

    A host's connection serves one session at a time. That to a jump host is shared by all that
    go through it: the first one connects, and the others wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Host, list[Connection]] = {}
        self._shared: dict[Host, Future[Connection]] = {}
        self._doubted: list[Future[Connection]] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections that nobody uses; those in use are closed by whoever does."""
        with self._lock:
            self._closed = True
            idle = [each for many in self._idle.values() for each in many]
            futures = (*self._shared.values(), *self._doubted)
            shared = [each.result() for each in futures if _has_worked(each)]
            self._idle, self._shared, self._doubted = {}, {}, []
        for connection in (*idle, *shared):
            connection.client.close()

    def take(self, host: Host) -> Connection | None:
        """Return an open connection that from now on is the caller's, None if there is none."""
        while True:
            with self._lock:
                waiting = self._idle.get(host)
                if not waiting:
                    return None
                connection = waiting.pop()
            if alive(connection):
                return connection
            connection.client.close()

    def give(self, host: Host, connection: Connection) -> None:
        """Keep a connection for the next one who goes there."""
        with self._lock:
            if not self._closed:
                self._idle.setdefault(host, []).append(connection)
                return
        connection.client.close()

    def share(self, host: Host, connect: Callable[[], Connection], wait_s: float) -> Connection:
        """Return the one connection to a jump host; make it if there is none that works.

        Raises: TimeoutError: whoever connects has not done so within `wait_s`. Otherwise whatever
            `connect` raises, to all who waited for it.
        """
        mine: Future[Connection] = Future()
        with self._lock:
            found = self._shared.get(host)
            if found is None or (found.done() and not _works(found)):
                found = self._shared[host] = mine
        if found is mine:
            self._fulfil(mine, connect)
        try:
            return found.result(wait_s)
        except WaitTimeoutError:
            raise TimeoutError from None

    def doubt(self, host: Host) -> None:
        """Have the next one who goes through a jump host connect anew."""
        with self._lock:
            found = self._shared.get(host)
            if found is not None and found.done():
                self._doubted.append(self._shared.pop(host))

    def _fulfil(self, mine: Future[Connection], connect: Callable[[], Connection]) -> None:
        try:
            connection = connect()
        except BaseException as error:
            mine.set_exception(error)
            return
        mine.set_result(connection)
        if self._closed:
            connection.client.close()


def _works(found: Future[Connection]) -> bool:
    return _has_worked(found) and alive(found.result())


def _has_worked(found: Future[Any]) -> bool:
    return found.done() and found.exception() is None
