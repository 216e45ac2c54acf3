"""The key of the reports that a board sends from the desk's bench, before it is enrolled.

It is made of the report key, so that a report proves that the board has that one; and it is
another one, so that no report from the bench can ever pass for one from a school, and the bench
never gets the report key.
"""

from .seal import Seal

_LABEL = b"netzpuls-bench"


def key(report_key):
    """Return the 32 bytes of the bench's key.

    Raises: ValueError: the report key is not 32 bytes long.
    """
    seal = Seal(report_key)
    return seal.tag(_LABEL, b"\x00") + seal.tag(_LABEL, b"\x01")
