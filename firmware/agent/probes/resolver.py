"""Resolver: does the lease's DNS server answer, and rightly? And does the reference one?

The reference resolver (`resolver.reference`, may be "") is asked at the same time. What it
says is evidence only: if it answers where the leased one does not, the leased one is at fault;
if both fail alike, the way to all resolvers is.

Source: RFC 6761 6.3 (`localhost`).
"""

import asyncio
import struct

from linkreport.block import REFERENCE, REFERENCE_FORMAT
from linkreport.table import (
    ADDRESSING,
    NAME_NOT_FOUND,
    OK,
    RESOLVER,
    RESOLVER_FAILURE,
    RESOLVER_REFUSED,
    RESOLVER_SILENT,
    RESOLVER_SLOW,
    RESOLVER_WRONG_ADDRESS,
    UPSTREAM_SILENT,
)
from micropython import const

from ..dns import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, ask
from . import Result

LAYER = RESOLVER
NEEDS = ADDRESSING

_WRONG_ADDRESS = const(254)
_SILENT = const(255)
_GAPS = const(16)  # in the whole deadline: three of four packets may be lost


async def probe(port, config, evidence):
    """Ask for the known name; if that fails, see whether the resolver itself is alive."""
    server, reference = evidence.resolver, config.resolver.reference
    if not server:
        return Result(RESOLVER_SILENT, {})
    if not reference:
        return await _leased(port, config, server)
    result, block = await asyncio.gather(
        _leased(port, config, server), _reference(port, config, reference)
    )
    result.measures[REFERENCE] = block
    return result


async def _leased(port, config, server):
    deadline_ms = config.deadline_ms["resolver"]
    gap_ms = max(1, deadline_ms // _GAPS)

    async def lives(name, share):
        # Parts: nine for the name, five for `localhost`; two are reserve.
        return await ask(port, server, name, gap_ms * share, gap_ms)

    rcode, addresses, elapsed_ms = await lives(config.resolver.name, 9)
    if rcode is None:
        alive = (await lives("localhost.", 5))[0]
        return Result(RESOLVER_SILENT if alive is None else UPSTREAM_SILENT, {})
    measures = {"resolver_ms": elapsed_ms}
    if rcode in (SERVFAIL, REFUSED):
        # dnsmasq says REFUSED, too, while it has no way to its upstream.
        own = (await lives("localhost.", 5))[0]
        if own is not None and own != rcode:
            return Result(UPSTREAM_SILENT, measures)
        return Result(RESOLVER_FAILURE if rcode == SERVFAIL else RESOLVER_REFUSED, measures)
    if rcode == NXDOMAIN or (rcode == NOERROR and not addresses):
        return Result(NAME_NOT_FOUND, measures)
    if rcode != NOERROR:
        return Result(RESOLVER_FAILURE, measures)
    if config.resolver.address not in addresses:
        return Result(RESOLVER_WRONG_ADDRESS, measures)
    slow = elapsed_ms > config.thresholds.resolver_ms
    return Result(RESOLVER_SLOW if slow else OK, measures)


async def _reference(port, config, server):
    """Return the block about the reference resolver."""
    gap_ms = max(1, config.deadline_ms["resolver"] // _GAPS)
    name = config.resolver.name
    rcode, addresses, elapsed_ms = await ask(port, server, name, gap_ms * 12, gap_ms)
    if rcode is None:
        return struct.pack(REFERENCE_FORMAT, _SILENT, 0xFFFF)
    if rcode == NOERROR and config.resolver.address not in addresses:
        rcode = _WRONG_ADDRESS
    return struct.pack(REFERENCE_FORMAT, rcode, min(elapsed_ms, 0xFFFE))
