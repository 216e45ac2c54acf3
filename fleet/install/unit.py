"""The services of systemd, as text."""

from __future__ import annotations

import hashlib

from fleet.install.layout import JOURNAL, PROGRAM, SERVICES, UNITS
from fleet.install.shell import script


def units(user: str, data: str) -> dict[str, tuple[str, str]]:
    """Return each service's text, and the digest by which a running one tells which it was."""
    found = {}
    for service in SERVICES:
        text = (
            script(service)
            .replace("{user}", user)
            .replace("{data}", data)
            .replace("{program}", str(PROGRAM))
            .replace("{hardening}", script("hardening.conf").strip())
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        found[service] = text.replace("{digest}", digest), digest
    return found


def files(user: str, data: str) -> dict[str, bytes]:
    """Return all files that systemd reads, by path."""
    found = {str(UNITS / name): text.encode() for name, (text, _) in units(user, data).items()}
    return found | {str(JOURNAL): script("journald.conf").encode()}
