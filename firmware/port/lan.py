"""The Ethernet of boards that are known by name.

Source: the manufacturers' schematics. MDC, MDIO, power and clock are GPIO numbers.
"""

import machine
import network

# name: (MDC, MDIO, power or None, PHY, its address, clock, whether the chip gives the clock)
_BOARDS = {
    "olimex-esp32-poe": (23, 18, 12, "LAN8720", 0, 17, True),
    "olimex-esp32-gateway": (23, 18, 5, "LAN8720", 0, 17, True),
    "wt32-eth01": (23, 18, 16, "LAN8720", 1, 0, False),
    "esp32-ethernet-kit": (23, 18, 5, "IP101", 1, 0, False),
}


def start(name):
    """Start the Ethernet of a board.

    Returns: the interface, which has no address yet.

    Raises:
        ValueError: no board of this name is known.
        OSError: the hardware is not there.
    """
    if name not in _BOARDS:
        raise ValueError("no Ethernet of a board %s is known" % name)
    mdc, mdio, power, phy, address, clock, gives_clock = _BOARDS[name]
    pin = machine.Pin
    lan = network.LAN(  # type: ignore[call-arg]
        mdc=pin(mdc),
        mdio=pin(mdio),
        power=None if power is None else pin(power),
        phy_type=getattr(network, "PHY_" + phy),
        phy_addr=address,
        ref_clk=pin(clock),
        ref_clk_mode=pin.OUT if gives_clock else pin.IN,
    )
    lan.active(True)
    return lan
