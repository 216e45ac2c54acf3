"""Bytes per report: on the wire, in the board's spool, and as JSON would be."""

from __future__ import annotations

import json
import zlib

from firmware.linkreport import report, seal, table

_WEEK = 7 * 24 * 60


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
    return {
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
