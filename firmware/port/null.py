"""A port without hardware: does what a test says and remembers what was asked of it."""

import errno
import gc
import socket
import struct
import time

from . import ASSOCIATED, COLLECT_EVERY_BYTES, CONNECTING, FAILED, IDLE, PERSONAL

if hasattr(time, "ticks_us"):
    _ticks_us = time.ticks_us
    _ticks_diff = time.ticks_diff
else:

    def _ticks_us():
        return time.monotonic_ns() // 1000  # type: ignore[attr-defined]

    def _ticks_diff(end, start):
        return end - start


_DHCP_CLIENT = 68
_REMEMBERED = 1000


class NullPort:
    """A board that only exists in memory.

    Attributes:
        networks: what a scan shows.
        scan_ms: how long a scan takes, on this board's clock.
        outcome: the link state in which an attempt to associate ends.
        status: what the driver says when the association failed.
        attempt_ms: how long an attempt takes.
        address, mask, gateway, resolver: the lease.
        fixed: the static address and what belongs to it, None while the driver asks DHCP.
        station: the station's address.
        lan: the LAN's address, "" without one; `lan_name` is what was started.
        bus: the I2C bus, None without one.
        lights, leds: what they were told, in order; of the LED the first thousand.
        offset_s: what this clock is off the machine's.
        cause: why the board started.
        chip: the board's id as the chip knows it.
        memory: the small numbers that outlive a power cut.
        calls: names of what was asked of the hardware, in order.
    """

    def __init__(self, ssid="Schule"):
        self.networks = [(ssid.encode(), b"\x02\x00\x00\x00\x00\x01", 6, -55, PERSONAL)]
        self.scan_ms = 0
        self.outcome = ASSOCIATED
        self.status = 0
        self.attempt_ms = 0
        self.address = "10.1.0.50"
        self.mask = "255.255.255.0"
        self.gateway = "10.1.0.1"
        self.resolver = "10.1.0.1"
        self.fixed = None
        self.station = b"\x24\x0a\xc4\x12\x34\x56"
        self.lan = ""
        self.lan_name = None
        self.bus = None
        self.lights = []
        self.leds = []
        self.offset_s = 0
        self.cause = 1
        self.chip = None
        self.memory = {}
        self.calls = []
        self.socket = NullNetwork()
        self._start = _ticks_us()
        self._uptime_us = 0
        self._state = IDLE
        self._attempt_at_ms = 0

    def uptime_ms(self):
        """Return the milliseconds since the start."""
        now = _ticks_us()
        self._uptime_us += _ticks_diff(now, self._start)
        self._start = now
        return self._uptime_us // 1000

    def ticks_us(self):
        """Return a mark for ticks_us_since."""
        return _ticks_us()

    def ticks_us_since(self, start):
        """Return the microseconds since a mark."""
        return _ticks_diff(_ticks_us(), start)

    def time_s(self):
        """Return the clock in Unix seconds."""
        return int(time.time()) + self.offset_s

    def set_time_s(self, unix_s):
        """Set the clock."""
        self.calls.append("set_time_s")
        self.offset_s = unix_s - int(time.time())

    def board_id(self):
        """Return what the test says."""
        return self.chip

    def boot(self):
        """Count and return this boot."""
        self.memory["boot"] = self.memory.get("boot", 0) + 1
        return self.memory["boot"]

    def reset_cause(self):
        """Return why the board started."""
        return self.cause

    def recall(self, name):
        """Return a number, None if there is none."""
        return self.memory.get(name)

    def remember(self, name, number):
        """Keep a number."""
        self.memory[name] = number

    def watch(self):
        """Note it."""
        self.calls.append("watch")

    def feed(self):
        """Note it."""
        self.calls.append("feed")

    def release(self):
        """Note it."""
        self.calls.append("release")
        return "watch" in self.calls

    def spare_heap(self):
        """Collect garbage often, where that can be asked for."""
        if hasattr(gc, "mem_free"):
            gc.collect()
            gc.threshold(COLLECT_EVERY_BYTES)

    def heap_free_bytes(self):
        """Return the free heap; on CPython a number that is enough."""
        gc.collect()
        return gc.mem_free() if hasattr(gc, "mem_free") else 100000

    def flash_free_bytes(self):
        """Return a number that is enough."""
        return 1000000

    def scan(self):
        """Return what the test says."""
        self.calls.append("scan")
        self._uptime_us += self.scan_ms * 1000
        return list(self.networks)

    def associate(self, ssid, key, bssid=None):
        """Begin to associate."""
        self.calls.append("associate")
        self.asked_for = (ssid, key, bssid)
        self._state = CONNECTING
        self._attempt_at_ms = self.uptime_ms()

    def dissociate(self):
        """Leave the access point."""
        self.calls.append("dissociate")
        self._state = IDLE

    def lose(self, status):
        """Lose the association, as a board does when the access point goes away."""
        self._state, self.status = FAILED, status

    def link(self):
        """Return the link state."""
        if self._state == CONNECTING and self.uptime_ms() >= self._attempt_at_ms + self.attempt_ms:
            self._state = self.outcome
        return self._state

    def rssi_dbm(self):
        """Return the strength of the association, None without one."""
        return self.networks[0][3] if self._state == ASSOCIATED and self.networks else None

    def driver_status(self):
        """Return the reason of a failure, or the link state as an ESP32 numbers it."""
        state = self.link()
        return self.status if state == FAILED else (1000, 1001, 1010)[state]

    def mac(self):
        """Return the station's address."""
        return self.station

    def lease(self):
        """Return (address, gateway, resolver)."""
        if self._state != ASSOCIATED:
            return "", "", ""
        if self.fixed:
            return self.fixed[0], self.fixed[2], self.fixed[3]
        return self.address, self.gateway, self.resolver

    def netmask(self):
        """Return the netmask of the lease."""
        return self.fixed[1] if self.fixed else self.mask

    def dhcp(self):
        """Take the address that the test says."""
        self.calls.append("dhcp")
        self.fixed = None

    def fix(self, address, netmask, gateway, resolver):
        """Set a static address."""
        self.calls.append("fix")
        self.fixed = (address, netmask, gateway, resolver)

    def lan_start(self, name):
        """Note it."""
        self.lan_name = name

    def lan_address(self):
        """Return what the test says."""
        return self.lan if self.lan_name else ""

    def bind_wlan(self, sock):
        """Sockets lead where the routes say."""

    def bind_lan(self, sock):
        """Note it: sockets lead where the routes say."""
        self.calls.append("bind_lan")

    def wire(self, config):
        """A board in memory has no pins."""

    def i2c(self):
        """Return what the test says."""
        return self.bus

    def light(self, level):
        """Note it."""
        self.lights.append(level)

    def led(self, on):
        """Note it."""
        if len(self.leds) < _REMEMBERED:
            self.leds.append(on)


class NullNetwork:
    """Stands for the socket module: real sockets on other routes, and a router that echoes.

    Attributes:
        routes: {(address, port): (address, port)} for what shall lead elsewhere.
        echo: whether hosts answer pings; a list answers each ping as it says.
        absent: addresses that no host has.

    A DHCP server of a test is routed as ("255.255.255.255", 67), our own port as ("0.0.0.0", 68);
    without that the port is taken, as it is by the driver's client.
    """

    AF_INET = socket.AF_INET
    SOCK_STREAM = socket.SOCK_STREAM
    SOCK_DGRAM = socket.SOCK_DGRAM
    SOCK_RAW = socket.SOCK_RAW
    SOL_SOCKET = socket.SOL_SOCKET
    SO_REUSEADDR = socket.SO_REUSEADDR
    SO_BROADCAST = socket.SO_BROADCAST

    def __init__(self):
        self.routes = {}
        self.echo = True
        self.absent = []

    def getaddrinfo(self, address, number):
        """Return where the route leads.

        Raises: OSError: the port of a DHCP client, without a route.
        """
        if number == _DHCP_CLIENT and (address, number) not in self.routes:
            raise OSError(errno.EADDRINUSE, "taken")
        return socket.getaddrinfo(*self.routes.get((address, number), (address, number)))

    def socket(self, family, kind, protocol=0):
        """Return a real socket, or the router's echo."""
        if kind == self.SOCK_RAW:
            return NullEcho(self)
        return socket.socket(family, kind, protocol)


class NullEcho:
    """A raw ICMP socket whose other end answers at once."""

    def __init__(self, network):
        self._network = network
        self._packets = []

    def setblocking(self, flag):
        """Never blocks."""

    def sendto(self, packet, target):
        """Answer an echo request, if the test says so."""
        for address in self._network.absent:
            if target == self._network.getaddrinfo(address, 1)[0][-1]:
                return len(packet)
        echo = self._network.echo
        if echo.pop(0) if isinstance(echo, list) else echo:
            # Type 8 becomes 0, so the checksum grows by 0x0800 (RFC 1624).
            summed = struct.unpack(">H", packet[2:4])[0] + 0x0800
            summed = (summed & 0xFFFF) + (summed >> 16)
            reply = b"\x00\x00" + struct.pack(">H", summed) + packet[4:]
            self._packets.append(b"\x45" + bytes(19) + reply)
        return len(packet)

    def recv(self, size):
        """Return the next answer.

        Raises: OSError: EAGAIN, there is none.
        """
        if not self._packets:
            raise OSError(errno.EAGAIN, "nothing there")
        return self._packets.pop(0)[:size]

    def close(self):
        """Nothing to close."""
