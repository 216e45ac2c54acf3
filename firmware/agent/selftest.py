"""The self-test that a board prints once a boot, for the technician's desk."""

import json

from . import VERSION

_RESET_CAUSES = ("unknown", "power-on", "hard", "watchdog", "deep-sleep", "soft")


def selftest(port, boot, agent, problem):
    """Print the board's self-test, one line; `problem` is what keeps the agent from starting."""
    networks, broken = [], ""
    start_ms = port.uptime_ms()
    try:
        networks = port.scan()
    except (OSError, MemoryError) as error:  # the agent starts all the same
        broken = "the radio does not work: %s" % error
    if agent:
        agent.link.networks = networks
        agent.link.scan_ms = port.uptime_ms() - start_ms
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
