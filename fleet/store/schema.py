"""What the store's DuckDB file holds.

    report    as a table of its own for each reading: `recent` and the day files together
    recent    reports that are in no day file yet
    part      the day files; what is not named here is debris
    debris    files that may be removed unless `part` names them
    expired   before when reports were let go
    cursor    how far each gateway was read
    run       which sequence numbers are there, and what is missing between them
    boot      by which clock the reports of a boot are timed
    interval  what each board said over which time: the ledger
    sighting  which own access points it heard over which time, see `fleet.store.air`

The last four follow from the set of reports and are kept up to date with each piece.
"""

from __future__ import annotations

from firmware.linkreport import report as wire
from firmware.linkreport.term import LAYERS
from fleet.store.fold import NO_SEAL

VERSION = 4

_LAYER_COLUMNS = tuple(f"{layer}_reason" for layer in LAYERS[1:])

# name: (type, what stands on the wire where nothing was measured); in the order of the wire.
MEASURED = {
    "rssi_dbm": ("TINYINT", wire.NO_RSSI),
    "channel": ("UTINYINT", wire.NO_U8),
    "bssid": ("BLOB", r"'\x00\x00\x00\x00\x00\x00'::BLOB"),
    "association_ms": ("USMALLINT", wire.NO_U16),
    "addressing_ms": ("USMALLINT", wire.NO_U16),
    "gateway_rtt_us": ("UINTEGER", wire.NO_U32),
    "gateway_loss_percent": ("UTINYINT", wire.NO_U8),
    "reset_cause": ("UTINYINT", wire.NO_U8),
    "resolver_ms": ("USMALLINT", wire.NO_U16),
    "internet_connect_ms": ("USMALLINT", wire.NO_U16),
    "internet_http_ms": ("USMALLINT", wire.NO_U16),
    "http_status": ("USMALLINT", wire.NO_U16),
    "heap_free_bytes": ("UINTEGER", wire.NO_U32),
    "spool_reports": ("USMALLINT", wire.NO_U16),
    "error_count": ("USMALLINT", wire.NO_U16),
}
# What a report heard of own access points, see `fleet.store.air.heard`.
HEARD = {"heard_all": "BOOLEAN", "heard_well": "BLOB", "heard_weakly": "BLOB"}
COLUMNS = {
    "device": "VARCHAR",
    "gateway": "VARCHAR",
    "received_s": "UINTEGER",
    "key_id": "USMALLINT",
    "seq": "UINTEGER",
    "oldest_seq": "UINTEGER",
    "boot": "USMALLINT",
    "period_s": "USMALLINT",
    "uptime_cs": "UINTEGER",
    "time_s": "UINTEGER",
    "clock": "UTINYINT",
    "state": "UTINYINT",
    "layer": "UTINYINT",
    "reason": "UTINYINT",
    "confidence_percent": "UTINYINT",
    **dict.fromkeys(_LAYER_COLUMNS, "UTINYINT"),
    **{name: kind for name, (kind, _) in MEASURED.items()},
    **HEARD,
    "raw": "BLOB",
}
DEFINITION = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())

# Each keeps what `fleet.store.fold` says of it.
RUN = {
    "device": "VARCHAR",
    "key_id": "USMALLINT",
    "first_seq": "BIGINT",
    "last_seq": "BIGINT",
    "oldest_seq": "BIGINT",
    "breaks": "BIGINT",
    "link": "UBIGINT",
    "tag": "UBIGINT",
    "first_boot": "BIGINT",
    "first_time_s": "BIGINT",
    "first_trust": "BIGINT",
    "last_boot": "BIGINT",
    "last_time_s": "BIGINT",
    "last_trust": "BIGINT",
}
BOOT = {
    "device": "VARCHAR",
    "key_id": "USMALLINT",
    "boot": "BIGINT",
    "best": "BIGINT",
    "anchor_seq": "BIGINT",
    "last_seq": "BIGINT",
    "first_time_s": "BIGINT",
    "last_time_s": "BIGINT",
    "boot_cs": "BIGINT",
    "least_cs": "BIGINT",
    "most_cs": "BIGINT",
    "lower": "BOOLEAN",
    "falls": "BOOLEAN",
    "whole": "BOOLEAN",
    "to_s": "BIGINT",
    "longest_s": "BIGINT",
}
INTERVAL = {
    "device": "VARCHAR",
    "start_s": "BIGINT",
    "end_s": "BIGINT",
    "period_s": "BIGINT",
    "state": "UTINYINT",
    "layer": "UTINYINT",
    "reason": "UTINYINT",
    "internet_reason": "UTINYINT",
    "reaches": "BOOLEAN",
    "misses": "BOOLEAN",
}
SIGHTING = {
    "device": "VARCHAR",
    "bssid": "BIGINT",
    "start_s": "BIGINT",
    "end_s": "BIGINT",
    "well": "BOOLEAN",
}
# Day files, and from when on all reports are there that came.
PART = {
    "kind": "VARCHAR",
    "day": "BIGINT",
    "path": "VARCHAR",
    "reports": "BIGINT",
    "bytes": "BIGINT",
    "from_s": "BIGINT",
    "to_s": "BIGINT",
}
KEPT = {"run": RUN, "boot": BOOT, "interval": INTERVAL, "sighting": SIGHTING}


def _table(name: str, columns: dict[str, str]) -> str:
    return f"CREATE TABLE {name} ({', '.join(f'{n} {kind}' for n, kind in columns.items())});"


TABLES = "".join(_table(name, columns) for name, columns in KEPT.items())
_FILES = {
    "part": PART,
    "expired": {"raw_before_s": "BIGINT"},
    "debris": {"path": "VARCHAR"},
}
# Stores of version 2 have none, some or all of these.
FILES = "".join(_table(name, columns) for name, columns in _FILES.items()).replace(
    "CREATE TABLE", "CREATE TABLE IF NOT EXISTS"
)
CURSOR = """
    CREATE TABLE cursor (
        gateway VARCHAR PRIMARY KEY, database VARCHAR, "row" UBIGINT, collected_s UBIGINT
    );
"""
ADDED = f"""
    CREATE TABLE recent ({DEFINITION});
    {TABLES}
    {FILES}
    CREATE TABLE schema AS SELECT {VERSION} AS version;
"""
SCHEMA = f"{CURSOR} {ADDED}"

# The first eight bytes of each, as a number.
LINK_AND_TAG = f"""
    coalesce(('0x' || hex(raw)[-64:-49])::UBIGINT, {NO_SEAL}) AS link,
    coalesce(('0x' || hex(raw)[-32:-17])::UBIGINT, {NO_SEAL}) AS tag
"""
