"""Wire format v1 of the collector's acknowledgement.

    ack = version (B) ‖ key id (H) ‖ sequence (I) ‖ time in UTC seconds (I) ‖ tag (16 bytes)

The board may delete every report up to and including the sequence number. The time is
the collector's, so that a board without NTP has a clock.

Source: docs/wire.md; tests/golden/ack-v1.json is the contract.
"""

import struct

from .seal import TAG_BYTES

VERSION = 1
_CORE = ">BHII"
ACK_BYTES = struct.calcsize(_CORE) + TAG_BYTES
_LABEL = b"netzpuls-ack"


class AckError(ValueError):
    """Bytes that are no acknowledgement, or one with a wrong tag."""


def pack(key_id, seq, time_s, seal):
    """Pack and seal one acknowledgement: 27 bytes."""
    core = struct.pack(_CORE, VERSION, key_id, seq, time_s)
    return core + seal.tag(_LABEL, core)


def unpack(raw, seal):
    """Unpack one acknowledgement and check its tag.

    Returns: (key id, sequence, time in UTC seconds).
    Raises:  AckError: another length or version, or a wrong tag.
    """
    if len(raw) != ACK_BYTES or raw[0] != VERSION:
        raise AckError("this is no acknowledgement of version %d" % VERSION)
    core = bytes(raw[:-TAG_BYTES])
    if not seal.fits(bytes(raw[-TAG_BYTES:]), _LABEL, core):
        raise AckError("the acknowledgement's tag is wrong")
    return struct.unpack(_CORE, core)[1:]
