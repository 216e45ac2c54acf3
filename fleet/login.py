"""How to log in on a gateway, by the inventory."""

from __future__ import annotations

from pathlib import Path

from fleet.inventory import Inventory
from fleet.ssh import Host


def host_of(city: Inventory, gateway_id: str) -> Host:
    """Return how to log in on a gateway.

    Raises: UsageError: the inventory has no such gateway.
    """
    gateway = city.gateway(gateway_id)
    identity = None
    if gateway.identity_file:
        identity = city.folder / Path(gateway.identity_file).expanduser()
    jump = None
    if gateway.jump is not None:
        hop = city.jumps[gateway.jump]
        jump = Host(
            gateway.jump, f"jump host {gateway.jump} of gateway {gateway_id}", hop.host,
            hop.ssh_port, hop.user, hop.host_key, identity,
        )  # fmt: skip
    return Host(
        gateway_id, f"gateway {gateway_id}", gateway.host, gateway.ssh_port, gateway.user,
        gateway.host_key, identity, jump,
    )  # fmt: skip
