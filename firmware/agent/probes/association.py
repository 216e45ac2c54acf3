"""Association: does the access point let us in?

An association stays up between cycles. If it stands, it is verified and its last time is
told again; if it was lost, it is made anew.
"""

from linkreport.table import (
    ASSOCIATION,
    ASSOCIATION_REJECTED,
    ASSOCIATION_TIMEOUT,
    BEACON_LOST,
    DEADLINE_PASSED,
    HANDSHAKE_TIMEOUT,
    OK,
    RADIO,
    UNSUPPORTED,
    WRONG_KEY,
)
from micropython import const
from port import (
    ASSOCIATED,
    BEACON_MISSED,
    CONNECTING,
    ENTERPRISE,
    HANDSHAKE_EXPIRED,
    IDLE,
    KEY_REFUSED,
    NOT_FOUND,
    REJECTED,
)

from ..deadline import sleep_ms
from . import Result

LAYER = ASSOCIATION
NEEDS = RADIO

_REASONS = {
    NOT_FOUND: ASSOCIATION_TIMEOUT,  # seen in the scan, yet it did not answer us
    KEY_REFUSED: WRONG_KEY,
    HANDSHAKE_EXPIRED: HANDSHAKE_TIMEOUT,
    BEACON_MISSED: BEACON_LOST,
    REJECTED: ASSOCIATION_REJECTED,
}
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
        return Result(UNSUPPORTED, {})
    deadline_ms = config.deadline_ms["association"]
    until_ms = port.uptime_ms() + deadline_ms
    reason = ASSOCIATION_TIMEOUT
    for _ in range(_TRIES):
        # An attempt that the last cycle's deadline cut short is still under way.
        if not link.pends():
            _begin(port, evidence.wlan, link, access_point)
        state = port.link()
        while state in (CONNECTING, IDLE) and port.uptime_ms() < until_ms:
            await sleep_ms(_POLL_MS)
            state = port.link()
        if state == ASSOCIATED:
            link.associated_at_ms = port.uptime_ms()
            link.association_ms = link.associated_at_ms - link.requested_at_ms
            link.addressing_ms = None
            return Result(OK, {"association_ms": link.association_ms})
        tried_ms = port.uptime_ms() - link.requested_at_ms
        if state == CONNECTING and max(deadline_ms, tried_ms) < _PATIENCE_MS:
            return Result(DEADLINE_PASSED, {})  # the cycle is short: the next one waits on
        link.drop()
        reason = _REASONS.get(state, ASSOCIATION_TIMEOUT)
        if state in (CONNECTING, IDLE) or port.uptime_ms() + _PAUSE_MS >= until_ms:
            break
        await sleep_ms(_PAUSE_MS)
    return Result(reason, {})


def _begin(port, wlan, link, access_point):
    link.access_point = access_point
    link.requested = True
    link.requested_at_ms = port.uptime_ms()
    port.associate(wlan.ssid, wlan.key, access_point[1])
