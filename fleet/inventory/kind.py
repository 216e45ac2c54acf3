"""Kinds of values that several tables of the inventory share."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

# An id becomes a certificate's CN and part of a topic: a "/" or "+" there would widen the
# broker's access rules.
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
BoardId = Annotated[str, StringConstraints(pattern=r"^np-[0-9a-f]{12}$")]
Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]
Bssids = Annotated[list[Mac], Field(max_length=32)]
Port = Annotated[int, Field(ge=1, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=60_000)]
Text = Annotated[str, StringConstraints(min_length=1)]
UrlPath = Annotated[str, StringConstraints(pattern=r"^/[!-~]{0,254}$")]


def is_address(text: str) -> str:
    """Return an IPv4 address in its usual form.

    Raises: ValueError: it is none.
    """
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 address") from None


Address = Annotated[str, AfterValidator(is_address)]
