"""Bytes per report: on the wire, in the board's spool, and as JSON would be."""

from __future__ import annotations

import json
import struct
import zlib

from firmware.linkreport import block, frame, report, seal, table

_WEEK = 7 * 24 * 60
# A board that measures all there is: structure and how often it stands in its block.
_BLOCKS = {
    "uplink": (block.UPLINK_FORMAT, 1),
    "own": (block.OWN_FORMAT, 2),
    "watch": (block.WATCH_FORMAT, 3),
    "association": (block.ASSOCIATION_FORMAT, 1),
    "lease": (block.LEASE_FORMAT, 1),
    "path": (block.PATH_FORMAT, 1),
    "sensor": (block.SENSOR_FORMAT, 1),
    "portal": (block.PORTAL_FORMAT, 1),
    "target": (block.TARGET_FORMAT, 2),
    "service": (block.SERVICE_FORMAT, 4),
    "reference": (block.REFERENCE_FORMAT, 1),
    "throughput": (block.THROUGHPUT_FORMAT, 1),
    "air": (block.AIR_FORMAT, 1),
}


def measure() -> dict[str, object]:
    """Seal a week of plain reports and weigh them."""
    keyed = seal.Seal(bytes(range(32)))
    reasons = bytes((1, 1, 1, 1, 1, 0, 1, 0, 1))
    link, raws = report.NO_TAG, []
    for seq in range(1, _WEEK + 1):
        values = report.Report(
            1, 0, 1, seq, seq, 7, 60, seq * 6000, 1_790_000_000 + seq * 60, table.CLOCK_NTP,
            table.UP, 0, table.OK, 100, reasons, -61 - seq % 5, 6, bytes(range(6)), 812, 341,
            2300 + seq % 700, 0, 1, 14, 21, 23, 204, 61_000 + seq % 900, 1, 0, b"",
        )  # fmt: skip
        raws.append(report.pack(values, keyed, link))
        link = report.tag_of(raws[-1])
    fields = report.unpack(raws[0])._asdict()
    plain = {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
    blocks = {name: 2 + struct.calcsize(form) * n for name, (form, n) in _BLOCKS.items()}
    room = frame.MAX_BODY_BYTES - frame.CORE_BYTES
    return {
        "block_bytes": blocks,
        "all_blocks_bytes": sum(blocks.values()),
        "room_for_blocks_bytes": room,
        "wire_bytes_with_all_blocks": len(raws[0]) + min(room, sum(blocks.values())),
        "wire_bytes": len(raws[0]),
        "wire_bytes_deflated_by_the_day": round(
            len(zlib.compress(b"".join(raws[:1440]))) / 1440, 1
        ),
        "spool_bytes_without_link": len(raws[0]) - seal.TAG_BYTES,
        "week_in_spool_kib": round((len(raws[0]) - seal.TAG_BYTES) * _WEEK / 1024),
        "json_bytes_for_comparison": len(json.dumps(plain)),
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
