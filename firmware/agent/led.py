"""The LED: what a technician sees of a board without a console.

    "led": 2

    on                              it starts: self-test, then the first measurement
    three quick flashes in between  the self-test is over
    long flash, pause               no association with the WLAN
    two long flashes, pause         associated, but reports are not acknowledged
    three long flashes, pause       safe mode after boots that failed: it only tries to report
    dark, now and then a short one  well: each flash is reports acknowledged by the collector
    on and off without a pause      it cannot start (agent.rescue): see the console

firmware/README.md tells a technician the same.
"""

from micropython import const

from .deadline import sleep_ms

_QUICK_MS = const(80)
_LONG_MS = const(400)
_PAUSE_MS = const(1200)


async def run(agent):
    """Show how things stand; returns never."""
    port, spool = agent.port, agent.spool
    await _flash(port, 3, _QUICK_MS)
    port.led(1)
    while spool.next_seq == spool.first_seq_of_boot:
        await sleep_ms(_QUICK_MS)
    port.led(0)
    held_seq = spool.oldest_seq
    while True:
        flashes = trouble(agent)
        await _flash(port, flashes, _LONG_MS)
        if not flashes and spool.oldest_seq > held_seq:
            await _flash(port, 1, _QUICK_MS)
        held_seq = spool.oldest_seq
        await sleep_ms(_PAUSE_MS if flashes else _QUICK_MS)


def trouble(agent):
    """Return how many long flashes tell what is wrong; 0: nothing."""
    if agent.safe:
        return 3
    if not agent.link.holds():
        return 1
    return 2 if agent.spool.waiting > 1 else 0  # the newest report is still on its way


async def _flash(port, count, duration_ms):
    for _ in range(count):
        port.led(1)
        await sleep_ms(duration_ms)
        port.led(0)
        await sleep_ms(duration_ms)
