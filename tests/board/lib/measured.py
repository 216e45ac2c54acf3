"""A board on port/null that measures itself: micropython -m measured ROOT CYCLES time|heap.

After each cycle, once its report is acknowledged, it tells in one line of JSON what that took.
With `heap` it collects garbage whenever something waits, and so sees the most that lives at
once; that takes time, so times are told by `time` alone. ROOT/routes.json is as for board.py.
"""

import gc

gc.collect()
own_bytes = gc.mem_alloc()  # the interpreter, and this

import json
import sys

root, cycles, mode = sys.argv[-3:]

import asyncio

from agent import deadline

_PING_AFTER_MS = 300
_IDLE_MS = 2500
_PAUSE_MS = 200


class Seen:
    """What was seen since it was last asked for."""

    most_bytes = 0
    pings = 0


def sample():
    """Note how much of the heap lives now."""
    if mode == "heap":
        gc.collect()
        Seen.most_bytes = max(Seen.most_bytes, gc.mem_alloc())


def sampling_sleep_ms(duration, _sleep_ms=deadline.sleep_ms):
    sample()
    return _sleep_ms(duration)


deadline.sleep_ms = sampling_sleep_ms  # before anything takes it from there

from agent import cycle as measuring
from agent import mqtt, uplink
from agent.supervisor import start
from port.null import NullPort

uplink._PING_AFTER_MS = _PING_AFTER_MS
took_ms = {}
live_bytes = {}
run_probe, give_back, ping = measuring._run, measuring.give_back, mqtt.Session.ping


async def timed_run(name, port, *rest, **more):
    before_bytes, Seen.most_bytes = Seen.most_bytes, 0
    start_ms = port.uptime_ms()
    try:
        return await run_probe(name, port, *rest, **more)
    finally:
        took_ms[name] = port.uptime_ms() - start_ms
        live_bytes[name] = Seen.most_bytes
        Seen.most_bytes = max(Seen.most_bytes, before_bytes)


def sampling_give_back(*names):
    sample()  # its modules are still there
    give_back(*names)


async def counted_ping(session):
    Seen.pings += 1
    await ping(session)


measuring._run = timed_run
measuring.give_back = sampling_give_back
mqtt.Session.ping = counted_ping


def cpu_us():
    """Return the processor time of this process."""
    with open("/proc/self/schedstat") as file:
        return int(file.read().split()[0]) // 1000


async def cycle(board):
    Seen.most_bytes = 0
    start_ms, start_us = board.port.uptime_ms(), cpu_us()
    await board.cycle()
    done_ms, done_us = board.port.uptime_ms(), cpu_us()
    report = board.spool.batch(board.spool.last_seq, 1)[0]
    while board.spool.waiting:
        await deadline.sleep_ms(5)
    sent_us = cpu_us()
    sample()
    document = {
        "cycle_ms": done_ms - start_ms,
        "cycle_cpu_us": done_us - start_us,
        "upload_cpu_us": sent_us - done_us,
        "probe_ms": took_ms,
        "probe_live_bytes": live_bytes,
        "live_bytes": Seen.most_bytes,
        "own_bytes": own_bytes,
        "report_bytes": len(report),
        "errors": board.faults.count,
    }
    await deadline.sleep_ms(_PAUSE_MS)
    print("CYCLE", json.dumps(document))


async def run():
    port = NullPort()
    with open(root + "/routes.json") as file:
        for address, number, to_address, to_number in json.load(file):
            port.socket.routes[address, number] = (to_address, to_number)
    port.socket.absent = ["10.1.0.77"]  # what DHCP offers to a new client is free
    board = start(port, root, port.boot())
    task = asyncio.create_task(board.uplink.run())
    for _ in range(int(cycles)):
        await cycle(board)
    if mode == "time":
        Seen.pings = 0
        await deadline.sleep_ms(_IDLE_MS)
        print("IDLE", json.dumps({"pings": Seen.pings}))
    task.cancel()


asyncio.run(run())
