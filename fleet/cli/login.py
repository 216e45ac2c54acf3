"""Keys with a passphrase: asked for once, on a terminal, before the work begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fleet import ssh
from fleet.inventory import Inventory
from fleet.login import host_of


def unlock(city: Inventory, gateways: Sequence[str]) -> None:
    """Ask for the passphrases of keys that no agent holds; without a terminal nobody is asked.

    Raises: ConfigurationError: a key cannot be read, or the passphrase is wrong.
    """
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        ssh.unlock([host_of(city, each) for each in gateways], _ask)


def _ask(path: Path) -> str:
    asked: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return asked
