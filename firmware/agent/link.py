"""What the board knows of its own association; it stays up from one cycle to the next."""

import asyncio

from port import ASSOCIATED, CONNECTING


class Lease:
    """What DHCP told of the network, as text; "" for what it did not tell.

    Attributes:
        server: the DHCP server's address.
        portal_api: the URI of RFC 8910.
    """

    def __init__(self):
        self.server = ""
        self.portal_api = ""


class Link:
    """The association as the probes left it, for the next cycle and for the uplink.

    Attributes:
        access_point: the scan's entry of the one that we chose, None before and after.
        requested: we asked the driver to associate and did not give up since.
        quiet: an event, set while no cycle measures, so that the uplink keeps off the air.
        online: the last cycle found a lease.
        networks: what the self-test's scan showed, for the first cycle; then None.
    """

    def __init__(self, port):
        self._port = port
        self.access_point = None
        self.requested = False
        self.requested_at_ms = 0
        self.association_ms = None
        self.associated_at_ms = 0
        self.addressing_ms = None
        self.scanned_at_ms = None
        self.online = False
        self.networks = None
        self.quiet = asyncio.Event()
        self.quiet.set()

    def holds(self):
        """Tell whether the association that we made stands."""
        return self.requested and self._port.link() == ASSOCIATED

    def pends(self):
        """Tell whether an attempt that we made is still under way."""
        return self.requested and self._port.link() == CONNECTING

    def drop(self):
        """Leave the access point, or stop trying."""
        self._port.dissociate()
        self.access_point = None
        self.requested = False
        self.online = False
