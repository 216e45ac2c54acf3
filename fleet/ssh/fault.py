"""What went wrong on the way to a host, in words: which hop, why, and what to do next."""

from __future__ import annotations

import socket
from typing import NoReturn

from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    NoValidConnectionsError,
    SSHException,
)

from fleet.errors import HostError, HostKeyError
from fleet.ssh import key
from fleet.ssh.host import Host
from fleet.text import printable


def explain(host: Host, error: Exception, waited_s: float) -> NoReturn:
    """Raise the error for a hop that failed."""
    where = f"{host.label} ({host.name})"
    if isinstance(error, BadHostKeyException):
        known, shown = error.expected_key, error.key
        raise HostKeyError(
            f"{where}: its host key has changed: known is {known.get_name()} {known.fingerprint}, "
            f"it showed {shown.get_name()} {shown.fingerprint}",
            hint="if nobody reinstalled that host, somebody is in between: do not log in. Else "
            + key.compare(shown)
            + (
                "then replace host_key in inventory.toml"
                if host.host_key
                else f"then: {key.trusting(host)} --replace"
            ),
            details={
                "host": host.id,
                "known": known.fingerprint,
                "shown": shown.fingerprint,
            },
        ) from None
    if isinstance(error, AuthenticationException):
        if host.identity_file and key.identity(host.identity_file) is None:
            raise HostError(
                f"{where}: the key {host.identity_file} has a passphrase and is not in an "
                "ssh-agent",
                hint=f"ssh-add {host.identity_file}",
            ) from None
        ours = f"the key {host.identity_file}" if host.identity_file else "a key of your agent"
        raise HostError(
            f"{where} does not let {host.user} in: {printable(str(error))}",
            hint=f"is {ours} in ~{host.user}/.ssh/authorized_keys there? try: "
            f"ssh -p {host.port} {host.user}@{host.address} true",
        ) from None
    if isinstance(error, socket.gaierror):
        what, hint = "the name is not known", "correct its host in inventory.toml, or ask your DNS"
    elif isinstance(error, ChannelException):
        what = f"the jump host cannot reach it ({printable(error.text)})"
        hint = "is it up, and may the jump host forward to it (AllowTcpForwarding)?"
    elif isinstance(error, NoValidConnectionsError | ConnectionRefusedError):
        what, hint = "refuses the connection", "is it up, and is sshd listening on that port?"
    elif isinstance(error, TimeoutError):
        what = f"no answer within {waited_s:.0f} s"
        hint = "is it up, and does a route or VPN lead there?"
    elif isinstance(error, SSHException | EOFError):
        what = f"no SSH session: {printable(str(error)) or 'it hung up'}"
        hint = f"try: ssh -v -p {host.port} {host.user}@{host.address} true"
    else:
        reason = error.strerror if isinstance(error, OSError) else None
        what = printable(reason or str(error) or type(error).__name__)
        hint = f"try: ssh -v -p {host.port} {host.user}@{host.address} true"
    raise HostError(f"{where}: {what}", hint=hint) from None
