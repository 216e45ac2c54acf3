"""The report of one cycle: judge what the probes found, and say it as the wire format wants it.

Borrowed for a moment once a cycle (see `agent.loan`), so it keeps nothing.
"""

import sys

import linkreport.body as wire
from linkreport.block import (
    AGENT,
    AIR,
    ASSOCIATION,
    ERROR,
    FOREIGN,
    LEASE,
    OWN,
    PATH,
    PORTAL,
    REFERENCE,
    SENSOR,
    SERVICE,
    TARGET,
    THROUGHPUT,
    UPLINK,
    WATCH,
)
from linkreport.frame import CORE_BYTES, MAX_BODY_BYTES
from linkreport.table import DEVICE, FLASH_FAILED, MEMORY_LOW, OK
from linkreport.verdict import judge
from micropython import const

from . import VERSION

_MEMORY_LOW_BYTES = const(10000)
_VERDICT_AT = const(10)  # state, layer and reason in a report
# Extension blocks in the order of their importance: a report has no room for all of them.
_BLOCKS = bytes(
    (
        UPLINK,
        AGENT,
        OWN,
        WATCH,
        ASSOCIATION,
        LEASE,
        PATH,
        SENSOR,
        PORTAL,
        TARGET,
        SERVICE,
        REFERENCE,
        THROUGHPUT,
        AIR,
        ERROR,
        FOREIGN,
    )
)
# What may be told in part: block and the bytes of its smallest part.
_PARTS = {OWN: 9, FOREIGN: 6, ERROR: 1}
# In an order that lasts, so that the spool need not say it anew in each report.
_SORTED = (OWN, FOREIGN)


def seal(agent, evidence, heap_free_bytes):
    """Make and seal the report of one cycle; the spool's `make_room` must have been called.

    `heap_free_bytes` was taken before this module was borrowed.

    Returns: (sealed report, (its number, state, layer, reason)).
    """
    measures = evidence.measures
    text = agent.faults.take()
    if text:
        measures[ERROR] = text.encode()
    measures[UPLINK] = agent.uplink.block()
    if not agent.told_version:
        about = "%s %s " % (VERSION, sys.implementation.name)
        measures[AGENT] = (
            about + ".".join(str(n) for n in sys.implementation.version[:3])
        ).encode()
    values = report(
        agent.port,
        agent.config,
        evidence,
        now=agent.clock.now(),
        boot=agent.boot,
        heap_free_bytes=heap_free_bytes,
        error_count=agent.faults.count,
        spool=agent.spool,
    )
    raw = wire.pack(values, agent.seal, agent.spool.tag)
    return raw, (agent.spool.next_seq,) + values[_VERDICT_AT : _VERDICT_AT + 3]


def report(port, config, evidence, *, now, boot, heap_free_bytes, error_count, spool):
    """Return what the report of one cycle holds; `now` is (Unix seconds or 0, clock quality)."""
    if evidence.reasons[DEVICE - 1] == OK:
        no_memory = isinstance(spool.error, MemoryError)  # to write, that is
        if spool.error and not no_memory:
            evidence.reasons[DEVICE - 1] = FLASH_FAILED
        elif no_memory or heap_free_bytes < _MEMORY_LOW_BYTES:
            evidence.reasons[DEVICE - 1] = MEMORY_LOW
    state, layer, reason, confidence_percent = judge(evidence.reasons)
    measured = evidence.measures.get
    time_s, clock = now
    return (  # as linkreport.report names them, in its order
        0,  # version and length, which packing fills in
        0,
        config.key_id,
        spool.next_seq,
        spool.oldest_seq,
        boot,
        config.period_s,
        port.uptime_ms() // 10 & wire.NO_U32,
        time_s,
        clock,
        state,
        layer,
        reason,
        confidence_percent,
        bytes(evidence.reasons),
        max(-127, min(0, measured("rssi_dbm") or wire.NO_RSSI)),
        _fit(measured("channel"), wire.NO_U8),
        measured("bssid") or wire.NO_BSSID,
        _fit(measured("association_ms"), wire.NO_U16),
        _fit(measured("addressing_ms"), wire.NO_U16),
        _fit(measured("gateway_rtt_us"), wire.NO_U32),
        _fit(measured("gateway_loss_percent"), wire.NO_U8),
        _fit(port.reset_cause(), wire.NO_U8),
        _fit(measured("resolver_ms"), wire.NO_U16),
        _fit(measured("internet_connect_ms"), wire.NO_U16),
        _fit(measured("internet_http_ms"), wire.NO_U16),
        _fit(measured("http_status"), wire.NO_U16),
        _fit(heap_free_bytes, wire.NO_U32),
        _fit(spool.waiting, wire.NO_U16),
        _fit(error_count, wire.NO_U16),
        extensions(evidence.measures),
    )


def extensions(measures):
    """Pack the extension blocks, the most important first; what has no room is left out."""
    packed = b""
    for kind in _BLOCKS:
        content = measures.get(kind)
        room = MAX_BODY_BYTES - CORE_BYTES - len(packed) - 2
        if content and len(content) > room:
            part = _PARTS.get(kind, 256)
            content = content[: max(0, room // part * part)]
        if content and kind in _SORTED:
            part = _PARTS[kind]
            parts = [bytes(content[at : at + part]) for at in range(0, len(content), part)]
            content = b"".join(sorted(parts))
        if content:
            packed += wire.extension(kind, content)
    return packed


def _fit(value, nothing):
    """Return a value as its field holds it: `nothing` for none, the largest for more."""
    return nothing if value is None else max(0, min(value, nothing - 1))
