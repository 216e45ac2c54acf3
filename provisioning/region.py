"""A part of a board's flash, and what it is to hold."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Region:
    """Content at an address; `deflated` is the same by zlib, which is what goes over the line."""

    address: int
    content: bytes = field(repr=False)
    deflated: bytes = field(repr=False)

    @classmethod
    def of(cls, address: int, content: bytes) -> Self:
        """Make a region whose content is still to be deflated."""
        return cls(address, content, zlib.compress(content, 9))
