"""What can go wrong when a virtual board is started or steered."""

from __future__ import annotations

from fleet.errors import BenchError, ConfigurationError


class FlashFileError(BenchError):
    """The flash file cannot serve as the flash of a board."""

    code = "flash-file"


class PortError(BenchError):
    """The link, socket or TCP port that a board was to have is taken or cannot be made."""

    code = "port-unavailable"


class RadioError(ConfigurationError):
    """A radio model or a change to it is wrong."""

    code = "radio-model"


class ControlError(BenchError):
    """A board refused what its control socket was told, or is not there."""

    code = "board-control"


class WiringError(ConfigurationError):
    """A sensor that the virtual board cannot have, or a state that it cannot be in."""

    code = "wiring"
