"""The verdict: from one reason per layer to (state, layer, reason, confidence)."""

from .table import (
    BEHIND_PORTAL,
    DEGRADED,
    DEVICE,
    DOWN,
    GATEWAY,
    INTERNET,
    NO_OFFER,
    OK,
    PORTAL,
    PORTAL_UNEXPECTED,
    RESOLVER,
    RESOLVER_FAILURE,
    RESOLVER_WRONG_ADDRESS,
    SERVICE,
    UNKNOWN,
    UNTESTED,
    UP,
    UPSTREAM_SILENT,
    reason_state,
)

# A resolver that answers for itself but cannot look further: its reason is an effect
# wherever the internet layer failed too.
_BLAMES_UPSTREAM = (RESOLVER_FAILURE, UPSTREAM_SILENT)


def judge(reasons):
    """Name the one layer that explains what was seen.

    Args:
        reasons: nine reason numbers, one for each layer, radio first, device last.

    Returns: (state, layer, reason, confidence in percent). The first layer that failed
        wins; later failures are its effects and stay in the report as evidence. Where the
        later failure is the cause, it wins: see `_is_effect`. `up` needs the internet to
        answer, or the portal's page where that is all a client gets before it agrees;
        without that the state is `unknown`.
    """
    if len(reasons) != DEVICE:
        raise ValueError("nine reasons are needed, one for each layer")
    states = [reason_state(number) for number in reasons]
    online = states[INTERNET - 1] in (UP, DEGRADED) or (
        reasons[INTERNET - 1] == BEHIND_PORTAL and states[PORTAL - 1] in (UP, DEGRADED)
    )
    for wanted in (DOWN, DEGRADED):
        for layer in range(1, DEVICE + 1):
            if states[layer - 1] == wanted and not _is_effect(reasons, states, layer, online):
                return wanted, layer, reasons[layer - 1], _confidence(states, layer)
    if online:
        gaps = [s for s in states[: INTERNET - 1] if s == DOWN]
        return UP, 0, OK, 90 if gaps else 100
    for layer in (DEVICE,) + tuple(range(1, SERVICE + 1)):
        if states[layer - 1] == UNKNOWN and reasons[layer - 1] != UNTESTED:
            return UNKNOWN, layer, reasons[layer - 1], 100
    return UNKNOWN, DEVICE, UNTESTED, 100


def _is_effect(reasons, states, layer, online):
    """Tell whether a layer's failure is explained by a later layer.

    A gateway that ignores pings is fine if the internet answers through it. A dead router
    gives no leases either. A resolver that only cannot reach its upstream is the line's
    victim, and one that leads astray before a login page is the portal's.
    """
    reason = reasons[layer - 1]
    if layer == GATEWAY:
        return states[layer - 1] == DOWN and online
    if reason == NO_OFFER:
        return states[GATEWAY - 1] == DOWN and not online
    if reason == RESOLVER_WRONG_ADDRESS:
        return reasons[PORTAL - 1] == PORTAL_UNEXPECTED
    return reason in _BLAMES_UPSTREAM and states[INTERNET - 1] == DOWN


def _confidence(states, layer):
    """Return 100 where the layer before was seen to work, less the weaker that evidence is."""
    for before in range(layer - 1, 0, -1):
        state = states[before - 1]
        if state in (UP, DEGRADED):
            return 100
        if state == DOWN and before == RESOLVER:
            return 90
        if state == DOWN:
            return 80
    return 100 if layer in (1, DEVICE) else 50
