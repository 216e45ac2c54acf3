"""Where to log in, what it must prove, and how long that may take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """Where to log in, and what it must prove. Equal ones may share a connection.

    Attributes:
        id: short name, for results.
        label: what errors call it, `gateway gw-mitte`.
        host_key: public key in OpenSSH's form; None asks known_hosts.
        identity_file: private key; None asks the user's agent and default keys.
        jump: host that the connection passes through.
        proxy: command whose stdin and stdout are the connection, with the signs of ssh_config;
            where there is no jump host.
        known_hosts: a known_hosts file that goes before the user's.
        alias: the name under which that file keeps its keys; "" is its address.
    """

    id: str = field(compare=False)
    label: str = field(compare=False)
    address: str
    port: int = 22
    user: str = "netzpuls"
    host_key: str | None = None
    identity_file: Path | None = None
    jump: Host | None = None
    known_hosts: Path | None = None
    alias: str = ""
    proxy: str = ""

    @property
    def name(self) -> str:
        """The name under which the user's known_hosts keeps its keys."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    @property
    def record(self) -> str:
        """The name under which the city's known_hosts keeps its keys."""
        return self.alias or self.name

    @property
    def way(self) -> Iterator[Host]:
        """All hosts on the way to it, the first hop first, itself last."""
        if self.jump:
            yield from self.jump.way
        yield self


@dataclass(frozen=True)
class Deadlines:
    """How long each step may take, in seconds.

    `silence_s` is the longest pause in a command's output, `session_s` bounds everything.
    """

    connect_s: float = 10.0
    banner_s: float = 10.0
    auth_s: float = 15.0
    channel_s: float = 10.0
    silence_s: float = 30.0
    session_s: float = 600.0

    @property
    def shortest_s(self) -> float:
        """The time after which a failed step is one that waited in vain."""
        return min(self.connect_s, self.banner_s, self.auth_s, self.channel_s)
