"""network.LAN of an ESP32 on an interface of the board process.

Source: MicroPython's ports/esp32/network_lan.c.
"""

from . import channel

__all__ = (
    "LAN",
    "PHY_LAN8710",
    "PHY_LAN8720",
    "PHY_IP101",
    "PHY_RTL8201",
    "PHY_DP83848",
    "PHY_KSZ8041",
    "PHY_KSZ8081",
    "PHY_KSZ8851SNL",
    "PHY_DM9051",
    "PHY_W5500",
    "ETH_INITIALIZED",
    "ETH_STARTED",
    "ETH_STOPPED",
    "ETH_CONNECTED",
    "ETH_DISCONNECTED",
    "ETH_GOT_IP",
)

PHY_LAN8710, PHY_LAN8720, PHY_IP101, PHY_RTL8201, PHY_DP83848 = 0, 1, 2, 3, 4
PHY_KSZ8041, PHY_KSZ8081, PHY_KSZ8851SNL, PHY_DM9051, PHY_W5500 = 5, 6, 100, 101, 102
ETH_INITIALIZED, ETH_STARTED, ETH_STOPPED = 0, 1, 2
ETH_CONNECTED, ETH_DISCONNECTED, ETH_GOT_IP = 3, 4, 5


class LAN:
    """The Ethernet interface; pins and PHY are accepted as they are."""

    def __init__(self, id=0, **options):
        if "phy_type" not in options or "phy_addr" not in options:
            raise TypeError("'phy_addr' and 'phy_type' are needed")
        channel.call("lan-start")

    def active(self, on=None):
        return channel.call("lan-active", on=on if on is None else bool(on))

    def isconnected(self):
        return channel.call("lan-status") == ETH_GOT_IP

    def status(self, param=None):
        if param is not None:
            raise ValueError("unknown config param")
        return channel.call("lan-status")

    def ifconfig(self, config=None):
        if config is None:
            return tuple(channel.call("lan-address"))
        channel.call("lan-set-address", config=config if config == "dhcp" else list(config))

    def ipconfig(self, param=None, **config):
        address, netmask, gateway, resolver = self.ifconfig()
        if param == "addr4":
            return (address, netmask)
        if param == "gw4":
            return gateway
        if param == "has_dhcp4":
            return self.isconnected()
        if param is not None:
            raise ValueError("unknown config param")
        if config.get("dhcp4"):
            self.ifconfig("dhcp")
        if "addr4" in config:
            self.ifconfig(tuple(config["addr4"]) + (gateway, resolver))

    def config(self, param=None, **values):
        if param != "mac":
            raise ValueError("unknown config param")
        return bytes.fromhex(channel.call("lan-mac"))
