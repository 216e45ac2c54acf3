"""Telling systemd how a service is.

Source: sd_notify(3), which describes the datagram for those who do not link its library.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

_SOCKET = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send a state such as `READY=1`, if systemd started this process and wants to know."""
    address = os.environ.get(_SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # abstract
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.send(state.encode())


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for children that shall not speak for this process."""
    return {name: value for name, value in environment.items() if name != _SOCKET}
