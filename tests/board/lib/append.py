"""What a report costs the spool: micropython append.py FIRMWARE; bodies in hex on stdin."""

import json
import sys
import time

sys.path[:] = [sys.argv[1], ".frozen"]

from agent import loan
from agent.spool import Spool
from linkreport.frame import LABEL
from linkreport.seal import Seal


class Memory:
    """Files and numbers that cost nothing."""

    def __init__(self):
        self.bytes = 0
        self.recall = {}.get

    def names(self):
        return []

    def write(self, name, offset, content):
        self.bytes += len(content)

    def remember(self, name, number):
        """Forget it."""

    def free_bytes(self):
        return 1000000


bodies = [bytes.fromhex(line.strip()) for line in sys.stdin]
memory = Memory()
seal = Seal(bytes(32))
loan._IS_SMALL = False  # what loading takes depends on the flash
spool = Spool(memory, seal, 1, memory)
took_us = 0
for body in bodies:
    raw = body + spool.tag + seal.tag(LABEL, spool.tag, body)
    start = time.ticks_us()
    spool.make_room()
    spool.append(raw)
    took_us += time.ticks_diff(time.ticks_us(), start)
print(json.dumps({"us": took_us // len(bodies), "bytes": memory.bytes // len(bodies)}))
