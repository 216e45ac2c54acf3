"""What the board says of a report to whoever reads its console. On loan."""

import json

from linkreport import term


def show(seq, state, layer, reason):
    """Print a report's verdict, one line."""
    line = {
        "seq": seq,
        "state": term.STATES[state],
        "layer": term.LAYERS[layer],
        "reason": term.reason_name(reason),
    }
    print("NETZPULS REPORT", json.dumps(line))
