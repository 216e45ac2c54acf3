"""The names of states, layers, reasons, clocks and the uplink's troubles, for people.

A board loads this only for a line on its console: the names take more memory than the numbers.
"""

STATES = ("unknown", "up", "degraded", "down", "excluded")

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

REASONS = {
    0: "untested",
    1: "ok",
    2: "unsupported",
    3: "probe-failed",
    4: "deadline-passed",
    10: "network-not-found",
    11: "weak-signal",
    12: "channel-crowded",
    13: "access-point-missing",
    14: "security-mismatch",
    20: "wrong-key",
    21: "association-timeout",
    22: "handshake-timeout",
    23: "beacon-lost",
    24: "association-rejected",
    25: "access-point-full",
    26: "kicked",
    27: "association-lost",
    30: "no-lease",
    31: "lease-without-gateway",
    32: "no-offer",
    33: "lease-refused",
    34: "pool-exhausted",
    35: "address-conflict",
    36: "foreign-dhcp-server",
    37: "lease-slow",
    40: "gateway-silent",
    41: "gateway-loss",
    42: "gateway-slow",
    50: "resolver-silent",
    51: "resolver-failure",
    52: "name-not-found",
    53: "resolver-refused",
    54: "upstream-silent",
    55: "resolver-slow",
    56: "resolver-wrong-address",
    60: "portal-unexpected",
    61: "portal-missing",
    62: "portal-silent",
    63: "portal-error",
    70: "connect-timeout",
    71: "connect-refused",
    72: "http-silent",
    73: "http-unexpected",
    74: "internet-slow",
    75: "network-unreachable",
    76: "behind-portal",
    77: "one-target-failed",
    78: "tls-intercepted",
    79: "throughput-low",
    170: "tls-silent",
    80: "service-silent",
    81: "service-error",
    82: "service-slow",
    83: "service-certificate-expiring",
    84: "service-certificate-invalid",
    85: "other-network-failed",
    86: "service-name-not-found",
    87: "some-services-failed",
    90: "radio-failed",
    91: "memory-low",
    92: "configuration-invalid",
    93: "flash-failed",
    94: "safe-mode",
}

CLOCKS = ("none", "kept", "ack", "ntp")

# What the uplink block says of the way to the collector; see `linkreport.block`.
TROUBLES = (
    "none",
    "broker-silent",
    "broker-refused",
    "broker-untrusted",
    "certificate-refused",
    "session-failed",
    "unacknowledged",
    "collector-clock-wrong",
)


def reason_name(number):
    """Return the kebab-case name of a reason, or `reason-<n>` for one from a newer board."""
    return REASONS.get(number) or "reason-%d" % number
