"""The Ethernet of boards that are known by name.

firmware/README.md has the same table, with its sources; a test holds the two together.
"""

import machine
import network

# PHY, its address, power and reset (None: not wired), clock, whether the ESP32 gives the clock.
# All of them have MDC on 23 and MDIO on 18.
_BOARDS = {
    "esp32-ethernet-kit": ("IP101", 1, 5, None, 0, False),
    "lilygo-t-internet-poe": ("LAN8720", 0, None, 5, 17, True),
    "olimex-esp32-gateway": ("LAN8720", 0, 5, None, 17, True),
    "olimex-esp32-poe": ("LAN8720", 0, 12, None, 17, True),
    "wt32-eth01": ("LAN8720", 1, 16, None, 0, False),
}
_MDC, _MDIO = 23, 18


def start(name):
    """Start the Ethernet of a board.

    Returns: the interface, which has no address yet.

    Raises:
        ValueError: no board of this name is known.
        OSError: the hardware is not there.
    """
    if name not in _BOARDS:
        raise ValueError("no Ethernet of a board %s is known" % name)
    phy, address, power, reset, clock, gives_clock = _BOARDS[name]
    pin = machine.Pin
    lan = network.LAN(  # type: ignore[call-arg]
        mdc=pin(_MDC),
        mdio=pin(_MDIO),
        power=None if power is None else pin(power),
        reset=None if reset is None else pin(reset),
        phy_type=getattr(network, "PHY_" + phy),
        phy_addr=address,
        ref_clk=pin(clock),
        ref_clk_mode=pin.OUT if gives_clock else pin.IN,
    )
    lan.active(True)
    return lan
