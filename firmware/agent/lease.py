"""A lease of the board's own: taken over from the driver, kept, renewed. On loan.

See `agent.probes.addressing` for why.
"""

from micropython import const

from . import dhcp
from .link import Lease

_PERIODS = const(3)  # a lease that ends before so many is too short to be kept by cycles


async def take_over(port, config, link, until_ms):
    """Take the driver's lease over; where that does not succeed it stays the driver's."""
    address, gateway, resolver = port.lease()
    port.fix(address, port.netmask(), gateway, resolver)
    granted = None
    link.is_blind = False
    try:
        client = dhcp.client(port, dhcp.own_id, until_ms)
        try:
            offer = await client.offer(address, config.dhcp_servers)
            granted = offer and await client.request(offer)
        finally:
            client.close()
    except OSError:  # port 68 is taken
        link.is_blind = True
    if granted and granted.lease_s > config.period_s * _PERIODS:
        link.lease = Lease()
        _keep(port, link.lease, granted)
        if granted.address != address:  # the first one is another's by now
            port.fix(granted.address, granted.mask, granted.router, granted.resolver)
        return
    link.is_drivers = True
    port.dhcp()


def _keep(port, lease, granted):
    lease.server = granted.server
    lease.portal_api = granted.portal_api
    life_ms = granted.lease_s * 1000
    lease.ends_ms = port.uptime_ms() + life_ms
    lease.renew_ms = lease.ends_ms - life_ms // 2
    if granted.lease_s == dhcp.FOREVER_S:
        lease.renew_ms = lease.ends_ms


async def renewed(port, config, lease, until_ms):
    """Renew the lease, which is due; tell whether it is still ours."""
    try:
        client = dhcp.client(port, dhcp.own_id, until_ms)
    except OSError:
        return True
    try:
        granted = await client.renew(port.lease()[0])
    finally:
        client.close()
    if granted:
        _keep(port, lease, granted)
    # A stranger's no is not our server's.
    return not client.refused or dhcp.foreign(client.servers, config)
