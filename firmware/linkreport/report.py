"""Wire format v1 of a report: pack, split, unpack, verify.

    report = body ‖ link ‖ tag
    body   = core (72 bytes, fixed order, network byte order) ‖ extension blocks
    link   = the tag of the board's previous report under the same key (16 bytes)
    tag    = first 16 bytes of HMAC-SHA256(report key, "netzpuls-report" ‖ link ‖ body)

Source: docs/wire.md; tests/golden/report-v1.json is the contract.
"""

import struct
from collections import namedtuple

from . import frame
from .table import LAYER_COUNT

# What wraps a report is a report's, too.
VERSION = frame.VERSION
CORE_BYTES = frame.CORE_BYTES
SEAL_BYTES = frame.SEAL_BYTES
NO_TAG = frame.NO_TAG
tag_of = frame.tag_of
link_of = frame.link_of

# The order of the fields is the order on the wire.
Report = namedtuple(
    "Report",
    (
        "version",  # B
        "body_bytes",  # B
        "key_id",  # H
        "seq",  # I
        "oldest_seq",  # I
        "boot",  # H
        "period_s",  # H
        "uptime_cs",  # I
        "time_s",  # I
        "clock",  # B
        "state",  # B
        "layer",  # B
        "reason",  # B
        "confidence_percent",  # B
        "layer_reasons",  # 9s
        "rssi_dbm",  # b
        "channel",  # B
        "bssid",  # 6s
        "association_ms",  # H
        "addressing_ms",  # H
        "gateway_rtt_us",  # I
        "gateway_loss_percent",  # B
        "reset_cause",  # B
        "resolver_ms",  # H
        "internet_connect_ms",  # H
        "internet_http_ms",  # H
        "http_status",  # H
        "heap_free_bytes",  # I
        "spool_reports",  # H
        "error_count",  # H
        "extensions",
    ),
)
_CORE = ">BBHIIHHIIBBBBB9sbB6sHHIBBHHHHIHH"
MAX_REPORT_BYTES = frame.MAX_BODY_BYTES + SEAL_BYTES

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


def extensions(blocks):
    """Split extension blocks into a list of (type, content).

    Raises: ReportError: the last block is cut short.
    """
    found = []
    at = 0
    while at < len(blocks):
        end = at + 2 + (blocks[at + 1] if at + 1 < len(blocks) else 256)
        if end > len(blocks):
            raise ReportError("an extension block is cut short")
        found.append((blocks[at], bytes(blocks[at + 2 : end])))
        at = end
    return found


def sealed(raw, seal):
    """Tell whether a report carries the right tag."""
    return seal.fits(tag_of(raw), frame.LABEL, link_of(raw), raw[:-SEAL_BYTES])


def pack(values, seal, link):
    """Pack and seal one report.

    Args:
        values: a Report; its `version` and `body_bytes` are filled in here.
        seal: the Seal of the board's report key.
        link: the tag of the report before, NO_TAG for the first under this key.

    Returns: 104 bytes and the extension blocks.
    Raises: ReportError: a value does not fit its field.
    """
    blocks = values.extensions
    body_bytes = CORE_BYTES + len(blocks)
    if body_bytes > frame.MAX_BODY_BYTES:
        raise ReportError("the extension blocks are too long for one report")
    if len(values.layer_reasons) != LAYER_COUNT or len(values.bssid) != 6:
        raise ReportError("nine layer reasons and a BSSID of six bytes are needed")
    try:
        core = struct.pack(_CORE, VERSION, body_bytes, *values[2:-1])
    except (_STRUCT_ERROR, TypeError, OverflowError) as error:
        raise ReportError("a value does not fit its field: %s" % error)
    if struct.unpack(_CORE, core)[2:] != tuple(values[2:-1]):  # MicroPython cuts in silence
        raise ReportError("a value does not fit its field")
    body = core + blocks
    return body + link + seal.tag(frame.LABEL, link, body)


def split(message):
    """Split a message into its reports, as bytes.

    Raises: ReportError: another version, or a report that is cut short.
    """
    reports = []
    at = 0
    while at < len(message):
        if message[at] != VERSION:
            raise ReportError("version %d is not known" % message[at])
        body_bytes = message[at + 1] if at + 1 < len(message) else 0
        end = at + body_bytes + SEAL_BYTES
        if body_bytes < CORE_BYTES or end > len(message):
            raise ReportError("a report is cut short")
        reports.append(bytes(message[at:end]))
        at = end
    return reports


def unpack(raw):
    """Unpack one report as `split` gives it, without asking for its seal.

    Raises: ReportError: not exactly one report.
    """
    if (
        len(raw) < CORE_BYTES + SEAL_BYTES
        or raw[0] != VERSION
        or raw[1] != len(raw) - SEAL_BYTES
        or raw[1] < CORE_BYTES
    ):
        raise ReportError("this is not one report of version %d" % VERSION)
    blocks = bytes(raw[CORE_BYTES:-SEAL_BYTES])
    extensions(blocks)
    values = list(struct.unpack(_CORE, raw[:CORE_BYTES]))
    values.append(blocks)
    return Report(*values)
