"""How to log in on a gateway: by the inventory, and by the user's ssh_config where that is silent.

Keys that were trusted on purpose (`netzpuls gateway trust`) stand in `<city>/known_hosts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fleet import ssh
from fleet.inventory import Inventory
from fleet.inventory.network import Gateway, Jump
from fleet.ssh import Host

KNOWN_HOSTS_FILE = "known_hosts"


def host_of(city: Inventory, gateway_id: str) -> Host:
    """Return how to log in on a gateway.

    Raises: UsageError: the inventory has no such gateway. ConfigurationError: the user's
        ssh_config cannot be used.
    """
    gateway = city.gateway(gateway_id)
    identity = None
    if gateway.identity_file:
        identity = city.folder / Path(gateway.identity_file).expanduser()
    entry = ssh.lookup(gateway.host)
    jump = None
    if gateway.jump is not None:
        jump = _jump_of(city, gateway.jump, identity)
    elif entry.jumps:
        jump = _way(city, entry.jumps)
    return _host(city, gateway, entry, id=gateway_id, kind="gateway", identity=identity, jump=jump)


def _jump_of(city: Inventory, jump_id: str, identity: Path | None) -> Host:
    jump = city.jumps[jump_id]
    entry = ssh.lookup(jump.host)
    before = _way(city, entry.jumps)
    return _host(city, jump, entry, id=jump_id, kind="jump", identity=identity, jump=before)


def _host(
    city: Inventory,
    found: Gateway | Jump,
    entry: ssh.Entry,
    *,
    id: str,  # noqa: A002 - as of a Host
    kind: Literal["gateway", "jump"],
    identity: Path | None,
    jump: Host | None,
) -> Host:
    """Put together what the inventory says, and what ssh_config does where that is silent."""
    said = found.model_fields_set
    return Host(
        id=id,
        label=f"gateway {id}" if kind == "gateway" else f"jump host {id}",
        address=entry.address,
        port=found.ssh_port if "ssh_port" in said else entry.port or found.ssh_port,
        user=found.user if "user" in said else entry.user or found.user,
        host_key=found.host_key,
        identity_file=identity or entry.identity_file,
        jump=jump,
        known_hosts=city.folder / KNOWN_HOSTS_FILE,
        alias=id if kind == "gateway" else f"jump/{id}",
        proxy="" if jump else entry.proxy,
    )


def _way(city: Inventory, hops: tuple[ssh.Hop, ...]) -> Host | None:
    """Return the last of the hops that ssh_config names, with the others before it."""
    before: Host | None = None
    for hop in hops:
        entry = ssh.lookup(hop.host)
        before = Host(
            id=hop.host,
            label=f"jump host {hop.host}",
            address=entry.address,
            port=hop.port or entry.port or 22,
            user=hop.user or entry.user or ssh.login_name(),
            identity_file=entry.identity_file,
            jump=before,
            known_hosts=city.folder / KNOWN_HOSTS_FILE,
            proxy="" if before else entry.proxy,
        )
    return before
