"""network of an ESP32 on the board process's radio model.

Source: MicroPython's ports/esp32/network_wlan.c. As there, status() says STAT_CONNECTING as
long as the driver tries again, which it does for ever unless config(reconnects=n) is set.
"""

import time

from . import channel
from .lan import *

STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
STAT_BEACON_TIMEOUT, STAT_NO_AP_FOUND, STAT_WRONG_PASSWORD = 200, 201, 202
STAT_ASSOC_FAIL, STAT_HANDSHAKE_TIMEOUT = 203, 204
AUTH_OPEN, AUTH_WEP, AUTH_WPA_PSK, AUTH_WPA2_PSK, AUTH_WPA_WPA2_PSK = 0, 1, 2, 3, 4
AUTH_WPA2_ENTERPRISE, AUTH_WPA3_PSK, AUTH_WPA2_WPA3_PSK = 5, 6, 7
MODE_11B, MODE_11G, MODE_11N, MODE_LR = 1, 2, 4, 8

_hostname = "mpy-esp32"
_country = "XX"


class WLAN:
    """The station interface; the access point interface is there and does nothing."""

    IF_STA, IF_AP = STA_IF, AP_IF
    SEC_OPEN, SEC_WPA2, SEC_WPA3 = AUTH_OPEN, AUTH_WPA2_PSK, AUTH_WPA3_PSK
    PM_NONE, PM_PERFORMANCE, PM_POWERSAVE = 0, 1, 2

    def __init__(self, interface=STA_IF):
        if interface not in (STA_IF, AP_IF):
            raise ValueError("invalid WLAN interface identifier")
        self._interface = interface

    def _call(self, op, **values):
        if self._interface != STA_IF:
            raise OSError("STA required")
        return channel.call("wlan-" + op, **values)

    def active(self, on=None):
        if self._interface == AP_IF:
            if on:
                raise OSError("the virtual board is no access point")
            return False
        return self._call("active", on=on if on is None else bool(on))

    def scan(self):
        time.sleep_ms(self._call("scan-start"))
        return [
            (ssid.encode(), bytes.fromhex(bssid), channel_number, rssi, security, hidden)
            for ssid, bssid, channel_number, rssi, security, hidden in self._call("scan")
        ]

    def connect(self, ssid=None, key=None, *, bssid=None):
        if bssid is not None and len(bssid) != 6:
            raise ValueError
        self._call(
            "connect",
            ssid=_text(ssid),
            key=_text(key),
            bssid=bssid if bssid is None else bytes(bssid).hex(),
        )

    def disconnect(self):
        self._call("disconnect")

    def isconnected(self):
        return self._interface == STA_IF and self._call("status") == STAT_GOT_IP

    def status(self, param=None):
        if param is None:
            return self._call("status") if self._interface == STA_IF else None
        if param == "rssi":
            return self._call("rssi")
        if param == "stations":
            return []
        raise ValueError("unknown status param")

    def ifconfig(self, config=None):
        if config is None:
            return tuple(self._call("address"))
        if config == "dhcp" and self._call("dhcp"):
            raise RuntimeError("Wifi Unknown Error 0x5004")  # ESP-IDF's: already started
        self._call("set-address", config=config if config == "dhcp" else list(config))

    def ipconfig(self, param=None, **config):
        address, netmask, gateway, _ = self._call("address")
        if param == "addr4":
            return (address, netmask)
        if param == "gw4":
            return gateway
        if param in ("dhcp4", "has_dhcp4"):
            return self._call("dhcp") if param == "dhcp4" else self.isconnected()
        if param is not None:
            raise ValueError("unknown config param")
        if config.get("dhcp4"):
            self._call("set-address", config="dhcp")
        if "addr4" in config:
            resolver = self._call("address")[3]
            self._call("set-address", config=list(config["addr4"]) + [gateway, resolver])

    def config(self, param=None, **values):
        if param is not None:
            value = channel.call("wlan-config", get=param)
            return bytes.fromhex(value) if param == "mac" else value
        for name, value in values.items():
            if isinstance(value, (bytes, bytearray)):
                value = bytes(value).hex()
            channel.call("wlan-config", set=name, to=value)


def _text(value):
    return value.decode() if isinstance(value, (bytes, bytearray)) else value


def hostname(name=None):
    global _hostname
    if name is None:
        return _hostname
    _hostname = name


def country(code=None):
    global _country
    if code is None:
        return _country
    _country = code


def phy_mode(mode=None):
    return MODE_11B | MODE_11G | MODE_11N


def ipconfig(param=None, **config):
    if param == "dns":
        return channel.call("resolver")
    if param is not None:
        raise ValueError("unknown config param")
