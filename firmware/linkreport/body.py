"""Packs and seals a report, which is all that a board does with it; see `linkreport.report`."""

import struct

from .frame import CORE_BYTES, LABEL, MAX_BODY_BYTES, VERSION
from .table import LAYER_COUNT

# Version, length and the fields of a `report.Report` in their order, up to its extensions.
CORE = ">BBHIIHHIIBBBBB9sbB6sHHIBBHHHHIHH"
_REASONS_AT = 14
_BSSID_AT = 17

# What stands where nothing was measured.
NO_U8 = 0xFF
NO_U16 = 0xFFFF
NO_U32 = 0xFFFFFFFF
NO_RSSI = 0
NO_BSSID = bytes(6)

_STRUCT_ERROR = getattr(struct, "error", ValueError)  # MicroPython has none of its own


class ReportError(ValueError):
    """Bytes that are no report, or values that do not fit one."""


def extension(kind, content):
    """Pack one extension block.

    Raises: ReportError: the content has more than 255 bytes.
    """
    if len(content) > 255:
        raise ReportError("an extension block holds at most 255 bytes")
    return bytes((kind, len(content))) + content


def pack(values, seal, link):
    """Pack and seal one report.

    Args:
        values: a Report, or what it holds in its order; its `version` and `body_bytes` are filled
            in here.
        seal: the Seal of the board's report key.
        link: the tag of the report before, NO_TAG for the first under this key.

    Returns: 104 bytes and the extension blocks.
    Raises: ReportError: a value does not fit its field.
    """
    blocks = values[-1]
    body_bytes = CORE_BYTES + len(blocks)
    if body_bytes > MAX_BODY_BYTES:
        raise ReportError("the extension blocks are too long for one report")
    if len(values[_REASONS_AT]) != LAYER_COUNT or len(values[_BSSID_AT]) != 6:
        raise ReportError("nine layer reasons and a BSSID of six bytes are needed")
    try:
        core = struct.pack(CORE, VERSION, body_bytes, *values[2:-1])
    except (_STRUCT_ERROR, TypeError, OverflowError) as error:
        raise ReportError("a value does not fit its field: %s" % error)
    if struct.unpack(CORE, core)[2:] != tuple(values[2:-1]):  # MicroPython cuts in silence
        raise ReportError("a value does not fit its field")
    core += blocks
    return core + link + seal.tag(LABEL, link, core)
