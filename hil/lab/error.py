"""What can go wrong in the lab in a way that a user can mend."""

from __future__ import annotations

from fleet.errors import BenchError, UsageError


class NamespaceError(BenchError):
    """This machine does not let us have namespaces, or lacks a part of its network stack."""

    code = "namespace"


class LabError(BenchError):
    """A part of the lab could not be started, steered or reached."""

    code = "lab"


class FaultError(UsageError):
    """No such fault, or not here, or not now."""

    code = "fault"
