"""HMAC-SHA256 tags, cut to 16 bytes, on both interpreters.

Source: RFC 2104 (HMAC and truncation to no less than half the digest).
"""

import hashlib

TAG_BYTES = 16
KEY_BYTES = 32
_BLOCK_BYTES = 64


class Seal:
    """Makes and checks tags under one report key."""

    def __init__(self, key):
        """Take the key.

        Raises: ValueError: the key is not 32 bytes long.
        """
        if len(key) != KEY_BYTES:
            raise ValueError("a report key has %d bytes, not %d" % (KEY_BYTES, len(key)))
        self._inner = bytearray(b"\x36" * _BLOCK_BYTES)
        self._outer = bytearray(b"\x5c" * _BLOCK_BYTES)
        for at in range(KEY_BYTES):
            self._inner[at] ^= key[at]
            self._outer[at] ^= key[at]

    def tag(self, *parts):
        """Return the 16-byte tag over the parts, one after the other."""
        inner = hashlib.sha256(self._inner)
        for part in parts:
            inner.update(part)
        outer = hashlib.sha256(self._outer)
        outer.update(inner.digest())
        return outer.digest()[:TAG_BYTES]

    def fits(self, tag, *parts):
        """Tell whether the tag is the parts' own; takes the same time wherever they differ."""
        difference = len(tag) ^ TAG_BYTES
        for mine, theirs in zip(self.tag(*parts), tag):
            difference |= mine ^ theirs
        return difference == 0
