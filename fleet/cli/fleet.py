"""`netzpuls fleet`: collect reports, show uptime and outages, check whether all is well.

Each verb is imported when it is called: a monitoring check does not wait for tables of outages.
"""

from __future__ import annotations

import click

from fleet.cli.lazy import LazyGroup

_VERBS = {
    "check": ("fleet.cli.check:check_command", "Say whether all is well, as a plugin does."),
    "collect": ("fleet.cli.collect:collect_command", "Pull what is new from the gateways."),
    "export": ("fleet.cli.exchange:export", "Write what the store holds for other tools."),
    "import": ("fleet.cli.exchange:import_command", "Bring reports from files into the store."),
    "maintenance": ("fleet.cli.maintenance:maintenance", "Times that do not count."),
    "outages": ("fleet.cli.outages:outages", "Show what broke: each cause once."),
    "run": ("fleet.cli.run:run_command", "Run COMMAND on all gateways, or on some."),
    "uptime": ("fleet.cli.uptime:uptime", "Show how long each line, point and board worked."),
    "verify": ("fleet.cli.verify:verify", "Recompute the ledger and compare it."),
}


@click.group(cls=LazyGroup, lazy=_VERBS)
def fleet() -> None:
    """Collect reports; show uptime and outages."""
