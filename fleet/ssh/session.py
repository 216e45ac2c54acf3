"""One login on one host."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import paramiko
from fabric import Config, Connection  # type: ignore[import-untyped]
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    SSHException,
)

from fleet.errors import HostError
from fleet.ssh import fault, key, proxy
from fleet.ssh.command import Command
from fleet.ssh.host import Deadlines, Host
from fleet.ssh.pool import Pool, alive

# `timeout` on the other side: after its time it says TERM, and KILL so much later.
_KILL_AFTER_S = 2
# So much may be on its way while we are busy with what came.
_WINDOW_BYTES = 4 << 20


class Session:
    """One login on one host, through its jump hosts if it has any.

    Args:
        host: where to.
        deadlines: how long each step may take.
        pool: keeps the connection for the next session there, and shares those to jump hosts;
            without one they end with the session.

    Raises: HostKeyError, HostError: on entering, when the host cannot be reached, does not
        prove what it must, or does not let us in.
    """

    def __init__(
        self, host: Host, deadlines: Deadlines | None = None, *, pool: Pool | None = None
    ) -> None:
        self.host = host
        self.deadlines = deadlines or Deadlines()
        self._pool = pool or Pool()
        self._owns_pool = pool is None
        self._connection: Connection | None = None
        self._kept = False
        self._opening: list[Connection] = []
        self._ends_at = math.inf
        self._expired = False
        self._closed = False
        self._watchdog: threading.Timer | None = None
        self._command: Command | None = None

    def __enter__(self) -> Self:
        self._ends_at = time.monotonic() + self.deadlines.session_s
        self._watchdog = threading.Timer(self.deadlines.session_s, self._expire)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            self._connection = self._pool.take(self.host)
            self._kept = self._connection is not None
            if self._connection is None:
                self._connection = self._connect(self.host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and not self._closed and self._connection and alive(self._connection):
            connection, self._connection = self._connection, None
            self._pool.give(self.host, connection)
        self.close()

    def close(self) -> None:
        """Close the connection, from any thread; what waits on it stops waiting."""
        self._closed = True
        if self._watchdog:
            self._watchdog.cancel()
        if self._command:
            # A host does not end a command because its output goes nowhere.
            self._command.terminate()
        for connection in (self._connection, *self._opening):
            # Not Fabric's close(): it leaves a connection alone that is not open yet.
            if connection:
                connection.client.close()
        if self._owns_pool:
            self._pool.close()

    @property
    def remaining_s(self) -> float:
        """What is left of the session's time; 0 once it has expired."""
        return 0.0 if self._expired else max(0.0, self._ends_at - time.monotonic())

    @contextlib.contextmanager
    def command(self, arguments: Sequence[str], *, merged: bool = False) -> Iterator[Command]:
        """Start a command; it ends with the block, with the session's deadline, or by itself.

        Args:
            arguments: the program and its arguments, as they are.
            merged: have its stderr in stdout, in the order in which the host sends them.

        Raises: HostError: the host does not start it.
        """
        # exec: the shell makes way, so that a signal to the session reaches `timeout`, which
        # passes it on. Should the line die, `timeout` ends the command on its own.
        limit_s = max(1, math.ceil(self.remaining_s))
        line = f"exec timeout -k {_KILL_AFTER_S} {limit_s} {shlex.join(arguments)}"
        channel = self._channel()
        with self._explained(self.host):
            channel.set_combine_stderr(merged)
            channel.exec_command(line.encode())
        self._command = command = Command(self, channel, shlex.join(arguments))
        try:
            yield command
        finally:
            self._command = None
            command.terminate()
            with contextlib.suppress(OSError, EOFError, SSHException):
                channel.close()

    def way_to(self, host: Host) -> paramiko.Channel:
        """Open a way through this host to another one.

        Raises: HostError: there is none.
        """
        with self._explained(host):
            return self._forward(self._connection, host)

    def _channel(self) -> paramiko.Channel:
        """Open a channel; where a kept connection turns out to be dead, on a new one."""
        kept, self._kept = self._kept, False
        try:
            with self._explained(self.host):
                return self._open_channel()
        except HostError:
            if not kept or self._closed or not self.remaining_s:
                raise
        if self._connection:
            self._connection.client.close()
        self._connection = self._connect(self.host)
        with self._explained(self.host):
            return self._open_channel()

    def _open_channel(self) -> paramiko.Channel:
        transport = self._connection.client.get_transport() if self._connection else None
        if self._closed or transport is None:
            raise SSHException("it was closed")
        channel: paramiko.Channel = transport.open_session(
            window_size=_WINDOW_BYTES, timeout=self._step_s()
        )
        return channel

    def _step_s(self) -> float:
        return min(self.deadlines.channel_s, max(0.1, self.remaining_s))

    def _forward(self, through: Connection | None, host: Host) -> paramiko.Channel:
        transport = through.client.get_transport() if through else None
        if self._closed or transport is None:
            raise SSHException("it was closed")
        channel: paramiko.Channel = transport.open_channel(
            "direct-tcpip", (host.address, host.port), ("", 0), timeout=self._step_s()
        )
        return channel

    def _connect(self, host: Host) -> Connection:
        """Connect to a host, through its jump hosts, whose connections are shared."""
        sock: paramiko.Channel | proxy.Way | None = None
        if host.jump:
            hop = host.jump
            try:
                through = self._pool.share(hop, lambda: self._connect(hop), self.remaining_s)
            except TimeoutError:
                raise self.timed_out() from None
            try:
                with self._explained(host):
                    sock = self._forward(through, host)
            except HostError as error:
                if not isinstance(error.__context__, ChannelException):
                    self._pool.doubt(hop)
                raise
        with self._explained(host), contextlib.ExitStack() as stack:
            if host.proxy:
                sock = proxy.way_to(host)
                stack.callback(sock.close)
            connection = self._open(host, sock)
            stack.pop_all()  # from now on it ends with the connection
            return connection

    def _open(self, host: Host, sock: paramiko.Channel | proxy.Way | None) -> Connection:
        deadlines, ours = self.deadlines, key.identity_of(host)
        connection = Connection(
            host.address,
            user=host.user,
            port=host.port,
            config=_config(),
            connect_kwargs={
                # Not Fabric's connect_timeout, which it rounds down to whole seconds.
                "timeout": min(deadlines.connect_s, self.remaining_s),
                "banner_timeout": deadlines.banner_s,
                "auth_timeout": deadlines.auth_s,
                "channel_timeout": deadlines.channel_s,
                "sock": sock,
                "pkey": ours,
                "allow_agent": ours is None,
                "look_for_keys": ours is None and host.identity_file is None,
            },
        )
        connection.client.set_missing_host_key_policy(key.Strict(host))
        for kind, public in key.expected(host):
            connection.client.get_host_keys().add(host.name, kind, public)
        self._opening.append(connection)
        try:
            connection.open()
        except (BadHostKeyException, AuthenticationException, ChannelException):
            raise
        except SSHException as error:
            # Paramiko has no error of its own for having no key to show either.
            transport = connection.client.get_transport()
            if transport is not None and transport.initial_kex_done:
                raise AuthenticationException(str(error)) from None
            raise
        if self._closed:
            raise SSHException("closed while it connected")
        self._opening.remove(connection)
        return connection

    def _expire(self) -> None:
        self._expired = True
        self.close()

    @contextlib.contextmanager
    def _explained(self, host: Host) -> Iterator[None]:
        """Turn whatever goes wrong on the way into an error that names the hop."""
        since = time.monotonic()
        try:
            yield
        except (OSError, EOFError, SSHException, ValueError) as error:
            if not self.remaining_s:
                raise self.timed_out() from None
            waited_s = time.monotonic() - since
            # Paramiko has no error of its own for a peer that keeps silent after TCP connected.
            if waited_s >= self.deadlines.shortest_s and not isinstance(error, BadHostKeyException):
                fault.explain(host, TimeoutError(), waited_s)
            fault.explain(host, error, waited_s)

    def timed_out(self) -> HostError:
        """Return the error for a session that used up its time."""
        return HostError(
            f"{self.host.label} ({self.host.name}) did not finish within "
            f"{round(self.deadlines.session_s, 1):g} s",
            hint="what came is kept; run the command again, or give it more time: --timeout, of a "
            "check -t",
        )


def _config() -> Config:
    """Return a configuration for one connection: shared by threads, it is read while it merges."""
    # lazy: neither fabric.yaml nor ssh_config of whoever runs this changes what it does.
    return Config(overrides={"load_ssh_configs": False}, lazy=True)
