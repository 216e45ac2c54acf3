"""Radio: is the own WLAN in the air here, and how strong?

A scan costs an ESP32 about two seconds off its channel; it runs before everything else in
the cycle, so nothing is measured meanwhile, and the association survives it. Therefore
every cycle scans, except that a board that is associated, or still about to be, does so at
most every 20 s: with a short period there would be no time for anything else.
"""

from linkreport.table import NETWORK_NOT_FOUND, OK, RADIO, WEAK_SIGNAL

from ..deadline import sleep_ms
from . import Result

LAYER = RADIO
NEEDS = 0

_SCAN_EVERY_MS = 20000
_PAUSE_MS = 100
_ROAM_DB = 10


async def probe(port, config, evidence):
    """Scan for the own SSID."""
    link = evidence.link
    until_ms = port.uptime_ms() + config.deadline_ms["radio"]
    holds = link.holds()
    if (holds or link.pends()) and port.uptime_ms() - link.scanned_at_ms < _SCAN_EVERY_MS:
        evidence.access_point = link.access_point
        return _held(port, config, link)
    best, held = choose(port.scan(), config.wlan, link.bssid if holds else None)
    if best is None and not holds and port.uptime_ms() < until_ms:
        await sleep_ms(_PAUSE_MS)  # one scan may miss a beacon
        best, held = choose(port.scan(), config.wlan, None)
    link.scanned_at_ms = port.uptime_ms()
    if holds and best is None:
        return _held(port, config, link)  # the association proves more than a scan
    if best is None:
        return Result(NETWORK_NOT_FOUND, {})
    if holds and held and _left_for(best, held, config):
        link.drop()
    elif holds:
        best = held or best
    evidence.access_point = link.access_point = best
    return _seen(config, best)


def choose(networks, wlan, held_bssid):
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
        if bssid == held_bssid:
            held = network
        if best is None or rssi_dbm > best[3]:
            best = network
    return best, held


def _left_for(best, held, config):
    """Tell whether a client would roam: the one it holds is weak, another far stronger."""
    return held[3] < config.thresholds.rssi_dbm and best[3] >= held[3] + _ROAM_DB


def _seen(config, access_point):
    _, bssid, channel, rssi_dbm, _ = access_point
    return _judged(config, rssi_dbm, channel, bssid)


def _held(port, config, link):
    rssi_dbm = port.rssi_dbm()
    if rssi_dbm is None:
        return Result(OK, {"channel": link.channel, "bssid": link.bssid})
    return _judged(config, rssi_dbm, link.channel, link.bssid)


def _judged(config, rssi_dbm, channel, bssid):
    reason = WEAK_SIGNAL if rssi_dbm < config.thresholds.rssi_dbm else OK
    return Result(reason, {"rssi_dbm": rssi_dbm, "channel": channel, "bssid": bssid})
