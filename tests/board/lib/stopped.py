"""A board that Ctrl-C stops, and that then gives its reports away: micropython -m stopped ROOT.

ROOT/routes.json is that of board.py; Ctrl-C comes when there is a ROOT/stop.
"""

import json
import os
import sys

from agent.supervisor import drain, run
from port.null import NullPort

root = sys.argv[-1]


class Port(NullPort):
    """NullPort that Ctrl-C reaches while it feeds the watchdog."""

    def feed(self):
        if "stop" in os.listdir(root):
            os.remove(root + "/stop")
            raise KeyboardInterrupt


port = Port()
with open(root + "/routes.json") as file:
    for address, number, to_address, to_number in json.load(file):
        port.socket.routes[address, number] = (to_address, to_number)
run(port, root)
drain(40, port, root)
