"""The verdict: from one reason per layer to (state, layer, reason, confidence)."""

from .table import (
    DEGRADED,
    DEVICE,
    DOWN,
    GATEWAY,
    INTERNET,
    OK,
    RESOLVER,
    RESOLVER_FAILURE,
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
        wins; later failures are its effects and stay in the report as evidence. Two
        exceptions: a gateway that ignores pings is fine if the internet answers through
        it, and a resolver that only cannot reach its upstream gives way to the internet
        layer. `up` needs the internet to answer; without that the state is `unknown`.
    """
    if len(reasons) != DEVICE:
        raise ValueError("nine reasons are needed, one for each layer")
    states = [reason_state(number) for number in reasons]
    online = states[INTERNET - 1] in (UP, DEGRADED)
    for wanted in (DOWN, DEGRADED):
        for layer in range(1, DEVICE + 1):
            if states[layer - 1] != wanted:
                continue
            reason = reasons[layer - 1]
            if layer == GATEWAY and wanted == DOWN and online:
                continue
            if reason in _BLAMES_UPSTREAM and states[INTERNET - 1] == DOWN:
                continue
            return wanted, layer, reason, _confidence(states, layer)
    if online:
        gaps = [s for s in states[: INTERNET - 1] if s == DOWN]
        return UP, 0, OK, 90 if gaps else 100
    for layer in (DEVICE,) + tuple(range(1, SERVICE + 1)):
        if states[layer - 1] == UNKNOWN and reasons[layer - 1] != UNTESTED:
            return UNKNOWN, layer, reasons[layer - 1], 100
    return UNKNOWN, DEVICE, UNTESTED, 100


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
