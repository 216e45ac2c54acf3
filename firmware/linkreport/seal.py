"""HMAC-SHA256 tags, cut to 16 bytes, on both interpreters.

Source: RFC 2104 (HMAC and truncation to no less than half the digest).
"""

import hashlib

try:
    import hmac
except ImportError:  # MicroPython has SHA-256 but no hmac
    hmac = None

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
        if hmac:
            self._keyed = hmac.new(key, digestmod="sha256")
        else:
            padded = key + bytes(_BLOCK_BYTES - KEY_BYTES)
            self._inner = bytes(b ^ 0x36 for b in padded)
            self._outer = bytes(b ^ 0x5C for b in padded)

    def tag(self, *parts):
        """Return the 16-byte tag over the parts, one after the other."""
        if hmac:
            keyed = self._keyed.copy()
            for part in parts:
                keyed.update(part)
            return keyed.digest()[:TAG_BYTES]
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
