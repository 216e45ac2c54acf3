"""What a report is wrapped in: how long it is, what it is linked to, who sealed it.

    report = body ‖ link ‖ tag        the body's first byte is the version, its second its length

A board keeps and sends reports with this alone; `linkreport.report` knows what stands in them.
"""

from .seal import TAG_BYTES

VERSION = 1
CORE_BYTES = 72
SEAL_BYTES = 2 * TAG_BYTES
MAX_BODY_BYTES = 255
NO_TAG = bytes(TAG_BYTES)
LABEL = b"netzpuls-report"


def tag_of(raw):
    """Return the report's own tag."""
    return bytes(raw[-TAG_BYTES:])


def link_of(raw):
    """Return the tag of the report before this one."""
    return bytes(raw[-SEAL_BYTES:-TAG_BYTES])
