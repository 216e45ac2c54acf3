"""Seals under a report key as city hall and a gateway check them: many under the same key.

A board hashes its key anew for each report, which costs it nothing that counts, and MicroPython
cannot do otherwise. Here what the key alone decides is hashed once.
"""

from __future__ import annotations

import hashlib
import hmac

from firmware.linkreport import frame, seal

_BODY = slice(-frame.SEAL_BYTES)
_LINK = slice(-frame.SEAL_BYTES, -seal.TAG_BYTES)


class Seal(seal.Seal):
    """Makes and checks tags under one report key, as `firmware.linkreport.seal` does."""

    def __init__(self, key: bytes) -> None:
        """Take the key.

        Raises: ValueError: the key is not 32 bytes long.
        """
        super().__init__(key)  # type: ignore[no-untyped-call]
        self._begun = hashlib.sha256(self._inner)
        self._ending = hashlib.sha256(self._outer)
        self._report = self._begun.copy()
        self._report.update(frame.LABEL)

    def tag_of(self, raw: bytes) -> bytes:
        """Return the tag that a report should carry, of which nothing but its length is known."""
        inner, outer = self._report.copy(), self._ending.copy()
        inner.update(raw[_LINK] + raw[_BODY])
        outer.update(inner.digest())
        return outer.digest()[: seal.TAG_BYTES]

    def tag(self, *parts: bytes) -> bytes:
        """Return the 16-byte tag over the parts, one after the other."""
        inner, outer = self._begun.copy(), self._ending.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()[: seal.TAG_BYTES]

    def fits(self, tag: bytes, *parts: bytes) -> bool:
        """Tell whether the tag is the parts' own; takes the same time wherever they differ."""
        return hmac.compare_digest(self.tag(*parts), tag)
