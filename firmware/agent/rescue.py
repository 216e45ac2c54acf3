"""What a board does instead of measuring: wait for a technician, let go, give its reports away."""

import asyncio
import json
import time

from micropython import const

from .deadline import sleep_ms

_TELL_S = const(60)
_RETRY_AFTER = const(10)  # tellings, so minutes
_BITE_S = const(3600)  # longer than any watchdog waits


def wait(port, problem):
    """Wait for a technician, without the watchdog, because a restart mends no configuration.

    What is not a matter of setting up may pass: then the watchdog starts the board again.
    """
    may_pass = not hasattr(problem, "part")
    told = 0
    while not may_pass or told < _RETRY_AFTER:
        print("netzpuls: safe mode: %s %s" % (type(problem).__name__, problem))
        print("netzpuls: nothing is measured; press Ctrl-C for the REPL, mend it, restart")
        for _ in range(2 * _TELL_S):  # two flashes a second; see agent.led
            port.led(1)
            time.sleep(0.25)
            port.led(0)
            time.sleep(0.25)
        told += 1
    port.watch()
    die()


def die():
    """Wait for the watchdog to bite."""
    print("netzpuls: the watchdog restarts the board in a minute; Ctrl-C for the REPL")
    for _ in range(_BITE_S):
        time.sleep(1)


def release(port):
    """Have the watchdog wait for a technician, say so, and forget what ran."""
    is_watched = port.release()
    print("netzpuls: stopped; Ctrl-D starts again")
    if is_watched:
        print("netzpuls: the watchdog restarts the board in 30 minutes in any case")
    forget()


def drain(start, port, root, timeout_s):
    """Start an agent, upload what its spool holds, making no report; print one line of JSON."""
    forget()
    agent = start(port, root)
    asyncio.run(_drain(agent, timeout_s * 1000))
    spool = agent.spool
    document = {"made": spool.last_seq, "spooled": spool.waiting, "lost": spool.lost}
    print(json.dumps(document))


def forget():
    """Forget the agent that Ctrl-C stopped, which its tasks hold: for two there is no room."""
    if hasattr(asyncio, "core"):  # MicroPython's
        asyncio.new_event_loop()
        asyncio.core.cur_task = None


async def _drain(agent, timeout_ms):
    task = asyncio.create_task(agent.drain())
    until_ms = agent.port.uptime_ms() + timeout_ms
    while agent.spool.waiting and not task.done() and agent.port.uptime_ms() < until_ms:
        await sleep_ms(50)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    except Exception as error:
        agent.faults.note(error)
