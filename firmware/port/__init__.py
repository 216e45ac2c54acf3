"""The hardware behind one small interface: the agent asks a port, never the chip.

`load()` gives the board's port. Tests make a `port.null.NullPort` themselves. A port has:

    socket                       the socket module, or what stands for it
    uptime_ms()                  since the start; never goes back, never wraps
    ticks_us(), ticks_us_since(start)
    time_s(), set_time_s(unix_s) the clock, in Unix seconds
    board_id()                   this board's id; None if the port has no chip to know it from
    boot(), reset_cause()        count of boots; cause as `machine.reset_cause()` numbers it
    recall(name), remember(name, number)
                                 small numbers that outlive a power cut; None if never stored
    watch(), feed()              start and feed the watchdog
    release()                    let a technician work: the watchdog, if it was started, waits
                                 TECHNICIAN_MS; returns whether it was
    spare_heap()                 collect garbage little and often from now on
    heap_free_bytes(), flash_free_bytes()
    scan()                       [(ssid, bssid, channel, rssi_dbm, security), …]
    associate(ssid, key, bssid), dissociate()
    link()                       one of the link states below
    rssi_dbm()                   of the association; None without one
    driver_status()              what the driver says of the association: the reason of IEEE
                                 802.11 (9.4.1.7) for its end, or ESP-IDF's from 200 on
    mac()                        six bytes, of the station
    lease(), netmask()           (address, gateway, resolver) and netmask as text, "" for what is
                                 missing
    dhcp()                       leave the address to the driver's DHCP client
    fix(address, netmask, gateway, resolver)
                                 a static address: the driver's DHCP client stops, which frees
                                 UDP port 68
    lan_start(name)              start the Ethernet of a board known by name; OSError, ValueError
    lan_address()                text, "" without a LAN that works
    bind_wlan(sock), bind_lan(sock)
                                 let a socket's packets leave by that interface
    wire(config)                 take the pins of I2C, light and LED from the configuration, and
                                 switch the LED on
    i2c()                        the bus, None without pins
    light(level)                 the CO2 light: 0 off, 1 green, 2 yellow, 3 red
    led(on)                      the LED, also before there is a configuration: on the pin of the
                                 last one
"""

# Link states, as `link()` tells them.
IDLE = 0
CONNECTING = 1
ASSOCIATED = 2
FAILED = 3  # `driver_status()` says why

# How an access point protects itself, as `scan()` tells it.
OPEN = 0
PERSONAL = 1
ENTERPRISE = 2

WATCHDOG_MS = 60000
TECHNICIAN_MS = 30 * 60 * 1000
COLLECT_EVERY_BYTES = 16384

_loaded = []


def load():
    """Return the port of this board, always the same one."""
    if not _loaded:
        from .esp32 import Esp32Port

        _loaded.append(Esp32Port())
    return _loaded[0]
