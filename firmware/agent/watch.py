"""One cycle of a monitor that watches several WLANs: one after the other, its own last.

So the board ends the cycle where it can report, if it has no LAN. The report's core tells of its
own network, the WATCH block of the others; the scan at the beginning serves all of them.
Borrowed for the time of a cycle (see `agent.loan`).
"""

import struct

from linkreport.block import AIR, FOREIGN, OWN, WATCH, WATCH_FORMAT
from linkreport.table import DEGRADED, DOWN, OTHER_NETWORK_FAILED, SERVICE, UP
from linkreport.verdict import judge

from .cycle import PROBES, measure

_SCAN = PROBES[:1]
_OTHERS = PROBES[:-1]  # throughput is measured once
_NO_RSSI_DBM = -128


async def watch(port, config, link, faults):
    """Measure every network within the cycle's deadline; return the Evidence of the own one."""
    start_ms = port.uptime_ms()
    cycle_ms = config.deadline_ms["cycle"]
    count = len(config.watch) + 1
    scan = (await measure(port, config, link, faults, _SCAN)).measures
    told = b""
    failed = False
    for number, wlan in enumerate(config.watch, 1):
        link.turn(wlan.ssid)
        until_ms = start_ms + cycle_ms * number // count
        other = await measure(port, config, link, faults, _OTHERS, wlan=wlan, until_ms=until_ms)
        state, layer, reason, _ = judge(other.reasons)
        failed = failed or state in (DOWN, DEGRADED)
        rssi_dbm = other.measures.get("rssi_dbm", _NO_RSSI_DBM)
        told += struct.pack(WATCH_FORMAT, number, state, layer, reason, rssi_dbm)
    link.turn(config.wlan.ssid)
    evidence = await measure(port, config, link, faults, until_ms=start_ms + cycle_ms)
    for kind in (OWN, AIR, FOREIGN):
        if kind in scan and kind not in evidence.measures:
            evidence.measures[kind] = scan[kind]
    evidence.measures[WATCH] = told
    if failed and judge(evidence.reasons)[0] == UP:
        evidence.reasons[SERVICE - 1] = OTHER_NETWORK_FAILED
    return evidence
