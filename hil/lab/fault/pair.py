"""Two faults at once: the earlier layer wins, the later is kept as evidence in the report."""

from __future__ import annotations

from firmware.linkreport.table import (
    CONNECT_TIMEOUT,
    INTERNET,
    ONE_TARGET_FAILED,
    RADIO,
    RESOLVER,
    RESOLVER_SILENT,
    WEAK_SIGNAL,
)
from hil.lab.fault import addressing, air, gateway, internet, resolver, service
from hil.lab.fault.definition import two_at_once

__all__ = ["addressing", "air", "gateway", "internet", "resolver", "service"]

two_at_once("dhcp-rogue", "dns-dead", evidence=((RESOLVER, RESOLVER_SILENT),))
two_at_once("dns-dead", "internet-cut-behind-router", evidence=((INTERNET, CONNECT_TIMEOUT),))
two_at_once("gateway-slow", "one-target-dead", evidence=((INTERNET, ONE_TARGET_FAILED),))
# What only degrades never hides what is down: here the later one wins.
two_at_once("service-dead", "weak-signal", evidence=((RADIO, WEAK_SIGNAL),))
