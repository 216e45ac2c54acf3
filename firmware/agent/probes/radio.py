"""Radio: is the own WLAN in the air here, how strong, and what else is?

A scan costs an ESP32 about two seconds off its channel; it runs before everything else in
the cycle, so nothing is measured meanwhile, and the association survives it. Therefore
every cycle scans, except that a board that has chosen an access point and not failed with it
scans at most a tenth of its time, and one that is associated only where the deadline allows
for it: with a short period there would be no time for anything else. Between two scans the
findings of the last one stand; the blocks of the report come with a scan only.

One scan may miss a beacon: what is not there is looked for twice. An access point can only be
missing where it was heard well before: a list of a whole school's may be longer than one
room's air.
"""

import struct

from linkreport.block import AIR, AIR_FORMAT, FOREIGN, FOREIGN_FORMAT, OWN, OWN_FORMAT
from linkreport.seal import Seal
from linkreport.table import (
    ACCESS_POINT_MISSING,
    CHANNEL_CROWDED,
    NETWORK_NOT_FOUND,
    OK,
    RADIO,
    SECURITY_MISMATCH,
    WEAK_SIGNAL,
)
from micropython import const
from port import ENTERPRISE, OPEN

from ..deadline import sleep_ms
from . import Result

LAYER = RADIO
NEEDS = 0

_SCAN_EVERY_MOST_MS = const(20000)
_SCAN_SHARE = const(10)
_PAUSE_MS = const(100)
_ROAM_DB = const(10)
_IN_REACH_DBM = const(-80)  # heard so well, an access point that falls silent is missing
_DISTURBS_DBM = const(-82)  # clear channel assessment of 802.11 for a frame of 20 MHz
_OVERLAP_CHANNELS = const(2)
_LAST_NARROW_CHANNEL = const(14)  # of 2.4 GHz, whose channels overlap
_MOST_OWN = const(10)
_MOST_FOREIGN = const(30)
_HASH_BYTES = const(4)


async def probe(port, config, evidence):
    """Scan for the own SSID."""
    link, wlan = evidence.link, evidence.wlan
    start_ms = port.uptime_ms()
    until_ms = start_ms + config.deadline_ms["radio"]
    holds = link.holds()
    evidence.access_point = link.access_point
    is_chosen = link.access_point and (holds or link.pends() or not link.requested)
    has_no_time = holds and config.deadline_ms["radio"] < link.scan_ms
    every_ms = min(_SCAN_EVERY_MOST_MS, link.scan_ms * _SCAN_SHARE)
    if is_chosen and (has_no_time or start_ms - link.scanned_at_ms < every_ms):
        return _judged(port, evidence, config, {})
    networks, link.networks = link.networks or _scan(port, link), None
    best, held = choose(networks, wlan, link.access_point if holds else None)
    gone = _missing(networks, wlan, link)
    is_new = (best is None and not holds) or (gone and link.air != ACCESS_POINT_MISSING)
    if is_new and port.uptime_ms() + link.scan_ms < until_ms:
        await sleep_ms(_PAUSE_MS)
        networks = _scan(port, link)
        best, held = choose(networks, wlan, link.access_point if holds else None)
    networks.sort(key=_weakness)
    link.scanned_at_ms = port.uptime_ms()
    if held and _left_for(best, held, config):
        link.drop()
        held = None
    if held or not link.holds():
        link.access_point = held or best
    link.air = _air(networks, config, link, wlan, link.access_point)
    for other in (config.wlan,) + config.watch if config.watch else ():
        entry = choose(networks, other, None)[0]
        link.others[other.ssid] = entry, _air(networks, config, link, other, entry)
    evidence.access_point = link.access_point
    measures = _survey(networks, config, link)
    # An association that stands proves more than a scan that did not see it.
    if evidence.access_point is None:
        link.drop()
        return Result(NETWORK_NOT_FOUND, measures)
    return _judged(port, evidence, config, measures)


def _scan(port, link):
    start_ms = port.uptime_ms()
    networks = list(port.scan())
    link.scan_ms = port.uptime_ms() - start_ms
    return networks


def _weakness(network):
    return -network[3]


def choose(networks, wlan, holding):
    """Return the own network's best access point and the one we hold, None for none.

    The best is the strongest of those that are protected as they should be; where there are
    none, the strongest of all. With BSSIDs in the configuration only those count, and then
    also where the SSID is hidden; without, every access point with the SSID.
    """
    best = held = None
    for network in networks:
        if not _is_own(network, wlan):
            continue
        if holding and network[1] == holding[1]:
            held = network
        if best is None or (fits(network, wlan), network[3]) > (fits(best, wlan), best[3]):
            best = network
    return best, held


def _is_own(network, wlan):
    ssid, bssid = network[:2]
    if wlan.bssids:
        return bssid in wlan.bssids and ssid in (b"", wlan.ssid.encode())
    return ssid == wlan.ssid.encode()


def fits(network, wlan):
    """Tell whether an access point is protected as the configuration says."""
    return network[4] != ENTERPRISE and (network[4] == OPEN) == (wlan.security == "open")


def _missing(networks, wlan, link):
    """Tell whether an access point that was in reach is not in the air; learn what is."""
    there = {network[1]: network[3] for network in networks}
    gone = False
    for bssid in wlan.bssids:
        if there.get(bssid, -128) >= _IN_REACH_DBM and bssid not in link.heard:
            link.heard.append(bssid)
        if bssid in link.heard and bssid not in there:
            gone = gone or not (link.holds() and link.access_point[1] == bssid)
    return gone


def _air(networks, config, link, wlan, access_point):
    """Judge what stands around an access point."""
    if _missing(networks, wlan, link):
        return ACCESS_POINT_MISSING
    if access_point is None:
        return OK
    heard = _neighbours(networks, config, access_point[2])
    disturbing = sum(1 for rssi_dbm in heard if rssi_dbm > _DISTURBS_DBM)
    return CHANNEL_CROWDED if disturbing >= config.thresholds.crowded_networks else OK


def _neighbours(networks, config, channel):
    """Return how strong foreign networks are on a channel, or on one that overlaps."""
    reach = _OVERLAP_CHANNELS if channel <= _LAST_NARROW_CHANNEL else 0
    return [n[3] for n in networks if abs(n[2] - channel) <= reach and not _is_ours(n, config)]


def _is_ours(network, config):
    return any(_is_own(network, wlan) for wlan in (config.wlan,) + config.watch)


def _survey(networks, config, link):
    """Return the blocks that tell what is in the air; the strongest come first."""
    own, foreign = [], []
    for network in networks:
        (own if _is_ours(network, config) else foreign).append(network)
    counts = bytearray(7)
    for network in foreign:
        at = network[2] - 1
        if 0 <= at < _LAST_NARROW_CHANNEL:
            shift = 0 if at & 1 else 4
            if counts[at >> 1] >> shift & 15 < 15:
                counts[at >> 1] += 1 << shift
    crowd, strongest_dbm = 255, -128
    if link.access_point:
        near = _neighbours(networks, config, link.access_point[2])
        crowd = min(len([rssi_dbm for rssi_dbm in near if rssi_dbm > _DISTURBS_DBM]), 254)
        strongest_dbm = max(near) if near else -128
    total = min(len(foreign), 254)
    return {
        AIR: struct.pack(AIR_FORMAT, min(len(own), 254), total, crowd, strongest_dbm, counts),
        OWN: b"".join(
            struct.pack(OWN_FORMAT, bssid, rssi_dbm, channel, security)
            for _, bssid, channel, rssi_dbm, security in own[:_MOST_OWN]
        ),
        FOREIGN: _hashed(foreign[:_MOST_FOREIGN], config.hash_key, link.day),
    }


def _hashed(networks, key, day):
    """Hide BSSIDs: HMAC-SHA256 over the day and the BSSID, cut to four bytes."""
    if not key or not day:
        return b""
    seal = Seal(key + bytes(16))  # RFC 2104: a short key is filled up with zeros
    salt = struct.pack(">I", day)
    return b"".join(
        struct.pack(FOREIGN_FORMAT, seal.tag(salt, bssid)[:_HASH_BYTES], channel, rssi_dbm)
        for _, bssid, channel, rssi_dbm, _ in networks
    )


def _left_for(best, held, config):
    """Tell whether a client would roam: the one it holds is weak, another far stronger."""
    return held[3] < config.thresholds.rssi_dbm and best[3] >= held[3] + _ROAM_DB


def _judged(port, evidence, config, measures):
    link, access_point = evidence.link, evidence.access_point
    _, bssid, channel, rssi_dbm, security = access_point
    held_dbm = port.rssi_dbm()  # of now, where the scan may be of some time ago
    if held_dbm is not None:
        rssi_dbm = held_dbm
    measures.update({"rssi_dbm": rssi_dbm, "channel": channel, "bssid": bssid})
    if not (link.holds() or security == ENTERPRISE or fits(access_point, evidence.wlan)):
        link.drop()
        return Result(SECURITY_MISMATCH, measures)
    if link.air != ACCESS_POINT_MISSING and rssi_dbm < config.thresholds.rssi_dbm:
        return Result(WEAK_SIGNAL, measures)
    return Result(link.air, measures)
