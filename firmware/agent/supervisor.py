"""Starts the agent and ends it: self-test, safe mode, the way out to the REPL.

    NETZPULS SELFTEST {…}   one line a boot
    NETZPULS REPORT {…}     one line a report, from the agent

A boot fails that does not reach the end of its first cycle. After three of them in a row the
agent starts in safe mode: it measures only what it needs to report, says `safe-mode`, and later
tries in full again (`agent.Agent`). Without a usable configuration or identity no report can be
made; then the board waits at the console. An exception that ends the agent is kept on flash,
and the next boot's first report tells it.

Over mpremote: `from agent.supervisor import drain; drain()` uploads what the spool holds.
"""

import asyncio

from port import load as load_port

from .loan import borrow, give_back

SAFE_AFTER = 3  # boots in a row that failed


def start(port, root="", boot=0, safe=False):
    """Make the agent of this board.

    Raises:
        setup.SetupError: configuration or identity cannot be used, or is another board's.
        OSError: a file that is there cannot be read.
    """
    port.spare_heap()
    try:
        config, key, floor_s = borrow("agent.setup").load(root, port.board_id())
    finally:
        give_back("agent.setup", "agent.config", "agent.certificate")
    # Only now: it takes the place in memory that checking the configuration needed.
    from .agent import Agent

    return Agent(port, config, key=key, floor_s=floor_s, root=root, boot=boot, safe=safe)


def run(port=None, root=""):
    """Run the agent until Ctrl-C, which leaves to the REPL with the watchdog fed."""
    port = port or load_port()
    try:
        _run(port, root)
    except KeyboardInterrupt:
        _leave(port)


def _leave(port):
    """Leave the board to a technician; a second Ctrl-C must not get between."""
    while True:
        try:
            return borrow("agent.rescue").release(port)
        except KeyboardInterrupt:
            continue


def _run(port, root):
    boot, agent, problem = 0, None, None
    try:
        failed = port.recall("boots_failed") or 0
        try:
            boot = port.boot()
            port.remember("boots_failed", min(failed + 1, SAFE_AFTER))
        except OSError as error:  # a flash that is worn out is no reason not to measure
            print("netzpuls: this boot is not counted:", error)
        agent = start(port, root, boot, failed >= SAFE_AFTER)
    except Exception as error:  # whatever it is: no boot loop
        problem = error
    borrow("agent.selftest").selftest(port, boot, agent, problem)
    if agent is None:
        if not hasattr(problem, "part"):  # no SetupError
            # What is secret is not known here, so the message stays on the console.
            borrow("agent.trace").keep(root + "/fault.txt", problem, "", ())
        borrow("agent.rescue").wait(port, problem)
        return
    give_back("agent.selftest")
    port.watch()
    try:
        asyncio.run(agent.serve())
    except Exception as error:
        agent.faults.keep(error)
        borrow("agent.rescue").die()


def drain(timeout_s=60, port=None, root=""):
    """Upload what the spool holds, making no report; print one line of JSON."""
    borrow("agent.rescue").drain(start, port or load_port(), root, timeout_s)
