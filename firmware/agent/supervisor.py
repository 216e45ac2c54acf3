"""Starts the agent and ends it: self-test, safe mode, the way out to the REPL.

    NETZPULS SELFTEST {…}   one line a boot
    NETZPULS REPORT {…}     one line a report, from the agent

Over mpremote: `from agent.supervisor import drain; drain()` uploads what the spool holds.
"""

import asyncio
import json
import time

from micropython import const
from port import load as load_port

from . import VERSION
from .deadline import sleep_ms
from .setup import SetupError, load_config, load_identity

_SAFE_MODE_TELL_S = const(60)
_RESET_CAUSES = ("unknown", "power-on", "hard", "watchdog", "deep-sleep", "soft")


def start(port, root="", boot=0):
    """Make the agent of this board.

    Raises:
        SetupError: configuration or identity cannot be used, or is another board's.
        OSError: the flash cannot be read.
    """
    port.spare_heap()
    config = load_config(root + "/config.json")
    if port.board_id() not in (None, config.board):
        raise SetupError("config", "this is %s, not %s" % (port.board_id(), config.board))
    key, certificate = load_identity(root + "/identity")
    # Only now: it takes the place in memory that checking the configuration needed.
    from .agent import Agent

    return Agent(port, config, key=key, certificate=certificate, root=root, boot=boot)


def selftest(port, boot, agent, problem):
    """Print the board's self-test, one line; `problem` is what keeps the agent from starting."""
    networks, broken = [], ""
    try:
        networks = port.scan()
    except OSError as error:
        broken = "the radio does not work: %s" % error
    if agent:
        agent.link.networks = networks
    cause = port.reset_cause()
    parts = {"config": "ok", "identity": "ok"}
    if problem:
        parts["identity"] = "not checked"
        if hasattr(problem, "part"):
            parts[problem.part] = str(problem)
        else:
            parts["config"] = "cannot start: %s %s" % (type(problem).__name__, problem)
    document = {
        "ok": agent is not None and not broken,
        "board": agent.config.board if agent else port.board_id(),
        "agent": VERSION,
        "config": parts["config"],
        "identity": parts["identity"],
        "flash_free_bytes": port.flash_free_bytes(),
        "heap_free_bytes": port.heap_free_bytes(),
        "radio": broken or len(networks),
        "boot": boot,
        "reset_cause": _RESET_CAUSES[cause] if cause < len(_RESET_CAUSES) else "unknown",
    }
    print("NETZPULS SELFTEST", json.dumps(document))


def run(port=None, root=""):
    """Run the agent until Ctrl-C, which leaves to the REPL with the watchdog fed."""
    port = port or load_port()
    try:
        _run(port, root)
    except KeyboardInterrupt:
        _release(port)


def _run(port, root):
    boot, agent, problem = 0, None, None
    try:
        boot = port.boot()
        agent = start(port, root, boot)
    except Exception as error:  # whatever it is: no boot loop
        problem = error
    selftest(port, boot, agent, problem)
    if agent is None:
        _safe_mode(problem)
        return
    port.watch()
    asyncio.run(agent.serve())


def _safe_mode(problem):
    """Wait for a technician; without the watchdog, so the board does not restart in vain."""
    while True:
        print("netzpuls: safe mode:", problem)
        print("netzpuls: nothing is measured; press Ctrl-C for the REPL, mend it, restart")
        for _ in range(_SAFE_MODE_TELL_S):
            time.sleep(1)


def _release(port):
    """Leave the board to a technician; a second Ctrl-C must not get between."""
    released = False
    while not released:
        try:
            is_watched = port.release()
            print("netzpuls: stopped; Ctrl-D starts again")
            if is_watched:
                print("netzpuls: the watchdog restarts the board in 30 minutes in any case")
            released = True
        except KeyboardInterrupt:
            continue


def drain(timeout_s=60, port=None, root=""):
    """Upload what the spool holds, making no report; print one line of JSON."""
    agent = start(port or load_port(), root)
    if hasattr(asyncio, "new_event_loop"):
        asyncio.new_event_loop()  # forget the tasks that Ctrl-C stopped
    asyncio.run(_drain(agent, timeout_s * 1000))
    spool = agent.spool
    document = {"made": spool.last_seq, "spooled": spool.waiting, "lost": spool.lost}
    print(json.dumps(document))


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
