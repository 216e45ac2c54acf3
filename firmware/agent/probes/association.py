"""Association: does the access point let us in?

An association stays up between cycles. If it stands, it is verified and its last time is
told again; if it was lost, it is made anew, and the loss is told.

What MicroPython's driver says is one number: the reason of IEEE 802.11 from the access point, or
ESP-IDF's own. It stands in the report as it came, for it cannot tell everything apart:

- A wrong WPA2 key mostly shows as a handshake that ran out of time (15, 204), for the access
  point falls silent; only some firmware says "authentication failed" (202). Both are the same
  to whoever mends it: look at the key first.
- 202 also comes where WPA3 (SAE) refuses us for another reason than the key.
- 2 is said by an access point that threw us out, by one that rejected the handshake, and by the
  driver itself where the authentication ran out of time.
- An access point that is full or has us on a list mostly refuses without a number that reaches
  us: that is "rejected" (203, 205). Only 5 and 17 say "full".
- 8 follows our own leaving, too: it counts only where nothing else came until the end.
- An access point that is switched off is first "beacons lost" (200); the next scan misses it.
"""

import struct

from linkreport import block
from linkreport.table import (
    ACCESS_POINT_FULL,
    ASSOCIATION,
    ASSOCIATION_LOST,
    ASSOCIATION_REJECTED,
    ASSOCIATION_TIMEOUT,
    BEACON_LOST,
    DEADLINE_PASSED,
    HANDSHAKE_TIMEOUT,
    KICKED,
    OK,
    RADIO,
    SECURITY_MISMATCH,
    UNSUPPORTED,
    WRONG_KEY,
)
from micropython import const
from port import ASSOCIATED, CONNECTING, ENTERPRISE, IDLE

from ..deadline import sleep_ms
from . import Result

LAYER = ASSOCIATION
NEEDS = RADIO

# What the driver says when an attempt failed; all else is a rejection.
_REASONS = {
    2: KICKED,
    3: KICKED,
    4: KICKED,
    6: KICKED,
    7: KICKED,
    8: KICKED,
    9: KICKED,
    12: KICKED,
    5: ACCESS_POINT_FULL,
    17: ACCESS_POINT_FULL,
    14: WRONG_KEY,  # message integrity
    15: HANDSHAKE_TIMEOUT,
    16: HANDSHAKE_TIMEOUT,
    204: HANDSHAKE_TIMEOUT,
    200: BEACON_LOST,
    202: WRONG_KEY,
    201: ASSOCIATION_TIMEOUT,  # seen in the scan, yet it did not answer us
    212: ASSOCIATION_TIMEOUT,
}
_OTHER_SECURITY = (210, 211)
_LEFT = const(8)
_POLL_MS = const(20)
_PAUSE_MS = const(200)
_PATIENCE_MS = const(10000)  # an access point that has not answered by then does not
_TRIES = const(3)  # the first one often fails for no reason


async def probe(port, config, evidence):
    """Verify the association or make one."""
    link = evidence.link
    if link.holds():
        return Result(OK, {"association_ms": link.association_ms})
    access_point = evidence.access_point
    if access_point[4] == ENTERPRISE:
        link.drop()
        return Result(UNSUPPORTED, {})
    status = port.driver_status()  # of how the last association ended
    lost = 1 if link.stood else 0
    deadline_ms = config.deadline_ms["association"]
    until_ms = port.uptime_ms() + deadline_ms
    failed = ASSOCIATION_TIMEOUT
    attempts = 0
    for _ in range(_TRIES):
        # An attempt that the last cycle's deadline cut short is still under way.
        if not link.pends():
            _begin(port, evidence.wlan, link, access_point)
        attempts += 1
        state = port.link()
        while state in (CONNECTING, IDLE) and port.uptime_ms() < until_ms:
            await sleep_ms(_POLL_MS)
            state = port.link()
        if state == ASSOCIATED:
            link.stood = True
            link.associated_at_ms = port.uptime_ms()
            link.association_ms = link.associated_at_ms - link.requested_at_ms
            link.addressing_ms = None
            if not lost:
                status = port.driver_status()
            measures = _told(status, lost, attempts)
            measures["association_ms"] = link.association_ms
            return Result(ASSOCIATION_LOST if lost else OK, measures)
        status = port.driver_status()
        tried_ms = port.uptime_ms() - link.requested_at_ms
        if state == CONNECTING and max(deadline_ms, tried_ms) < _PATIENCE_MS:
            # The cycle is short: the next one waits on.
            return Result(DEADLINE_PASSED, _told(status, lost, attempts))
        link.drop()
        if state not in (CONNECTING, IDLE):
            failed = reason(status)
        elif status == _LEFT:
            failed = KICKED
        if state in (CONNECTING, IDLE) or port.uptime_ms() + _PAUSE_MS >= until_ms:
            break
        await sleep_ms(_PAUSE_MS)
    if status in _OTHER_SECURITY:
        evidence.reasons[RADIO - 1] = SECURITY_MISMATCH
    return Result(failed, _told(status, lost, attempts))


def reason(status):
    """Return what stands for a failure that the driver tells."""
    return _REASONS.get(status, ASSOCIATION_REJECTED)


def _told(status, lost, attempts):
    return {block.ASSOCIATION: struct.pack(block.ASSOCIATION_FORMAT, status, lost, attempts)}


def _begin(port, wlan, link, access_point):
    link.access_point = access_point
    link.requested = True
    link.stood = False
    link.requested_at_ms = port.uptime_ms()
    link.renounce()  # it is the last network's
    link.is_drivers = False
    port.associate(wlan.ssid, wlan.key, access_point[1])
