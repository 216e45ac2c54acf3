"""A board on port/null: micropython board.py FIRMWARE ROOT SECONDS serve|drain.

ROOT/routes.json says where addresses lead: [["10.1.0.2", 8883, "127.0.0.1", 40001], …].
"""

import json
import os
import sys

firmware, root, seconds, action = sys.argv[-4:]
sys.path[:] = [firmware, ".frozen"]

import asyncio

from agent.supervisor import drain, start
from port.null import NullPort

_MEMORY = root + "/nvs.json"


class Port(NullPort):
    """NullPort whose memory is a file, so that it outlives the process as NVS does a power cut."""

    def __init__(self):
        super().__init__()
        with open(root + "/routes.json") as file:
            for address, number, to_address, to_number in json.load(file):
                self.socket.routes[address, number] = (to_address, to_number)
        try:
            with open(_MEMORY) as file:
                self.memory = json.load(file)
        except OSError:
            self.memory = {}

    def remember(self, name, number):
        super().remember(name, number)
        with open(_MEMORY, "w") as file:
            file.write(json.dumps(self.memory))


def serve():
    """Measure and report for a while."""
    port = Port()
    board = start(port, root, port.boot())
    try:
        asyncio.run(asyncio.wait_for(board.serve(), int(seconds)))
    except asyncio.TimeoutError:
        spool = board.spool
        document = {"made": spool.last_seq, "spooled": spool.waiting, "errors": board.faults.count}
        document["files"] = len(os.listdir("/proc/self/fd"))
        print("STOPPED", json.dumps(document))


if action == "drain":
    drain(int(seconds), Port(), root)
else:
    serve()
