"""A small town for tests: inventory, boards with keys, reports sealed as boards seal them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from firmware.linkreport import report as wire
from firmware.linkreport import table, term
from firmware.linkreport.seal import Seal
from fleet import inventory, maintenance
from fleet.gateway import intake, settings
from fleet.gateway.database import Database
from fleet.gateway.settings import Folder
from fleet.inventory import Inventory
from fleet.maintenance import Kind, Maintenance, Wish
from fleet.period import Period
from fleet.store import Cursor, Ingested, Store, Writer, air
from fleet.store.piece import Piece, piece

DAY_S = 1_763_769_600  # 2025-11-22T00:00:00Z
PERIOD_S = 60

OK = bytes([table.OK] * table.LAYER_COUNT)


def layers(**reasons: int) -> bytes:
    """Return nine layer reasons, `ok` where nothing else is said."""
    found = bytearray(OK)
    for name, reason in reasons.items():
        found[term.LAYERS.index(name) - 1] = reason
    return bytes(found)


LINE_CUT = {
    "state": table.DOWN,
    "layer": table.INTERNET,
    "reason": table.CONNECT_TIMEOUT,
    "layer_reasons": layers(internet=table.CONNECT_TIMEOUT),
}


@dataclass
class TestBoard:
    """A board: it makes reports one after the other, each vouching for the one before."""

    __test__ = False

    id: str
    site: str
    room: str
    key_id: int = 1
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    seq: int = 0
    tag: bytes = wire.NO_TAG

    def report(self, time_s: int, **values: Any) -> bytes:
        """Return the next report."""
        self.seq += 1
        fields: dict[str, Any] = dict.fromkeys(wire.Report._fields, 0)
        fields |= {
            "key_id": self.key_id,
            "seq": self.seq,
            "oldest_seq": 1,
            "boot": 1,
            "period_s": PERIOD_S,
            "uptime_cs": 6000 * self.seq,
            "time_s": time_s,
            "clock": table.CLOCK_NTP,
            "state": table.UP,
            "reason": table.OK,
            "confidence_percent": 100,
            "layer_reasons": OK,
            "bssid": wire.NO_BSSID,
            "http_status": wire.NO_U16,
            "extensions": b"",
        }
        raw: bytes = wire.pack(wire.Report(**fields | values), Seal(self.key), self.tag)
        self.tag = wire.tag_of(raw)
        return raw

    def series(self, start_s: int, count: int, **values: Any) -> list[bytes]:
        """Return reports one period apart, the first one period after `start_s`."""
        return [self.report(start_s + PERIOD_S * n, **values) for n in range(1, count + 1)]


class Town:
    """A city's folder; sites have two boards each, all behind one gateway unless said."""

    def __init__(self, folder: Path, sites: Iterable[str] = ("goethe-schule",)) -> None:
        self.folder = folder
        self.boards: list[TestBoard] = []
        self.sites: dict[str, dict[str, Any]] = {}
        self.gateways: dict[str, dict[str, Any]] = {}
        self.jumps: dict[str, dict[str, Any]] = {}
        self.calendars: dict[str, dict[str, Any]] = {}
        self.slas: list[dict[str, Any]] = []
        self.providers: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[str, Any]] = {}
        for number, site in enumerate(sites, 1):
            rooms = [f"{number}01", f"{number}02"]
            self.sites[site] = {
                "name": site.title(),
                "district": "mitte",
                "gateway": "gw-1",
                "wlan": "school",
                "rooms": rooms,
            }
            self.boards += [
                TestBoard(f"np-240ac40000{number:x}{index}", site, room)
                for index, room in enumerate(rooms)
            ]
        self.gateway("gw-1")

    def gateway(self, gateway_id: str, **values: Any) -> None:
        """Set what the inventory says of a gateway."""
        entry = {"host": "127.0.0.1", "broker_host": "10.1.0.2"}
        self.gateways[gateway_id] = entry | self.gateways.get(gateway_id, {}) | values

    def write(self) -> Inventory:
        """Write all files and read them again."""
        self.folder.mkdir(exist_ok=True)
        target = {"address": "203.0.113.80"}
        document = {
            "version": 1,
            "city": {"id": "musterstadt", "name": "Musterstadt"},
            "measurement": {
                "resolver": {"name": "probe.example"} | target,
                "internet": {"host": "probe.example"} | target,
            },
            "wlan": {"school": {"ssid": "Schule"}},
            "district": {"mitte": {"name": "Mitte"}, "nord": {"name": "Nord"}},
            "gateway": self.gateways,
            "jump": self.jumps,
            "calendar": self.calendars,
            "sla": self.slas,
            "provider": self.providers,
            "site": self.sites,
            "access_point": self.points,
        }
        (self.folder / "inventory.toml").write_text(tomli_w.dumps(document))
        boards = {board.id: self._registered(board) for board in self.boards}
        (self.folder / "registry.toml").write_text(tomli_w.dumps({"version": 1, "board": boards}))
        keys = self.folder / "secrets" / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        for board in self.boards:
            (keys / f"{board.id}.{board.key_id}.key").write_text(board.key.hex() + "\n")
        return inventory.load(self.folder)

    def _registered(self, board: TestBoard) -> dict[str, Any]:
        digits = board.id.removeprefix("np-")
        return {
            "site": board.site,
            "room": board.room,
            "role": "classroom-sensor",
            "key_id": board.key_id,
            "chip": "ESP32",
            "mac": ":".join(digits[n : n + 2] for n in range(0, 12, 2)),
            "agent": "0.1.0",
            "enrolled": datetime(2026, 11, 1, tzinfo=UTC),
            "certificate_expires": datetime(2036, 11, 1, tzinfo=UTC),
        }


@dataclass(frozen=True)
class Verified:
    """One report whose seal was checked."""

    device: str
    received_s: int
    raw: bytes
    report: wire.Report


def verified(board: TestBoard, raw: bytes, received_s: int = DAY_S) -> Verified:
    """Return a report of a board as one that was checked."""
    return Verified(board.id, received_s, raw, wire.unpack(raw))


def piece_of(items: Iterable[Verified], gateway: str = "gw-1") -> Piece:
    """Return reports as the collection hands them to the store, put together one by one."""
    return piece(
        (
            *(item.device, gateway, item.received_s),
            *item.report[2:14],  # key_id to confidence_percent
            *item.report.layer_reasons,
            *item.report[15:-1],  # rssi_dbm to error_count
            *air.heard(item.report),
            item.raw,
            int.from_bytes(wire.link_of(item.raw)[:8]),
            int.from_bytes(wire.tag_of(item.raw)[:8]),
        )
        for item in items
    )


def ingest(writer: Writer, cursor: Cursor, items: Sequence[Verified]) -> Ingested:
    """Put reports into the store as if they came from the first gateway."""
    return writer.take(piece_of(items), ("gw-1", cursor))


def fill_store(city: Inventory, reports: Iterable[tuple[TestBoard, Iterable[bytes]]]) -> None:
    """Put reports into the city's store without a gateway."""
    with Store(city.folder).writing() as writer:
        for board, raws in reports:
            items = [verified(board, raw) for raw in raws]
            ingest(writer, Cursor("database", len(items)), items)


def maintain(city: Inventory, kind: Kind, subject: str, start_s: int, end_s: int) -> Maintenance:
    """Enter a maintenance window, a day after it ended."""
    wish = Wish(kind, subject, Period(start_s, end_s), "a new switch", "Erika Muster")
    return maintenance.add(city, wish, datetime.fromtimestamp(end_s + 86_400, UTC))


def fill_gateway(folder: Path, gateway_id: str, reports: Iterable[tuple[TestBoard, bytes]]) -> None:
    """Put reports into a gateway's folder as its collector does, without looking at them."""
    place = Folder(folder)
    folder.mkdir(exist_ok=True)
    place.settings.write_text(settings.render(gateway_id, listen="127.0.0.1", port=8883))
    database = Database(place.database)
    try:
        items = []
        for board, raw in reports:
            fields = wire.unpack(raw)
            items.append(
                intake.Verified(board.id, fields.key_id, fields.seq, fields.oldest_seq, raw)
            )
        database.commit(items, [], DAY_S)
    finally:
        database.close()
