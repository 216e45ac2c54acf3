"""What can go wrong with a gateway as a whole."""

from __future__ import annotations

from fleet.errors import NetzpulsError


class GatewayError(NetzpulsError):
    """A gateway cannot run: its port is taken, it runs already, its broker does not start."""

    code = "gateway-unavailable"
    exit_code = 3
