"""ESP32_GENERIC from MicroPython 1.24 on, and the virtual board, which looks the same."""

import binascii
import gc
import os
import socket
import time

import esp32
import machine
import network
import ntptime

from . import (
    ASSOCIATED,
    BEACON_MISSED,
    COLLECT_EVERY_BYTES,
    CONNECTING,
    ENTERPRISE,
    HANDSHAKE_EXPIRED,
    IDLE,
    KEY_REFUSED,
    NOT_FOUND,
    OPEN,
    PERSONAL,
    REJECTED,
    TECHNICIAN_MS,
    WATCHDOG_MS,
)

# An ESP32 counts its seconds from 2000, other builds from 1970.
_EPOCH_S = 946684800 if time.gmtime(0)[0] == 2000 else 0

# ESP-IDF's wifi_err_reason_t, which WLAN.status() passes through.
_STATUS = {
    1000: IDLE,
    1001: CONNECTING,
    8: IDLE,  # we left; the news of it may come when we are on our way again
    15: HANDSHAKE_EXPIRED,  # the four-way handshake ran out of time
    200: BEACON_MISSED,
    201: NOT_FOUND,
    202: KEY_REFUSED,
    204: HANDSHAKE_EXPIRED,
    210: NOT_FOUND,  # found, but no security that fits
    211: NOT_FOUND,
    212: NOT_FOUND,
}
# ESP-IDF's wifi_auth_mode_t: 802.1X in its variants.
_ENTERPRISE = (5, 10, 14, 15, 16)
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - what an interface without a lease says


class Esp32Port:
    """An ESP32 board."""

    def __init__(self):
        self.socket = socket
        self._ticks = time.ticks_ms()
        self._uptime_ms = 0
        self._watchdog = None
        self._store = esp32.NVS("netzpuls")
        self._wlan = None

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

    def ntp_time_s(self):
        """Ask the NTP server; blocks for about a second at most once its name is known.

        Raises: OSError: no answer.
        """
        return int(ntptime.time()) + _EPOCH_S

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
        state = _STATUS.get(wlan.status(), REJECTED)
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

    def lease(self):
        """Return (address, gateway, resolver), "" for what is missing."""
        address, _, gateway, resolver = self._radio().ifconfig()
        return tuple("" if a == _NO_ADDRESS else a for a in (address, gateway, resolver))
