"""One measurement: run the probes; and when the next is due."""

from linkreport.table import (
    ADDRESSING,
    ASSOCIATION,
    DEADLINE_PASSED,
    DEGRADED,
    DEVICE,
    DOWN,
    GATEWAY,
    GATEWAY_SILENT,
    INTERNET,
    LAYER_COUNT,
    MEMORY_LOW,
    OK,
    PROBE_FAILED,
    RADIO,
    RADIO_FAILED,
    RESOLVER,
    RESOLVER_SILENT,
    UNKNOWN,
    UNTESTED,
    UP,
    reason_state,
)
from micropython import const

from .deadline import TimeoutError, emptied, within_ms  # noqa: A004 - see there
from .loan import borrow, give_back

# In the order in which a client meets the layers; each is a module of `agent.probes`.
PROBES = (
    "radio",
    "association",
    "addressing",
    "gateway",
    "resolver",
    "portal",
    "internet",
    "service",
    "throughput",
)
# What probes load for themselves.
_TOOLS = (
    "agent.connection",
    "agent.dhcp",
    "agent.dns",
    "agent.web",
    "agent.http",
    "agent.stream",
)
_NO_ANSWER = (UNTESTED, RESOLVER_SILENT, PROBE_FAILED, DEADLINE_PASSED)
# A probe ends at its own deadline; this is for one that does not.
_SLACK_MS = const(500)


class Evidence:
    """What the probes of one cycle have found so far.

    Attributes:
        link: the Link, which outlives the cycle.
        wlan: the network that is measured: the configuration's `wlan`, or one of `watch`.
        reasons: one reason for each layer, radio first, device last.
        measures: fields of the report by name, extension blocks by number.
        access_point: the own network's entry in the scan, None if it was not scanned.
        gateway, resolver: addresses from the lease, "" for none.
        lease: the Lease, None while there is none.
    """

    def __init__(self, link, wlan):
        self.link = link
        self.wlan = wlan
        self.reasons = bytearray(LAYER_COUNT)
        self.measures = {}
        self.access_point = None
        self.gateway = ""
        self.resolver = ""
        self.lease = None

    def works(self, layer):
        """Tell whether a layer was seen to work; layer 0 always does."""
        return layer == 0 or reason_state(self.reasons[layer - 1]) in (UP, DEGRADED)

    def online(self):
        """Tell whether the internet answered."""
        return self.works(INTERNET)


async def measure(port, config, link, faults, probes=PROBES, *, wlan=None, until_ms=None):
    """Run the probes on a network; never raises for what one of them does.

    The network is the board's own, and the end that of the cycle's deadline, unless said.
    """
    evidence = Evidence(link, wlan or config.wlan)
    reasons = evidence.reasons
    reasons[DEVICE - 1] = OK
    until_ms = until_ms or port.uptime_ms() + config.deadline_ms["cycle"]
    for name in probes:
        layer, reason = await _run(name, port, config, evidence, until_ms=until_ms, faults=faults)
        # A second probe of a layer can only take something off an OK.
        if reasons[layer - 1] == UNTESTED or (
            reasons[layer - 1] == OK and reason_state(reason) in (DEGRADED, DOWN)
        ):
            reasons[layer - 1] = reason
    if "resolver" in probes and evidence.online() and not evidence.works(RESOLVER):
        # A resolver failed, and then the internet answered: the line may have come back between
        # the two. Only a resolver that fails now too is at fault itself.
        layer, again = await _run(
            "resolver", port, config, evidence, until_ms=until_ms, faults=faults
        )
        if layer == RESOLVER and reason_state(again) != UNKNOWN:
            reasons[RESOLVER - 1] = again
    if (
        reasons[GATEWAY - 1] == GATEWAY_SILENT
        and evidence.resolver == evidence.gateway
        and reasons[RESOLVER - 1] not in _NO_ANSWER
    ):
        reasons[GATEWAY - 1] = OK  # it ignores pings, but answered as the resolver
    if link.stood and not link.holds() and not evidence.online():
        reasons[ASSOCIATION - 1] = _ended(port)  # it stood at first, and what followed failed
        link.drop()
    if not evidence.works(ASSOCIATION):
        link.online = False
    return evidence


def _ended(port):
    """Return why the association ended."""
    try:
        return borrow("agent.probes.association").reason(port.driver_status())
    finally:
        give_back("agent.probes.association")


async def _run(name, port, config, evidence, *, until_ms, faults):
    """Run one probe on loan; return its layer and its reason."""
    layer = DEVICE  # as long as the probe has not told its own
    failure = None
    try:
        module = borrow("agent.probes." + name)
        layer = module.LAYER
        # A server that failed leaves us the address that we had.
        has_address = module.NEEDS == ADDRESSING and evidence.gateway
        if not has_address and not evidence.works(module.NEEDS):
            return layer, UNTESTED
        left_ms = until_ms - port.uptime_ms()
        if left_ms <= 0:
            return layer, DEADLINE_PASSED
        limit_ms = min(left_ms, config.deadline_ms[name] + _SLACK_MS)
        result = await within_ms(emptied([module.probe(port, config, evidence)]), limit_ms)
    except TimeoutError:
        return layer, DEADLINE_PASSED
    except Exception as error:
        failure = error
    finally:
        module = None  # this frame would hold it
        give_back("agent.probes." + name, *_TOOLS)
    if failure:  # only now: to tell it takes memory that the probe has just let go
        faults.note(failure)
        if layer == RADIO and isinstance(failure, OSError):
            evidence.reasons[DEVICE - 1] = RADIO_FAILED
        if layer == DEVICE and isinstance(failure, MemoryError):
            return layer, MEMORY_LOW
        return layer, PROBE_FAILED
    evidence.measures.update(result.measures)
    return layer, result.reason


class Schedule:
    """When cycles are due: every period from the first on; late ones are left out, not made up."""

    def __init__(self, period_ms, now_ms):
        self._period_ms = period_ms
        self._due_ms = now_ms

    def wait_ms(self, now_ms):
        """Return how long to wait for the next cycle, and count it as taken."""
        late_ms = now_ms - self._due_ms
        if late_ms > 0:
            periods = (late_ms + self._period_ms - 1) // self._period_ms
            self._due_ms += periods * self._period_ms
        wait_ms = self._due_ms - now_ms
        self._due_ms += self._period_ms
        return wait_ms
