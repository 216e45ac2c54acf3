"""SSH to gateways: the one package that knows Fabric.

    host = Host("gw-mitte", "gateway gw-mitte", "10.0.0.7", host_key="ssh-ed25519 AAAA…")
    with Pool() as pool, Session(host, Deadlines(), pool=pool) as session:
        with session.command(["netzpuls", "gateway", "read", …]) as command:
            command.stdout.read(…)
            command.finish()

Host keys are strict on every hop: what the inventory names, else the city's known_hosts, else the
user's; no key is ever taken on trust. Fabric by itself takes any, also from a jump host, so its
policy is replaced on each connection. Nothing waits without end: every step has its deadline,
and the whole session one more, after which the connection is closed under whatever hangs.

A pool keeps connections for as long as a run lasts: the next session on a host goes through the
one that is there, and hosts behind one jump host share the connection to that.
"""

import logging

from fleet.ssh.client import Entry, Hop, login_name, lookup
from fleet.ssh.command import Command, printable_lines
from fleet.ssh.host import Deadlines, Host
from fleet.ssh.key import public_key, unlock
from fleet.ssh.pool import Pool
from fleet.ssh.session import Session
from fleet.ssh.trust import Shown, show

# Paramiko reports to whoever listens, and without a handler Python prints it, traceback included.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

__all__ = [
    "Command",
    "Deadlines",
    "Entry",
    "Hop",
    "Host",
    "Pool",
    "Session",
    "Shown",
    "login_name",
    "lookup",
    "printable_lines",
    "public_key",
    "show",
    "unlock",
]
