"""Radio: is the own WLAN in the air here, and how strong?

A scan costs an ESP32 about two seconds off its channel; it runs before everything else in
the cycle, so nothing is measured meanwhile, and the association survives it. Therefore
every cycle scans, except that a board that has chosen an access point and not failed with it
does so at most every 20 s, and one that is associated only where the deadline allows for it:
with a short period there would be no time for anything else.
"""

from linkreport.table import NETWORK_NOT_FOUND, OK, RADIO, WEAK_SIGNAL
from micropython import const

from ..deadline import sleep_ms
from . import Result

LAYER = RADIO
NEEDS = 0

_SCAN_MS = const(2500)
_SCAN_EVERY_MS = const(20000)
_PAUSE_MS = const(100)
_ROAM_DB = const(10)


async def probe(port, config, evidence):
    """Scan for the own SSID."""
    link = evidence.link
    now_ms = port.uptime_ms()
    holds = link.holds()
    evidence.access_point = link.access_point
    is_chosen = link.access_point and (holds or link.pends() or not link.requested)
    has_no_time = holds and config.deadline_ms["radio"] < _SCAN_MS
    if is_chosen and (has_no_time or now_ms - link.scanned_at_ms < _SCAN_EVERY_MS):
        return _judged(port, config, link.access_point)
    networks, link.networks = link.networks or port.scan(), None
    best, held = choose(networks, evidence.wlan, link.access_point if holds else None)
    if best is None and not holds and port.uptime_ms() < now_ms + config.deadline_ms["radio"]:
        await sleep_ms(_PAUSE_MS)  # one scan may miss a beacon
        best, held = choose(port.scan(), evidence.wlan, None)
    link.scanned_at_ms = port.uptime_ms()
    if held and _left_for(best, held, config):
        link.drop()
        held = None
    if held or not link.holds():
        link.access_point = held or best
    evidence.access_point = link.access_point
    # An association that stands proves more than a scan that did not see it.
    if evidence.access_point is None:
        return Result(NETWORK_NOT_FOUND, {})
    return _judged(port, config, evidence.access_point)


def choose(networks, wlan, holding):
    """Return the own network's strongest access point and the one we hold, None for none.

    With BSSIDs in the configuration only those count, and then also where the SSID is
    hidden; without, every access point with the SSID.
    """
    best = held = None
    for network in networks:
        ssid, bssid, _, rssi_dbm, _ = network
        if wlan.bssids:
            if bssid not in wlan.bssids or ssid not in (b"", wlan.ssid.encode()):
                continue
        elif ssid != wlan.ssid.encode():
            continue
        if holding and bssid == holding[1]:
            held = network
        if best is None or rssi_dbm > best[3]:
            best = network
    return best, held


def _left_for(best, held, config):
    """Tell whether a client would roam: the one it holds is weak, another far stronger."""
    return held[3] < config.thresholds.rssi_dbm and best[3] >= held[3] + _ROAM_DB


def _judged(port, config, access_point):
    _, bssid, channel, rssi_dbm, _ = access_point
    held_dbm = port.rssi_dbm()  # of now, where the scan may be of some time ago
    if held_dbm is not None:
        rssi_dbm = held_dbm
    reason = WEAK_SIGNAL if rssi_dbm < config.thresholds.rssi_dbm else OK
    return Result(reason, {"rssi_dbm": rssi_dbm, "channel": channel, "bssid": bssid})
