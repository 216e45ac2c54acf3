"""What key a host shows, without logging in there."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import paramiko
from paramiko.ssh_exception import SSHException

from fleet.ssh import fault, key, proxy
from fleet.ssh.host import Deadlines, Host
from fleet.ssh.pool import Pool
from fleet.ssh.session import Session


@dataclass(frozen=True)
class Shown:
    """The key that a host showed.

    Attributes:
        public: in OpenSSH's form, `ssh-ed25519 AAAA…`.
        compare: how to find out at the host itself whether it is its own.
        known: the fingerprints of the keys that are known of it.
        state: whether the key is one of these.
    """

    host: Host
    kind: str
    public: str
    fingerprint: str
    compare: str
    known: tuple[str, ...]
    state: Literal["known", "new", "changed"]


def show(host: Host, deadlines: Deadlines, pool: Pool) -> Shown:
    """Ask a host for its key; the jump hosts before it must be known and let us in.

    Raises: HostError: it cannot be reached, or a hop before it cannot be passed.
    """
    known = list(key.expected(host))
    with _way(host, deadlines, pool) as sock:
        since = time.monotonic()
        transport = None
        try:
            transport = paramiko.Transport(sock)
            transport.banner_timeout = deadlines.banner_s
            options = transport.get_security_options()
            # What is known is asked for first: another kind of key is no changed one.
            kinds = [kind for kind, _ in known]
            options.key_types = sorted(options.key_types, key=lambda each: each not in kinds)
            transport.start_client(timeout=deadlines.banner_s)
            found = transport.get_remote_server_key()
        except (OSError, EOFError, SSHException, ValueError) as error:
            waited_s = time.monotonic() - since
            late = waited_s >= deadlines.banner_s
            fault.explain(host, TimeoutError() if late else error, waited_s)
        finally:
            if transport is not None:
                transport.close()
    fingerprints = tuple(each.fingerprint for _, each in known)
    state: Literal["known", "new", "changed"] = "new"
    if known:
        state = "known" if found.fingerprint in fingerprints else "changed"
    public = f"{found.get_name()} {found.get_base64()}"
    told = key.compare(found).rstrip("; ")
    return Shown(host, found.get_name(), public, found.fingerprint, told, fingerprints, state)


@contextlib.contextmanager
def _way(
    host: Host, deadlines: Deadlines, pool: Pool
) -> Iterator[socket.socket | paramiko.Channel]:
    if host.jump:
        with Session(host.jump, deadlines, pool=pool) as session:
            channel = session.way_to(host)
            try:
                yield channel
            finally:
                channel.close()
        return
    since = time.monotonic()
    try:
        sock: socket.socket
        if host.proxy:
            sock = proxy.way_to(host)
        else:
            sock = socket.create_connection((host.address, host.port), deadlines.connect_s)
    except OSError as error:
        fault.explain(host, error, time.monotonic() - since)
    with sock:
        yield sock
