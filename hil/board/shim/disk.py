"""The board's file system: LittleFS on a partition of the flash file, mounted as /."""

import time
import vfs

_BLOCK = 4096
_PAGE = 256
_EIO = 5
_BOOT = """# This file is executed on every boot (including wake-boot from deepsleep)
#import esp
#esp.osdebug(None)
#import webrepl
#webrepl.start()
"""


class Partition:
    """A block device with the rules and times of a NOR flash.

    Where `wear`, a byte for each sector of the flash, is not 0, writes and erases fail.
    """

    def __init__(self, file, wear, address, size, timing):
        self._file = file
        self._wear = wear
        self._address = address
        self._blocks = size // _BLOCK
        self._first_us, self._further_us, self._page_us, self._sector_us = timing
        self._owed_us = 0

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(self._address + block * _BLOCK + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=None):
        if self._is_worn(block):
            return -_EIO
        if offset is None:
            self.ioctl(6, block)
            offset = 0
        at = self._address + block * _BLOCK + offset
        size = len(buffer)
        self._file.seek(at)
        old = self._file.read(size)
        if old != b"\xff" * size:  # programming only clears bits
            both = int.from_bytes(old, "little") & int.from_bytes(buffer, "little")
            buffer = both.to_bytes(size, "little")
        self._file.seek(at)
        self._file.write(buffer)
        while size > 0:
            step = min(size, _PAGE - at % _PAGE)
            self._busy(min(self._page_us, self._first_us + self._further_us * (step - 1)))
            at += step
            size -= step

    def ioctl(self, op, arg):
        if op == 4:
            return self._blocks
        if op == 5:
            return _BLOCK
        if op == 6:
            if self._is_worn(arg):
                return -_EIO
            self._file.seek(self._address + arg * _BLOCK)
            self._file.write(b"\xff" * _BLOCK)
            self._busy(self._sector_us)
            return 0

    def _is_worn(self, block):
        self._wear.seek(self._address // _BLOCK + block)
        return self._wear.read(1) != b"\0"

    def _busy(self, duration_us):
        self._owed_us += duration_us
        if self._owed_us >= 1000:
            time.sleep_us(int(self._owed_us))
            self._owed_us = 0


def mount(file, wear, address, size, timing):
    """Mount the partition as /, made fresh if it is blank, as the ESP32 port does."""
    vfs.umount("/")
    if not size:
        return
    device = Partition(file, wear, address, size, timing)
    try:
        vfs.mount(vfs.VfsLfs2(device, readsize=32, progsize=32, lookahead=32), "/")
    except OSError:
        _set_up(device)


def _set_up(device):
    head = bytearray(_BLOCK)
    device.readblocks(0, head)
    while head != b"\xff" * _BLOCK:
        print(
            "The filesystem appears to be corrupted. If you had important data there, you\n"
            "may want to make a flash snapshot to try to recover it. Otherwise, perform\n"
            "factory reprogramming of MicroPython firmware (completely erase flash, followed\n"
            "by firmware programming)."
        )
        time.sleep(3)
    print("Performing initial setup")
    vfs.VfsLfs2.mkfs(device, readsize=32, progsize=32, lookahead=32)
    vfs.mount(vfs.VfsLfs2(device, readsize=32, progsize=32, lookahead=32), "/")
    with open("/boot.py", "w") as boot:
        boot.write(_BOOT)
