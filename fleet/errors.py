"""What can go wrong in a way that a user can mend.

Every error has a stable `code` for programs, a message that says what happened to which
host, board or file, and a `hint` that says what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The hint for a file that cannot be read, whatever the reason.
READABLE = "it must be a file that you may read: see ls -l"


class NetzpulsError(Exception):
    """Root of all errors that reach a user."""

    code = "error"
    exit_code = 1

    def __init__(
        self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def document(self) -> dict[str, Any]:
        """Return the error as `--json` prints it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        return {"ok": False, "error": error | self.details}


class UsageError(NetzpulsError):
    """The call does not make sense: an unknown site, a period that ends before it begins."""

    code = "usage"
    exit_code = 2


class ConfigurationError(NetzpulsError):
    """A file that people write (inventory, registry, settings) is missing or wrong."""

    code = "configuration"
    exit_code = 2


class ToolMissingError(NetzpulsError):
    """A program that Netzpuls runs (mosquitto, MicroPython, sshd) is not on this machine."""

    code = "tool-missing"
    exit_code = 3


class BenchError(NetzpulsError):
    """A port, board or bench is not there, in use, or does not answer."""

    code = "bench-unavailable"
    exit_code = 3


class HostError(NetzpulsError):
    """A gateway could not be reached or what it answered is unusable."""

    code = "host-failed"


class HostKeyError(HostError):
    """A host showed another key than the inventory or known_hosts names, or none is known."""

    code = "host-key"


class StoreError(NetzpulsError):
    """The city's store cannot be read or written."""

    code = "store"


class OutputError(NetzpulsError):
    """The result itself cannot be written: the disk is full that stdout or its file is on."""

    code = "output"
