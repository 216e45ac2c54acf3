"""A board on port/null whose clock jumps over all waiting: micropython -m soak ROOT CLOCK UNIX_S.

Before each cycle it says how it is (`SOAK …`) and reads from standard input what is wrong from now
on; both while its clock stands still. CLOCK is a file that takes its uptime for the others, UNIX_S
the true time of its start. The world around it is tests/board/soak/.
"""

import asyncio
import gc
import os
import socket
import struct
import sys
import time
from asyncio import core

import micropython
from agent.loan import borrow, give_back, use
from agent.mqtt import Session
from agent.supervisor import start
from micropython import const
from port import ASSOCIATED, COLLECT_EVERY_BYTES, FAILED, IDLE, PERSONAL

# What may be wrong, as bits of an order; tests/board/soak/fault.py has all of them.
_NO_NETWORK = const(1)
_REFUSED = const(4)
_NO_LEASE = const(8)
_GATEWAY_SILENT = const(16)
_GATEWAY_LOSS = const(32)
_RAISES = const(256)
_NO_MEMORY = const(512)

_STEP_MS = const(20)  # who waits no longer looks for an answer again and again
_STEP_US = const(250)  # what servers get in real time for each of these looks
_PATIENCE_US = const(1000)  # and broker and collector
_BUSY_MS = const(2)  # what a round of the event loop takes, on the board's clock
_IDLE_MS = const(500)  # where nobody waits for an answer, clocks are looked at so often
_TELL_MS = const(100)
# Ready tasks keep the real clock's time, which asyncio's queue can tell from ours for so long.
_LONGEST_MS = const(6 * 86400 * 1000)

_ADDRESS = "10.1.0.50"
_STATION = b"\x24\x0a\xc4\x12\x34\x56"
_ACCESS_POINT = (b"Schule", b"\x02\x00\x00\x00\x00\x01", 6, -55, PERSONAL)

root, clock_path, unix_s = sys.argv[-3:]


class Time:
    """The board's clock: real time and what it jumped over, in ms since the start."""

    def __init__(self):
        self._file = open(clock_path, "r+b")  # noqa: SIM115 - for good
        self._told = bytearray(4)
        self._told_ms = -_TELL_MS
        self._start = time.ticks_ms()
        self._jumped_ms = 0

    def ticks(self):
        """Return what asyncio takes for `time.ticks_ms`."""
        return time.ticks_add(time.ticks_ms(), self._jumped_ms)

    def now_ms(self):
        return time.ticks_diff(time.ticks_ms(), self._start) + self._jumped_ms

    def jump(self, duration_ms):
        self._jumped_ms += duration_ms
        self.tell()

    def tell(self):
        """Write the uptime down for others to read."""
        now_ms = self.now_ms()
        if now_ms - self._told_ms >= _TELL_MS:
            self._told_ms = now_ms
            struct.pack_into("<I", self._told, 0, now_ms)
            self._file.seek(0)
            self._file.write(self._told)


class Poller:
    """Stands for the poll object of asyncio, which has nothing to poll: lets time pass.

    Attributes:
        asked: how many answers the broker owes.
        left_ms: real time that is left in this cycle to wait for the collector.
    """

    def __init__(self):
        self.asked = 0
        self.left_ms = 0

    def ipoll(self, wait_ms):
        if wait_ms <= 0:
            wait_ms = _BUSY_MS
        elif self.asked:
            time.sleep_us(_PATIENCE_US)
        elif self.left_ms > 0 and board.spool.waiting:
            self.left_ms -= 1
            time.sleep_us(_PATIENCE_US)
        elif board.link.quiet.is_set():
            wait_ms = max(wait_ms, _IDLE_MS)
        elif wait_ms <= _STEP_MS:
            time.sleep_us(_STEP_US)
        clock.jump(wait_ms)
        return ()


async def asking(session, *question):
    """Ask the broker, as a session's own `ask` does."""
    poller.asked += 1
    try:
        return await ask(session, *question)
    finally:
        poller.asked -= 1


class Network:
    """Stands for the socket module, with other ways; who knows them is the file of routes.

    No host has the address that DHCP offers to a client that comes new.
    """

    AF_INET = socket.AF_INET
    SOCK_STREAM = socket.SOCK_STREAM
    SOCK_DGRAM = socket.SOCK_DGRAM
    SOCK_RAW = socket.SOCK_RAW
    SOL_SOCKET = socket.SOL_SOCKET
    SO_REUSEADDR = socket.SO_REUSEADDR
    SO_BROADCAST = socket.SO_BROADCAST

    def getaddrinfo(self, address, number):
        return use("way", "find", root, address, number)

    def socket(self, family, kind, protocol=0):
        if kind != socket.SOCK_RAW:
            return socket.socket(family, kind, protocol)
        try:
            return borrow("echo").Echo(not port.flags & _GATEWAY_SILENT, port.flags & _GATEWAY_LOSS)
        finally:
            give_back("echo")


class Port:
    """A port without hardware on this clock, with a memory that outlives the process, and faults.

    It has only what this board asks for. With all of this script it takes about as much memory as
    an ESP32's own port does; what that has in ROM or in NVS is here in files.
    """

    def __init__(self):
        self.socket = Network()
        self.flags = self.status = 0
        self.state = IDLE
        self.fixed = None
        self.offset_s = 946684800 - int(unix_s)  # without power it counts from 2000
        self.uptime_ms = clock.now_ms
        self.ticks_us = time.ticks_us

    def ticks_us_since(self, start):
        return time.ticks_diff(time.ticks_us(), start)

    def time_s(self):
        return int(unix_s) + clock.now_ms() // 1000 + self.offset_s

    def set_time_s(self, unix_s):
        self.offset_s += unix_s - self.time_s()

    def board_id(self):
        return None

    def boot(self):
        boot = (self.recall("boot") or 0) + 1
        self.remember("boot", boot)
        return boot

    def reset_cause(self):
        return 1

    def recall(self, name):
        try:
            with open(root + "/nvs/" + name) as file:
                return int(file.read())
        except OSError:
            return None

    def remember(self, name, number):
        with open(root + "/nvs/.new", "w") as file:
            file.write(str(number))
        os.rename(root + "/nvs/.new", root + "/nvs/" + name)

    def feed(self):
        pass

    def spare_heap(self):
        gc.collect()
        gc.threshold(COLLECT_EVERY_BYTES)

    def heap_free_bytes(self):
        gc.collect()
        return gc.mem_free()

    def scan(self):
        return [] if self.flags & _NO_NETWORK else [_ACCESS_POINT]

    def associate(self, ssid, key, bssid=None):
        self.state = FAILED if self.flags & _REFUSED else ASSOCIATED

    def dissociate(self):
        self.state = IDLE

    def link(self):
        return self.state

    def rssi_dbm(self):
        if self.flags & _NO_MEMORY:
            raise MemoryError
        return _ACCESS_POINT[3] if self.state == ASSOCIATED else None

    def driver_status(self):
        return self.status if self.state == FAILED else (1000, 1001, 1010)[self.state]

    def mac(self):
        return _STATION

    def lease(self):
        if self.flags & _RAISES:
            raise ValueError("injected")
        if self.state != ASSOCIATED or (self.flags & _NO_LEASE and not self.fixed):
            return "", "", ""
        return self.fixed or (_ADDRESS, "10.1.0.1", "10.1.0.53")

    def netmask(self):
        return "255.255.255.0"

    def dhcp(self):
        self.fixed = None

    def fix(self, address, netmask, gateway, resolver):
        self.fixed = (address, gateway, resolver)

    def lan_address(self):
        return ""

    def bind_wlan(self, sock):
        pass

    def wire(self, config):
        pass


async def cycle():
    """Tell, obey, then measure."""
    spool = board.spool
    micropython.qstr_info()
    gc.collect()
    print(
        "SOAK",
        clock.now_ms(),
        gc.mem_free(),
        spool.waiting,
        spool.lost,
        spool.last_seq,
        board.faults.count,
    )
    clock.tell()
    began_ms = clock.now_ms()
    poller.left_ms = use("order", "take", port, spool)
    if poller.left_ms is None or began_ms > _LONGEST_MS:
        sys.exit()
    clock.jump(began_ms - clock.now_ms())  # it stood still
    await measure()


clock = Time()
poller = Poller()
core.ticks = clock.ticks
core._io_queue.poller = poller
ask, Session.ask = Session.ask, asking
port = Port()
board = start(port, root, port.boot())
measure = board.cycle
board.cycle = cycle
asyncio.run(board.serve())
