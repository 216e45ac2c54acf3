"""The closed tables of states, layers and reasons; their numbers never change meaning.

A reason fixes its state: who knows the reason of each layer knows everything the
verdict is made from. New reasons take new numbers; old numbers are never given again.
"""

# States, by number. At every instant a subject is in exactly one.
UNKNOWN = 0
UP = 1
DEGRADED = 2
DOWN = 3
EXCLUDED = 4

STATES = ("unknown", "up", "degraded", "down", "excluded")

# Layers, by number, in the order in which a client meets them; the board itself is last.
RADIO = 1
ASSOCIATION = 2
ADDRESSING = 3
GATEWAY = 4
RESOLVER = 5
PORTAL = 6
INTERNET = 7
SERVICE = 8
DEVICE = 9

LAYERS = (
    "none",
    "radio",
    "association",
    "addressing",
    "gateway",
    "resolver",
    "portal",
    "internet",
    "service",
    "device",
)
LAYER_COUNT = 9

# Reasons that any layer can have.
UNTESTED = 0
OK = 1
UNSUPPORTED = 2
PROBE_FAILED = 3
DEADLINE_PASSED = 4

# Reasons of one layer: the tens digit is the layer's number.
NETWORK_NOT_FOUND = 10
WEAK_SIGNAL = 11
WRONG_KEY = 20
ASSOCIATION_TIMEOUT = 21
HANDSHAKE_TIMEOUT = 22
BEACON_LOST = 23
ASSOCIATION_REJECTED = 24
NO_LEASE = 30
LEASE_WITHOUT_GATEWAY = 31
GATEWAY_SILENT = 40
GATEWAY_LOSS = 41
GATEWAY_SLOW = 42
RESOLVER_SILENT = 50
RESOLVER_FAILURE = 51
NAME_NOT_FOUND = 52
RESOLVER_REFUSED = 53
UPSTREAM_SILENT = 54
RESOLVER_SLOW = 55
RESOLVER_WRONG_ADDRESS = 56
CONNECT_TIMEOUT = 70
CONNECT_REFUSED = 71
HTTP_SILENT = 72
HTTP_UNEXPECTED = 73
INTERNET_SLOW = 74
NETWORK_UNREACHABLE = 75
RADIO_FAILED = 90
MEMORY_LOW = 91
CONFIGURATION_INVALID = 92

# number: (name, state)
REASONS = {
    UNTESTED: ("untested", UNKNOWN),
    OK: ("ok", UP),
    UNSUPPORTED: ("unsupported", UNKNOWN),
    PROBE_FAILED: ("probe-failed", UNKNOWN),
    DEADLINE_PASSED: ("deadline-passed", UNKNOWN),
    NETWORK_NOT_FOUND: ("network-not-found", DOWN),
    WEAK_SIGNAL: ("weak-signal", DEGRADED),
    WRONG_KEY: ("wrong-key", DOWN),
    ASSOCIATION_TIMEOUT: ("association-timeout", DOWN),
    HANDSHAKE_TIMEOUT: ("handshake-timeout", DOWN),
    BEACON_LOST: ("beacon-lost", DOWN),
    ASSOCIATION_REJECTED: ("association-rejected", DOWN),
    NO_LEASE: ("no-lease", DOWN),
    LEASE_WITHOUT_GATEWAY: ("lease-without-gateway", DOWN),
    GATEWAY_SILENT: ("gateway-silent", DOWN),
    GATEWAY_LOSS: ("gateway-loss", DEGRADED),
    GATEWAY_SLOW: ("gateway-slow", DEGRADED),
    RESOLVER_SILENT: ("resolver-silent", DOWN),
    RESOLVER_FAILURE: ("resolver-failure", DOWN),
    NAME_NOT_FOUND: ("name-not-found", DOWN),
    RESOLVER_REFUSED: ("resolver-refused", DOWN),
    UPSTREAM_SILENT: ("upstream-silent", DOWN),
    RESOLVER_SLOW: ("resolver-slow", DEGRADED),
    RESOLVER_WRONG_ADDRESS: ("resolver-wrong-address", DOWN),
    CONNECT_TIMEOUT: ("connect-timeout", DOWN),
    CONNECT_REFUSED: ("connect-refused", DOWN),
    HTTP_SILENT: ("http-silent", DOWN),
    HTTP_UNEXPECTED: ("http-unexpected", DOWN),
    INTERNET_SLOW: ("internet-slow", DEGRADED),
    NETWORK_UNREACHABLE: ("network-unreachable", DOWN),
    RADIO_FAILED: ("radio-failed", UNKNOWN),
    MEMORY_LOW: ("memory-low", DEGRADED),
    CONFIGURATION_INVALID: ("configuration-invalid", UNKNOWN),
}

# Where the board's time comes from, worst to best.
CLOCK_NONE = 0
CLOCK_KEPT = 1
CLOCK_ACK = 2
CLOCK_NTP = 3

CLOCKS = ("none", "kept", "ack", "ntp")


def reason_name(number):
    """Return the kebab-case name of a reason, or `reason-<n>` for one from a newer board."""
    entry = REASONS.get(number)
    return entry[0] if entry else "reason-%d" % number


def reason_state(number):
    """Return the state a reason stands for; a reason from a newer board is `unknown`."""
    entry = REASONS.get(number)
    return entry[1] if entry else UNKNOWN
