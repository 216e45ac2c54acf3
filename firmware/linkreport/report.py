"""Wire format v1 of a report: its fields, split, unpack, verify; `linkreport.body` packs it.

    report = body ‖ link ‖ tag
    body   = core (72 bytes, fixed order, network byte order) ‖ extension blocks
    link   = the tag of the board's previous report under the same key (16 bytes)
    tag    = first 16 bytes of HMAC-SHA256(report key, "netzpuls-report" ‖ link ‖ body)

Source: docs/wire.md; tests/golden/report-v1.json is the contract.
"""

import struct
from collections import namedtuple

from . import body, frame

# What wraps a report is a report's, too.
VERSION = frame.VERSION
CORE_BYTES = frame.CORE_BYTES
SEAL_BYTES = frame.SEAL_BYTES
NO_TAG = frame.NO_TAG
tag_of = frame.tag_of
link_of = frame.link_of
NO_U8 = body.NO_U8
NO_U16 = body.NO_U16
NO_U32 = body.NO_U32
NO_RSSI = body.NO_RSSI
NO_BSSID = body.NO_BSSID
ReportError = body.ReportError
extension = body.extension
pack = body.pack

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
MAX_REPORT_BYTES = frame.MAX_BODY_BYTES + SEAL_BYTES


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
    values = list(struct.unpack(body.CORE, raw[:CORE_BYTES]))
    values.append(blocks)
    return Report(*values)
