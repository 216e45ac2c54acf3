"""ESP32_GENERIC from MicroPython 1.24 on, and the virtual board, which looks the same."""

import binascii
import gc
import os
import socket
import sys
import time

import esp32
import machine
import network

from . import (
    ASSOCIATED,
    COLLECT_EVERY_BYTES,
    CONNECTING,
    ENTERPRISE,
    FAILED,
    IDLE,
    OPEN,
    PERSONAL,
    TECHNICIAN_MS,
    WATCHDOG_MS,
)

# An ESP32 counts its seconds from 2000, other builds from 1970.
_EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0

# What WLAN.status() says while nothing has failed; else ESP-IDF's wifi_err_reason_t.
_STATUS = {
    1000: IDLE,
    1001: CONNECTING,
    8: IDLE,  # we left; the news of it may come when we are on our way again
}
# ESP-IDF's wifi_auth_mode_t: 802.1X in its variants.
_ENTERPRISE = (5, 10, 14, 15, 16)
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - what an interface without a lease says
_I2C_HZ = 100000
_LIGHTS = 24  # the longest ring in use; a shorter one lets the rest go by
# WS2812: green, red, blue, dim; and the times of its bits in ns.
_COLOURS = (b"\x00\x00\x00", b"\x28\x00\x00", b"\x18\x28\x00", b"\x00\x28\x00")
_BIT_NS = (400, 850, 800, 450)


class Esp32Port:
    """An ESP32 board."""

    def __init__(self):
        self.socket = socket
        self._ticks = time.ticks_ms()
        self._uptime_ms = 0
        self._watchdog = None
        self._store = esp32.NVS("netzpuls")
        self._wlan = None
        self._lan = None
        self._pins = None

    def uptime_ms(self):
        """Return the milliseconds since the start; to be asked at least once in six days."""
        now = time.ticks_ms()
        self._uptime_ms += time.ticks_diff(now, self._ticks)
        self._ticks = now
        return self._uptime_ms

    def ticks_us(self):
        """Return a mark for ticks_us_since."""
        return time.ticks_us()

    def ticks_us_since(self, start):
        """Return the microseconds since a mark, at most nine minutes."""
        return time.ticks_diff(time.ticks_us(), start)

    def time_s(self):
        """Return the clock in Unix seconds."""
        return int(time.time()) + _EPOCH_S

    def set_time_s(self, unix_s):
        """Set the clock."""
        year, month, day, hour, minute, second, weekday = time.gmtime(unix_s - _EPOCH_S)[:7]
        machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))

    def board_id(self):
        """Return the id that this chip's board has."""
        return "np-" + binascii.hexlify(machine.unique_id()).decode()

    def boot(self):
        """Count and return this boot."""
        number = ((self.recall("boot") or 0) + 1) & 0xFFFF
        self.remember("boot", number)
        return number

    def reset_cause(self):
        """Return why the board started."""
        return machine.reset_cause()

    def recall(self, name):
        """Return a number from flash, None if there is none."""
        try:
            return self._store.get_i32(name)
        except OSError:
            return None

    def remember(self, name, number):
        """Keep a number in flash."""
        self._store.set_i32(name, number)
        self._store.commit()

    def watch(self):
        """Start the watchdog."""
        self._watchdog = True  # Ctrl-C may come when it runs and has no name yet
        self._watchdog = machine.WDT(timeout=WATCHDOG_MS)

    def feed(self):
        """Feed the watchdog."""
        if self._watchdog:
            self._watchdog.feed()

    def release(self):
        """Let a technician work: a watchdog cannot be stopped, but it can be told to wait.

        So a board forgotten at the console comes back by itself. A soft reset keeps this.

        Returns: whether there is a watchdog.
        """
        if self._watchdog:
            self._watchdog = machine.WDT(timeout=TECHNICIAN_MS)
        return self._watchdog is not None

    def spare_heap(self):
        """Collect garbage often from now on, so that it makes no gaps in the heap."""
        gc.collect()
        gc.threshold(COLLECT_EVERY_BYTES)

    def heap_free_bytes(self):
        """Return the free heap after a collection."""
        gc.collect()
        return gc.mem_free()

    def flash_free_bytes(self):
        """Return the free bytes of the file system."""
        stat = os.statvfs("/")
        return stat[0] * stat[3]

    def _radio(self):
        if self._wlan is None:
            wlan = network.WLAN(network.STA_IF)
            wlan.active(True)
            # Driver retries would hide every reason; power saving adds 100 ms to an echo.
            wlan.config(reconnects=0)
            wlan.config(pm=network.WLAN.PM_NONE)
            self._wlan = wlan
            self.dissociate()  # what an earlier run began, before a soft reset
            self.dhcp()
        return self._wlan

    def scan(self):
        """Look for access points; blocks for about two seconds.

        Raises: OSError: the radio does not work.
        """
        return [
            (
                bytes(ssid),
                bytes(bssid),
                channel,
                rssi,
                OPEN if auth == 0 else ENTERPRISE if auth in _ENTERPRISE else PERSONAL,
            )
            for ssid, bssid, channel, rssi, auth, _ in self._radio().scan()
        ]

    def associate(self, ssid, key, bssid=None):
        """Begin to associate."""
        self._radio().connect(ssid, key or None, bssid=bssid)

    def dissociate(self):
        """Leave the access point, or stop trying."""
        try:
            self._radio().disconnect()
        except OSError:  # not associated, which is what was wanted
            return

    def link(self):
        """Return the link state."""
        wlan = self._radio()
        if wlan.isconnected():
            return ASSOCIATED
        state = _STATUS.get(wlan.status(), FAILED)
        # Until there is a lease the driver says "connecting": the RSSI tells the rest.
        if state in (CONNECTING, IDLE) and self.rssi_dbm() is not None:
            return ASSOCIATED
        return state

    def rssi_dbm(self):
        """Return the strength of the association, None without one."""
        try:
            return self._radio().status("rssi")
        except OSError:
            return None

    def driver_status(self):
        """Return what WLAN.status() says: ESP-IDF's wifi_err_reason_t, or 1000 and more."""
        return self._radio().status()

    def mac(self):
        """Return the station's address."""
        return bytes(self._radio().config("mac"))

    def lease(self):
        """Return (address, gateway, resolver), "" for what is missing."""
        address, _, gateway, resolver = self._radio().ifconfig()
        return tuple("" if a == _NO_ADDRESS else a for a in (address, gateway, resolver))

    def netmask(self):
        """Return the netmask of the lease."""
        return self._radio().ifconfig()[1]

    def dhcp(self):
        """Leave the address to the driver's DHCP client, which starts anew if it stood still."""
        # ifconfig("dhcp") raises RuntimeError while the client runs.
        self._radio().ipconfig(dhcp4=True)

    def fix(self, address, netmask, gateway, resolver):
        """Set a static address; the driver's DHCP client stops."""
        self._radio().ifconfig((address, netmask, gateway or _NO_ADDRESS, resolver or _NO_ADDRESS))

    def lan_start(self, name):
        """Start the Ethernet; the address comes from its driver's DHCP client.

        Raises:
            ValueError: no board of this name is known.
            OSError: the hardware is not there.
        """
        # Most boards never need it, so it is not kept in memory.
        from .lan import start

        del sys.modules["port.lan"], sys.modules["port"].lan
        self._lan = start(name)

    def lan_address(self):
        """Return the LAN's address, "" as long as it has none."""
        return self._lan.ifconfig()[0] if self._lan and self._lan.isconnected() else ""

    def bind_wlan(self, sock):
        """Let a socket use the WLAN, which is the only way there is without a LAN."""
        if self._lan:
            _bind(sock, self.lease()[0])

    def bind_lan(self, sock):
        """Let a socket use the LAN."""
        _bind(sock, self.lan_address())

    def wire(self, config):
        """Take the pins from the configuration; the LED's also for a start without one."""
        self._pins = config
        led = 0 if config.led is None else config.led + 1
        try:
            if (self.recall("led") or 0) != led:
                self.remember("led", led)
        except OSError:  # a worn memory is no reason not to measure
            pass
        self.led(1)  # it starts

    def i2c(self):
        """Return the bus, None without pins for it."""
        pins = self._pins and self._pins.i2c
        if not pins:
            return None
        return machine.I2C(0, sda=machine.Pin(pins.sda), scl=machine.Pin(pins.scl), freq=_I2C_HZ)

    def light(self, level):
        """Show a level with the CO2 light, if there is one: WS2812 on one pin, or three LEDs."""
        pins = self._pins and self._pins.light
        if isinstance(pins, tuple):
            for number, pin in enumerate(pins, 1):
                machine.Pin(pin, machine.Pin.OUT, value=1 if number == level else 0)
        elif pins is not None:
            pin = machine.Pin(pins, machine.Pin.OUT)
            machine.bitstream(pin, 0, _BIT_NS, _COLOURS[level] * _LIGHTS)

    def led(self, on):
        """Switch the LED, if there is one."""
        led = self.recall("led")
        try:
            if led:
                machine.Pin(led - 1, machine.Pin.OUT, value=1 if on else 0)
        except ValueError:  # a pin that this module has not, or uses itself
            pass


def _bind(sock, address):
    if address:
        sock.bind(socket.getaddrinfo(address, 0)[0][-1])
