"""What the board knows of its own association; it stays up from one cycle to the next."""

import asyncio

from linkreport.table import OK
from port import ASSOCIATED, CONNECTING


class Lease:
    """A lease that the board keeps itself.

    Attributes:
        server: the DHCP server's address.
        portal_api: the URI of RFC 8910, "" for none.
        renew_ms, ends_ms: when to ask for more time, and when it is over.
    """

    def __init__(self):
        self.server = ""
        self.portal_api = ""
        self.renew_ms = 0
        self.ends_ms = 0


class Link:
    """The association as the probes left it, for the next cycle and for the uplink.

    Attributes:
        access_point: the scan's entry of the one that we chose, None before and after.
        requested: we asked the driver to associate and did not give up since.
        stood: the association that we asked for was made.
        quiet: an event, set while no cycle measures, so that the uplink keeps off the air.
        online: the last cycle found a lease.
        lease: the Lease, None while the driver keeps it.
        is_drivers: under this association the driver keeps the lease.
        is_blind: for another interface's sake no server can be asked.
        networks: what the self-test's scan showed, for the first cycle; then None.
        scan_ms: how long a scan takes.
        air: the last scan's reason, as far as it lies in what else is in the air.
        heard: the BSSIDs of the configuration that are in reach.
        others: {ssid: (access point or None, air)} as the last scan saw them, of a monitor.
        day: days since 1970, 0 as long as the clock is not right.
        identity: the folder of what probes may trust.
        waiting: reports that are to be sent.
        cycles_to_download: until throughput is measured next, None before the first time.
    """

    def __init__(self, port):
        self._port = port
        self.access_point = None
        self.requested = False
        self.requested_at_ms = 0
        self.stood = False
        self.association_ms = None
        self.associated_at_ms = 0
        self.addressing_ms = None
        self.scanned_at_ms = None
        self.scan_ms = 0
        self.air = OK
        self.heard = []
        self.others = {}
        self.day = 0
        self.online = False
        self.lease = None
        self.is_drivers = False
        self.is_blind = False
        self.networks = None
        self.identity = "/identity"
        self.waiting = 0
        self.cycles_to_download = None
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
        self.stood = False
        self.online = False

    def turn(self, ssid):
        """Leave the network for another one, as the last scan saw that."""
        self.drop()
        self.access_point, self.air = self.others.get(ssid, (None, OK))

    def renounce(self):
        """Leave the address to the driver's DHCP client, which starts anew."""
        self._port.dhcp()
        self.lease = None
