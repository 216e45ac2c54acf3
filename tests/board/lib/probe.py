"""Run probes on port/null: micropython probe.py FIRMWARE CASES.

CASES is a JSON list of {"probe", "config", "routes", "identity", "clock", "portal_api",
"works"}; each result is told in one line of JSON.
"""

import json
import os
import sys

firmware, cases = sys.argv[-2:]
sys.path[:] = [firmware, ".frozen"]

import asyncio

from agent.config import parse
from agent.cycle import Evidence
from agent.link import Lease, Link
from agent.loan import borrow, give_back
from port.null import NullPort


def run(case):
    """Run one probe; return (reason, measures, ms)."""
    port = NullPort()
    for address, number, to_number in case["routes"]:
        port.socket.routes[address, number] = ("127.0.0.1", to_number)
    port.memory["clock_set"] = int(case["clock"])
    config = parse(json.dumps(case["config"]).encode())
    link = Link(port)
    link.identity = case["identity"]
    evidence = Evidence(link, config.wlan)
    evidence.gateway = evidence.resolver = "10.1.0.1"
    evidence.lease = Lease()
    evidence.lease.portal_api = case["portal_api"]
    for layer in case["works"]:
        evidence.reasons[layer - 1] = 1
    names = (
        "agent.probes." + case["probe"],
        "agent.dns",
        "agent.web",
        "agent.http",
        "agent.stream",
    )
    start_ms = port.uptime_ms()
    try:
        result = asyncio.run(borrow(names[0]).probe(port, config, evidence))
    finally:
        give_back(*names)
    measures = {
        str(name): list(value) if isinstance(value, bytes) else value
        for name, value in result.measures.items()
    }
    return result.reason, measures, port.uptime_ms() - start_ms


with open(cases) as file:
    todo = json.load(file)
before = os.listdir("/proc/self/fd")
for each in todo:
    print(json.dumps(run(each)))
if len(os.listdir("/proc/self/fd")) > len(before):
    sys.exit("sockets were left open")
